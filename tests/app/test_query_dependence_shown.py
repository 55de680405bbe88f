"""Whether routing depends on where one points: the first view answers two places apart, and every page says it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_pages import opened
from numpy.typing import NDArray

from bra.metrics.summary import report
from bra.models.base import ModelRun
from bra.models.catalog import CATALOG, DEFAULT, ModelSettings
from bra.opening import look
from bra.photo import Photo
from bra.viewer.pack import Caption, locate, rail_message, stage_message, unpack

ROOT = Path(__file__).parents[2]
CAT = Photo.from_bytes((ROOT / "sample_images" / "animal.jpg").read_bytes())


@pytest.fixture(scope="module")
def first() -> ModelRun:
    """What the first view shows."""
    return look(ModelSettings(DEFAULT, side=CATALOG[DEFAULT].side), CAT)


def parts(affinity: NDArray[Any]) -> tuple[float, NDArray[Any]]:
    """Share of the variance that depends on the query, by an analysis of variance in loops, and what depends on it."""
    rest = [[value - sum(row) / len(row) for value in row] for row in affinity.tolist()]
    columns = [sum(column) / len(rest) for column in zip(*rest, strict=True)]
    total = sum(value**2 for row in rest for value in row)
    return 1 - len(rest) * sum(mean**2 for mean in columns) / total, affinity - affinity.mean(0)


def test_pointing_at_two_things_gives_two_answers_without_padding(first: ModelRun) -> None:
    layer = first.trace.layers[CATALOG[DEFAULT].layer]
    assert (layer.grid.h, layer.grid.w) == (layer.grid.H, layer.grid.W)
    face, wall = ({*layer.r_idx[0, locate(layer.grid, CAT, place)[0]].tolist()} for place in ((4500, 4500), (500, 500)))
    assert len(face & wall) <= len(face) // 4
    chosen = [{*row.tolist()} for row in layer.r_idx[0]]
    assert np.mean([len(a & b) / len(a | b) for a in chosen for b in chosen if a is not b]) < 0.2


def test_the_stage_gets_what_depends_on_the_query(first: ModelRun) -> None:
    for layer in first.trace.layers.values():
        _, _, arrays = unpack(stage_message(CAT, layer, Caption("m", layer.name, "p", "x.jpg"), (5000, 5000), {}))
        np.testing.assert_allclose(arrays["query_part"], parts(layer.affinity[0].double().numpy())[1], atol=1e-4)


@pytest.mark.parametrize("model", ["photos", "flowers", "cells"])
def test_the_rail_marks_the_layers_that_collapsed(model: str) -> None:
    layers = look(ModelSettings(model, side=320), CAT).trace.layers
    marked = {one["name"]: one["collapsed"] for one in unpack(rail_message(layers, ""))[0]["layers"]}
    for name, layer in layers.items():
        if not layer.routed:
            assert not marked[name]
            continue
        k, n = layer.spec.topk, layer.grid.n_windows
        popular = np.sort(np.bincount(layer.r_idx[0].numpy().ravel(), minlength=n))[::-1][:k].sum() / (n * k)
        dependence = parts(layer.affinity[0].double().numpy())[0]
        assert marked[name] == ((popular - k / n) / (1 - k / n) > 0.5 and dependence < 0.3), name


def test_the_table_of_a_card_marks_the_layers_that_collapsed() -> None:
    app = opened("models", {"card": "flowers"})
    table = next(one.value for one in app.dataframe if "shared choices" in one.value)
    rows = json.loads((ROOT / "bra" / "weights" / "flowers.json").read_text(encoding="utf-8"))["quality"]["trained"]
    assert table["layer"].tolist() == [row["layer"] for row in rows]
    np.testing.assert_allclose(table["shared choices"], [100 * row["shared"] for row in rows])
    np.testing.assert_allclose(table["depends on the query"], [100 * row["query_dependence"] for row in rows])
    assert 0 < (table["collapsed"] == "yes").sum() == sum(row["query_dependence"] < 0.3 for row in rows)


def test_compare_says_how_much_depends_on_the_query() -> None:
    app = opened("compare", {"model": "similarity", "side": "224", "rows": "4.5", "columns": "1.4"})
    for row in app.dataframe[0].value.itertuples():
        layer = look(ModelSettings(n_win=row.n_win, topk=row.topk, side=224), CAT).trace.layers["layers.0"]
        share = 100 * parts(layer.affinity[0].double().numpy())[0]
        said = re.match(r"([\d.]+) %", app.dataframe[0].value["depends on the query"][row.Index])
        assert said is not None
        assert float(said[1]) == pytest.approx(share, abs=0.06)
        assert report(layer).query_dependence == pytest.approx(share / 100, abs=1e-4)
