"""The link: every view survives the way to a link and back, and no link can ask for what cannot be."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bra.models.catalog import CATALOG, ModelSettings, build
from bra.viewer.pack import FULL, SHOWS
from dashboard import state
from dashboard.gallery import GALLERY
from dashboard.state import Selection

places = st.none() | st.tuples(st.integers(0, 2 * FULL), st.integers(0, 2 * FULL))


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    n_win = draw(st.sampled_from(state.N_WINS))
    model = draw(st.sampled_from(list(CATALOG)))
    made = ModelSettings(
        model, n_win, draw(st.integers(1, n_win**2)), draw(st.sampled_from(state.HEADS)),
        draw(st.sampled_from(state.STRIDES)), draw(st.sampled_from(state.POOLS)),
        draw(st.sampled_from(state.RATIOS)), draw(st.booleans()), draw(st.sampled_from(state.SIDES)))
    layer = draw(st.sampled_from(["", *CATALOG[model].layers]))
    return Selection(draw(st.sampled_from([*GALLERY, state.UPLOAD])), made, layer, draw(st.booleans()),
                     draw(places), draw(places), tuple(s for s in SHOWS if draw(st.booleans())))


@given(selections())
def test_a_link_restores_the_view(selection: Selection) -> None:
    assert Selection.from_query(selection.to_query()) == selection


def test_the_default_view_has_an_empty_link() -> None:
    assert Selection().to_query() == {}


NAMES = ["picture", "model", "layer", "n_win", "topk", "num_heads", "stride", "side", "kv_downsample_mode",
         "kv_downsample_ratio", "mask_padding", "whole", "a", "b", "show", "nonsense"]


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=12) | st.integers().map(str) | st.just("²") |
                       st.just("1.²") | st.just("٣"), max_size=8))
def test_any_query_string_gives_a_possible_view(query: dict[str, str]) -> None:
    selection = Selection.from_query(query)
    made = selection.settings
    assert made.n_win in state.N_WINS
    assert 1 <= made.topk <= made.n_win**2
    assert selection.layer in ("", *made.entry.layers)
    assert Selection.from_query(selection.to_query()) == selection
    build(made)
