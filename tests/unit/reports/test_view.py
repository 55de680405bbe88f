"""`bra.show`: shown in a notebook and saved as a page; it takes models, traces and pictures as people have them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bra
from bra import BiLevelRoutingAttention, BRAError, View
from bra.errors import LayerNameError
from bra.models.biformer import biformer_nano
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.reports.figure_html import figures_script

RGB = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
PHOTO = Photo.from_array(RGB)
TRACE = bra.trace(BiLevelRoutingAttention(16, 4, 2, topk=3).eval(), torch.rand(1, 16, 16, 24))


class Frame(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_view_is_one_frame_with_the_whole_page_in_it(tmp_path: Path) -> None:
    view = bra.show(TRACE, PHOTO, a=(10, 20))
    (tag, attributes), = Frame(view._repr_html_()).tags
    assert tag == "iframe"
    assert attributes["srcdoc"] == view.frame
    assert view.page == view.save(tmp_path / "view.html").read_text(encoding="utf-8")
    assert len(view._repr_html_()) < 1_000_000          # what draws the charts is not in it
    assert "topk 3" in view.frame
    assert not re.findall(r"(?:src|href)=|url\((?!#)|https?://(?!www.w3.org/)|@import", view.frame)
    drawing = figures_script()              # plotly.js names hosts of maps, which the page's policy forbids to ask
    assert drawing in view.page
    ours = re.sub(r"http://www.w3.org/\S+", "", view.page.replace(drawing, ""))
    assert not re.findall(r"(?:src|href)=|url\((?!#)|https?://|@import", ours)
    assert "default-src 'none'" in view.page
    assert repr(view) == "View(layer='')"
    assert "topk 3" in view.page


@pytest.mark.parametrize("photo", [PHOTO, RGB, Image.fromarray(RGB), Image.fromarray(RGB).convert("RGBA"),
                                   PHOTO.encoded(96, "PNG")], ids=["Photo", "array", "PIL", "PIL with alpha", "bytes"])
def test_a_picture_may_come_in_any_usual_form(photo: object) -> None:
    assert isinstance(bra.show(TRACE, photo), View)


def test_a_picture_may_be_a_file(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "mine.png")
    assert "mine.png" in bra.show(TRACE, tmp_path / "mine.png").page
    assert "mine.png" in bra.show(TRACE.layers[""], str(tmp_path / "mine.png")).page


def test_a_model_may_come_in_any_usual_form() -> None:
    opened = open_model(ModelSettings("similarity"))
    for model in (opened, opened.module, "similarity", opened.look(PHOTO, 96)):
        assert bra.show(model, PHOTO, side=96).layer == "layers.0" if not hasattr(model, "trace") else \
            bra.show(model, PHOTO).layer == "layers.0"
    model = biformer_nano(5).train()
    assert bra.show(model, PHOTO, layer="stages.1.0.attn").layer == "stages.1.0.attn"
    assert model.training


def test_untrained_weights_are_said_in_the_view() -> None:
    assert "class=warning" in bra.show("untrained", PHOTO, side=96).frame
    assert "class=warning" not in bra.show("similarity", PHOTO, side=96).frame


def test_an_ultralytics_model_is_shown_as_it_is() -> None:
    pytest.importorskip("ultralytics")
    from ultralytics import YOLO

    import bra.yolo
    yolo = YOLO("yolov8n-bra-p5.yaml")
    assert bra.show(yolo, PHOTO, side=64).layer == bra.show(yolo.model, PHOTO, side=64).layer == "model.10"


@pytest.mark.parametrize(("arguments", "words"), [
    ((TRACE, PHOTO, "nowhere"), "there is no layer 'nowhere'"), ((torch.nn.Identity(), PHOTO), "give its trace"),
    ((3, PHOTO), "int is no model"), ((TRACE, torch.rand(1, 3, 64, 96)), "Tensor is no picture"),
    ((TRACE, RGB[:, :64]), "another shape")])
def test_what_cannot_be_shown_is_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(BRAError, match=words):
        bra.show(*arguments)
    assert issubclass(LayerNameError, BRAError)
