"""What routing changed: a layer's trace against the same layer with every window routed to all.

Dense attention is the layer with topk = p²: the same weights, padding and pooling, and no window left out. It is
computed in blocks of queries, so that its weights, m·N·N of them, are never held together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from bra.grid import WindowGrid
from bra.kernels.dispatch import attend_routed
from bra.metrics.routing import Floats, Ints, full_softmax
from bra.tracing import LayerTrace

BLOCK_ELEMENTS = 2**21
"""Attention weights held at once: 8 MiB of float32, which caches hold. Where one row is larger, one row."""


@dataclass(frozen=True, slots=True, eq=False)
class DenseAttention:
    """Unrestricted attention of one layer on one image; m heads, p2 windows, t tokens.

    Attributes:
        mass: (m, p2, p2) share of its attention that each window (row) gives to each other, mean over its tokens on
            the map; rows sum to 1, and are NaN for windows of padding only.
        out: (m, p2, t, c/m) what attention puts out, before position term and output linear.
    """

    mass: Floats = field(repr=False)
    out: Tensor = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class OutputChange:
    """What routing did to a layer's output, against the same layer with topk = p². NaN for windows of padding only.

    Attributes:
        relative_error: (p2,) norm of the difference over the norm of the dense output, over a window's tokens on the
            map and all channels, after position term and output linear. 0 is no change; 1 is as large as the output.
        cosine: (p2,) cosine between both outputs, mean over tokens; 1 is the same direction, -1 the opposite.
        head_error: (m, p2) relative error of each head's attention alone, before position term and output linear.
    """

    relative_error: Floats
    cosine: Floats
    head_error: Floats


@torch.inference_mode()
def dense_attention(trace: LayerTrace, image: int = 0,
                    still: Callable[[], object] = lambda: None) -> DenseAttention:
    """Attention of a traced layer without routing.

    Takes time with the square of the tokens N (about 3 ns for each of m·N² weights on one core: 0.3 s for 56×56
    tokens, 16 s for 160×160, with 8 heads) and memory like the trace's own q, k and v.

    A layer that does not route is its own dense attention, within what it reaches; rows of `mass` then sum to 1 less
    what goes to tokens outside of the picture.

    `still` is called between blocks of the work; what it raises ends it.
    """
    q, k, v = (t[image].float() for t in (trace.q, trace.k, trace.v))
    m, p2, s = k.shape[:3]
    if trace.reach is not None:
        return DenseAttention(_reached_mass(trace, image, still), trace.attended(image).float())
    keys, values = k.flatten(1, 2).mT, v.flatten(1, 2)
    factor = torch.from_numpy(full_softmax(trace, image)).float() if trace.weights_used else None
    real = torch.from_numpy(trace.grid.real_tokens)
    mass, out = torch.zeros(m, p2, p2, dtype=torch.float64), q.new_empty(*q.shape[:3], v.shape[-1])
    for windows, tokens in _blocks(p2, q.shape[2], BLOCK_ELEMENTS // (m * p2 * s)):
        still()
        part = q[:, windows, tokens] * trace.spec.scale                             # (m, n, t', Q/m)
        weights = (part.flatten(1, 2) @ keys).view(*part.shape[:3], p2, s)
        if factor is not None:
            weights *= factor[None, windows, None, :, None]
        if trace.real_keys is not None:
            weights.masked_fill_(~trace.real_keys, float("-inf"))
        weights.sub_(weights.amax((-2, -1), keepdim=True)).exp_()
        by_window = weights.sum(-1)                                                 # (m, n, t', p2)
        total = by_window.sum(-1, keepdim=True)
        mass[:, windows] += (by_window / total * real[windows, tokens, None]).sum(2)
        if factor is not None:
            weights *= factor[None, windows, None, :, None]
        out[:, windows, tokens] = (weights.flatten(3).flatten(1, 2) @ values).view(*part.shape[:3], -1) / total
    return DenseAttention((mass / real.sum(-1)[:, None]).numpy(), out)      # 0/0 is NaN, without a warning


def _reached_mass(trace: LayerTrace, image: int, still: Callable[[], object]) -> Floats:
    """`DenseAttention.mass` of a layer that attends within areas."""
    m, p2, s = trace.k.shape[1:4]
    real = torch.from_numpy(trace.grid.real_tokens)
    mass = torch.zeros(m, p2, p2, dtype=torch.float64)
    for windows in trace.groups():
        still()
        rows = trace.rows(windows, slice(None), image)[..., : trace.spec.topk * s].double()         # (m, n, t, k·s)
        by_key = (rows.reshape(*rows.shape[:3], -1, s).sum(-1) * real[windows, :, None]).sum(2)        # (m, n, k)
        mass[:, windows] = mass[:, windows].scatter(-1, trace.r_idx[image, windows].expand(m, -1, -1), by_key)
    return np.asarray((mass / real.sum(-1)[:, None]).numpy())


@torch.inference_mode()
def sampled_mass(trace: LayerTrace, queries: int, image: int = 0) -> Floats:
    """`DenseAttention.mass`, from some tokens of each window in place of all: much the same in a fraction of the time.

    Args:
        trace: the layer.
        queries: tokens in all, at least one in each window; those of a window are spread evenly over it, and the first
            is its upper left one, which is on the map where any is.
        image: which image of the batch.
    """
    if trace.reach is not None:
        return _reached_mass(trace, image, lambda: None)
    q, k = (t[image].float() for t in (trace.q, trace.k))
    m, p2, s = k.shape[:3]
    t = q.shape[2]
    count = min(t, max(1, queries // p2))
    tokens = torch.arange(count) * t // count
    keys = k.flatten(1, 2).mT
    factor = torch.from_numpy(full_softmax(trace, image)).float() if trace.weights_used else None
    real = torch.from_numpy(trace.grid.real_tokens)[:, tokens]
    mass = torch.zeros(m, p2, p2, dtype=torch.float64)
    group = max(1, BLOCK_ELEMENTS // (m * p2 * s * count))
    for start in range(0, p2, group):
        windows = slice(start, start + group)
        part = q[:, windows][:, :, tokens] * trace.spec.scale                       # (m, n, t', Q/m)
        logits = (part.flatten(1, 2) @ keys).view(*part.shape[:3], p2, s)
        if factor is not None:
            logits *= factor[None, windows, None, :, None]
        if trace.real_keys is not None:
            logits.masked_fill_(~trace.real_keys, float("-inf"))
        # A sum over few is many times faster as a product.
        by_window = logits.flatten(-2).softmax(-1).view_as(logits) @ torch.ones(s)  # (m, n, t', p2)
        mass[:, windows] = (by_window.double() * real[windows, :, None]).sum(2)
    return np.asarray((mass / real.sum(-1)[:, None]).numpy())


def recall(trace: LayerTrace, dense: DenseAttention, image: int = 0, windows: Ints | None = None) -> Floats:
    """(m, p2) in 0 to 1: share of dense attention that falls in the windows that were chosen, per head and window.

    1 means that routing lost nothing. Chance is `fidelity.chance`, and attention is local enough that the k nearest
    windows (`fidelity.nearest_windows`) are the control to beat; `oracle_windows` gives the most that k windows shared
    by all heads can have. Source: the share of attention kept by a sparse pattern, as in MInference (Jiang et al.,
    arXiv:2407.02490).

    Args:
        trace: the layer.
        dense: what `dense_attention` gave for it.
        image: which image of the batch.
        windows: (p2, n) other windows to measure.
    """
    return recall_of(dense.mass, trace.r_idx[image].numpy() if windows is None else windows)


def recall_of(mass: Floats, windows: Ints) -> Floats:
    """The same from `DenseAttention.mass` (m, p2, p2) and windows (p2, n)."""
    return np.asarray(np.take_along_axis(mass, windows[None], -1).sum(-1))


def oracle_windows(trace: LayerTrace, dense: DenseAttention) -> Ints:
    """(p2, k): the windows with most dense attention, mean over heads, most first; the best that routing could do."""
    return np.argsort(-dense.mass.mean(0), -1, kind="stable")[:, : trace.spec.topk]


@torch.inference_mode()
def routed_attention(trace: LayerTrace, image: int = 0) -> Tensor:
    """(m, p2, t, c/m): what the layer's own attention put out, before position term and output linear."""
    if trace.reach is not None:
        return trace.attended(image).float()
    one = slice(image, image + 1)
    factor = None if trace.factor is None else trace.factor[one].float()
    return attend_routed(trace.q[one].float(), trace.k[one].float(), trace.v[one].float(), trace.r_idx[one],
                         trace.spec.scale, factor, trace.real_keys)[0]


