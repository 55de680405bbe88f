"""The worked example on a page: every step in both languages, and what its controls change."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from bra.teaching.example import FIRST, HIGHEST, TOPKS, run_example
from bra.teaching.source import STEPS, lines_of
from bra.viewer.pack import unpack
from dashboard.figures.number_grid import number
from dashboard.state import example_view
from dashboard.state.example_view import ExampleView


def page() -> None:
    import streamlit as st

    from dashboard.learn import example
    from dashboard.state import example as example_state
    from dashboard.state import session

    step, photo = st.session_state["step"], st.session_state["photo"]
    (example.show_photo if photo else example.show_example)(step, st.session_state["large"])
    session.put_link(example_state.current().to_query())


def opened(step: str, photo: bool = False, large: bool = False, **query: str) -> AppTest:
    app = AppTest.from_function(page, default_timeout=60)
    for name, value in {"step": step, "photo": photo, "large": large}.items():
        app.session_state[name] = value
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def drawn(app: AppTest) -> str:
    """The step's figures."""
    (html,) = [json.loads(block.proto.json)["html"] for block in app.get("bidi_component")
               if block.proto.component_name.startswith("routescope_number_grid")]
    return str(html)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_step_of_the_example_says_what_it_runs(step: str, lang: str) -> None:
    app = opened(step, lang=lang)
    assert any(f"{line.file}:{line.number}" in block.value for line in lines_of(step) for block in app.code)
    assert len(app.latex) == 1
    assert "wx-figure" in drawn(app)
    assert (lang == "zh") == bool(re.search("[一-鿿]", app.markdown[0].value))


def test_topk_moves_what_comes_after_it() -> None:
    app = opened("output")
    app.segmented_control[0].set_value(3).run()
    assert not app.exception
    assert app.query_params["w_topk"] == "3"
    made = drawn(app)
    for value in run_example(FIRST, 3).mixed[0, 0, 0].tolist():
        assert f">{number(value)}<" in made
    assert "wx-mark" in made


def test_a_number_of_a_token_moves_what_comes_after_it_and_goes_back() -> None:
    app = opened("affinity", w_token="8")
    first, second = app.number_input
    assert (first.value, second.value) == (2, 0)
    first.set_value(3).run()
    assert not app.exception
    assert app.query_params["w_x"] == "8.0.3"
    nudged = run_example(ExampleView().with_number(8, 0, 3).tokens)
    assert f">{number(nudged.affinity[0, 1, 2].item())}<" in drawn(app)
    next(one for one in app.button if one.label == "Reset").click().run()
    assert app.query_params.get("w_x") is None
    assert "wx-mark" not in drawn(app)


def test_a_link_names_the_token_whose_numbers_are_asked() -> None:
    link = opened("tokens", w_token="13")
    assert [field.value for field in link.number_input] == list(FIRST[13])
    assert 'data-token="13" role="button" tabindex="0"' in drawn(link)


def test_projected_the_example_has_no_downloads() -> None:
    assert len(opened("tokens").get("download_button")) == 2
    assert opened("tokens", large=True).get("download_button") == []


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("step", STEPS)
def test_every_step_is_shown_on_the_photograph(step: str, lang: str) -> None:
    app = opened(step, photo=True, lang=lang)
    kinds = [block.proto.component_name for block in app.get("bidi_component")]
    assert len(kinds) == 1
    controls = [*app.slider, *app.toggle]
    assert len(controls) == (0 if step == "affinity" else 1)       # there one points at the picture
    message = app.markdown[0].value
    assert "{" not in message
    if step not in ("affinity", "topk"):
        assert "n_win 5 · topk 4" in drawn(app)


def test_windows_on_the_photograph_are_cut_again() -> None:
    app = opened("windows", photo=True)
    app.slider[0].set_value(7).run()
    assert not app.exception
    assert "7×7" in app.markdown[0].value
    assert app.query_params["w_n_win"] == "7"


def test_the_stage_shows_as_many_windows_as_are_asked_for() -> None:
    app = opened("topk", photo=True)
    app.slider[0].set_value(9).run()
    assert not app.exception
    (block,) = app.get("bidi_component")
    header, _, arrays = unpack(block.proto.bytes)
    assert header["topk"] == 9
    assert arrays["r_idx"].shape == (25, 9)
    assert "stages.1.0.attn" in header["caption"]


def test_fewer_windows_lower_topk() -> None:
    app = opened("windows", photo=True, w_k="20", w_n_win="5")
    app.slider[0].set_value(3).run()
    assert not app.exception
    assert app.query_params["w_k"] == "9"


numbers = st.integers(-HIGHEST, HIGHEST)
views = st.builds(
    ExampleView, token=st.sampled_from(example_view.TOKENS), topk=st.sampled_from(TOPKS),
    tokens=st.lists(st.tuples(numbers, numbers), min_size=16, max_size=16).map(tuple),
    n_win=st.sampled_from(example_view.N_WINS), k=st.integers(1, 4), channel=st.sampled_from(example_view.CHANNELS),
    place=st.none() | st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), lepe=st.booleans())


def test_a_link_with_more_windows_than_there_are_is_lowered() -> None:
    assert ExampleView.from_query({"w_k": "100", "w_n_win": "3"}).k == 9


@given(views)
def test_a_link_restores_the_view(view: ExampleView) -> None:
    assert ExampleView.from_query(view.to_query()) == view
    assert ExampleView().to_query() == {}


KEYS = ["w_token", "w_topk", "w_x", "w_n_win", "w_k", "w_channel", "w_place", "w_lepe"]


@given(st.dictionaries(st.sampled_from(KEYS), st.text("0123456789.-_x²", max_size=12)))
def test_no_link_asks_for_what_cannot_be(query: dict[str, str]) -> None:
    made = ExampleView.from_query(query)
    assert made.token in example_view.TOKENS
    assert made.topk in TOPKS
    assert made.k <= made.n_win**2
    assert all(abs(value) <= HIGHEST for token in made.tokens for value in token)
    run_example(made.tokens, made.topk)
