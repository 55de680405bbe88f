"""A visitor opens a trained detector, another layer, and a file of their own, in a real browser."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

pytest.importorskip("ultralytics")

from bra.metrics.between_layers import overlap
from bra.models.base import ModelRun
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.viewer.pack import FULL, locate
from bra.yolo.transplant import write_checkpoint

pytestmark = pytest.mark.browser
BUTTONS = Path(__file__).parents[2] / "sample_images" / "repeated_objects.jpg"
LINK = "/?model=cells&picture=repeated_objects&side=320"


@pytest.fixture(scope="module")
def look() -> ModelRun:
    return open_model(ModelSettings("cells")).look(Photo.from_bytes(BUTTONS.read_bytes()), 320)


def ready(page: Any) -> None:
    page.wait_for_selector(".stage[data-ready]")


def readout(page: Any) -> tuple[int, list[int]]:
    text = page.locator('[data-part="readout"]').inner_text()
    return int(re.match(r"Window (\d+)", text)[1]), [int(w) for w in re.findall(r"window (\d+) \(", text)]


def point(page: Any, look: ModelRun, layer: str, x: float, y: float) -> int:
    """Move the pointer to a place of the photo, given as shares, and return the window that must be there."""
    grid = look.trace.layers[layer].grid
    assert grid.image is not None
    top, left, bottom, right = grid.box()
    canvas = page.locator('[data-part="canvas"]')
    expect(canvas).to_have_count(1)     # for a moment the stage that it replaces may still be there
    box = canvas.bounding_box()
    canvas.hover(position={"x": (x * grid.image[1] - left) / (right - left) * box["width"],
                           "y": (y * grid.image[0] - top) / (bottom - top) * box["height"]})
    window, _ = locate(grid, Photo.from_bytes(BUTTONS.read_bytes()), (round(x * FULL), round(y * FULL)))
    expect(page.locator(".stage")).to_have_attribute("data-window", str(window))
    return window


def test_pointing_at_a_letterboxed_photo_names_the_modules_windows(context: Any, app_url: str, look: ModelRun) -> None:
    page = context.new_page()
    page.goto(app_url + LINK)
    ready(page)
    for layer in ("model.15.attn", "model.23.attn"):
        page.locator(f'.rail [data-layer="{layer}"]').click()
        expect(page.locator('[data-part="caption"]').first).to_contain_text(layer)
        expect(page.locator(f'.rail [data-layer="{layer}"]')).to_have_attribute("aria-checked", "true")
        for x, y in ((0.02, 0.02), (0.5, 0.5), (0.97, 0.96)):
            window = point(page, look, layer, x, y)
            assert readout(page) == (window, look.trace.layers[layer].r_idx[0, window].tolist())
    assert "layer=model.23.attn" in page.url
    assert look.trace.layers["model.15.attn"].grid.origin[0] < 0        # the letterbox is there to be taken off


def test_the_rail_is_walked_with_the_keyboard(context: Any, app_url: str) -> None:
    page = context.new_page()
    page.goto(app_url + LINK)
    ready(page)
    page.locator('.rail [aria-checked="true"]').focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator('[data-part="caption"]').first).to_contain_text("model.19.attn")
    expect(page.locator('.rail [data-layer="model.19.attn"]')).to_be_focused()


def test_the_rail_says_which_layers_choose_alike(context: Any, app_url: str, look: ModelRun) -> None:
    page = context.new_page()
    page.goto(app_url + LINK)
    ready(page)
    layers = look.trace.layers
    pairs = [(a, b, overlap(layers[a], layers[b])[0]) for a, b in pairwise(layers)]
    figure = page.locator(".rail figure")
    expect(figure).to_have_attribute("aria-label", "; ".join(
        f"{a} and {b}: {round(100 * share)} % of the area that either is routed to is shared" for a, b, share in pairs))
    figure.locator("canvas").hover(position={"x": 22, "y": 5})          # the second of three, seen from the first
    expect(figure).to_have_attribute("title", re.compile(r"^model\.15\.attn and model\.19\.attn: "))


def test_detections_are_counted_hidden_and_remembered_by_the_link(context: Any, app_url: str, look: ModelRun) -> None:
    page = context.new_page()
    page.goto(app_url + LINK)
    ready(page)
    button = page.locator('[data-part="bare"]')
    expect(button).to_have_text(f"Detections ({len(look.answer.detections)})")
    expect(button).to_have_attribute("aria-pressed", "true")
    picture = page.locator('[data-part="canvas"]').screenshot()
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    page.wait_for_function("() => location.search.includes('show=bare')")
    assert page.locator('[data-part="canvas"]').screenshot() != picture
    page.reload()
    ready(page)
    expect(page.locator('[data-part="bare"]')).to_have_attribute("aria-pressed", "false")


def test_a_checkpoint_of_ones_own_opens_from_the_side_bar(
        context: Any, app_url: str, tmp_path: Path, look: ModelRun) -> None:
    opened = open_model(ModelSettings("cells"))
    opened.module.names = {0: "<b>RBC</b>", 1: "WBC", 2: "Platelets"}
    write_checkpoint(opened.module, tmp_path / "mine.pt")
    page = context.new_page()
    page.goto(f"{app_url}/?model=own&picture=repeated_objects&side=320")
    expect(page.get_by_text("Drop a model file")).to_be_visible()
    page.locator('[data-testid="stSidebar"] input[type="file"]').set_input_files(tmp_path / "mine.pt")
    expect(page.locator('[data-part="caption"]').first).to_contain_text("weights from mine.pt")
    window = point(page, look, "model.15.attn", 0.4, 0.6)
    assert readout(page) == (window, look.trace.layers["model.15.attn"].r_idx[0, window].tolist())
    expect(page.locator("[data-part=bare]")).to_have_text(f"Detections ({len(look.answer.detections)})")
    assert page.locator("b", has_text="RBC").count() == 0       # strangers' labels are never markup


def test_a_card_leads_to_its_model(context: Any, app_url: str) -> None:
    page = context.new_page()
    page.goto(f"{app_url}/models?card=vehicles")
    expect(page.get_by_text("KIT AIS, cut into tiles")).to_be_visible()
    expect(page.get_by_text("How it was made")).to_be_visible()
    page.get_by_role("button", name="Look into it").click()
    ready(page)
    expect(page.locator('[data-part="caption"]').first).to_contain_text("trained on aerial pictures")
