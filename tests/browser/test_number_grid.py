"""The number grid in a real browser: a token is chosen by a click or by the keyboard, and nothing runs over."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bra.teaching.example import FIRST, run_example
from bra.teaching.source import STEPS
from dashboard.figures.example_steps import Scene, step_html
from dashboard.i18n import tr_in

pytestmark = pytest.mark.browser
HERE = Path(__file__).parents[2] / "dashboard" / "components"


def shown(context: Any, html: str) -> Any:
    """A page with the component alone, which notes what it tells Python."""
    page = context.new_page()
    code = (HERE / "number_grid.js").read_text(encoding="utf-8").replace("export default", "window.mount =")
    page.set_content(f'<style>{(HERE / "number_grid.css").read_text(encoding="utf-8")}</style>'
                     f'<div id="host"><div class="number-grid"></div></div><script>{code}</script>')
    draw(page, html)
    return page


def draw(page: Any, html: str) -> None:
    page.evaluate("""(html) => {
        window.told ??= [];
        window.mount({ parentElement: document.querySelector("#host"), data: { html },
                       setStateValue: (name, value) => window.told.push([name, value]) });
    }""", html)


def made(step: str, token: int = 0, topk: int = 1, language: str = "en") -> str:
    return step_html(step, Scene(run_example(FIRST, topk), run_example(), token, partial(tr_in, language)))


def test_a_click_and_the_keyboard_choose_a_token(context: Any) -> None:
    page = shown(context, made("tokens"))
    page.locator("[data-token='9']").click()
    assert page.evaluate("window.told") == [["token", 9]]
    draw(page, made("tokens", 9))
    page.locator("[data-token='9']").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert page.evaluate("window.told").pop() == ["token", 10]
    draw(page, made("tokens", 10))
    # Drawn anew, the grid keeps the focus, so that the next arrow goes on from there.
    assert page.evaluate("document.activeElement.dataset.token") == "10"
    assert page.locator("[data-token='10']").get_attribute("aria-pressed") == "true"


def test_keys_of_the_grid_do_not_turn_the_page_of_a_lecture(context: Any) -> None:
    page = shown(context, made("windows"))
    page.evaluate("window.heard = []; document.addEventListener('keydown', (e) => window.heard.push(e.key))")
    page.locator("[data-token='0']").focus()
    for key in ("ArrowRight", " ", "x"):
        page.keyboard.press(key)
    assert page.evaluate("window.heard") == ["x"]


@pytest.mark.parametrize("context", [{"viewport": {"width": width, "height": 900}} for width in (390, 1024, 1920)],
                            indirect=True, ids=str)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_grids_fit_their_page(context: Any, language: str) -> None:
    page = shown(context, "")
    for step in STEPS:
        for topk in (1, 4):
            draw(page, made(step, 0, topk, language))
            measured = page.evaluate("""() => ({
                over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
                size: Math.min(...[...document.querySelectorAll(".wx svg")].map((svg) =>
                    svg.getBoundingClientRect().width / Number(svg.viewBox.baseVal.width))),
                heads: [...document.querySelectorAll(".wx text")].filter((text) => text.getBoundingClientRect().left
                    < text.closest("svg").getBoundingClientRect().left - 1).length })""")
            assert measured["over"] <= 0, json.dumps([step, topk, measured])
            assert measured["size"] > 0.7, json.dumps([step, topk, measured])       # 16 units of text stay above 11 px
            assert measured["heads"] == 0, json.dumps([step, topk, measured])
