"""The package against `reference.py`, on every setting the reference knows and on sizes that do not fit the windows."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import reference
import torch

from bra import BiLevelRoutingAttention

POOLS = ("identity", "maxpool", "avgpool", "ada_maxpool", "ada_avgpool")


def random_case(seed: int) -> tuple[dict[str, Any], tuple[int, int, int, int]]:
    rng = random.Random(seed)
    n_win, heads = rng.randint(1, 4), rng.choice([1, 2, 4])
    attention = ("qkvo", "qkv", "none")[seed % 3]
    pool = POOLS[seed % 5]
    dim = heads * rng.choice([1, 2, 3])
    param_routing = rng.random() < 0.3
    options = {
        "n_win": n_win, "num_heads": heads, "topk": rng.randint(1, n_win * n_win),
        "qk_dim": None if attention == "none" else rng.choice([None, heads, 2 * heads, 4 * heads]),
        "qk_scale": rng.choice([None, 0.7]), "kv_per_win": rng.randint(1, 3), "kv_downsample_ratio": rng.randint(1, 2),
        "kv_downsample_mode": pool, "param_attention": attention, "param_routing": param_routing,
        "diff_routing": param_routing or rng.random() < 0.3, "soft_routing": rng.random() < 0.4,
        "side_dwconv": rng.choice([0, 3, 5]), "mask_padding": rng.random() < 0.4,
    }
    h, w = rng.randint(1, 9), rng.randint(1, 9)
    if pool in ("maxpool", "avgpool"):      # these two need windows at least as large as their ratio
        h, w = max(h, n_win + 1), max(w, n_win + 1)
    return {"dim": dim, **options}, (rng.randint(1, 2), dim, h, w)


def as_numpy(m: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in m.state_dict().items()}


def padding_only(h: int, w: int, n_win: int) -> np.ndarray:
    """(p2,): windows without one token of the map."""
    window_h, window_w, i = -(-h // n_win), -(-w // n_win), np.arange(n_win * n_win)
    return (i // n_win * window_h >= h) | (i % n_win * window_w >= w)


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_the_slow_version(seed: int) -> None:
    options, shape = random_case(seed)
    torch.manual_seed(seed)
    m = BiLevelRoutingAttention(**options).double()
    x = torch.randn(shape, dtype=torch.float64)
    out, r_weight, r_idx, attn = (t.detach().numpy() for t in m(x, ret_attn_mask=True))
    # The straight-through factor of diff_routing alone is 1: the reference has no word for it.
    known = {name: value for name, value in options.items() if name not in ("dim", "diff_routing")}
    want_out, want_weight, want_idx, want_attn = reference.bra(x.numpy(), as_numpy(m), **known)
    # Windows of padding only are all alike: which of them is named means nothing, nor whom they choose.
    padding = padding_only(*shape[-2:], options["n_win"])
    found, want = (np.where(padding[idx], -1, idx)[:, ~padding] for idx in (r_idx, want_idx))
    np.testing.assert_array_equal(found, want)
    np.testing.assert_allclose(r_weight[:, ~padding], want_weight[:, ~padding], atol=1e-10)
    rows = np.tile(~padding, shape[0])
    np.testing.assert_allclose(attn[rows], want_attn[rows], atol=1e-10)
    np.testing.assert_allclose(out, want_out, atol=1e-10)
    np.testing.assert_allclose(m(x).detach().numpy(), want_out, atol=1e-10)


def test_the_cases_above_cover_what_they_are_meant_to() -> None:
    cases = [random_case(seed) for seed in range(60)]
    padded = [o["n_win"] for o, s in cases if s[2] % o["n_win"] or s[3] % o["n_win"]]
    assert len(padded) > 20
    for name, least in (("soft_routing", 10), ("mask_padding", 10), ("param_routing", 10), ("diff_routing", 20)):
        assert least <= sum(o[name] for o, _ in cases) <= 60 - least
    assert {(o["kv_downsample_mode"], o["param_attention"]) for o, _ in cases} == {
        (pool, attention) for pool in POOLS for attention in ("qkvo", "qkv", "none")}


def test_the_reference_on_a_map_one_can_work_by_hand() -> None:
    # Four windows of one token, q = k = v = x, one channel, one head, scale 1, top 2.
    x = np.array([[[[1.0, 2.0], [3.0, -1.0]]]])
    out, r_weight, r_idx, attn = reference.bra(x, {}, n_win=2, num_heads=1, topk=2, qk_scale=1.0, side_dwconv=0,
                                               param_attention="none")
    assert r_idx[0].tolist() == [[2, 1], [2, 1], [2, 1], [3, 0]]        # x·(1, 2, 3, -1); the last one turns the order
    near, far = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))               # softmax of two logits that differ by 1
    np.testing.assert_allclose(attn[0, 0, 0], [near, far])
    np.testing.assert_allclose(r_weight[0, 0], [near, far])
    np.testing.assert_allclose(out[0, 0, 0, 0], 3 * near + 2 * far)
