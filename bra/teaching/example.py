"""Bi-level routing attention on a map so small that every number can be followed by hand.

A 4×4 map of two channels, 2×2 windows, one head. The numbers are the module's: it runs once, and what its forward
does not hand over is made by the functions of `functional` that the forward calls, from what it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from einops import rearrange
from torch import Tensor

from bra import functional as BF
from bra.attention import BiLevelRoutingAttention
from bra.errors import BRAError
from bra.messages import message
from bra.recorder import recording

SIDE: Final = 4
N_WIN: Final = 2
CHANNELS: Final = 2
SCALE: Final = 0.5
TOPKS: Final = range(1, N_WIN**2 + 1)
HIGHEST: Final = 9
"""Largest number in a token, and smallest with a minus."""

Tokens = tuple[tuple[float, float], ...]
"""16 tokens of two numbers each, row by row."""

FIRST: Final[Tokens] = (
    (1, 1), (-1, 1), (1, 2), (1, 1),
    (0, 2), (0, 0), (0, 2), (2, 1),
    (2, 0), (1, 0), (2, 0), (2, 1),
    (2, -1), (1, 1), (1, 1), (1, 0),
)
"""Windows 0 to 3 are routed 0 -> 1 -> 3 -> 2 -> 2, and window 1 nearly to 2."""

W_Q: Final = ((1.0, 0.0), (0.0, 1.0))
W_K: Final = ((1.0, -1.0), (1.0, 1.0))
W_V: Final = ((1.0, 0.0), (0.0, 1.0))
W_O: Final = ((1.0, 1.0), (1.0, -1.0))
LEPE: Final = (((0.0, 0.0, 0.0), (0.5, 0.0, 0.5), (0.0, 0.0, 0.0)),
               ((0.0, 0.5, 0.0), (0.0, 0.0, 0.0), (0.0, 0.5, 0.0)))
"""Weights of the linears (row: channel out, column: channel in) and of LePE's filter for each channel; no biases."""


@dataclass(frozen=True, slots=True, eq=False)
class ExampleNumbers:
    """Every tensor between input and output, in the order in which they are made; b = m = 1, s = t.

    Attributes:
        topk: routed windows k.
        x: (b, h, w, c) tokens.
        q_map: (b, h, w, Q).
        k_map: (b, h, w, Q).
        v_map: (b, h, w, c).
        q: (b, p2, t, Q) the same, window by window.
        k: (b, p2, t, Q).
        v: (b, p2, t, c).
        q_mean: (b, p2, Q) mean query of every window.
        k_mean: (b, p2, Q) mean key.
        affinity: (b, p2, p2) of query window (row) and key window (column).
        r_idx: (b, p2, k) chosen windows, best first.
        r_weight: (b, p2, k) softmax over the chosen, which this module does not use.
        keys: (b, m, p2, k·s, Q) gathered.
        values: (b, m, p2, k·s, c) gathered.
        scores: (b, m, p2, t, k·s).
        attention: (b, m, p2, t, k·s), rows sum to 1.
        mixed: (b, h, w, c) weighted means of the gathered values, back on the map.
        lepe: (b, h, w, c).
        summed: (b, h, w, c) mixed + lepe.
        out: (b, h, w, c) what the module returns.
    """

    topk: int
    x: Tensor
    q_map: Tensor
    k_map: Tensor
    v_map: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    q_mean: Tensor
    k_mean: Tensor
    affinity: Tensor
    r_idx: Tensor
    r_weight: Tensor
    keys: Tensor
    values: Tensor
    scores: Tensor
    attention: Tensor
    mixed: Tensor
    lepe: Tensor
    summed: Tensor
    out: Tensor


def example_module(topk: int = 1) -> BiLevelRoutingAttention:
    """The module of the example, its weights set to small numbers.

    Args:
        topk: routed windows, 1 to 4.
    """
    made = BiLevelRoutingAttention(CHANNELS, n_win=N_WIN, num_heads=1, qk_scale=SCALE, topk=topk).eval()
    made.load_state_dict({
        "qkv.qkv.weight": torch.tensor(W_Q + W_K + W_V), "qkv.qkv.bias": torch.zeros(3 * CHANNELS),
        "lepe.weight": torch.tensor(LEPE)[:, None], "lepe.bias": torch.zeros(CHANNELS),
        "wo.weight": torch.tensor(W_O), "wo.bias": torch.zeros(CHANNELS)})
    return made.requires_grad_(False)


def run_example(tokens: Tokens = FIRST, topk: int = 1) -> ExampleNumbers:
    """Run the example and keep every number.

    Args:
        tokens: 16 tokens of two numbers, row by row.
        topk: routed windows, 1 to 4.

    Raises:
        BRAError: there are not 16 tokens of two numbers.
        SpecError: topk is out of range.
    """
    if len(tokens) != SIDE * SIDE or any(len(token) != CHANNELS for token in tokens):
        raise BRAError(message("the worked example has {n} tokens of {c} numbers each: give as many.", n=SIDE * SIDE,
                               c=CHANNELS))
    module = example_module(topk)
    x = torch.tensor(tokens, dtype=torch.float32).view(1, SIDE, SIDE, CHANNELS)
    with torch.no_grad(), recording() as recorder:
        out, r_weight, r_idx, rows = module(x.permute(0, 3, 1, 2), ret_attn_mask=True)
        (seen,) = recorder.captures
        q_map, kv_map = module.qkv(x)
    k_map, v_map = kv_map.split([module.qk_dim, module.dim], -1)
    q, k, v = (BF.partition(of, N_WIN) for of in (q_map, k_map, v_map))                 # (b, p2, h/p, w/p, ·)
    keys, values = BF.gather_keys(seen.k, r_idx, seen.factor), BF.gather_keys(seen.v, r_idx, seen.factor)
    by_window = BF.attend_explicit(seen.q, keys, values, module.scale)[0]               # (b, m, p2, t, c/m)
    mixed, lepe = _on_map(by_window), _on_map(seen.lepe)
    return ExampleNumbers(
        topk=topk, x=x, q_map=q_map, k_map=k_map, v_map=v_map,
        q=q.flatten(2, 3), k=k.flatten(2, 3), v=v.flatten(2, 3), q_mean=BF.pool(q), k_mean=BF.pool(k),
        affinity=seen.affinity, r_idx=r_idx, r_weight=r_weight, keys=keys, values=values,
        # The same product as between windows; `attention_rows` keeps its own to itself.
        scores=BF.affinity(seen.q, keys, module.scale), attention=rearrange(rows, "(b n) m t l -> b m n t l", b=1),
        mixed=mixed, lepe=lepe, summed=mixed + lepe, out=out.permute(0, 2, 3, 1))


def _on_map(by_window: Tensor | None) -> Tensor:
    """(b, m, p2, t, c/m) -> (b, h, w, c), as the module's forward lays them."""
    assert by_window is not None
    side = SIDE // N_WIN
    windows = rearrange(by_window, "b m n (h w) c -> b n h w (m c)", h=side, w=side)
    return BF.unpartition(windows, N_WIN)
