"""What an object says of itself is one short line, never tensors or networks; printed, a trace says what it holds."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bra
from bra.experiments.compare import compare, compare_pair, layer_input, settings_of
from bra.metrics.between_layers import consecutive
from bra.metrics.summary import report
from bra.metrics.trace_summary import CELLS, block_picture, layer_numbers
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo

LAYER = bra.BiLevelRoutingAttention(16, 3, 2, topk=2).eval()
PHOTO = Photo.from_array(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


class Cells(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        self.open = tag in ("td", "th")
        if self.open:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.rows[-1][-1] += data


def made() -> dict[str, object]:
    model = open_model(ModelSettings("similarity"))
    given = layer_input(model, PHOTO, 64)
    found = compare(given, settings_of((2, 3), (1, 4)))
    trace = bra.trace(nn.Sequential(LAYER), torch.rand(2, 16, 12, 13))
    return {"layer trace": trace.layers["0"], "model trace": trace, "cost": bra.cost(LAYER, 12), "opened model": model,
            "run": model.look(PHOTO, 64), "layer input": given, "compared": found, "pair": compare_pair(found, found)}


def test_every_repr_is_one_short_line() -> None:
    for name, one in made().items():
        assert len(repr(one)) < 240, name
        assert "\n" not in repr(one), name
        assert not re.search(r"tensor\(|Linear\(|array\(", repr(one)), name
    assert repr(made()["layer trace"]) == \
        "LayerTrace('0': 12×13 tokens in 3×3 windows, topk 2, 2 heads, 16 channels, 2 images)"


def test_a_printed_trace_has_its_layers_with_the_numbers_of_their_report() -> None:
    trace = bra.trace(nn.Sequential(LAYER, bra.BiLevelRoutingAttention(16, 2, 4, topk=1)), torch.rand(1, 16, 12, 13))
    head, first, second, _, title, *picture = str(trace).splitlines()
    assert head.split() == ["layer", "tokens", "n_win", "topk", "heads", "recall", "chance", "query", "dep.", "shared",
                            "as", "before", "taken", "over"]
    found = report(trace.layers["0"])
    assert first.split()[:7] == ["0", "12×13", "3", "2", "2", f"{100 * found.recall:.0f}", "%"]
    assert layer_numbers(trace.layers["0"])["recall"] == pytest.approx(found.recall)
    assert first.split()[-2:] == ["–", "–"]
    assert second.split()[:5] == ["1", "12×13", "2", "1", "4"]
    (pair,) = consecutive(trace.layers)
    assert second.split()[-4:] == [f"{100 * pair.overlap:.0f}", "%", f"{100 * pair.carried:.0f}", "%"]
    assert title.startswith("0: query windows 0 to 8 down")
    assert picture == block_picture(trace.layers["0"]).splitlines()


def test_a_block_picture_is_dark_where_a_query_is_routed() -> None:
    trace = bra.trace(LAYER, torch.rand(1, 16, 12, 12)).layers[""]
    for query, line in enumerate(block_picture(trace).split("\n")):
        assert {at // 2 for at, cell in enumerate(line) if cell == "█"} == {*trace.r_idx[0, query].tolist()}
    large = bra.trace(bra.BiLevelRoutingAttention(16, 8, 2, topk=64), torch.rand(1, 16, 16, 16)).layers[""]
    assert block_picture(large) == "\n".join(["█" * 2 * CELLS] * CELLS)
    assert [*str(trace).splitlines()][-9:] == block_picture(trace).splitlines()


def test_tables_for_a_notebook_hold_the_numbers() -> None:
    things = made()
    cost: Any = things["cost"]
    rows = Cells(cost._repr_html_()).rows
    assert rows[-1][:2] == ["total", f"{cost.total.params:,}"]
    compared: Any = things["compared"]
    shown = Cells(compared._repr_html_()).rows[1:]
    assert [row[:2] for row in shown] == [["2", "1"], ["2", "4"], ["3", "1"], ["3", "4"]]
    pair: Any = things["pair"]
    assert [row[0] for row in Cells(pair._repr_html_()).rows[1:]] == ["A: layers.0", "B: layers.0"]
    trace: Any = things["model trace"]
    assert Cells(trace._repr_html_()).rows[1][:5] == ["0", "12×13", "3", "2", "2"]
    assert Cells(trace.layers["0"]._repr_html_()).rows[1] == Cells(trace._repr_html_()).rows[1]


def test_names_cannot_break_a_table() -> None:
    model = nn.ModuleDict({"<b>": LAYER})
    model.forward = lambda x: model["<b>"](x)       # type: ignore[method-assign]
    assert "<b>&lt;b" not in bra.trace(model, torch.rand(1, 16, 6, 6))._repr_html_()
    assert "<td>&lt;b&gt;</td>" in bra.trace(model, torch.rand(1, 16, 6, 6))._repr_html_()
