"""Pictures that are saved for print, opened again: size, legend and caption stand in every form of them."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytestmark = pytest.mark.browser
SVG = "{http://www.w3.org/2000/svg}"
PLOT = ".js-plotly-plot"
DRAW = """async ([source, width, height]) => {
    const picture = new Image(), canvas = new OffscreenCanvas(width, height), page = canvas.getContext("2d");
    picture.src = source;
    await picture.decode();
    page.fillStyle = "#fff";
    page.fillRect(0, 0, width, height);
    page.drawImage(picture, 0, 0, width, height);
    const data = new FileReader();
    data.readAsDataURL(await canvas.convertToBlob());
    await new Promise((done) => { data.onload = done; });
    return data.result; }"""
"""An SVG as the data URL of a PNG: a screenshot may fail where the browser gets no frame drawn."""


def saved(page: Any, press: Any, to: Path) -> Path:
    """The file that a press brings, under its own name."""
    with page.expect_download() as got:
        press()
    path = to / got.value.suggested_filename
    path.write_bytes(got.value.path().read_bytes())
    return path


def texts(svg: Path) -> list[str]:
    return ["".join(one.itertext()) for one in ElementTree.parse(svg).getroot().iter(f"{SVG}text")]


def size_of(svg: Path) -> tuple[float, float]:
    root = ElementTree.parse(svg).getroot()
    return float(root.attrib["width"]), float(root.attrib["height"])


def grey(data: bytes, size: tuple[int, int]) -> NDArray[np.float64]:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("L").resize(size, Image.Resampling.BOX), np.float64)


def looks_like(context: Any, svg: Path, png: Path, rows: tuple[float, float]) -> float:
    """Correlation of the pixels of an SVG, drawn by the browser, with a PNG's, between two heights in pixels."""
    width, height = (round(side) for side in size_of(svg))
    page = context.new_page()
    pixels = page.evaluate(DRAW, ["data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode(),
                                  width, height])
    page.close()
    drawn, kept = (grey(data, (width, height)) for data in (base64.b64decode(pixels.partition(",")[2]),
                                                            png.read_bytes()))
    top, bottom = (round(row) for row in rows)
    return float(np.corrcoef(drawn[top:bottom].ravel(), kept[top:bottom].ravel())[0, 1])


def test_stage_is_saved_at_two_sizes_and_as_vectors(context: Any, app_url: str, tmp_path: Path) -> None:
    page = context.new_page()
    page.goto(f"{app_url}/?model=similarity&picture=portrait&n_win=5&topk=3&a=3000.3000&b=7000.6000")
    page.wait_for_selector(".stage[data-ready]")
    page.mouse.move(5, 5)
    found = {}
    for choice in ("2", "4", "svg"):
        page.locator('[data-part="size"]').select_option(choice)
        found[choice] = saved(page, page.locator('[data-part="save"]').click, tmp_path)
    assert len({path.name for path in found.values()}) == 3
    for path in found.values():
        assert re.match(r"routescope_Content-similarity_.*_n5_k3_", path.name), path.name
    svg = found["svg"]
    width, height = size_of(svg)
    for factor in (2, 4):
        with Image.open(found[str(factor)]) as picture:
            assert picture.width == pytest.approx(factor * width, abs=factor)
            assert picture.height == pytest.approx(factor * height, abs=factor)
    root = ElementTree.parse(svg).getroot()
    (image,) = root.iter(f"{SVG}image")
    assert image.attrib["href"].startswith("data:image/jpeg;base64,")
    words = texts(svg)
    caption = " ".join(words)
    assert [words.count(str(rank)) for rank in (1, 2, 3)] == [2, 2, 2], "ranks of A and of B"
    assert "n_win 5" in caption
    assert "topk 3" in caption
    assert "not learned" in caption
    assert any(re.match(r"A: window \d+ and the windows it is routed to", word) for word in words)
    assert any(re.match(r"B: window \d+ and the windows it is routed to", word) for word in words)
    drawn = [one.attrib for one in root.iter(f"{SVG}path")]
    grid = next(one for one in drawn if one.get("stroke") == "rgb(255,255,255)" and one["d"].count("M") == 8)
    assert grid["fill"] == "none"
    frames = [one.attrib for one in root.iter(f"{SVG}rect") if one.attrib.get("stroke") == "#E69F00"]
    assert len(frames) == 3 + 1 + 1, "of A's windows, of A itself, and in the legend"
    photo = float(image.attrib["height"])
    for png in (found["2"], found["4"]):
        assert looks_like(context, svg, png, (0, photo)) > 0.95
        assert looks_like(context, svg, png, (photo, height)) > 0.75, "legend and caption"


def test_saved_stage_names_its_tint_and_padding(context: Any, app_url: str, tmp_path: Path) -> None:
    page = context.new_page()
    page.goto(f"{app_url}/?model=similarity&n_win=9&topk=4&a=3000.3000&show=in_degree.reverse")
    page.wait_for_selector(".stage[data-ready]")
    page.locator('[data-part="tint"]').select_option("in_degree")
    page.locator('[data-part="size"]').select_option("svg")
    words = texts(saved(page, page.locator('[data-part="save"]').click, tmp_path))
    assert "tint: how many windows chose a window" in words
    assert "padding" in words
    page.locator('[data-part="tint"]').select_option("query_part")
    words = texts(saved(page, page.locator('[data-part="save"]').click, tmp_path))
    assert "tint: affinity less what every query asks for alike" in words
    assert any(re.match(r"A: window \d+ and the windows that would choose it", word) for word in words)


@pytest.mark.parametrize(("place", "tab", "legend", "caption"), [
    ("?model=similarity&n_win=4&topk=3", "Ranking of A and B", "A: chosen", "topk 3"),
    ("compare?model=similarity&side=224", None, "Pareto front", "Content similarity"),
    ("cost?model=yolo&variant=yolov8n-bra&cost_height=320&cost_width=320", None, "projection to q, k, v",
     "one image of 320×320"),
])
def test_chart_is_saved_as_vectors_and_at_four_pixels_for_one(context: Any, app_url: str, tmp_path: Path, place: str,
                                                              tab: str | None, legend: str, caption: str) -> None:
    page = context.new_page()
    page.goto(f"{app_url}/{place}")
    page.wait_for_selector(f"{PLOT} .main-svg", state="attached", timeout=90_000)
    if tab:
        page.get_by_role("tab", name=tab).click()
        page.wait_for_selector(f"{PLOT} .barlayer")
    found = {}
    for form in ("PNG", "SVG"):
        if form == "SVG":                               # PNG is what is chosen on a first visit
            page.get_by_role("button", name="Export").click()
            page.get_by_test_id("stPopoverBody").get_by_text(form, exact=True).click()
            page.keyboard.press("Escape")
        page.wait_for_function("(form) => document.querySelector('.js-plotly-plot')?._context?.toImageButtonOptions"
                               "?.format === form", arg=form.lower())
        plot = page.locator(PLOT).first
        plot.hover()            # scrolls there too, and begins anew where the chart is drawn anew
        found[form] = saved(page, plot.locator('[data-title^="Download plot"]').click, tmp_path)
    width, height = size_of(found["SVG"])
    with Image.open(found["PNG"]) as picture:
        assert picture.size == pytest.approx((4 * width, 4 * height), abs=4)
    words = texts(found["SVG"])
    assert legend in words
    assert caption in " ".join(words)
    assert looks_like(context, found["SVG"], found["PNG"], (0, height)) > 0.85
    assert looks_like(context, found["SVG"], found["PNG"], (height - 40, height)) > 0.7, "the caption"