@torch.inference_mode()
def layer_output(trace: LayerTrace, image: int = 0) -> Tensor:
    """(h, w, c): what the layer put out, attention and position term through the output linear, padding cut off."""
    grid, y = trace.grid, _output(trace, routed_attention(trace, image), image)
    return rearrange(y, "(j i) (y x) c -> (j y) (i x) c", j=grid.n_win, y=grid.window_h)[: grid.h, : grid.w]


@torch.inference_mode()
def output_change(trace: LayerTrace, dense: DenseAttention, image: int = 0) -> OutputChange:
    """How far routing moved the layer's output from that of full attention, per window and per head.

    Small is good when routing is meant to stand in for full attention. A model trained with routing was never meant
    to give the dense output, so read it beside the task's own score. Source: the definition; the arithmetic is the
    layer's own, with its output linear.
    """
    routed, full = routed_attention(trace, image).double(), dense.out.double()
    real = torch.from_numpy(trace.grid.real_tokens)
    y, y_full = _output(trace, routed, image), _output(trace, full, image)
    cosine = torch.nn.functional.cosine_similarity(y, y_full, dim=-1)
    return OutputChange(
        relative_error=_ratio(_norm(y - y_full, real), _norm(y_full, real)).numpy(),
        cosine=((cosine * real).sum(-1) / real.sum(-1)).numpy(),
        head_error=_ratio(_norm(routed - full, real), _norm(full, real)).numpy())


