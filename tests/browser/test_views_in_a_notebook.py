"""`bra.show` in a page as notebooks make it: frames that a script puts in, several on one page, in its theme."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import expect

import bra
from bra import BiLevelRoutingAttention
from bra.photo import Photo

pytestmark = pytest.mark.browser
SAMPLES = Path(__file__).parents[2] / "sample_images"


def notebook(tmp_path: Path, *outputs: str, background: str = "#111") -> str:
    """A page that sets each output as HTML into a place of its own, as JupyterLab and marimo do."""
    page = tmp_path / "notebook.html"
    cells = json.dumps(outputs).replace("</", "<\\/")
    page.write_text(f"""<!DOCTYPE html><html><body style="background:{background}"><div id=cells></div><script>
for (const html of {cells}) {{
  const cell = document.createElement("div");
  cell.innerHTML = html;
  document.getElementById("cells").append(cell);
}}
</script></body></html>""", encoding="utf-8")
    return page.as_uri()


@pytest.mark.parametrize(("background", "theme"), [("#111", "dark"), ("oklch(1 0 0)", "light"),
                                                   ("color(srgb 0.1 0.1 0.1)", "dark")])
def test_a_view_takes_the_theme_of_the_page_around_it(context: Any, tmp_path: Path, background: str,
                                                      theme: str) -> None:
    trace = bra.trace(BiLevelRoutingAttention(16, 4, 2, topk=3).eval(), torch.rand(1, 16, 16, 16))
    view = bra.show(trace, Photo.from_array(np.zeros((64, 64, 3), np.uint8)))
    page = context.new_page()
    page.emulate_media(color_scheme="light" if theme == "dark" else "dark")     # the system says otherwise
    page.goto(notebook(tmp_path, view._repr_html_(), background=background))
    page.frame_locator("iframe").locator(".stage[data-ready]").wait_for()
    assert page.frames[1].evaluate("document.documentElement.dataset.theme") == theme


def test_one_points_and_pins_in_each_of_two_views_on_a_dark_page(context: Any, tmp_path: Path) -> None:
    photo = Photo.from_bytes((SAMPLES / "animal.jpg").read_bytes())
    torch.manual_seed(0)
    layers = [BiLevelRoutingAttention(16, n_win, 2, topk=topk).eval() for n_win, topk in ((4, 3), (5, 2))]
    traces = [bra.trace(layer, torch.rand(1, 16, 20, round(20 * photo.width / photo.height))) for layer in layers]
    page = context.new_page()
    page.goto(notebook(tmp_path, *(bra.show(trace, photo)._repr_html_() for trace in traces)))
    for n, trace in enumerate(traces):
        frame = page.frame_locator("iframe").nth(n)
        frame.locator(".stage[data-ready]").wait_for()
        canvas = frame.locator('[data-part="canvas"]')
        canvas.scroll_into_view_if_needed()
        box, lt = canvas.bounding_box(), trace.layers[""]
        canvas.click(position={"x": box["width"] * 0.5 / lt.grid.n_win, "y": box["height"] * 0.5 / lt.grid.n_win})
        rows = frame.locator('[data-part="rows"] tr')
        expect(rows).to_have_count(lt.spec.topk)
        for row, window, weight in zip(rows.all(), lt.r_idx[0, 0].tolist(), lt.r_weight[0, 0].tolist(), strict=True):
            expect(row).to_contain_text(f"{window}")
            expect(row).to_contain_text(f"{100 * weight:.0f} %")
        expect(frame.locator('[data-part="a"]')).to_contain_text("0")
        assert page.frames[n + 1].evaluate("document.documentElement.dataset.theme") == "dark"
        # As high as it needs: nothing of the view is cut off, and the page around does not scroll in a frame.
        inner = page.frames[n + 1].evaluate("[document.documentElement.scrollHeight, innerHeight]")
        assert inner[0] <= inner[1] + 1
