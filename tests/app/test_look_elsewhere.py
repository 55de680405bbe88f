"""What if the layer had looked elsewhere: the page's numbers are those of the model with its layer routed so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sent_figures import figures
from streamlit.testing.v1 import AppTest

from bra.experiments.reroute import Reroute, Rerouted, Swap, look_elsewhere
from bra.models.base import OpenModel
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.viewer.pack import locate
from dashboard.state.view import Selection

pytest.importorskip("ultralytics")

ROOT = Path(__file__).parents[2]
APP = ROOT / "dashboard" / "app.py"
TAB = "Look elsewhere"
FLOWERS = {"model": "flowers", "side": "224", "layer": "stages.1.0.attn"}
SMEAR = {"model": "cells", "side": "224", "layer": "model.15.attn", "picture": "smear"}


def opened(**query: str) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=120)
    app.session_state["stage_drawn"] = True         # as a browser says
    app.session_state["explore_tabs"] = TAB
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def model_and_photo(query: dict[str, str]) -> tuple[OpenModel, Photo]:
    picture = query.get("picture", "animal")
    return (open_model(ModelSettings(query["model"])),
            Photo.from_bytes((ROOT / "sample_images" / f"{picture}.jpg").read_bytes()))


def elsewhere(query: dict[str, str], rule: str = "bra", swaps: tuple[Swap, ...] = ()) -> Rerouted:
    model, photo = model_and_photo(query)
    return look_elsewhere(model, photo, int(query["side"]), Reroute(query["layer"], rule, swaps))


def per_cent(scores: list[float | None]) -> list[float]:
    return [float("nan") if score is None else 100 * score for score in scores]


def shows(app: AppTest, found: Rerouted) -> None:
    """The table and the chart of scores are the two answers."""
    assert not app.exception
    table, rows = app.dataframe[0].value, found.rows
    np.testing.assert_allclose(table["before"].astype(float), per_cent([row.before for row in rows]), atol=1e-4)
    np.testing.assert_allclose(table["afterwards"].astype(float), per_cent([row.after for row in rows]), atol=1e-4)
    _, before, after = figures(app)[-1]["data"]
    # Of many rows those that changed most, in order.
    by_change = sorted(rows, key=lambda row: -2 if row.change is None else -abs(row.change))[:20]
    rows = tuple(row for row in rows if any(row is one for one in by_change))
    for mark, scores in ((before, [row.before for row in rows]), (after, [row.after for row in rows])):
        drawn = [float("nan") if x is None else x for x in mark["x"]]
        np.testing.assert_allclose(drawn, np.array(per_cent(scores)) / 100, atol=1e-6)


def test_the_nearest_windows_and_back_by_one_click() -> None:
    app = opened(**FLOWERS)
    assert len(app.dataframe) == 0
    app.segmented_control(key="elsewhere").set_value("nearest").run()
    found = elsewhere(FLOWERS, "nearest")
    shows(app, found)
    assert len(found.rows) == 5
    assert any(f"{found.moved} of {found.choices} choices" in said.value.replace("\\", "") for said in app.markdown)
    assert any("This is one picture and one layer." in said.value for said in app.caption)
    assert app.query_params["elsewhere"] == "nearest"
    app.segmented_control(key="elsewhere").set_value("").run()
    assert not app.exception
    assert len(app.dataframe) == 0
    assert "elsewhere" not in app.query_params


def test_query_a_looks_where_b_is_pinned() -> None:
    places = {"a": "5000.5000", "b": "500.9500"}
    app = opened(**FLOWERS, **places, elsewhere="swap")
    model, photo = model_and_photo(FLOWERS)
    lt = model.look(photo, 224).trace.layers[FLOWERS["layer"]]
    query, new = (locate(lt.grid, photo, place)[0] for place in ((5000, 5000), (500, 9500)))
    row = lt.r_idx[0, query].tolist()
    assert new not in row
    shows(app, elsewhere(FLOWERS, swaps=(Swap(query, row[-1], new),)))
    app.selectbox(key="replaced").set_value(1).run()
    shows(app, elsewhere(FLOWERS, swaps=(Swap(query, row[0], new),)))
    assert app.query_params["replaced"] == "1"
    # By the keyboard: the window that is chosen becomes query B, and the stage follows.
    other = next(window for window in range(lt.grid.n_windows) if window not in (*row, new))
    app.selectbox(key="instead").set_value(other).run()
    shows(app, elsewhere(FLOWERS, swaps=(Swap(query, row[0], other),)))
    x, y = map(int, app.query_params["b"].split("."))
    assert locate(lt.grid, photo, (x, y))[0] == other


def test_without_query_b_it_is_said_what_to_click() -> None:
    app = opened(**FLOWERS, elsewhere="swap", a="5000.5000")
    assert len(app.dataframe) == 0
    assert any("becomes query B" in said.value for said in app.info)
    model, photo = model_and_photo(FLOWERS)
    lt = model.look(photo, 224).trace.layers[FLOWERS["layer"]]
    query = locate(lt.grid, photo, (5000, 5000))[0]
    seen = lt.r_idx[0, query, 0].item()
    row, column = divmod(seen, lt.grid.n_win)
    top, left, bottom, right = lt.grid.box_of_window(row * lt.grid.n_win + column)
    height, width = lt.grid.image or (1, 1)
    place = f"{round(5000 * (left + right) / width)}.{round(5000 * (top + bottom) / height)}"
    app = opened(**FLOWERS, elsewhere="swap", a="5000.5000", b=place)
    assert any(f"looks at window {seen} already" in said.value for said in app.info)


def test_boxes_of_a_detector() -> None:
    app = opened(**SMEAR, elsewhere="all")
    found = elsewhere(SMEAR, "all")
    assert len(found.before.detections) > 20
    assert {row.fate for row in found.rows} == {"kept", "lost"}
    assert any("holds the 20 that" in said.value for said in app.caption)
    shows(app, found)
    table = app.dataframe[0].value
    np.testing.assert_allclose(table["overlap of boxes"].astype(float), per_cent([row.overlap for row in found.rows]),
                               atol=1e-3)
    assert table["becomes"].tolist() == [{"kept": "stays"}.get(row.fate, row.fate) for row in found.rows]
    drawn: list[dict[str, Any]] = [one for one in figures(app)[0]["data"] if one.get("customdata")]
    assert sum(len(one["x"]) // 6 for one in drawn) == len(found.rows)


@pytest.mark.parametrize(("query", "words"), [
    ({"model": "similarity", "side": "224"}, "gives no answer"),
    ({"model": "photos", "side": "224"}, "gives no answer"),
    ({"model": "flowers", "side": "224", "layer": "stages.3.0.attn"}, "does not route")])
def test_where_it_cannot_be_the_reason_stands_there(query: dict[str, str], words: str) -> None:
    app = opened(**query, elsewhere="nearest")
    if "layer" in query:        # another set of tabs
        app.session_state["explore_tabs_attention"] = TAB
        app.run()
    assert any(words in said.value for said in app.info)
    assert not [one for one in app.segmented_control if one.key == "elsewhere"]
    assert "look_elsewhere" not in "".join(block.value for block in app.code)


def test_the_link_holds_it() -> None:
    view = Selection.from_query({"elsewhere": "swap", "replaced": "2", "a": "1.2", "b": "3.4"})
    assert (view.elsewhere, view.replaced) == ("swap", 2)
    assert Selection.from_query(view.to_query()) == view
    assert Selection.refused({"elsewhere": "up", "replaced": "0"}) == ("elsewhere", "replaced")
