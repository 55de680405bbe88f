"""The lesson in a real browser: by keys in front of a class, by pointer and by keyboard where one guesses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from bra.models.catalog import CATALOG, DEFAULT, ModelSettings
from bra.opening import look
from bra.photo import Photo
from bra.teaching import experiments
from bra.tracing import LayerTrace
from bra.units import quantity
from bra.viewer.pack import Place, locate
from dashboard.i18n import TEXT
from dashboard.learn.quiz import ROUNDS
from dashboard.learn.text import parse_chapter
from dashboard.state.learn_view import LENGTHS, SCENES, stops

pytestmark = pytest.mark.browser
SAMPLES = Path(__file__).parents[2] / "sample_images"
FITS = ("() => { const m = document.querySelector('[data-testid=stMain]'), d = document.documentElement; "
        "return Math.max(m.scrollHeight - m.clientHeight, m.scrollWidth - m.clientWidth, d.scrollHeight - innerHeight);"
        " }")
HOLDS = f"""async () => {{
  const overflow = {FITS}, until = performance.now() + 10_000;
  for (let since = performance.now(); performance.now() < until && performance.now() - since < 150;) {{
    await new Promise(requestAnimationFrame);
    if (overflow() > 0) since = performance.now();
  }}
  return overflow(); }}"""
"""How much is too long or too wide, once it has stayed so for 150 ms: what a busy machine draws late moves first."""
PROJECTORS = ((1920, 1080), (1024, 768))


def at(page: Any, stop: str) -> None:
    expect(page.locator(".presenter")).to_have_attribute("data-ready", stop)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)


def open_page(context: Any, url: str, stop: str) -> Any:
    page = context.new_page()
    page.goto(url)
    at(page, stop)
    return page


def test_keys_lead_through_the_lesson_and_the_address_follows(context: Any, app_url: str) -> None:
    page = open_page(context, f"{app_url}/learn?present=1&lang=en", "chapters/1/words")
    expect(page.get_by_test_id("stHeader")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    at(page, "chapters/1/try")
    page.wait_for_function("() => location.search.includes('scene=try')")
    page.keyboard.press("Space")
    at(page, "chapters/1/ask")
    page.get_by_role("button", name="QR code").click()
    code = page.locator(".presenter dialog")
    expect(code.get_by_role("img")).to_be_visible()
    expect(code).to_contain_text("/learn?lang=en")       # the hall reads what is projected
    assert code.get_by_role("img").evaluate("(one) => one.naturalWidth") > 100
    page.keyboard.press("Escape")
    expect(code).to_be_hidden()
    at(page, "chapters/1/ask")
    page.get_by_text("81", exact=True).click()
    expect(page.get_by_test_id("stAlert")).to_contain_text("9 × 9 = 81")
    page.keyboard.press("ArrowRight")                   # a mouse has chosen the answer: the keys are still the class's
    at(page, "chapters/2/words")
    assert "step=2" in page.url
    page.keyboard.press("ArrowLeft")
    at(page, "chapters/1/ask")
    page.keyboard.press("ArrowLeft")
    at(page, "chapters/1/try")
    page.reload()
    at(page, "chapters/1/try")


def test_a_slider_keeps_its_keys_and_escape_leaves_step_by_step(context: Any, app_url: str) -> None:
    page = open_page(context, f"{app_url}/learn?present=1&scene=try&lang=en", "chapters/1/try")
    slider = page.get_by_role("slider", name="Side of the picture, pixels")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".barlayer .bartext").first).to_have_text(quantity(experiments.growth(504).full.macs))
    at(page, "chapters/1/try")
    assert "learn_pixels=504" in page.url
    page.keyboard.press("Escape")                       # out of the slider
    page.wait_for_timeout(300)
    at(page, "chapters/1/try")
    page.keyboard.press("ArrowRight")
    at(page, "chapters/1/ask")
    page.keyboard.press("Escape")                       # out of the large type
    expect(page.get_by_test_id("stHeader")).to_be_visible()
    expect(page.get_by_role("slider")).to_have_value("504")
    assert "present" not in page.url
    page.keyboard.press("ArrowRight")                   # on the page that one reads, keys are the page's
    page.wait_for_timeout(500)
    at(page, "chapters/1/words")


def test_every_step_has_a_link_that_can_be_copied(context: Any, app_url: str) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=app_url)
    page = open_page(context, f"{app_url}/learn?step=3&lang=en", "chapters/3/words")
    page.get_by_role("button", name="Next").click()
    at(page, "chapters/4/words")
    page.locator(".presenter .copy").click()
    expect(page.locator(".presenter .status")).to_have_text("Copied")
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert link == f"{app_url}/learn?step=4&lang=en" == page.locator(".presenter .address").input_value()
    other = context.new_page()
    other.goto(link)
    at(other, "chapters/4/words")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_projected_nothing_scrolls(context: Any, app_url: str, language: str) -> None:
    page = open_page(context, f"{app_url}/learn?present=1&lang={language}", "chapters/1/words")
    scrolls = []
    # Chinese is shorter: of the example and the rounds, whose words are few, English is enough.
    for part, step, scene in stops(True) if language == "en" else stops(True)[:LENGTHS["chapters"] * len(SCENES)]:
        at(page, f"{part}/{step}/{scene}")
        if (scene == "try" and step not in (1, 3)) or part == "predict":
            page.wait_for_selector(".lesson-picture[data-ready]")
        if scene == "ask":
            text = parse_chapter((TEXT / language / f"learn_{step}.md").read_text(encoding="utf-8"))
            page.get_by_test_id("stRadioOption").nth(text.right).click()
            expect(page.get_by_test_id("stAlert")).to_be_visible()
        for width, height in PROJECTORS:
            page.set_viewport_size({"width": width, "height": height})
            if (overflow := page.evaluate(HOLDS)) > 0:
                scrolls.append((part, step, scene, width, overflow))
        page.keyboard.press("ArrowRight")
    assert scrolls == []


# predict, then see -----------------------------------------------------------------------------------------


def asked(number: int) -> tuple[LayerTrace, int, list[int]]:
    """The layer of a round, its query, and the answer."""
    key, place = ROUNDS[number - 1]
    photo = Photo.from_bytes((SAMPLES / f"{key}.jpg").read_bytes())
    entry = CATALOG[DEFAULT]
    lt = look(ModelSettings(entry.key, side=entry.side), photo).trace.layers[entry.layer]
    window = locate(lt.grid, photo, place)[0]
    return lt, window, lt.r_idx[0, window].tolist()


def numbers(page: Any) -> list[str]:
    return page.locator(".barlayer .bartext").all_text_contents()


def centre(page: Any, window: int, n_win: int) -> Place:
    box = page.locator(".lesson-picture canvas").bounding_box()
    return tuple(round((at + 0.5) / n_win * box[side]) for at, side in ((window % n_win, "width"),
                                                                        (window // n_win, "height")))


def test_windows_are_marked_by_pointer_and_the_module_answers(context: Any, app_url: str) -> None:
    lt, window, answer = asked(1)
    wrong = [w for w in range(lt.grid.n_windows) if w not in answer]
    page = open_page(context, f"{app_url}/learn?part=predict&lang=en", "predict/1/words")
    pane, show = page.locator(".lesson-picture[data-ready]"), page.locator(".lesson-picture .show")
    expect(show).to_be_disabled()
    # The first is unmarked again, the last is one too many.
    for one in (wrong[0], wrong[1], wrong[0], wrong[2], wrong[3], answer[0], wrong[4]):
        x, y = centre(page, one, lt.grid.n_win)
        page.locator(".lesson-picture canvas").click(position={"x": x, "y": y})
    marks = [wrong[1], wrong[2], wrong[3], answer[0]]
    expect(pane).to_have_attribute("data-marked", ",".join(map(str, marks)))
    assert numbers(page) == []
    show.click()
    expect(page.locator(".barlayer .bartext")).to_have_count(6)
    made = experiments.score(lt, window, marks)
    assert made.hits == 1
    assert numbers(page)[:3] == ["1", str(made.nearest), f"{made.chance:.2f}"]
    expect(page.locator(".lesson-picture .readout")).to_contain_text("✓")
    expect(show).to_be_hidden()
    x, y = centre(page, answer[1], lt.grid.n_win)
    page.locator(".lesson-picture canvas").click(position={"x": x, "y": y})       # nothing is marked after the answer
    expect(pane).to_have_attribute("data-marked", ",".join(map(str, marks)))

    page.get_by_role("button", name="Next").click()
    at(page, "predict/2/words")
    expect(page.locator(".lesson-picture .readout")).to_have_text("Marked 0 of 4.")
    assert numbers(page)[0] == "1"                       # the total of one round


@pytest.mark.parametrize("context", [{"viewport": {"width": 1024, "height": 768}}], indirect=True)
def test_windows_are_marked_by_keyboard_also_when_projected(context: Any, app_url: str) -> None:
    lt, window, answer = asked(1)
    page = open_page(context, f"{app_url}/learn?part=predict&present=1&lang=en", "predict/1/words")
    page.wait_for_selector(".lesson-picture[data-ready]")
    page.locator(".lesson-picture canvas").focus()
    here, n_win = window, lt.grid.n_win
    for one in answer:
        for key, steps in (("ArrowDown", one // n_win - here // n_win), ("ArrowRight", one % n_win - here % n_win)):
            back = {"ArrowDown": "ArrowUp", "ArrowRight": "ArrowLeft"}[key]
            for _ in range(abs(steps)):
                page.keyboard.press(key if steps > 0 else back)
        page.keyboard.press("Space")
        here = one
    expect(page.locator(".lesson-picture")).to_have_attribute("data-marked", ",".join(map(str, answer)))
    expect(page.locator(".lesson-picture [aria-live]")).to_have_text(
        re.compile(rf"Row {here // n_win}, column {here % n_win}: marked\. Marked 4 of 4\."))
    at(page, "predict/1/words")                          # the keys were the grid's
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".barlayer .bartext")).to_have_count(3)
    expect(page.get_by_text(re.compile(r"Rounds so far: 1\. Hits of 4: you 4 · "))).to_be_visible()
    assert numbers(page)[0] == str(experiments.score(lt, window, answer).hits) == "4"
    assert page.evaluate(FITS) <= 0


def test_pointing_in_a_chapter_shows_the_modules_windows(context: Any, app_url: str) -> None:
    page = open_page(context, f"{app_url}/learn?step=6&lang=en", "chapters/6/words")
    page.wait_for_selector(".lesson-picture[data-ready]")
    photo = Photo.from_bytes((SAMPLES / "animal.jpg").read_bytes())
    lt = look(ModelSettings("flowers", side=320), photo).trace.layers["stages.2.2.attn"]
    for window in (0, 13):
        x, y = centre(page, window, lt.grid.n_win)
        page.locator(".lesson-picture canvas").hover(position={"x": x, "y": y})
        expect(page.locator(".lesson-picture .readout")).to_have_text(
            f"Window {window} is routed to {', '.join(map(str, lt.r_idx[0, window].tolist()))}.")
