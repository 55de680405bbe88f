"""The arithmetic of bi-level routing attention, without parameters, in the order it happens.

Source: Zhu et al., BiFormer: Vision Transformer with Bi-Level Routing Attention (arXiv:2303.08810), Algorithm 1.

    partition -> pool (window means) -> route (top-k of q·k between means) -> gather (keys of those windows) -> attend

Shapes: b batch, c channels, p windows per side, p2 = p·p, t tokens per window, s keys per window (t unless k and v
are pooled), k routed windows, m heads, Q channels of q and k.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from bra.deterministic_gather import gather_rows


def partition(x: Tensor, p: int) -> Tensor:
    """(b, p·h, p·w, c) -> (b, p2, h, w, c): the map cut into windows. Inverse: `unpartition`."""
    return rearrange(x, "b (j h) (i w) c -> b (j i) h w c", j=p, i=p)                   # step: windows


def unpartition(x: Tensor, p: int) -> Tensor:
    """(b, p2, h, w, c) -> (b, p·h, p·w, c): windows put back in raster order. Inverse: `partition`."""
    return rearrange(x, "b (j i) h w c -> b (j h) (i w) c", j=p, i=p)


def by_head(x: Tensor, m: int) -> Tensor:
    """(b, p2, h, w, m·c) -> (b, m, p2, h·w, c): the channels of each head apart."""
    return rearrange(x, "b n h w (m c) -> b m n (h w) c", m=m)


def windows(x: Tensor, p: int) -> Tensor:
    """(b, c, h, w) -> (b, p2, H/p, W/p, c): zeros right and below up to the next multiples of p, then cut in windows.

    The result lies as its shape says. It is the one change of layout: a linear on a map that is still NCHW in memory
    adds its bias in a copy.
    """
    h, w = x.shape[-2:]
    return partition(F.pad(x, (0, -w % p, 0, -h % p)).permute(0, 2, 3, 1), p).contiguous()


def real_tokens(h: int, w: int, windows: Tensor, p: int) -> Tensor:
    """(p2, H/p, W/p) bool, True for tokens on a map of h·w that was cut into `windows` (b, p2, H/p, W/p, c)."""
    rows, cols = (torch.arange(p * n, device=windows.device) for n in windows.shape[2:4])
    real = (rows < h)[:, None] & (cols < w)
    return partition(real[None, ..., None], p)[0, ..., 0]


def pool(x: Tensor, real: Tensor | None = None) -> Tensor:
    """(b, p2, h, w, c) -> (b, p2, c): mean of every window.

    Args:
        x: tokens by window.
        real: (p2, h, w) bool; when given, the mean is over these tokens only, and 0 where a window has none.
    """
    if real is None:
        return x.mean((2, 3))                                                           # step: means
    weight = real[..., None].to(x.dtype)
    return (x * weight).sum((2, 3)) / weight.sum((1, 2)).clamp(min=1)


def affinity(q_win: Tensor, k_win: Tensor, scale: float, real_windows: Tensor | None = None) -> Tensor:
    """(b, p2, Q), (b, p2, Q) -> (b, p2, p2): routing logits scale·q·k from each window (row) to each other.

    With `real_windows` (p2,) bool, windows of padding only get -inf: they are chosen last.
    """
    logits = (q_win * scale) @ k_win.transpose(-2, -1)                                  # step: affinity
    if real_windows is None:
        return logits
    return logits.masked_fill(~real_windows, float("-inf"))


def route(logits: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """(b, p2, p2) -> weights (b, p2, k), indices (b, p2, k), best first.

    The weights are a softmax over the chosen k only: they sum to 1 whatever was dropped.
    """
    chosen, r_idx = torch.topk(logits, k=topk, dim=-1)                                  # step: topk
    return chosen.softmax(-1), r_idx


def weight_factor(r_weight: Tensor, mul_weight: str) -> Tensor | None:
    """What the gathered k and v are multiplied by: (b, p2, k), or None for nothing.

    "soft" gives the weights; "hard" gives 1 with the gradient of the weights (straight-through).
    """
    if mul_weight == "soft":
        return r_weight
    if mul_weight == "hard" and r_weight.requires_grad:
        return 1 + (r_weight - r_weight.detach())
    return None


def gather(kv: Tensor, r_idx: Tensor) -> Tensor:
    """(b, m, p2, s, c), (b, p2, k) -> (b, m, p2, k, s, c): for each window, the tokens of the windows it chose.

    `r_idx` may hold fewer rows than there are windows; the result then has that many.
    """
    b, m, p2, s, c = kv.shape
    start = torch.arange(b * m, device=kv.device).view(b, m, 1, 1) * p2
    rows = (r_idx[:, None] + start).flatten()
    chosen = gather_rows(kv.reshape(b * m * p2, s * c), rows)                           # step: gather
    return chosen.view(b, m, *r_idx.shape[1:], s, c)


def gather_keys(kv: Tensor, r_idx: Tensor, factor: Tensor | None = None) -> Tensor:
    """`gather`, times `factor` (b, p2, k), flattened to the axis that is attended: (b, m, p2, k·s, c)."""
    chosen = gather(kv, r_idx)
    if factor is not None:
        chosen = chosen * factor[:, None, :, :, None, None]
    return chosen.flatten(3, 4)


def gather_mask(real_keys: Tensor | None, r_idx: Tensor) -> Tensor | None:
    """(p2, s) bool, (b, p2, k) -> (b, 1, p2, 1, k·s) bool: which gathered keys may be attended."""
    return None if real_keys is None else real_keys[r_idx].flatten(2)[:, None, :, None]


def attention_rows(q: Tensor, keys: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """(b, m, p2, t, c), (b, m, p2, k·s, c) -> softmax(scale·q·keys) over the last axis, (b, m, p2, t, k·s)."""
    logits = (q * scale) @ keys.transpose(-2, -1)                                       # step: scores
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    return logits.softmax(-1)                                                           # step: softmax


def attend_explicit(q: Tensor, keys: Tensor, values: Tensor, scale: float,
                    mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention written out: the output (b, m, p2, t, c) and its weights (b, m, p2, t, k·s)."""
    rows = attention_rows(q, keys, scale, mask)
    return rows @ values, rows                                                          # step: output


