"""The link: every view survives the way to a link and back, and no link can ask for what cannot be."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bra.models.catalog import CATALOG, ModelSettings, build
from bra.viewer.pack import FULL, SHOWS
from dashboard.runtime.config import Limits
from dashboard.samples import GALLERY
from dashboard.state import view as views
from dashboard.state.view import Selection

places = st.none() | st.tuples(st.integers(0, 2 * FULL), st.integers(0, 2 * FULL))


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    n_win = draw(st.sampled_from(views.N_WINS))
    model = draw(st.sampled_from(list(CATALOG)))
    made = ModelSettings(
        model, n_win, draw(st.integers(1, n_win**2)), draw(st.sampled_from(views.HEADS)),
        draw(st.sampled_from(views.STRIDES)), draw(st.sampled_from(views.POOLS)),
        draw(st.sampled_from(views.RATIOS)), draw(st.booleans()), draw(st.sampled_from(views.SIDES)),
        draw(st.sampled_from(["", *CATALOG[model].variants[1:]])), draw(st.booleans()), draw(st.booleans()))
    layer = draw(st.sampled_from(["", "layers.1", "model.16.attn.0.attn", "stages.3.1.attn#2"]))
    return Selection(draw(st.sampled_from([*GALLERY, views.UPLOAD])), made, layer, draw(st.booleans()),
                     draw(places), draw(places), tuple(s for s in SHOWS if draw(st.booleans())))


@given(selections())
def test_a_link_restores_the_view(selection: Selection) -> None:
    assert Selection.from_query(selection.to_query()) == selection


def test_no_page_promises_more_than_the_server_takes() -> None:
    config = (Path(__file__).parents[2] / ".streamlit" / "config.toml").read_text()
    assert f"maxUploadSize = {Limits().upload_mb} " in config


def test_the_default_view_has_an_empty_link() -> None:
    assert Selection().to_query() == {}


def test_the_usual_variant_may_be_spelled_out_in_a_link() -> None:
    query = {"model": "yolo", "variant": CATALOG["yolo"].variants[0]}
    assert Selection.refused(query) == ()
    assert Selection.from_query(query) == Selection.from_query({"model": "yolo"})
    assert Selection.refused(query | {"variant": "yolov8z-bra"}) == ("variant",)


NAMES = ["picture", "model", "layer", "n_win", "topk", "num_heads", "stride", "side", "kv_downsample_mode",
         "kv_downsample_ratio", "mask_padding", "variant", "untrained", "changed", "whole", "a", "b", "show",
         "nonsense"]


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=12) | st.integers().map(str) | st.just("²") |
                       st.just("1.²") | st.just("٣"), max_size=8))
def test_any_query_string_gives_a_possible_view(query: dict[str, str]) -> None:
    selection = Selection.from_query(query)
    made = selection.settings
    assert made.n_win in views.N_WINS
    assert 1 <= made.topk <= made.n_win**2
    assert views.LAYER_NAME.fullmatch(selection.layer)
    assert Selection.from_query(selection.to_query()) == selection
    assert made.chosen_variant in made.entry.variants
    if made.entry.family == "patches":
        build(made)
