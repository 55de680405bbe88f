"""Advice in numbers: places, windows, settings."""

from __future__ import annotations

import json

import pytest
from torch import nn

import bra
from bra import BRASpec
from bra.profiling.advice import choices, positions, setting_changes
from bra.profiling.formula import layer_cost


def test_levers_say_what_saves_parameters_and_what_does_not() -> None:
    c = 256
    saved = {lever.change: lever.params for lever in setting_changes(BRASpec(c), 20, 20)}
    assert saved["param_attention=qkv"] == c * c + c
    assert saved["qk_dim=128"] == 2 * (c + 1) * 128
    assert saved["qk_dim=64"] == 2 * (c + 1) * 192
    assert saved["side_dwconv=0"] == 9 * c + c
    assert saved["param_attention=none, qk_dim=256"] == 3 * c * c + 3 * c + c * c + c
    assert {change for change, params in saved.items() if params == 0} >= {
        "topk=2", "n_win=10", "num_heads=4", "kv_downsample_mode=avgpool, kv_downsample_ratio=2"}
    assert list(saved.values()) == sorted(saved.values(), reverse=True)


def test_levers_are_differences_of_whole_layers() -> None:
    spec = BRASpec(64)
    before = layer_cost(spec, 80, 80)
    for lever in setting_changes(spec, 80, 80):
        assert lever.macs == before.macs - lever.layer.macs
        assert lever.peak_bytes == before.peak_bytes - lever.layer.peak_bytes
    pooled = next(lever for lever in setting_changes(spec, 80, 80) if lever.change.endswith("ratio=2"))
    # A quarter of the keys: three quarters of QKᵀ and AV are saved.
    assert pooled.macs == 84 * 84 * 4 * (144 - 36) * 2 * 64


def test_levers_that_cannot_be_are_left_out() -> None:
    changes = [lever.change for lever in setting_changes(BRASpec(16, n_win=7), 14, 14)]
    assert "kv_downsample_mode=avgpool, kv_downsample_ratio=4" not in changes     # windows of 2×2
    assert "qk_dim=4" not in changes                                              # 8 heads
    assert "qk_dim=8" in changes


def test_what_is_so_already_is_no_lever() -> None:
    changes = [lever.change for lever in setting_changes(BRASpec(64, topk=1, num_heads=1), 20, 20)]
    assert not {"side_dwconv=3", "topk=1", "num_heads=1"} & {*changes}
    assert "side_dwconv=3" in [lever.change for lever in setting_changes(BRASpec(64, side_dwconv=5), 20, 20)]


def test_choices_at_equal_coverage() -> None:
    """20×20, 4 of 49 windows: 8.2 %. 5 and 10 pad nothing and meet it, 4 covers less, 8 pads 15 windows wholly."""
    found = {choice.n_win: choice for choice in choices(BRASpec(256), 20, 20)}
    assert {n_win for n_win, choice in found.items() if not choice.padding_share} == {1, 2, 4, 5, 10}
    assert (found[5].topk, found[10].topk, found[4].topk) == (2, 8, 1)
    assert (found[5].equal, found[4].equal) == (True, False)
    best = next(iter(found.values()))
    assert (best.n_win, best.relative_macs) == (5, 1.0)
    assert "fewest multiply-adds" in best.why
    assert "6.2% of the map where 8.2%" in found[4].why
    assert "padded to 24×24: 30.6%" in found[8].why
    assert "15 of 64 windows nothing else" in found[8].why
    assert not any(choice.explodes for choice in found.values())
    assert [choice.equal for choice in found.values()] == sorted((c.equal for c in found.values()), reverse=True)


def test_choices_say_where_memory_explodes() -> None:
    seven = next(choice for choice in choices(BRASpec(64), 160, 160) if choice.n_win == 7)
    assert seven.explodes == ("explicit",)
    assert f"{8 * 161 * 161 * 4 * 23 * 23:,} attention weights" in seven.why
    assert seven.layer.explicit_peak_bytes > 2**30 > seven.layer.peak_bytes
    whole = next(choice for choice in choices(BRASpec(64), 1024, 1024) if choice.n_win == 8)
    assert whole.explodes == ("explicit", "fused")
    assert "even fused" in whole.why


def test_choices_keep_to_what_the_pooling_allows() -> None:
    spec = BRASpec(16, kv_downsample_mode="avgpool", kv_downsample_ratio=4)
    assert {choice.n_win for choice in choices(spec, 20, 20, n_wins=[2, 5, 7])} == {2, 5}


def test_positions_are_the_row_put_there() -> None:
    base = bra.cost(nn.Sequential(nn.Conv2d(3, 12, 3, 4, 1), nn.Conv2d(12, 32, 3, 2, 1), nn.Flatten()), 64)
    first, second = positions(base, n_win=4, num_heads=4)
    assert (first.after, first.dim, first.h, first.w) == ("0 Conv2d", 12, 16, 16)
    assert (second.after, second.dim, second.h, second.w) == ("1 Conv2d", 32, 8, 8)
    alone = bra.cost(bra.BiLevelRoutingAttention(32, n_win=4, num_heads=4), 8).total
    assert second.layer is not None
    assert (second.layer.params, second.layer.macs) == (alone.params, alone.macs)
    refused, allowed = positions(base)
    assert refused.layer is None
    assert "num_heads=8" in refused.why
    assert allowed.layer is not None
    assert "8×8 tokens of 32 channels" in allowed.why


def test_everything_becomes_plain_values() -> None:
    base = bra.cost(nn.Sequential(nn.Conv2d(3, 12, 3), nn.Conv2d(12, 16, 3)), 20)
    given = [*positions(base), *setting_changes(BRASpec(16), 20, 20), *choices(BRASpec(16), 20, 20)]
    plain = json.loads(json.dumps([one.to_dict() for one in given]))
    assert plain[1]["layer"]["parts"][0]["params"] == pytest.approx(16 * 48 + 48)