def attend_fused(q: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """The output of `attend_explicit`, (b, m, p2, t, c), by torch's scaled_dot_product_attention.

    On most devices that kernel never holds all weights. It wants q, k and v equally wide; the narrower side is filled
    with zeros, which add nothing.
    """
    c_qk, c_v = q.shape[-1], values.shape[-1]
    if c_qk < c_v:
        q, keys = F.pad(q, (0, c_v - c_qk)), F.pad(keys, (0, c_v - c_qk))
    elif c_v < c_qk:
        values = F.pad(values, (0, c_qk - c_v))
    if mask is not None:
        mask = mask.expand(-1, q.shape[1], -1, -1, -1).flatten(0, 1)
    out = F.scaled_dot_product_attention(
        q.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), attn_mask=mask, scale=scale
    )
    return out.reshape(q.shape)[..., :c_v]


GATHERED_ELEMENTS = 2**24
"""Largest gathered copy of k and v outside of training: 64 MiB of float32, beyond the reach of any cache."""


def attend_gathered(q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, factor: Tensor | None = None,
                    real_keys: Tensor | None = None) -> Tensor:
    """Gather, then attend by torch's fused kernel; it runs on every device and in every exported graph.

    Outside of training the query windows go through in groups, so that the gathered copy of k and v, k times as large
    as they are, stays bounded however large the map.

    Args:
        q: (b, m, p2, t, Q/m).
        k: (b, m, p2, s, Q/m).
        v: (b, m, p2, s, c/m).
        r_idx: (b, p2, k), the windows that each window chose.
        scale: factor on q·k.
        factor: (b, p2, k) by which gathered k and v are multiplied, or None.
        real_keys: (p2, s) bool, which keys may be attended; None for all.

    Returns:
        (b, m, p2, t, c/m).
    """
    p2 = q.shape[2]  # a Tensor while TorchScript traces
    group = p2
    if not (torch.is_grad_enabled() or torch.compiler.is_compiling() or isinstance(p2, Tensor)):
        gathered = (k[:, :, 0].numel() + v[:, :, 0].numel()) * r_idx.shape[-1]
        group = max(1, min(p2, GATHERED_ELEMENTS // max(gathered, 1)))
    outs = []
    for start in range(0, p2, group):
        rows = slice(start, start + group)
        idx, part = r_idx[:, rows], None if factor is None else factor[:, rows]
        outs.append(attend_fused(q[:, :, rows], gather_keys(k, idx, part), gather_keys(v, idx, part), scale,
                                 gather_mask(real_keys, idx)))
    return outs[0] if len(outs) == 1 else torch.cat(outs, 2)
