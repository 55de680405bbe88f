"""Bi-level routing attention once more, as slowly as possible: loops over images, windows, heads, tokens; in float64.

Written from the text of arXiv:2303.08810 (section 3, Algorithm 1) and of the YOLOv8 tutorial, with numpy only; nothing
of the package is imported. It is what the package is compared with.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def bra(x: Array, weights: dict[str, Array], *, n_win: int, num_heads: int, topk: int, qk_dim: int | None = None,
        qk_scale: float | None = None, kv_per_win: int = 4, kv_downsample_ratio: int = 4,
        kv_downsample_mode: str = "identity", param_attention: str = "qkvo", param_routing: bool = False,
        soft_routing: bool = False, side_dwconv: int = 3,
        mask_padding: bool = False) -> tuple[Array, Array, Array, Array]:
    """(b, c, h, w) -> out (b, c, h, w), r_weight (b, p2, k), r_idx (b, p2, k), attn (b·p2, m, t, k·s)."""
    b, c, h, w = x.shape
    Q = qk_dim or c
    scale = qk_scale or 1 / math.sqrt(Q)
    outs, all_weights, all_idx, all_rows = [], [], [], []
    for image in range(b):
        tokens = _padded(x[image], n_win)                                       # {(row, col): c numbers}
        q, k, v = {}, {}, {}
        for at, token in tokens.items():
            q[at], k[at], v[at] = _project(token, weights, param_attention, Q)
        windows = _windows(math.ceil(h / n_win), math.ceil(w / n_win), n_win)   # [[ [(row, col), …], … ] rows ]
        real = {at: at[0] < h and at[1] < w for at in tokens}
        counted = real if mask_padding else dict.fromkeys(tokens, True)

        q_mean = [_embedded(_mean(window, q, counted, Q), weights, param_routing) for window in windows]
        k_mean = [_embedded(_mean(window, k, counted, Q), weights, param_routing) for window in windows]
        idx, r_weight = [], []
        for i in range(len(windows)):
            logit = [scale * float(q_mean[i] @ k_mean[j])
                     if any(counted[at] for row in windows[j] for at in row) else -math.inf
                     for j in range(len(windows))]
            best = sorted(range(len(windows)), key=lambda j: -logit[j])[:topk]
            idx.append(best)
            r_weight.append(_softmax([logit[j] for j in best]))

        keys = [_pooled(window, k, v, counted, kv_downsample_mode, kv_downsample_ratio, kv_per_win)
                for window in windows]                                          # [[(key, value, attended), …] …]
        attended: dict[tuple[int, int], Array] = {}
        for i, window in enumerate(windows):
            rows = np.zeros((num_heads, sum(len(line) for line in window), topk * len(keys[0])))
            for head in range(num_heads):
                qs = slice(head * Q // num_heads, (head + 1) * Q // num_heads)
                vs = slice(head * c // num_heads, (head + 1) * c // num_heads)
                for t, at in enumerate(at for line in window for at in line):
                    logit, values = [], []
                    for rank, j in enumerate(idx[i]):
                        factor = r_weight[i][rank] if soft_routing else 1.0
                        for key, value, seen in keys[j]:
                            logit.append(scale * float(q[at][qs] @ (factor * key[qs])) if seen else -math.inf)
                            values.append(factor * value[vs])
                    rows[head, t] = _softmax(logit)
                    attended.setdefault(at, np.zeros(c))[vs] = sum(a * y for a, y in zip(rows[head, t], values,
                                                                                         strict=True))
            all_rows.append(rows)
        out = np.zeros((c, h, w))
        for row in range(h):
            for col in range(w):
                y = attended[row, col] + _lepe(row, col, v, counted, weights, side_dwconv)
                if param_attention == "qkvo":
                    y = weights["wo.weight"] @ y + weights["wo.bias"]
                out[:, row, col] = y
        outs.append(out)
        all_weights.append(r_weight)
        all_idx.append(idx)
    return np.array(outs), np.array(all_weights), np.array(all_idx), np.array(all_rows)


def _padded(x: Array, n_win: int) -> dict[tuple[int, int], Array]:
    c, h, w = x.shape
    return {(row, col): x[:, row, col] if row < h and col < w else np.zeros(c)
            for row in range(math.ceil(h / n_win) * n_win) for col in range(math.ceil(w / n_win) * n_win)}


def _windows(window_h: int, window_w: int, n_win: int) -> list[list[list[tuple[int, int]]]]:
    return [[[(j * window_h + y, i * window_w + x) for x in range(window_w)] for y in range(window_h)]
            for j in range(n_win) for i in range(n_win)]


def _project(token: Array, weights: dict[str, Array], param_attention: str, Q: int) -> tuple[Array, Array, Array]:
    if param_attention == "none":
        return token, token, token
    y = weights["qkv.qkv.weight"] @ token + weights["qkv.qkv.bias"]
    return y[:Q], y[Q:2 * Q], y[2 * Q:]


def _mean(window: list[list[Any]], of: dict[Any, Array], counted: dict[Any, bool], Q: int) -> Array:
    inside = [of[at] for line in window for at in line if counted[at]]
    return sum(inside) / len(inside) if inside else np.zeros(Q)


def _embedded(mean: Array, weights: dict[str, Array], param_routing: bool) -> Array:
    return weights["router.emb.weight"] @ mean + weights["router.emb.bias"] if param_routing else mean


def _softmax(logit: list[float]) -> list[float]:
    top = max(logit)
    e = [math.exp(a - top) for a in logit]
    return [a / sum(e) for a in e]


def _cuts(side: int, mode: str, ratio: int, per_win: int) -> list[range]:
    if mode == "identity":
        return [range(n, n + 1) for n in range(side)]
    if mode.startswith("ada_"):     # cell n of s covers floor(n·side/s) up to ceil((n + 1)·side/s)
        return [range(n * side // per_win, -(-(n + 1) * side // per_win)) for n in range(per_win)]
    return [range(n * ratio, (n + 1) * ratio) for n in range(side // ratio)]


def _pooled(window: list[list[Any]], k: dict[Any, Array], v: dict[Any, Array], counted: dict[Any, bool], mode: str,
            ratio: int, per_win: int) -> list[tuple[Array, Array, bool]]:
    pooled = []
    for rows in _cuts(len(window), mode, ratio, per_win):
        for cols in _cuts(len(window[0]), mode, ratio, per_win):
            under = [window[y][x] for y in rows for x in cols]
            under = [at for at in under if counted[at]]
            reduce = np.max if mode.endswith("maxpool") else np.mean
            at = under or [window[0][0]]     # a key of padding only is never attended: any value does
            pooled.append((reduce([k[a] for a in at], 0), reduce([v[a] for a in at], 0), bool(under)))
    return pooled


def _lepe(row: int, col: int, v: dict[Any, Array], counted: dict[Any, bool], weights: dict[str, Array],
          side: int) -> Array:
    if side == 0:
        return np.zeros_like(v[row, col])
    y = weights["lepe.bias"].copy()
    for dy in range(side):
        for dx in range(side):
            at = row + dy - side // 2, col + dx - side // 2
            if at in v and counted[at]:
                y += weights["lepe.weight"][:, 0, dy, dx] * v[at]
    return y
