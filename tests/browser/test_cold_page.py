"""The first view of a visit: its frame has its final size before torch is there, its stage is first, nothing jumps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from page import ROOT, VISIT, served, wait_until_listening
from playwright.sync_api import expect

from tests.helpers.late_messages import LateMessages

pytestmark = pytest.mark.browser
BOX = """() => { const host = [...document.querySelectorAll('[data-testid^=stBidiComponent]')]
  .find((one) => (one.shadowRoot ?? one.querySelector('*')?.shadowRoot)?.querySelector('.stage'));
  const { top, height } = host.getBoundingClientRect(); return [top, height]; }"""


@pytest.fixture(scope="module")
def just_started() -> Iterator[str]:
    with served(ROOT) as url:
        wait_until_listening(url)
        yield url


@pytest.mark.parametrize("context", [{"viewport": {"width": 1440, "height": 900}}], indirect=True)
@pytest.mark.parametrize("kind", ["cold", "warm", "slow"])       # in this order: the first visit starts the server
def test_the_frame_comes_first_and_nothing_that_is_seen_moves(context: Any, just_started: str, kind: str) -> None:
    page = context.new_page()
    page.add_init_script(VISIT)
    if kind == "slow":      # its style arrives long after what it is the style of
        context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 4})
    page.goto(just_started)
    page.wait_for_function("() => visit.stage", timeout=120_000)
    first, labels = page.evaluate(BOX), page.get_by_text("Starting …").count()
    assert page.locator("[data-part=rows] tr").count() > 0       # it answers to pointing already
    page.wait_for_function("() => visit.page", timeout=120_000)
    page.wait_for_timeout(500)
    visit = page.evaluate("() => visit")
    assert labels == (1 if kind == "cold" else 0)
    assert visit["frame"] <= visit["stage"] < visit["page"]      # drawn alone: all else comes after it
    assert page.evaluate(BOX) == pytest.approx(first, abs=2)
    moved = [one for one in visit["moved"] if one[0] > visit["content"]]
    assert sum(shift for _, shift, *_ in moved) < 0.05, moved


def test_a_link_leads_to_its_page_however_late_the_server_tells_the_pages(context: Any, just_started: str) -> None:
    """The browser asks for another run as soon as it has applied the style, and names the page that it is on."""
    page = context.new_page()
    late = LateMessages(page)
    late.hold("navigation")
    page.goto(f"{just_started}/guide?lang=en")
    late.wait()
    page.wait_for_timeout(1000)         # what it has been given meanwhile is drawn, and asks
    late.release()
    expect(page.get_by_role("heading", name="How to read")).to_be_visible()
    assert "/guide" in page.url
