"""The Cost page: its numbers are those of bra.cost, its link brings the view back, and a hostile link gives a page."""

from __future__ import annotations

import app_pages
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sent_figures import figures
from streamlit.testing.v1 import AppTest

import bra
from bra.models.catalog import ModelSettings
from bra.opening import open_file, open_model
from bra.profiling.advice import choices, positions, setting_changes
from bra.profiling.format import summary
from bra.profiling.variants import with_full_attention, with_settings, without_bra
from dashboard.services import cost as cost_services
from dashboard.services.models import load_model
from dashboard.state import cost_view as views
from dashboard.state.cost_view import CostView
from dashboard.state.view import N_WINS

pytest.importorskip("ultralytics")
from bra.yolo.build import ModelLimits, build_checked
from bra.yolo.registration import CFG
from bra.yolo.ultralytics_flops import reported_flops


def page(**query: str) -> AppTest:
    return app_pages.opened("cost", query)


def opened(app: AppTest, tab: str) -> AppTest:
    """The page with another part of it open."""
    app.segmented_control(key="cost_tab").set_value(tab).run()
    assert not app.exception
    assert app.query_params.get("cost_tab", "rows") == tab
    return app


def chart(app: AppTest, at: int) -> list[float]:
    """The values of the bars of a figure, as they are."""
    return [about[1] for one in figures(app)[at]["data"] for about in one["customdata"]]


def shown(app: AppTest) -> str:
    return " ".join(block.value for block in app.markdown).replace("\\", "")


def test_the_page_shows_what_bra_cost_counts() -> None:
    app = page(model="cells", cost_height="320", cost_width="256", cost_n_win="5", cost_topk="3", cost_pool="2")
    module = open_model(ModelSettings("cells")).module
    cost, plain = bra.cost(module, (320, 256)), bra.cost(without_bra(module), (320, 256))
    assert len(summary(cost, plain)) == 3
    assert all(sentence in shown(app) for sentence in summary(cost, plain))
    assert sum(chart(app, 0)) == cost.total.macs

    rows = app.dataframe[0].value
    first = sorted(cost.rows, key=lambda row: not row.layers)
    assert rows["multiply-adds"].tolist() == [row.macs for row in first]
    assert first[0].layers, "rows with BRA come first"
    assert rows["parameters"].sum() == cost.total.params
    assert any(one.name in caption.value for one in cost.not_counted for caption in app.caption)

    against = opened(app, "otherwise").dataframe[0].value
    second = bra.cost(with_settings(module, n_win=5, topk=3, kv_downsample_mode="avgpool", kv_downsample_ratio=2),
                      (320, 256))
    full = bra.cost(with_full_attention(module), (320, 256))
    for name, field in {"multiply-adds": "macs", "parameters": "params", "peak memory": "peak_bytes"}.items():
        assert against[name].tolist() == [getattr(one.total, field) for one in (cost, plain, full, second)]
    assert against["multiply-adds, %"][1] == pytest.approx(100 * plain.total.macs / cost.total.macs)
    assert str(reported_flops(module, cost)) in shown(opened(app, "ultralytics"))
    assert app.metric[2].value == f"{2 * cost.total.macs / 1e9:.3f}"


def test_places_are_those_of_the_same_row_in_the_model_without_bra() -> None:
    app = page(model="yolo", variant="yolo11n-bra-p3", cost_measure="params", cost_after="9",
               cost_tab="places")
    plain = bra.cost(without_bra(open_model(ModelSettings("yolo", variant="yolo11n-bra-p3")).module), 640)
    found = {place.after: place for place in positions(plain) if place.layer is not None}
    drawn = figures(app)[-1]["data"]
    assert {about[0]: about[2] for one in drawn for about in one["customdata"]} == \
        {after: place.layer.params for after, place in found.items()}
    assert [about[0] for one in drawn if one["name"] == "has one now" for about in one["customdata"]] == ["4 C3k2"]
    assert app.selectbox(key="cost_after").value == 9
    assert found["9 SPPF"].why in shown(app)


