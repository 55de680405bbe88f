"""Settings of one layer side by side: against whole models built that way, the slow dense attention, and by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bra import BiLevelRoutingAttention
from bra.errors import BRAError
from bra.experiments.compare import (
    Setting,
    SettingRow,
    cheapest,
    compare,
    layer_input,
    layer_inputs,
    pareto_front,
    settings_of,
    traces_of,
)
from bra.metrics.dense import dense_attention, dense_masses
from bra.metrics.summary import report
from bra.models.adapters import OpenPatches
from bra.models.base import Change
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.profiling.formula import layer_cost
from bra.tracing import trace


def photo(height: int = 70, width: int = 90) -> Photo:
    rng = np.random.default_rng(4)
    return Photo.from_array(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


LAYERS = {
    "plain": {}, "masked": {"mask_padding": True}, "soft": {"soft_routing": True}, "narrow q": {"qk_dim": 8},
    "pooled": {"kv_downsample_mode": "avgpool", "kv_downsample_ratio": 2},
    "learned routing": {"param_routing": True, "diff_routing": True}, "no projection": {"param_attention": "none"},
}


class InPlace(nn.Module):
    """A model whose residual is added in place, so that the layer's input is gone when the forward ends."""

    def __init__(self, layer: BiLevelRoutingAttention) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 5, 5)
        self.attn = layer

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.attn(x)
        x += y
        return x


def opened(**options: object) -> OpenPatches:
    layer = BiLevelRoutingAttention(16, 3, 2, **{"topk": 2, **options})
    return OpenPatches(InPlace(layer).eval().requires_grad_(False), "in place", "untrained")


@pytest.mark.parametrize("options", LAYERS.values(), ids=list(LAYERS))
def test_a_layer_run_alone_routes_as_in_a_model_built_that_way(options: dict[str, object]) -> None:
    model = opened(**options)
    settings = [Setting(3, 2), Setting(4, 1), Setting(4, 7), Setting(2, 3)]      # 14×18 tokens: all but 2 pad
    alone = traces_of(layer_input(model, photo(), 90), settings)
    for setting, got in zip(settings, alone, strict=True):
        whole = model.look(photo(), 90, Change("attn", setting.n_win, setting.topk)).trace.layers["attn"]
        assert (got.name, got.grid, got.spec) == (whole.name, whole.grid, whole.spec)
        assert torch.equal(got.r_idx, whole.r_idx)
        for part in ("affinity", "r_weight", "q", "k", "v", "lepe", "factor", "real_keys"):
            mine, theirs = getattr(got, part), getattr(whole, part)
            assert (mine is None) == (theirs is None), part
            if mine is not None:
                torch.testing.assert_close(mine, theirs, msg=part)


@pytest.mark.parametrize("options", LAYERS.values(), ids=list(LAYERS))
def test_dense_attention_of_many_grids_is_that_of_each_alone(options: dict[str, object]) -> None:
    traces = traces_of(layer_input(opened(**options), photo(), 90), [Setting(n, 1) for n in (2, 3, 4, 6)])
    for lt, mass in zip(traces, dense_masses(traces), strict=True):
        np.testing.assert_allclose(mass, dense_attention(lt).mass, atol=2e-6)


def test_padding_whose_key_wins_by_far_does_not_overflow() -> None:
    layer = BiLevelRoutingAttention(8, 2, 1, topk=1)
    with torch.no_grad():
        layer.qkv.qkv.weight[:16].zero_()
        layer.qkv.qkv.weight[8:16] = torch.eye(8)
        layer.qkv.qkv.bias[:16] = 30.0          # on an image of -30, k is 0 there and 30 in the padding: logits 0, 2546
    lt = trace(layer, torch.full((1, 8, 3, 3), -30.0)).layers[""]
    mass, = dense_masses([lt])
    np.testing.assert_allclose(mass, np.broadcast_to(np.array([0, 2, 2, 3]) / 7, (1, 4, 4)), atol=1e-6)


