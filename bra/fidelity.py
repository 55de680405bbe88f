"""Numbers about a routing: what was kept, by how much, and who is chosen by whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bra.grid import WindowGrid
from bra.tracing import LayerTrace

Floats = NDArray[np.float64]


def full_softmax(trace: LayerTrace, image: int = 0) -> Floats:
    """(p2, p2): softmax of the affinities over all windows, before any was dropped; rows sum to 1.

    The layer never computes it: it is what its `r_weight`, a softmax over the chosen k, hides.
    """
    logits = trace.affinity[image].double().numpy()
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def kept_share(trace: LayerTrace, image: int = 0) -> Floats:
    """(p2,) in 0 to 1: share of the full softmax that fell on the chosen windows. Chance is k/p²."""
    chosen = trace.r_idx[image].numpy()
    return np.asarray(np.take_along_axis(full_softmax(trace, image), chosen, -1).sum(-1))


def margin(trace: LayerTrace, image: int = 0) -> Floats:
    """(p2,), 0 or more: affinity of the last chosen window minus that of the first rejected one.

    Near 0 the choice could have gone either way. NaN when nothing was rejected or masked padding had to be chosen,
    infinite when only masked padding was rejected.
    """
    k, logits = trace.spec.topk, trace.affinity[image].double().numpy()
    ranked = -np.sort(-logits, -1)
    if k == ranked.shape[-1]:
        return np.full(len(ranked), np.nan)
    with np.errstate(invalid="ignore"):     # -inf less -inf
        return np.asarray(ranked[:, k - 1] - ranked[:, k])


def in_degree(trace: LayerTrace, image: int = 0) -> NDArray[np.int64]:
    """(p2,): how many windows chose each window. Sums to p²·k; 0 marks a window that nobody reads."""
    return np.bincount(trace.r_idx[image].flatten().numpy(), minlength=trace.grid.n_windows)


def padding_leak(trace: LayerTrace, window: int, image: int = 0) -> float:
    """Share of a window's attention, mean over tokens and heads, that falls on padding; 0 to 1."""
    return padding_share(trace.grid, trace.attention_map(window, image=image).numpy())


def padding_share(grid: WindowGrid, maps: NDArray[np.float32]) -> float:
    """(m, H, W) attention maps, each summing to 1 -> their mean share on padding; 0 to 1."""
    return float(1 - grid.crop(maps).sum((-2, -1)).mean())