def test_time_is_measured_when_asked_for_only() -> None:
    app = page(model="similarity", cost_height="64", cost_width="64", cost_measure="ms")
    assert "time, ms" not in app.dataframe[0].value
    assert sum(chart(app, 0)) == \
        bra.cost(open_model(ModelSettings("similarity")).module, 64).total.macs
    app.toggle(key="cost_time").set_value(True).run()
    app.segmented_control(key="cost_measure").set_value("ms").run()
    assert not app.exception
    table = app.dataframe[0].value
    assert table["of the time, %"].sum() == pytest.approx(100)
    assert sorted(chart(app, 0)) == sorted(table["time, ms"].tolist())


def test_the_adviser_sets_the_second_setting_by_one_click() -> None:
    app = page(model="yolo", cost_row="2", cost_tried="4", cost_tab="change")
    layer = bra.cost(open_model(ModelSettings("yolo")).module, 640).rows[23].layers[0]
    found = {one.n_win: one for one in choices(layer.spec, 20, 20)}
    table = app.dataframe[0].value
    assert table["n_win"].tolist() == list(found)
    assert table["memory, written out"].tolist() == [one.layer.explicit_peak_bytes for one in found.values()]
    assert found[4].why in shown(app)
    app.button(key="cost_use").click().run()        # 20×20 tokens: 1 of 16 windows is as near to 4 of 49 as 4 comes
    assert not app.exception
    assert [one.value for one in app.toast] == ["The second setting is now n_win 4, topk 1."]
    assert app.query_params["cost_tab"] == "otherwise"
    assert (app.selectbox(key="cost_n_win").value, app.selectbox(key="cost_topk").value) == (4, 1)
    assert (app.query_params["cost_n_win"], app.query_params["cost_topk"]) == ("4", "1")
    assert app.query_params["cost_row"] == "2"


def test_levers_are_told_apart_by_whether_they_save_parameters() -> None:
    app = page(model="yolo", variant="yolov8n-bra-p5", cost_tab="change")
    saving, without = app.table[0].value, app.table[1].value
    expected = {one.change: one.params for one in setting_changes(bra.BRASpec(256), 20, 20)}
    assert dict(zip(saving["change"], saving["parameters saved"], strict=True)) == \
        {change: params for change, params in expected.items() if params}
    assert {"topk=2", "n_win=10", "num_heads=4"} <= set(without["change"]) == \
        {change for change, params in expected.items() if not params}


def test_a_setting_that_cannot_be_gives_a_sentence_and_the_page_stays() -> None:
    app = page(model="cells", cost_height="64", cost_width="64", cost_narrow="2", cost_projections="none",
               cost_tab="otherwise")
    assert len(app.warning) == 1
    assert "qk" in app.warning[0].value
    assert app.dataframe[0].value.shape[0] == 3
    assert len(opened(app, "ultralytics").metric) == 3


