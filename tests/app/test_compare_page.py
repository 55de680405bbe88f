"""The page Compare: the module's numbers, links that restore it, and strangers' tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest
from test_state import selections

from bra.experiments.compare import Setting, SettingRow, layer_input
from bra.experiments.rules import rules_of
from bra.experiments.sweep_table import table_of, to_parquet
from bra.metrics.rules import RULES, verdict
from bra.models.catalog import CATALOG, ModelSettings
from bra.opening import look, open_model
from bra.photo import Photo
from bra.viewer.pack import unpack
from dashboard.runtime.jobs import Cancelled
from dashboard.services import compare as compare_services
from dashboard.state import compare_view as choices
from dashboard.state.compare_view import Comparison, side_b
from dashboard.state.cost_view import CostView
from dashboard.state.view import Selection

ROOT = Path(__file__).parents[2]


def some(allowed: tuple[int, ...]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.sampled_from(allowed), min_size=1, max_size=choices.MOST).map(lambda s: tuple(sorted(s)))


comparisons = st.builds(
    Comparison, st.sampled_from(choices.TABS), some(choices.N_WIN_CHOICES), some(choices.TOPK_CHOICES), st.booleans(),
    st.sampled_from(choices.COSTS), selections().map(side_b))


@given(selections(), comparisons)
def test_one_link_restores_view_and_comparison(selection: Selection, wanted: Comparison) -> None:
    link = selection.to_query() | wanted.to_query()
    assert Selection.from_query(link) == selection
    assert Comparison.from_query(link) == wanted
    assert not set(selection.to_query()) & set(wanted.to_query())


def test_the_default_comparison_has_an_empty_link() -> None:
    assert Comparison().to_query() == {}
    plain = Comparison(b=side_b(Selection()))
    assert Comparison.from_query(plain.to_query()) == plain      # B at every default is still said


def test_what_cannot_be_in_links_of_compare_and_cost_is_named() -> None:
    assert Comparison.refused({"rows": "4.99", "columns": "2.4", "tab": "x", "b_model": "cells", "b_topk": "many"}) == \
        ("tab", "rows", "b_topk")
    assert Comparison.from_query({"rows": "4.99"}).n_wins == Comparison().n_wins
    assert CostView.refused({"cost_height": "640", "cost_pool": "9", "cost_measure": "money"}) == \
        ("cost_measure", "cost_pool")


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["tab", "rows", "columns", "equal", "cost", "b_model", "b_n_win", "b_topk",
                                        "b_layer", "b_variant", "b_side", "b_"]),
                       st.text(max_size=12) | st.just("4.7.8") | st.just("4.999.²") | st.just("16")))
def test_any_query_string_gives_a_possible_comparison(query: dict[str, str]) -> None:
    wanted = Comparison.from_query(query)
    assert 1 <= len(wanted.n_wins) <= choices.MOST
    assert 1 <= len(wanted.settings) <= choices.MOST**2
    assert all(1 <= one.topk <= one.n_win**2 for one in wanted.settings)
    assert wanted.b.settings.model in CATALOG
    assert Comparison.from_query(wanted.to_query()) == wanted


def test_equal_coverage_by_hand() -> None:
    wanted = Comparison(n_wins=(4, 14), topks=(4,), equal=True)
    assert wanted.settings == (Setting(4, 1), Setting(14, 16))     # 4 of 49 is 8.2 %: 1.3 of 16, and 16 of 196


def row(n_win: int, topk: int, recall: float, macs: int) -> SettingRow:
    return SettingRow(n_win, topk, n_win**2, 0.0, recall, topk / n_win**2, recall - 0.1, 0.9, 0.5, macs, 5 * macs)


# the page -------------------------------------------------------------------------------------------------


@pytest.fixture
def app() -> AppTest:
    made = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=90)
    made.query_params["side"] = "224"
    made.query_params["model"] = "similarity"
    return made


def opened(app: AppTest, **query: str) -> AppTest:
    for name, value in query.items():
        app.query_params[name] = value
    app.switch_page("views/compare.py").run()
    assert not app.exception
    return app


def message(app: AppTest) -> tuple[dict, bytes, dict[str, np.ndarray]]:
    return next(unpack(block.proto.bytes) for block in app.get("bidi_component")
                if block.proto.component_name == "routescope_multiples")


def cat() -> Photo:
    return Photo.from_bytes((ROOT / "sample_images" / "animal.jpg").read_bytes())


def test_every_small_picture_shows_what_that_model_routes(app: AppTest) -> None:
    header, _, arrays = message(opened(app, rows="4.7", columns="2.6"))
    assert [(cell["n_win"], cell["topk"]) for cell in header["cells"]] == [(4, 2), (4, 6), (7, 2), (7, 6)]
    for n, cell in enumerate(header["cells"]):
        whole = look(ModelSettings(n_win=cell["n_win"], topk=cell["topk"], side=224), cat())
        np.testing.assert_array_equal(arrays[f"r_idx_{n}"], whole.trace.layers["layers.0"].r_idx[0])


def test_what_is_compared_is_the_layer_that_the_page_names(app: AppTest) -> None:
    opened(app, model="flowers", rows="5", columns="8")
    assert app.selectbox(key="compare_layer").value == CATALOG["flowers"].layer == "stages.2.2.attn"
    header, _, arrays = message(app)
    assert " · stages.2.2.attn · " in header["caption"]
    whole = look(ModelSettings("flowers", side=224), cat())
    np.testing.assert_array_equal(arrays["r_idx_0"], whole.trace.layers["stages.2.2.attn"].r_idx[0])


def test_choices_reach_the_pictures_and_the_link(app: AppTest) -> None:
    opened(app)
    app.toggle(key="equal").set_value(True).run()
    assert not app.exception
    assert app.query_params["equal"] == "1"
    assert [cell["topk"] for cell in message(app)[0]["cells"]][:3] == [1, 3, 1]     # n_win 4: 1, 1, 1, 3 of 16


def test_a_setting_that_was_clicked_opens_in_explore(app: AppTest) -> None:
    opened(app)
    app.session_state["leaving"] = True         # what the callback of a click leaves behind; the browser's tests click
    app.run()
    assert not app.exception
    assert [block for block in app.get("bidi_component") if block.proto.component_name == "routescope_stage"]


def test_a_against_b_from_a_link(app: AppTest) -> None:
    opened(app, tab="versus", b_model="untrained", b_n_win="5", b_topk="3", a="2500.2500")
    header, _, arrays = message(app)
    assert header["at"] == [2500, 2500]
    a = look(ModelSettings(side=224), cat()).trace.layers["layers.0"]
    b = look(ModelSettings("untrained", 5, 3, side=224), cat()).trace.layers["layers.0"]
    np.testing.assert_array_equal(arrays["r_idx_0"], a.r_idx[0])
    np.testing.assert_array_equal(arrays["r_idx_1"], b.r_idx[0])
    assert (app.query_params["b_n_win"], app.query_params["b_topk"]) == ("5", "3")
    assert any("share" in text.value for text in app.markdown)


def test_b_may_be_another_model_and_a_missing_file_is_said(app: AppTest) -> None:
    opened(app, tab="versus", b_model="own")
    assert len(app.error) == 1
    assert app.error[0].value.startswith("A model of your own needs its file")
    assert "multiples" not in str(app.get("bidi_component"))


def test_other_ways_to_choose_are_those_of_the_layer_under_its_windows(app: AppTest) -> None:
    opened(app, tab="rules", model="flowers")
    given = layer_input(open_model(ModelSettings("flowers")), cat(), 224, CATALOG["flowers"].layer)
    expected = {RULES[row.rule].name: row for row in rules_of(given, given.own)}
    shown = app.dataframe[0].value
    assert set(shown["rule"]) == set(expected)
    assert shown["keeps"].tolist() == pytest.approx([100 * expected[name].recall for name in shown["rule"]])
    assert shown["change of the output"].tolist() == pytest.approx(
        [100 * expected[name].change for name in shown["rule"]])
    assert verdict([*expected.values()]) in [block.value for block in app.markdown]
    assert any("without training" in block.value for block in app.caption)


def test_where_all_is_chosen_no_rule_differs(app: AppTest) -> None:
    opened(app, tab="rules", n_win="2", topk="4")
    assert "no rule differs" in app.info[0].value


def test_probes_show_every_layer(app: AppTest) -> None:
    opened(app, tab="probes")
    table = app.dataframe[0].value
    assert len(table) == 2 * 5
    darker = table[table["probe"].str.startswith("brightness")]
    assert (darker["if it kept its places"] > 99.9).all()


def test_a_sweep_is_opened_and_another_file_is_refused(app: AppTest) -> None:
    opened(app, tab="sweeps")
    found = [(f"{n}.png", "layers.0", row(4, 2, 0.3 + 0.1 * n, 1000)) for n in range(3)]
    app.file_uploader(key="sweep_uploader").upload("rows.parquet", to_parquet(table_of(found, {})), "").run()
    assert not app.exception
    assert app.dataframe[0].value["keeps"].tolist() == pytest.approx([40])
    app.file_uploader(key="sweep_uploader").upload("rows.parquet", b"PAR1 but not", "").run()
    assert not app.exception
    assert "damaged" in app.error[0].value


def test_reading_a_sweep_ends_when_it_is_called_off() -> None:
    reported: list[tuple[int, int]] = []

    def tell(done: int, todo: int) -> None:
        reported.append((done, todo))
        raise Cancelled

    with pytest.raises(Cancelled):
        compare_services.read_sweep(to_parquet(table_of([("0.png", "a", row(4, 2, 0.3, 1000))], {})), tell)
    assert reported == [(0, 0)]


@pytest.mark.parametrize("query", [{"tab": "x"}, {"rows": "0.99"}, {"columns": "nan"}, {"b_model": "<b>"},
                                      {"tab": "versus", "b_layer": "layers.9"}, {"tab": "versus", "b_topk": "999"}])
def test_a_bad_link_still_opens(app: AppTest, query: dict[str, str]) -> None:
    assert message(opened(app, **query))[0]["cells"]


def test_the_page_has_a_title_of_its_own(app: AppTest) -> None:
    assert opened(app, tab="sweeps").subheader[0].value == "Compare: which windows, which model?"
