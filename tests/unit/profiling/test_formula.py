"""The formulas of one layer against its operators, torch's counter and the process's memory, for any settings."""

from __future__ import annotations

import sys
from typing import Any

import cost_memory
import pytest
import torch
from counting import check_sums, torch_macs
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import bra
from bra import BiLevelRoutingAttention, BRAError, BRASpec
from bra.profiling.formula import layer_cost
from bra.profiling.meter import OUTSIDE, metered


class Explicit(nn.Module):
    """The layer with its attention weights written out."""

    def __init__(self, spec: BRASpec) -> None:
        super().__init__()
        self.layer = BiLevelRoutingAttention.from_spec(spec)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, ret_attn_mask=True)


@st.composite
def specs(draw: st.DrawFn) -> BRASpec:
    dim, n_win = draw(st.sampled_from([16, 32, 64])), draw(st.sampled_from([1, 2, 4, 5, 7]))
    attention = draw(st.sampled_from(["qkvo", "qkvo", "qkv", "none"]))
    return BRASpec(
        dim, n_win, draw(st.sampled_from([1, 2, 8])),
        qk_dim=dim if attention == "none" else dim * draw(st.integers(1, 4)) // 2,
        kv_per_win=draw(st.integers(1, 3)), kv_downsample_ratio=draw(st.integers(1, 3)),
        kv_downsample_kernel=draw(st.sampled_from([None, 3])), topk=draw(st.integers(1, min(8, n_win**2))),
        kv_downsample_mode=draw(st.sampled_from(["identity", "identity", "maxpool", "avgpool", "ada_maxpool",
                                                 "ada_avgpool", "fracpool", "conv"])),
        param_attention=attention, param_routing=(routing := draw(st.booleans())), diff_routing=routing,
        soft_routing=draw(st.booleans()), side_dwconv=draw(st.sampled_from([0, 3, 5])),
        mask_padding=draw(st.booleans()))


@given(specs(), st.integers(14, 60), st.integers(14, 60))
def test_formula_and_operators_agree_for_any_settings(spec: BRASpec, h: int, w: int) -> None:
    layer = BiLevelRoutingAttention.from_spec(spec)
    try:
        formula = layer_cost(spec, h, w)
    except BRAError:
        with pytest.raises(BRAError):
            bra.cost(layer, (h, w))
        assume(False)
    cost = bra.cost(layer, (h, w))
    row, = cost.rows
    assert formula.params == row.params == sum(p.numel() for p in layer.parameters())
    assert formula.macs == row.macs == torch_macs(layer, 1, spec.dim, h, w, ret_attn_mask=True)
    assert formula.fill_macs == row.executed_macs - row.macs
    assert formula.peak_bytes == pytest.approx(row.peak_bytes, rel=0.05)
    written_out = metered(Explicit(spec), [OUTSIDE], (1, spec.dim, h, w), torch.float32).spans[OUTSIDE]
    assert formula.explicit_peak_bytes == pytest.approx(written_out.added, rel=0.05)
    check_sums(cost)


@pytest.mark.parametrize("name", ["80×80×64 explicit", "160×160×64 half as wide q, k", "160×160×64 averaged"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the process's peak from /proc")
def test_bytes_are_what_the_process_pays(name: str) -> None:
    side, dim, explicit, options = cost_memory.CASES[name]
    cost = layer_cost(BRASpec(dim, **options), side, side)
    formula = cost.explicit_peak_bytes if explicit else cost.peak_bytes
    assert formula == pytest.approx(cost_memory.measured(name), rel=0.05)
