"""The page Compare in a real browser: one query for all pictures, and a click that opens a setting in Explore."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
SMALL = "/compare?side=224&rows=4.8&columns=2.4&layer=stages.0.0.attn"


def open_page(context: Any, url: str) -> Any:
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(".multiples[data-ready]")
    return page


def at(page: Any) -> list[int]:
    return [int(v) for v in page.locator(".multiples").get_attribute("data-at").split(",")]


def test_one_query_moves_in_all_is_kept_in_the_link_and_a_name_opens_explore(context: Any, app_url: str) -> None:
    page = open_page(context, app_url + SMALL)
    pictures = page.locator(".multiples canvas")
    expect(pictures).to_have_count(4)
    before = [picture.screenshot() for picture in pictures.all()]
    box = pictures.nth(1).bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
    expect(page.locator(".multiples")).to_have_attribute("data-at", re.compile(r"^(8[89]|9[01])\d\d,"))
    after = [picture.screenshot() for picture in pictures.all()]
    assert all(old != new for old, new in zip(before, after, strict=True))       # pointing in one moved all four
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
    page.wait_for_function("() => location.search.includes('a=')")
    x, y = map(int, re.search(r"a=(\d+)\.(\d+)", page.url).groups())
    assert at(page) == pytest.approx([x, y], abs=40)                # a click counts in whole pixels, pointing does not
    page.reload()
    page.wait_for_selector(".multiples[data-ready]")
    assert at(page) == [x, y]

    pictures.first.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".multiples")).to_have_attribute("data-at", f"{x - 2500},{y}")     # a window of n_win 4
    page.get_by_role("button", name="n_win 8, topk 4").click()
    page.wait_for_selector(".stage[data-ready]")
    assert "n_win=8" in page.url
    expect(page.locator('[data-part="caption"]').first).to_contain_text("n_win 8 · topk 4")
    expect(page.get_by_role("slider", name="Windows per side, n_win")).to_have_value("8")


def test_a_click_on_the_chart_opens_that_setting(context: Any, app_url: str) -> None:
    page = open_page(context, app_url + "/compare?side=224&rows=8&columns=4")      # one point, in the middle
    point = page.locator(".js-plotly-plot .scatterlayer .points path").last
    page.wait_for_selector('.stApp[data-test-script-state="notRunning"]')       # or it may move from under the pointer
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    page.locator(".hoverlayer .hovertext").first.wait_for()     # a click is of what is pointed at, once that is known
    point.click(force=True)
    page.wait_for_selector(".stage[data-ready]")
    expect(page.locator('[data-part="caption"]').first).to_contain_text("n_win 8 · topk 4")


def test_a_click_counts_however_soon_after_the_pointer_moved_it_comes(context: Any, app_url: str) -> None:
    page = open_page(context, app_url + "/compare?side=224&rows=8&columns=4")
    page.wait_for_selector('.stApp[data-test-script-state="notRunning"]')
    page.locator(".js-plotly-plot").first.evaluate("""async (chart) => {
      const point = [...chart.querySelectorAll('.scatterlayer .points path')].at(-1);
      const { x, y, width, height } = point.getBoundingClientRect();
      const send = (kind, to) => to.dispatchEvent(
        new MouseEvent(kind, { clientX: x + width / 2, clientY: y + height / 2, bubbles: true }));
      const area = chart.querySelector('.nsewdrag');
      for (const kind of ['mousemove', 'mousemove', 'mousedown']) send(kind, area);     // plotly puts the second off
      await new Promise((resolve) => setTimeout(resolve, 120));
      send('mouseup', document);
    }""")
    page.wait_for_selector(".stage[data-ready]")
    expect(page.locator('[data-part="caption"]').first).to_contain_text("n_win 8 · topk 4")


def test_a_against_b_tells_what_only_one_sees(context: Any, app_url: str) -> None:
    link = "/compare?model=similarity&side=224&tab=versus&b_model=similarity&b_n_win=4&b_topk=16"
    page = open_page(context, app_url + link)
    captions = page.locator(".multiples figcaption")
    expect(captions).to_have_count(4)
    canvas = page.locator(".multiples canvas").first
    canvas.hover(position={"x": 40, "y": 40})
    expect(captions.nth(2)).to_contain_text("only A 0.0 %")        # B is routed everywhere
    text = captions.nth(2).inner_text()
    both, only_b = (float(re.search(rf"{name} ([\d.]+) %", text)[1]) for name in ("both", "only B"))
    assert both + only_b == pytest.approx(100, abs=1)
    expect(captions.nth(3)).to_contain_text("of the outputs' size")