def test_a_model_of_patches_and_one_without_bra_are_counted() -> None:
    app = page(model="similarity", cost_height="320", cost_width="320")
    assert "BRA adds" in shown(app)
    assert not app.error
    assert len(figures(app)) == 1
    assert app.segmented_control(key="cost_tab").options == ["What it costs", "What to change",
                                                             "Against the same model otherwise"]
    assert len(figures(opened(app, "otherwise"))) == 1
    plain = build_checked({"nc": 3, "backbone": [[-1, 1, "Conv", [16, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]})
    cost = bra.cost(plain, 64)
    assert summary(cost, cost)[0].endswith("none of it for BRA: it has no BRA layer.")
    assert len(summary(cost, cost)) == 1


def test_a_strangers_model_file_is_counted_and_one_that_may_not_be_built_is_refused() -> None:
    app = page(model="own")
    assert len(app.error) == 1
    text = (CFG / "yolov8-bra-p5.yaml").read_text()
    app.file_uploader[0].upload("mine-yolov8s.yaml", text.encode(), "text/yaml").run()
    assert not app.exception
    assert not app.error
    cost = bra.cost(open_file(text.encode(), "mine-yolov8s.yaml").module, 640)
    first = sorted(cost.rows, key=lambda row: not row.layers)
    assert app.dataframe[0].value["multiply-adds"].tolist() == [row.macs for row in first]
    app.file_uploader[0].upload("bad.yaml", f"activation: __import__('os')\n{text}".encode(), "text/yaml").run()
    assert not app.exception
    assert app.error[0].value.startswith("Activation is")
    assert not app.dataframe


def test_a_strangers_model_is_not_timed_at_a_size_for_which_it_would_take_too_much() -> None:
    """Opening judged it at 640 px, where it takes 0.2 GB; attention over 192² tokens takes 5 written out."""
    assert ModelLimits().activation_bytes == cost_services.TIMED_BYTES
    text = """nc: 1
backbone:
  - [-1, 1, nn.MaxPool2d, [8, 8]]
  - [-1, 1, Conv, [100, 1, 1]]
  - [-1, 1, AIFI, [64, 4]]
head:
  - [-1, 1, Classify, [nc]]
scales: {n: [1.0, 1.0, 8192]}
"""
    app = page(model="own", cost_height="1536", cost_width="1536")
    app.file_uploader[0].upload("mine.yaml", text.encode(), "text/yaml").run()
    assert not app.error
    assert app.dataframe
    app.toggle(key="cost_time").set_value(True).run()
    assert not app.exception
    assert "iming this model on 1536×1536 px takes" in app.error[0].value.replace("\\", "")
    assert not app.dataframe


@pytest.mark.parametrize("settings", [ModelSettings("yolo", variant="yolov8n-bra-c2f"), ModelSettings("cells")],
                            ids=lambda made: made.model)
def test_the_file_with_the_second_setting_builds_what_was_counted(settings: ModelSettings) -> None:
    view = CostView(n_win=5, topk=3, narrow=2, pool=2, projections="qkv")
    module = open_model(settings).module
    rows = bra.cost(module, 320).rows
    # Ultralytics' rows are named by their numbers, which are their places.
    assert [row.name.partition(" ")[0] for row in rows] == [str(number) for number in range(len(rows))]
    dims = {number: row.layers[0].spec.dim for number, row in enumerate(rows) if row.layers}
    text = cost_services.yaml_with_second_setting(load_model(settings), view, dims)
    built = bra.cost(build_checked(yaml.safe_load(text), "n"), 320)
    assert built.total.to_dict() == bra.cost(with_settings(module, 2, **view.second), 320).total.to_dict()


def test_comments_stay_in_a_downloaded_file() -> None:
    loaded = load_model(ModelSettings("yolo", variant="yolov8n-bra-c2f"))
    made = cost_services.yaml_with_second_setting(loaded, CostView(), {})
    assert made.splitlines()[0] == (CFG / "yolov8-bra-c2f.yaml").read_text().splitlines()[0]
    assert made.splitlines()[0].startswith("#")


@st.composite
def cost_views(draw: st.DrawFn) -> CostView:
    n_win = draw(st.sampled_from(N_WINS))
    return CostView(draw(st.sampled_from(views.SIDES)), draw(st.sampled_from(views.SIDES)),
                    draw(st.sampled_from(views.MEASURES)), n_win, draw(st.integers(1, n_win**2)),
                    draw(st.sampled_from(views.NARROW)), draw(st.sampled_from(views.POOLS)),
                    draw(st.sampled_from(views.PROJECTIONS)), draw(st.sampled_from(views.ROWS)),
                    draw(st.integers(0, 64)), draw(st.sampled_from(views.ROWS)), draw(st.sampled_from(views.TABS)))


@given(cost_views())
def test_a_link_restores_the_view(view: CostView) -> None:
    assert CostView.from_query(view.to_query()) == view


@given(st.dictionaries(st.sampled_from([f"cost_{name}" for name in CostView.__slots__]),
                       st.text(max_size=8) | st.integers().map(str) | st.just("²")))
def test_any_link_gives_a_possible_view(query: dict[str, str]) -> None:
    view = CostView.from_query(query)
    assert view.height in views.SIDES
    assert 1 <= view.topk <= view.n_win**2
    assert CostView.from_query(view.to_query()) == view
