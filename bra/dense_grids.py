"""Dense attention of one layer seen through several window grids at once.

Without routing the windows decide nothing: every grid cuts the same attention between the same tokens, and only its
padding is its own. So the weights are computed once, and summed up window by window for each grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from bra.dense import BLOCK_ELEMENTS, dense_attention
from bra.fidelity import Floats
from bra.grid import WindowGrid
from bra.tracing import LayerTrace


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
    if any(lt.weights_used or lt.k.shape[3] != lt.grid.n_tokens for lt in traces):
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
