"""Padding is said of every model's layer, can be masked in each, and choices that fall on it are a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import app_pages
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from bra.metrics.routing import chosen_padding
from bra.models.base import Change
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.viewer.pack import unpack

ROOT = Path(__file__).parents[2]


def stage(app: AppTest) -> tuple[dict, bytes, dict[str, np.ndarray]]:
    return next(unpack(block.proto.bytes) for block in app.get("bidi_component")
                if block.proto.component_name == "routescope_stage")


def test_a_trained_model_that_is_routed_to_padding_says_so_and_can_mask_it() -> None:
    app = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=120)
    for name, value in {"model": "flowers", "changed": "1", "n_win": "9", "topk": "24", "picture": "smear",
                        "layer": "stages.2.0.attn"}.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    layer = "stages.2.0.attn"
    model, photo = open_model(ModelSettings("flowers")), Photo.from_bytes(
        (ROOT / "sample_images" / "smear.jpg").read_bytes())
    plain, masked = (model.look(photo, 320, Change(layer, 9, 24, mask)).trace.layers[layer] for mask in (None, True))
    assert chosen_padding(plain) > 12
    assert chosen_padding(masked) == 0
    number = f"{chosen_padding(plain):.1f} on average hold nothing but padding"
    assert [one.value for one in app.warning if number in one.value]
    assert [one.value for one in app.main.caption if "tokens are padded to" in one.value]
    np.testing.assert_array_equal(stage(app)[2]["r_idx"], plain.r_idx[0])

    app.toggle(key="mask_layer").set_value(True).run()
    assert not app.exception
    assert app.query_params["mask_padding"] == "1"
    assert not [one.value for one in app.warning if "padding" in one.value]
    np.testing.assert_array_equal(stage(app)[2]["r_idx"], masked.r_idx[0])
    assert stage(app)[0]["caption"].endswith("padding masked")


@pytest.mark.parametrize("model", ["flowers", "cells"])
def test_the_mask_alone_leaves_the_windows_as_they_are(model: str) -> None:
    settings = ModelSettings(model, mask_padding=True)
    assert settings.change_of("x") == Change("x", mask_padding=True)
    assert ModelSettings(model).change_of("x") is None
    assert settings.opens == ModelSettings(model).opens


def place_of_stage(block: Any) -> tuple[tuple[int, str], ...] | None:
    """Numbers and keys of the blocks from a page's top down to its stage."""
    for number, child in getattr(block, "children", {}).items():
        if child.type == "bidi_component" and child.proto.component_name == "routescope_stage":
            return ((number, ""),)
        if (below := place_of_stage(child)) is not None:
            return (number, getattr(child.proto, "id", "").rpartition("-")[2]), *below
    return None


def test_the_stage_stands_in_one_place_whatever_is_said_above_it() -> None:
    """A browser draws it anew, and shows none or two for a moment, when its place on the page is another."""
    places, said = set(), set()
    for query in ({"model": "cells", "picture": "smear"}, {"model": "cells", "picture": "portrait"},
                  {"model": "flowers"}, {"model": "untrained"}, {"model": "similarity", "n_win": "9"},
                  {"model": "own"}):
        app = app_pages.opened("explore", query)
        places.add(place_of_stage(app.main))
        said.add((len(app.warning), len(app.caption)))
    assert len(said) > 2
    assert len(places) == 1
    assert None not in places


def _first_view() -> None:
    from dashboard.widgets import first_view
    first_view.draw("explore", started=False)


def test_what_is_shown_before_torch_is_there_has_the_stage_in_that_place_too() -> None:
    first = place_of_stage(AppTest.from_function(_first_view).run().main)
    page = place_of_stage(app_pages.opened("explore").main)
    assert first is not None
    assert page is not None
    assert page[-len(first):] == first
