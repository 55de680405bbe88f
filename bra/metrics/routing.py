"""Numbers about a routing: what was kept, by how much, who is chosen by whom, and how far away.

What the choice did to attention and output is in `dense`, what it means on labelled pictures in `overlap`. Numbers
per window are given for all p2 windows; `on_map` says which of them hold more than padding, and summaries are over
these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bra.grid import WindowGrid
from bra.tracing import LayerTrace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def full_softmax(trace: LayerTrace, image: int = 0) -> Floats:
    """(p2, p2): softmax of the affinities over all windows, before any was dropped; rows sum to 1.

    The layer never computes it: it is what its `r_weight`, a softmax over the chosen k, hides.
    """
    logits = trace.affinity[image].double().numpy()
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def kept_share(trace: LayerTrace, image: int = 0) -> Floats:
    """(p2,) in 0 to 1: share of the full softmax that fell on the chosen windows. Chance is k/p².

    Near 1 the router dropped little of what it wanted; it says nothing of what attention would have wanted, which is
    `dense.recall`. Source: this module's own affinities.
    """
    chosen = trace.r_idx[image].numpy()
    return np.asarray(np.take_along_axis(full_softmax(trace, image), chosen, -1).sum(-1))


def margin(trace: LayerTrace, image: int = 0) -> Floats:
    """(p2,), 0 or more: affinity of the last chosen window minus that of the first rejected one.

    Near 0 the choice could have gone either way; larger is surer, in units of the logits. Source: this module's own
    affinities. NaN when nothing was rejected or masked padding had to be chosen,
    infinite when only masked padding was rejected.
    """
    k, logits = trace.spec.topk, trace.affinity[image].double().numpy()
    ranked = -np.sort(-logits, -1)
    if k == ranked.shape[-1]:
        return np.full(len(ranked), np.nan)
    with np.errstate(invalid="ignore"):     # -inf less -inf
        return np.asarray(ranked[:, k - 1] - ranked[:, k])


def routing_entropy(trace: LayerTrace, image: int = 0) -> Floats:
    """(p2,) in 0 to 1: entropy of the full routing softmax over its largest possible value, ln of the windows.

    1 means that the router finds all windows alike and the choice is arbitrary; near 0 one window has it all. Low is
    good only where recall is high too: a sure choice may be a wrong one. Source: Shannon's entropy, as read from
    attention by Clark et al. (arXiv:1906.04341).
    """
    p = full_softmax(trace, image)
    entropy = -(p * np.log(p, out=np.zeros_like(p), where=p > 0)).sum(-1)
    return np.asarray(entropy / max(np.log(choosable(trace).sum()), np.finfo(float).tiny)).clip(0, 1)


# who may be chosen, and the controls ----------------------------------------------------------------------


def on_map(trace: LayerTrace) -> Bools:
    """(p2,): windows with at least one token on the image. The others are padding, and nobody asks what they see."""
    return np.logical_not(trace.grid.padding_windows)


def chosen_padding(trace: LayerTrace, image: int = 0) -> float:
    """Windows that hold nothing but padding among the topk that a window is routed to: mean over those on the map."""
    return float(trace.grid.padding_windows[trace.r_idx[image].numpy()][on_map(trace)].sum(-1).mean())


def choosable(trace: LayerTrace) -> Bools:
    """(p2,): windows that routing may take: all, or those on the map where padding is masked."""
    return np.ones(trace.grid.n_windows, bool) if trace.real_keys is None else on_map(trace)


def chance(trace: LayerTrace) -> float:
    """k over the windows that may be chosen, 0 to 1: what a random choice keeps of anything that sums to 1."""
    return min(1.0, trace.spec.topk / int(choosable(trace).sum()))


def window_distances(trace: LayerTrace) -> Floats:
    """(p2, p2): pixels between the centres of windows (tokens, where the trace is of no image)."""
    grid = trace.grid
    row, col = np.divmod(np.arange(grid.n_windows), grid.n_win)
    down = np.abs(row[:, None] - row) * (grid.window_h * grid.stride[0])
    across = np.abs(col[:, None] - col) * (grid.window_w * grid.stride[1])
    return np.asarray(np.sqrt(down**2 + across**2))


def nearest_windows(trace: LayerTrace) -> Ints:
    """(p2, k): the k windows that may be chosen whose centres are nearest, itself first, equals by index.

    The control that a routing must beat: it needs no weights and looks good, since neighbours are alike.
    """
    far = np.where(choosable(trace), window_distances(trace), np.inf)
    return np.argsort(far, -1, kind="stable")[:, : trace.spec.topk]


# who is chosen by whom ------------------------------------------------------------------------------------


def in_degree(trace: LayerTrace, image: int = 0, of: Bools | None = None) -> Ints:
    """(p2,): how many windows chose each window. Sums to p²·k; 0 marks a window that nobody reads.

    Args:
        trace: the layer.
        image: which image of the batch.
        of: (p2,) whose choices count; None for all, those of padding too.
    """
    chosen = trace.r_idx[image].numpy()
    return np.bincount(chosen[slice(None) if of is None else of].ravel(), minlength=trace.grid.n_windows)


def received(trace: LayerTrace, image: int = 0) -> Floats:
    """(p2,): share of all attention that each window gets in a layer that does not route, mean over the windows on the
    map; sums to 1."""
    return np.asarray(full_softmax(trace, image)[on_map(trace)].mean(0))


def outside_share(trace: LayerTrace, image: int = 0) -> Floats:
    """(p2,): share of each window's attention that goes to tokens that are no places of the picture, mean over heads
    and its tokens on the map; 0 for windows of padding only."""
    real = trace.grid.real_tokens
    parts = [trace.rows(windows, slice(None), image)[..., trace.spec.topk * trace.k.shape[3]:].sum(-1).mean(0)
             for windows in trace.groups()]
    return np.asarray((np.concatenate([part.numpy() for part in parts]) * real).sum(-1) / real.sum(-1).clip(min=1))


def never_chosen(trace: LayerTrace, image: int = 0) -> Bools:
    """(p2,): windows on the map that no window on the map reads, so that what is there reaches nobody in this layer.

    With k of p2 at random about exp(-k) of them are (1.8 % at k = 4): many more means that the routing is blind to
    part of the picture. Source: in-degree 0, the antihubs of Radovanović et al. (JMLR 11, 2010).
    """
    mapped = on_map(trace)
    return np.asarray(mapped & (in_degree(trace, image, mapped) == 0))


def hubs(trace: LayerTrace, image: int = 0) -> Bools:
    """(p2,): windows on the map whose in-degree is more than two standard deviations above the mean of all on the map.

    A few are normal. Where most choices go to a few hubs, the routing is a fixed summary rather than an answer to
    each query. Source: Radovanović et al., Hubs in Space (JMLR 11, 2010).
    """
    mapped = on_map(trace)
    degree = in_degree(trace, image, mapped)
    return np.asarray(mapped & (degree > degree[mapped].mean() + 2 * degree[mapped].std()))


def in_degree_skew(trace: LayerTrace, image: int = 0) -> float:
    """Standardised third moment of the in-degrees on the map; 0 when all are equal, and no upper limit.

    About 0 is even reading; above 1 a few windows are read by very many. Source: as for `hubs`.
    """
    mapped = on_map(trace)
    degree = in_degree(trace, image, mapped)[mapped].astype(np.float64)
    off = degree - degree.mean()
    spread = off.std()
    return float((off**3).mean() / spread**3) if spread > 0 else 0.0


def shared_choices(trace: LayerTrace, image: int = 0) -> float:
    """Share of all choices that fall on the k windows that are chosen most; 0 to 1.

    1: every window is routed to the same k windows, whatever is in it, so that routing is a fixed selection and not an
    answer to the query. Even routing gives k/p². Recall can be high in both cases: read it beside this. A trained layer
    can be near 1; what is good depends on whether one wants an answer or a summary of the picture.
    """
    counts = np.sort(in_degree(trace, image))[::-1]
    return float(counts[: trace.spec.topk].sum() / counts.sum())


def self_routed(trace: LayerTrace, image: int = 0) -> Bools:
    """(p2,): windows that chose themselves. Their mean is the self-routing rate, 0 to 1; chance is `chance(trace)`.

    High is usual and no merit: a window's own tokens are its best context. Low means that q and k do not match alike
    things. Source: the diagonal of the routing matrix.
    """
    return np.asarray((trace.r_idx[image].numpy() == np.arange(trace.grid.n_windows)[:, None]).any(-1))


def mean_distance(trace: LayerTrace, image: int = 0, windows: Ints | None = None) -> Floats:
    """(p2,) pixels, 0 or more: mean distance from each window's centre to those of the windows it was routed to.

    As large as for `nearest_windows` it is a local layer; as large as over all windows, place plays no part. Neither
    is good in itself. Source: mean attention distance (Dosovitskiy et al., arXiv:2010.11929), on windows.

    Args:
        trace: the layer.
        image: which image of the batch.
        windows: (p2, n) other windows to measure to.
    """
    chosen = trace.r_idx[image].numpy() if windows is None else windows
    return np.asarray(np.take_along_axis(window_distances(trace), chosen, -1).mean(-1))


# padding --------------------------------------------------------------------------------------------------


def padding_leak(trace: LayerTrace, window: int, image: int = 0) -> float:
    """Share of a window's attention, mean over tokens and heads, that falls on padding; 0 to 1.

    0 is good, and what `mask_padding` or a grid without padding gives. Source: `LayerTrace.attention_map`.
    """
    return padding_share(trace.grid, trace.attention_map(window, image=image).numpy())


def padding_share(grid: WindowGrid, maps: NDArray[np.float32]) -> float:
    """(m, H, W) attention maps, each summing to 1 -> their mean share on padding; 0 to 1."""
    return float(1 - grid.crop(maps).sum((-2, -1)).mean())