@torch.inference_mode()
def attention_share(trace: LayerTrace, image: int = 0) -> Floats:
    """(m, p2) in 0 to 1: norm of attention over the sum of the norms of attention and of the position term (LePE).

    Norms are over a window's tokens on the map, before the output linear. 1: the layer speaks by attention alone, as
    it does without LePE; near 0 it is a depthwise convolution, and maps of its attention explain little of its output.
    NaN for windows of padding only, and where both are 0. Source: the mixing ratio of Kobayashi et al.
    (arXiv:2109.07152), with LePE in the residual's place.
    """
    real = torch.from_numpy(trace.grid.real_tokens)
    attention = _norm(routed_attention(trace, image).double(), real)
    lepe = torch.zeros_like(attention) if trace.lepe is None else _norm(trace.lepe[image].double(), real)
    return np.asarray((attention / (attention + lepe)).numpy())


def _blocks(p2: int, t: int, room: int) -> Iterator[tuple[slice, slice]]:
    """(windows, tokens) that cover p2 windows of t tokens, at most `room` tokens each, or 1."""
    group, step = max(1, room // t), min(t, max(1, room))
    for window in range(0, p2, group):
        for token in range(0, t, step):
            yield slice(window, window + group), slice(token, token + step)


def _output(trace: LayerTrace, attention: Tensor, image: int) -> Tensor:
    """(m, p2, t, c/m) attention -> the layer's output (p2, t, c)."""
    y = rearrange(attention if trace.lepe is None else attention + trace.lepe[image], "m n t c -> n t (m c)")
    return y if trace.wo is None else y @ trace.wo[0].to(y).T + trace.wo[1].to(y)


def _norm(x: Tensor, real: Tensor) -> Tensor:
    """(…, p2, t, c), (p2, t) bool -> (…, p2): norm over tokens on the map and channels; NaN where there are none."""
    squares = (x**2).sum(-1).where(real, 0).sum(-1)
    return squares.sqrt().where(real.any(-1), torch.nan)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, 0 where both are 0."""
    return torch.where(part == 0, 0, part / whole)


# Dense attention of one layer seen through several window grids at once. --------------------------------------------

@torch.inference_mode()
def dense_masses(traces: Sequence[LayerTrace], image: int = 0,
                 still: Callable[[], object] = lambda: None) -> tuple[Floats, ...]:
    """`DenseAttention.mass` of each trace: (m, p2, p2) per grid.

    Takes the time of one `dense_attention` for all of them, except where keys are pooled or weighted by window: those
    depend on the grid, and each is computed apart.

    Args:
        traces: one layer on one input, under different grids.
        image: which image of the batch.
        still: called between blocks of the work; what it raises ends it.
    """
    if any(lt.weights_used or lt.reach is not None or lt.k.shape[3] != lt.grid.n_tokens for lt in traces):
        return tuple(dense_attention(lt, image, still).mass for lt in traces)
    first = traces[0].grid
    q, k = (_on_map(t[image], first)[:, : first.h, : first.w].flatten(1, 2) for t in (traces[0].q, traces[0].k))
    sums = [_WindowSums(lt, image) for lt in traces]
    columns = torch.cat([one.columns for one in sums], 1)                           # (w, all p)
    step = max(1, BLOCK_ELEMENTS // (len(q) * first.h * first.w))
    for start in range(0, first.h * first.w, step):
        still()
        rows = q[:, start : start + step] * traces[0].spec.scale                    # (m, n, Q/m)
        logits = rows @ k.mT                                                        # (m, n, N)
        padding = [(rows * one.pad_key[:, None]).sum(-1, keepdim=True) for one in sums]
        top = torch.cat([logits.amax(-1, keepdim=True), *padding], -1).amax(-1, keepdim=True)
        weights = logits.sub_(top).exp_().view(*logits.shape[:2], first.h, first.w)
        across = torch.split(weights @ columns, [one.grid.n_win for one in sums], -1)   # each (m, n, h, p)
        for one, part, pad in zip(sums, across, padding, strict=True):
            one.add(start, part, (pad - top).exp())
    return tuple(one.mass() for one in sums)


def _on_map(x: Tensor, grid: WindowGrid) -> Tensor:
    """(m, p2, t, c) -> (m, H, W, c)."""
    return rearrange(x.float(), "m (j i) (y x) c -> m (j y) (i x) c", j=grid.n_win, y=grid.window_h)


@dataclass(slots=True, init=False)
class _WindowSums:
    """Attention summed up by the windows of one grid, query rows added as they come."""

    grid: WindowGrid
    columns: Tensor         # (w, p): 1 where a column of tokens is in a column of windows
    rows: Tensor            # (p, h): likewise
    pad_key: Tensor         # (m, Q/m): the key that all padding has, 0 where there is none
    pad_count: Tensor       # (p2,): padded tokens that are attended
    window: Tensor          # (N,): of every token on the map
    total: Tensor           # (m, p2, p2)

    def __init__(self, trace: LayerTrace, image: int) -> None:
        grid = self.grid = trace.grid
        p, m = grid.n_win, trace.k.shape[1]
        row, col = torch.arange(grid.h) // grid.window_h, torch.arange(grid.w) // grid.window_w
        self.columns, self.rows = torch.eye(p)[col], torch.eye(p)[row].T
        self.window = (row[:, None] * p + col).flatten()
        attended = bool(grid.padding_share) and trace.real_keys is None
        self.pad_key = _on_map(trace.k[image], grid)[:, -1, -1] if attended else torch.zeros(m, trace.k.shape[-1])
        self.pad_count = (grid.n_tokens - self.window.bincount(minlength=p * p)) * attended
        self.total = torch.zeros(m, p * p, p * p, dtype=torch.float64)

    def add(self, start: int, part: Tensor, pad: Tensor) -> None:
        """Add (m, n, h, p) sums over columns of query tokens from `start`, whose weight on one padded key is `pad`."""
        by_window = (self.rows @ part).flatten(2) + pad * self.pad_count                 # (m, n, p2)
        share = by_window / by_window.sum(-1, keepdim=True)
        self.total.index_add_(1, self.window[start : start + part.shape[1]], share.double())

    def mass(self) -> Floats:
        """(m, p2, p2): means over the tokens of each window; NaN for windows of padding only."""
        count = self.window.bincount(minlength=self.grid.n_windows)
        return (self.total / count[:, None]).numpy()
