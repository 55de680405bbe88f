"""What a Chinese visitor reads in the pictures: the page's own texts, what is painted on canvases, and the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from chinese import CHINESE
from playwright.sync_api import expect

from bra.models.base import Detection
from bra.models.catalog import CATALOG, ModelSettings
from bra.opening import look
from bra.photo import Photo
from bra.reports.layer_html import report_html
from bra.viewer.pack import Caption

pytestmark = pytest.mark.browser
PICTURE = Path(__file__).parents[2] / "sample_images" / "animal.jpg"
SPY = """(() => {
  window.painted = new Set();
  const paint = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
    window.painted.add(String(text)); return paint.call(this, text, ...rest); };
})()"""
NAMES = {"n", "win", "topk", "token", "softmax", "Shift", "Enter", "Escape", "Esc", "MACs", "MB", "kB", "GB", "px",
         "RouteScope", "PNG", "SVG"}
LAYERS = {"stages", "layers", "attn", "BiFormer"}
"""What stays as it is in Chinese."""
WORD = re.compile(r"[A-Za-z]{2,}")
READ = """(root) => {
  const found = [];
  const walk = (node) => {
    if (node.nodeType === Node.TEXT_NODE) { found.push(node.textContent); return; }
    if (node.nodeType !== Node.ELEMENT_NODE || ["SCRIPT", "STYLE"].includes(node.tagName)) return;
    found.push(...["title", "aria-label"].map((name) => node.getAttribute(name) ?? ""));
    node.childNodes.forEach(walk);
  };
  walk(root);
  return found;
}"""
"""Texts and labels of an element."""


def english(texts: list[str], names: set[str]) -> list[str]:
    """Texts in which a word of English is left."""
    return [text for text in texts if {*WORD.findall(text)} - NAMES - names]


def use_everything(page: Any) -> None:
    """Point at every panel of the stage, in both views, with every tint, so that all of its words are said."""
    stage = page.locator(".stage")
    picture = stage.locator('[data-part="canvas"]')
    picture.click(position={"x": 60, "y": 60})
    for tint in ("affinity", "in_degree"):
        stage.locator('[data-part="tint"]').select_option(tint)
    stage.locator('[data-part="rank"]').hover(position={"x": 90, "y": 40})
    expect(stage.locator('[data-part="tip"]')).to_have_text(re.compile(r"窗口 \d+"))
    picture.hover(position={"x": 90, "y": 60})
    stage.locator('[data-part="reverse"]').click()
    expect(stage.locator('[data-part="readout"]')).to_have_text(re.compile(r"^窗口 \d+（行 \d+，列 \d+）.*(选中|填充)"))


def test_the_stage_speaks_chinese(context: Any, app_url: str) -> None:
    page = context.new_page()
    page.add_init_script(SPY)
    page.goto(app_url + "/?lang=zh&side=224")
    page.wait_for_selector(".stage[data-ready]")
    page.wait_for_selector(".js-plotly-plot .main-svg", state="attached")
    readout = page.locator('[data-part="readout"]')
    expect(readout).to_have_text(re.compile(r"^窗口 \d+（行 \d+，列 \d+）路由到 1\. 窗口 \d+（[\d.]+%）"))
    expect(page.locator(".stage th").nth(2)).to_have_text("亲和度")
    first = page.locator(".stage").evaluate(READ)
    use_everything(page)
    texts = [*first, *page.locator(".stage").evaluate(READ), *page.locator(".js-plotly-plot").first.evaluate(READ)]
    assert len([text for text in texts if text.strip()]) > 40
    assert english(texts, LAYERS | {"Fullscreen"}) == []      # Streamlit's own button has no other language
    assert english(page.evaluate("[...window.painted]"), set()) == []
    rail = page.locator(".rail").evaluate(READ)
    assert "层" in rail
    assert english(rail, LAYERS) == []


def test_the_same_stage_speaks_english(context: Any, app_url: str) -> None:
    page = context.new_page()
    page.goto(app_url + "/?lang=en&side=224")
    page.wait_for_selector(".stage[data-ready]")
    readout = re.compile(r"^Window \d+ \(row \d+, column \d+\) routes to")
    expect(page.locator('[data-part="readout"]')).to_have_text(readout)
    assert [text for text in page.locator(".stage").evaluate(READ) if re.search("[\u4e00-\u9fff]", text)] == []


@pytest.mark.parametrize("query", ["rows=4.8&columns=4.2", "tab=versus"])
def test_many_small_pictures_speak_chinese(context: Any, app_url: str, query: str) -> None:
    page = context.new_page()
    page.add_init_script(SPY)
    page.goto(f"{app_url}/compare?lang=zh&side=224&{query}")
    page.wait_for_selector(".multiples[data-ready]")
    page.locator(".multiples canvas").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".multiples p[aria-live]")).to_have_text(re.compile(r"^查询位于横向 \d+%、纵向 \d+% 处。"))
    assert english(page.locator(".multiples").evaluate(READ), LAYERS) == []


def test_the_report_is_chinese_in_every_word(context: Any, tmp_path: Path) -> None:
    photo = Photo.from_bytes(PICTURE.read_bytes())
    lt = look(ModelSettings(n_win=5, topk=3, stride=16, side=224), photo).trace.layers["layers.0"]
    entry = CATALOG["similarity"]
    found = [Detection("RBC", 0.9, (0.1, 0.1, 0.3, 0.3))]
    path = tmp_path / "report.html"
    caption = Caption(entry.label, "layers.0", entry.provenance, "animal.jpg")
    path.write_text(report_html(photo, lt, caption, (5000, 5000), {"a": (1000, 2000), "b": (9000, 9000)}, True,
                                detections=found, language=CHINESE), encoding="utf-8")
    page = context.new_page()
    page.add_init_script(SPY)
    page.goto(path.as_uri())
    page.wait_for_selector(".stage[data-ready]")
    page.wait_for_selector(".js-plotly-plot .main-svg", state="attached")
    assert page.locator("html").get_attribute("lang") == "zh"
    assert page.title() == "“animal.jpg”被路由到哪里"
    names = {"layers", "animal", "jpg", "RBC"}
    use_everything(page)
    texts = page.locator("body").evaluate(READ)
    assert "查询 token 关注什么" in texts
    assert english(texts, names) == []
    assert english(page.evaluate("[...window.painted]"), names) == []
