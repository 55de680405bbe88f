"""A visitor opens the file of a watched training, walks through its epochs by keyboard, and lets them play."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import expect
from torch import nn

import bra
from bra.readers.timeline import read_timeline, recording_of

pytestmark = pytest.mark.browser
SAMPLE = Path(__file__).parents[2] / "sample_images" / "animal.jpg"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), bra.BiLevelRoutingAttention(16, n_win=4, num_heads=2, topk=2))
    w = bra.watch(model, SAMPLE, tmp_path_factory.mktemp("watched"), size=256)
    for epoch in (1, 2, 3, 4):
        w(epoch)
        with torch.no_grad():
            for weights in model.parameters():
                weights += 0.5 * torch.randn_like(weights)
    return w.path


def routed(page: Any) -> list[int]:
    return [int(n) for n in re.findall(r"window (\d+) \(", page.locator('[data-part="readout"]').inner_text())]


def test_by_keyboard_and_by_itself(context: Any, app_url: str, watched: Path, tmp_path: Path) -> None:
    page = context.new_page()
    page.goto(app_url + "/?model=own&a=5000.5000")
    page.wait_for_selector(".stage[data-ready]")
    page.locator('[data-testid="stSidebar"] input[type="file"]').set_input_files(watched)
    slider = page.get_by_role("slider", name="Epoch")
    expect(slider).to_have_attribute("aria-valuetext", "4")
    data = watched.read_bytes()
    timeline = read_timeline(data)

    def shows(epoch: int) -> None:
        """The readout names the windows that query A is routed to in this epoch."""
        layer = recording_of(timeline, data, epoch - 1).trace.layers["1"]
        expect(slider).to_have_attribute("aria-valuetext", str(epoch))
        window = layer.grid.window_of_pixel(layer.grid.image[0] / 2, layer.grid.image[1] / 2)[0]
        expect(page.locator(".stage")).to_have_attribute("data-window", str(window))
        wanted = layer.r_idx[0, window].tolist()
        both = re.compile("".join(rf"window {window} \(.*" for window in wanted))
        expect(page.locator('[data-part="readout"]')).to_contain_text(both)
        assert routed(page)[:2] == wanted

    slider.focus()
    page.keyboard.press("ArrowLeft")
    shows(3)
    page.keyboard.press("ArrowLeft")
    shows(2)
    page.locator(".stage").evaluate("(stage) => { stage.itself = true; }")
    page.get_by_role("button", name="Play").click()
    shows(4)
    assert page.locator(".stage").evaluate("(stage) => stage.itself"), "drawn into, not anew"
    expect(page.get_by_role("button", name="Play")).to_be_visible()      # it stopped at the end by itself
    page.screenshot(path=str(tmp_path / "timeline.png"), full_page=True)
    expect(page.get_by_text("epoch 4", exact=True).first).to_be_visible()
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Animation, WebP").click()
    assert Path(saved.value.path()).read_bytes()[8:12] == b"WEBP"
