"""Parameters and multiply-adds by formula, and as torch counts them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bra import BiLevelRoutingAttention


def count_parameters(**options: Any) -> int:
    return sum(p.numel() for p in BiLevelRoutingAttention(**options).parameters())


@pytest.mark.parametrize(("dim", "params"), [(64, 17_280), (128, 67_328), (256, 265_728)])
def test_parameters_with_defaults(dim: int, params: int) -> None:
    assert count_parameters(dim=dim) == params == 4 * dim**2 + 14 * dim
    assert count_parameters(dim=dim, n_win=5, topk=2, num_heads=1) == params


def test_parameters_with_every_part() -> None:
    c, Q, s = 32, 16, 5
    everything = c * (2 * Q + c) + 2 * Q + c + s * s * c + c + c * c + c + Q * Q + Q
    options = {"dim": c, "qk_dim": Q, "side_dwconv": s, "param_routing": True, "diff_routing": True}
    assert count_parameters(**options) == everything
    assert count_parameters(**options | {"param_attention": "qkv"}) == everything - c * c - c
    assert count_parameters(**options | {"side_dwconv": 0}) == everything - s * s * c - c
    assert count_parameters(dim=c, param_attention="none", side_dwconv=0) == 0


CASES = [  # h, w, c, options, millions of FLOPs (twice the multiply-adds)
    (20, 20, 256, {}, 250.729),
    (40, 40, 128, {"n_win": 8, "topk": 2, "num_heads": 4}, 255.410),
    (80, 80, 64, {}, 1280.096),
    (80, 80, 128, {"n_win": 10, "topk": 8, "kv_downsample_mode": "avgpool"}, 961.024),
    (56, 56, 64, {"topk": 1, "num_heads": 2, "qk_dim": 32}, 119.372),
]


@pytest.mark.parametrize(("h", "w", "c", "options", "mflops"), CASES)
def test_multiply_adds_are_those_of_the_formula_and_half_of_what_torch_counts(
        h: int, w: int, c: int, options: dict[str, Any], mflops: float) -> None:
    with torch.device("meta"):
        m, x = BiLevelRoutingAttention(c, **options), torch.empty(1, c, h, w)
    with FlopCounterMode(display=False) as counter:
        m(x, ret_attn_mask=True)
    p, k, Q = m.n_win, m.topk, m.qk_dim
    window_h, window_w = -(-h // p), -(-w // p)
    N = p * p * window_h * window_w
    s = (window_h // 4) * (window_w // 4) if "kv_downsample_mode" in options else window_h * window_w
    macs = N * c * (2 * Q + c) + N * 9 * c + p**4 * Q + N * k * s * Q + N * k * s * c + N * c * c
    assert counter.get_total_flops() == 2 * macs
    assert 2 * macs / 1e6 == pytest.approx(mflops, abs=0.0005)