def test_uniform_attention_keeps_what_chance_keeps() -> None:
    model = opened()
    with torch.no_grad():
        model.module.attn.qkv.qkv.weight[:16].zero_()     # q = 0: every token attends to all alike
        model.module.attn.qkv.qkv.bias[:16].zero_()
    rows = compare(layer_input(model, photo(60, 90), 90), settings_of((2, 3, 6), (1, 4))).rows    # 12×18, no padding
    assert [(row.n_win, row.topk) for row in rows] == [(2, 1), (2, 4), (3, 1), (3, 4), (6, 1), (6, 4)]
    for row in rows:
        share = row.topk / row.n_win**2
        assert row.padding_share == 0
        for value in (row.recall, row.chance, row.nearest, row.oracle, row.kept):
            assert value == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("key", ["similarity", "untrained", "cells"])
def test_rows_are_the_scorecards_numbers(key: str) -> None:
    settings = ModelSettings(key, n_win=5, topk=3, side=96)
    model = open_model(settings)
    for name, given in list(layer_inputs(model, photo(), 96).items())[:3]:
        lt = model.look(photo(), 96).trace.layers[name]
        row, = compare(given, [Setting(lt.spec.n_win, lt.spec.topk)]).rows
        whole = report(lt)
        assert row.recall == pytest.approx(whole.recall, abs=1e-5)
        assert row.nearest == pytest.approx(whole.recall_nearest, abs=1e-5)
        assert row.oracle == pytest.approx(whole.recall_oracle, abs=1e-5)
        assert (row.chance, row.windows) == (whole.recall_chance, whole.windows)
        assert row.kept == pytest.approx(whole.kept_share, abs=1e-9)
        cost = layer_cost(lt.spec, lt.grid.h, lt.grid.w)
        assert (row.macs, row.peak_bytes, row.seconds) == (cost.macs, cost.peak_bytes, None)


def test_settings_by_hand() -> None:
    assert settings_of((2, 3), (1, 5)) == (Setting(2, 1), Setting(3, 1), Setting(3, 5))     # 5 of 4 windows: left out
    # 4 of 7×7 is 8.2 % of the map: 1 of 4×4 (6.3 %), 5 of 8×8 (7.8 %), 16 of 14×14 (8.2 %)
    assert settings_of((4, 8, 14), (4,), equal_to=7) == (Setting(4, 1), Setting(8, 5), Setting(14, 16))
    assert settings_of((2,), (1, 2), equal_to=7) == (Setting(2, 1),)                        # never below 1, never twice


def row(recall: float, macs: int, seconds: float | None = None) -> SettingRow:
    return SettingRow(4, 1, 16, 0.0, recall, 0.1, 0.2, 0.9, 0.5, macs, 10 * macs, seconds)


def test_the_front_and_the_cheapest_by_hand() -> None:
    rows = [row(0.5, 10), row(0.4, 10), row(0.5, 11), row(0.9, 30), row(0.8, 20), row(0.9, 30), row(0.1, 40)]
    assert pareto_front(rows, "macs") == (True, False, False, True, True, True, False)
    assert cheapest(rows, "macs", 0.75) == rows[4]
    assert cheapest(rows, "macs", 0.95) is None
    timed = [row(0.5, 10), row(0.4, 9, 2.0), row(0.6, 8, 3.0)]
    assert pareto_front(timed, "seconds") == (False, True, True)
    assert cheapest(timed, "seconds", 0.3) == timed[1]


def test_time_is_measured_when_asked_for() -> None:
    rows = compare(layer_input(opened(), photo(), 90), settings_of((3,), (1, 9)), rounds=2).rows
    assert all(one.seconds and 0 < one.seconds < 10 for one in rows)


def test_what_cannot_be_compared_is_refused_in_a_sentence() -> None:
    given = layer_input(opened(), photo(), 90)
    with pytest.raises(BRAError, match=r"topk=5 .*lower topk"):
        compare(given, [Setting(2, 5)])
    with pytest.raises(BRAError, match="0 settings"):
        compare(given, [])
    with pytest.raises(BRAError, match=r"'other' has no windows to compare: choose one of attn"):
        layer_input(opened(), photo(), 90, "other")
    bare = dataclasses.replace(opened(), module=nn.Conv2d(3, 4, 1))
    with pytest.raises(BRAError, match="no layer of bi-level routing attention"):
        layer_input(bare, photo(), 90)
