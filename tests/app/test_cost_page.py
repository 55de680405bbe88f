"""The Cost page: its numbers are those of bra.cost, its link brings the view back, and a hostile link gives a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

import bra
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.variants import with_full_attention, with_settings, without_bra
from dashboard import cost_view as views
from dashboard.cost_view import CostView
from dashboard.figures import costs as charts
from dashboard.selection import N_WINS

pytest.importorskip("ultralytics")
APP = Path(__file__).parents[2] / "dashboard" / "app.py"


def page(**query: str) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=180)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    app.switch_page("views/cost.py").run()
    assert not app.exception
    return app


def chart(app: AppTest, at: int) -> list[dict[str, Any]]:
    spec = json.loads(app.get("vega_lite_chart")[at].proto.spec) if app.get("vega_lite_chart") else \
        json.loads(app.get("arrow_vega_lite_chart")[at].proto.spec)
    found: list[dict[str, Any]] = spec["data"]["values"]
    return found


def test_the_page_shows_what_bra_cost_counts() -> None:
    app = page(model="cells", cost_height="320", cost_width="256", cost_n_win="5", cost_topk="3", cost_pool="2")
    module = open_model(ModelSettings("cells")).module
    cost, plain = bra.cost(module, (320, 256)), bra.cost(without_bra(module), (320, 256))
    text = " ".join(block.value for block in app.markdown)
    assert f"At 320×256 this model has {cost.total.params / 1e6:.2f} M parameters" in text
    assert f"without it they would be {plain.total.params / 1e6:.2f} M and {plain.total.macs / 1e9:.2f} G" in text

    rows = app.dataframe[0].value
    assert rows["multiply-adds"].tolist() == [row.macs for row in cost.rows]
    assert rows["parameters"].sum() == cost.total.params
    against = app.dataframe[1].value
    second = bra.cost(with_settings(module, n_win=5, topk=3, kv_downsample_mode="avgpool", kv_downsample_ratio=2),
                      (320, 256))
    full = bra.cost(with_full_attention(module), (320, 256))
    assert against["multiply-adds"].tolist() == [one.total.macs for one in (cost, plain, full, second)]
    assert "Ultralytics prints" in text
    assert any(one.name.split(".")[-1] in app.caption[1].value for one in cost.not_counted)


def test_bars_add_up_to_their_rows() -> None:
    cost = bra.cost(open_model(ModelSettings("cells")).module, 320)
    for measure in views.MEASURES:
        values = charts.bar_values(cost, measure)
        for row in cost.rows:
            assert sum(value["value"] for value in values if value["row"] == row.name) == getattr(row, measure)
    parts = {value["part"] for value in charts.bar_values(cost, "macs")}
    assert parts == {*charts.PARTS, charts.OTHER}


def test_the_adviser_sets_the_second_setting_by_one_click() -> None:
    app = page(model="yolo", cost_height="640", cost_width="640")
    best = app.button(key="cost_use")
    assert "n_win 8, topk 5" in best.label       # 80×80 tokens: 8 pads nothing, and 5 of 64 windows is 4 of 49
    best.click().run()
    assert not app.exception
    assert app.query_params["cost_n_win"] == "8"
    assert app.selectbox(key="cost_topk").value == 5


def test_a_setting_that_cannot_be_gives_a_sentence_and_the_page_stays() -> None:
    app = page(model="cells", cost_height="64", cost_width="64", cost_narrow="2", cost_projections="none")
    assert len(app.warning) == 1
    assert "qk" in app.warning[0].value
    assert len(app.dataframe) >= 3


def test_a_model_without_bra_and_one_of_patches_have_a_page() -> None:
    app = page(model="similarity", cost_height="320", cost_width="320")
    assert "2" not in app.error
    assert any("BRA makes" in block.value for block in app.markdown)


def test_the_downloaded_file_has_the_second_setting() -> None:
    from bra.yolo.registration import CFG
    from bra.yolo.resettle import resettled
    from bra.yolo.rows import options_of, rows_of

    text = (CFG / "yolov8-bra-c2f.yaml").read_text()
    made = resettled(text, n_win=5, topk=3, param_attention="qkv")
    found = [options_of(row) for row in rows_of(yaml.safe_load(made)) if row.name == "C2fBRA"]
    assert found == [{"n_win": 5, "topk": 3, "param_attention": "qkv"}] * 3
    assert made.splitlines()[0] == text.splitlines()[0]         # comments stay
    assert rows_of(yaml.safe_load(made))[0] == rows_of(yaml.safe_load(text))[0]


@st.composite
def cost_views(draw: st.DrawFn) -> CostView:
    n_win = draw(st.sampled_from(N_WINS))
    return CostView(draw(st.sampled_from(views.SIDES)), draw(st.sampled_from(views.SIDES)),
                    draw(st.sampled_from(views.MEASURES)), n_win, draw(st.integers(1, n_win**2)),
                    draw(st.sampled_from(views.NARROW)), draw(st.sampled_from(views.POOLS)),
                    draw(st.sampled_from(views.PROJECTIONS)))


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
