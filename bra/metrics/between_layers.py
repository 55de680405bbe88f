"""Do layers of one model choose alike? Overlap of what they are routed to on the picture, and the price of sharing it.

Grids may differ: what counts is the area of the picture that windows cover. For a pixel of the picture with its query
window i in layer A and j in layer B, let Rᵢ and Sⱼ be the areas that the two are routed to; then

    overlap(A, B) = mean over pixels of |Rᵢ ∩ Sⱼ| / |Rᵢ ∪ Sⱼ|,     0 to 1.

Pixels from which neither is routed to the picture, but both to padding alone, are left out; NaN where none is left.
Two random choices of these sizes have about r·s / (r + s − r·s) of it, r and s being their shares of the picture.
Layers that choose alike could choose once and use it again: `transferred` is A's choice as B would have to take it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from bra.errors import GridError
from bra.grid import WindowGrid
from bra.messages import message
from bra.metrics import dense as bd
from bra.metrics import routing as bf
from bra.metrics.agreement import random_union_share
from bra.metrics.routing import Bools, Floats, Ints
from bra.tracing import LayerTrace


@dataclass(frozen=True, slots=True)
class LayerPair:
    """A routed layer and the routed one before it; all numbers 0 to 1.

    Attributes:
        layer: name of the later one.
        before: name of the earlier one.
        overlap: of the areas that both are routed to.
        chance: overlap of random choices of the same sizes.
        recall: share of the later layer's full attention that falls on its own choice; NaN where its attention is not
            known.
        carried: the same of the earlier layer's choice.
    """

    layer: str
    before: str
    overlap: float
    chance: float
    recall: float
    carried: float

    @property
    def lost(self) -> float:
        """Recall that the later layer would lose by taking over the choice; below 0 it would gain."""
        return self.recall - self.carried


def shared_areas(a: WindowGrid, b: WindowGrid) -> Floats:
    """(p2 of A, p2 of B): pixels of the picture that are covered by both windows; padding beyond it does not count.

    Raises:
        GridError: the grids do not lie on one picture.
    """
    if a.image is None or a.image != b.image:
        raise GridError(message("the windows of these layers lie on different pictures: trace one image."))
    down, across = (_shared_lengths(a, b, axis) for axis in (0, 1))
    return np.asarray(np.einsum("jk,iq->jikq", down, across).reshape(a.n_windows, b.n_windows))


def _shared_lengths(a: WindowGrid, b: WindowGrid, axis: int) -> Floats:
    """(windows per side of A, of B): pixels along one axis that both cover."""
    assert a.image is not None
    ends = []
    for grid in (a, b):
        tokens = (grid.window_h, grid.window_w)[axis] * np.arange(grid.n_win + 1)
        ends.append(np.clip(grid.origin[axis] + grid.stride[axis] * tokens, 0, a.image[axis]))
    low = np.maximum(ends[0][:-1, None], ends[1][:-1])
    return np.asarray(np.clip(np.minimum(ends[0][1:, None], ends[1][1:]) - low, 0, None))


def overlap(a: LayerTrace, b: LayerTrace, image: int = 0) -> tuple[float, float]:
    """Overlap of two routings of one picture, and that of random choices of the same sizes; formula above.

    Raises:
        GridError: the grids do not lie on one picture.
    """
    areas = shared_areas(a.grid, b.grid)
    in_a, in_b = (_chosen(lt, image) for lt in (a, b))
    # By torch, whose product of matrices takes a sixth of numpy's time here: a page makes one for each pair of layers.
    whole_a, whole_b = (torch.from_numpy(chosen).double() for chosen in (in_a, in_b))
    both = (whole_a @ torch.from_numpy(areas) @ whole_b.T).numpy()                      # (p2 of A, p2 of B)
    of_a, of_b = (in_a @ areas.sum(1))[:, None], in_b @ areas.sum(0)
    total = areas.sum()
    union, by_chance = of_a + of_b - both, random_union_share(of_a / total, of_b / total)
    weight = np.where(union > 0, areas, 0)
    if not weight.any():
        return float("nan"), float("nan")
    weight = weight / weight.sum()
    return float((weight * both / np.where(union > 0, union, 1)).sum()), float((weight * by_chance).sum())


def transferred(a: LayerTrace, b: LayerTrace, image: int = 0) -> Ints:
    """(p2 of B, k of B): the windows of B that A's choice covers most, for the same place of the picture.

    Where windows are covered alike, the nearer ones come first.

    Raises:
        GridError: the grids do not lie on one picture.
    """
    areas = shared_areas(a.grid, b.grid)
    asked = areas / np.maximum(areas.sum(0), np.finfo(float).tiny)      # of each window of B, where it lies in A
    size = np.maximum(areas.sum(0), np.finfo(float).tiny)
    covered = asked.T @ (_chosen(a, image) @ areas) / size                              # (p2 of B, p2 of B)
    covered[:, ~bf.choosable(b)] = -1
    return np.lexsort((bf.window_distances(b), -covered.round(9)), -1)[:, : b.spec.topk]


def leaves_out(trace: LayerTrace) -> bool:
    """Whether a layer chooses: it is routed, to fewer windows than there are."""
    return trace.routed and trace.spec.topk < trace.grid.n_windows


def routed_layers(layers: Mapping[str, LayerTrace]) -> tuple[LayerTrace, ...]:
    """Those that leave something out."""
    return tuple(lt for lt in layers.values() if leaves_out(lt))


def overlaps(layers: Sequence[LayerTrace], image: int = 0) -> Floats:
    """(n, n): overlap of each layer with each, 1 with itself; NaN for other pictures' layers, or padding alone."""
    found = np.eye(len(layers))
    for i, a in enumerate(layers):
        for j, b in enumerate(layers[:i]):
            found[i, j] = found[j, i] = _overlap_or_nan(a, b, image)[0]
    return found


def _overlap_or_nan(a: LayerTrace, b: LayerTrace, image: int) -> tuple[float, float]:
    try:
        return overlap(a, b, image)
    except GridError:
        return float("nan"), float("nan")


def consecutive(layers: Mapping[str, LayerTrace], image: int = 0,
                progress: Callable[[int, int], None] = lambda done, todo: None) -> tuple[LayerPair, ...]:
    """Each routed layer with the routed one before it, in the order in which they ran.

    Takes as long as `dense.dense_attention` of all but the first.

    Args:
        layers: of one forward.
        image: which image of the batch.
        progress: told (layers done, layers to do) again and again; what it raises ends the work.
    """
    routed = routed_layers(layers)
    found: list[LayerPair] = []
    for before, lt in pairwise(routed):
        both, by_chance = _overlap_or_nan(before, lt, image)
        own, borrowed = _recalls(before, lt, image, partial(progress, len(found), len(routed) - 1))
        found.append(LayerPair(lt.name, before.name, both, by_chance, own, borrowed))
    return tuple(found)


def _recalls(before: LayerTrace, lt: LayerTrace, image: int, still: Callable[[], object]) -> tuple[float, float]:
    """Recall of a layer's own choice and of that of the layer before."""
    if not lt.attention_known or before.grid.image != lt.grid.image or lt.grid.image is None:
        return float("nan"), float("nan")
    mass, mapped = bd.dense_attention(lt, image, still).mass, bf.on_map(lt)
    own, borrowed = (float(bd.recall_of(mass, windows)[:, mapped].mean()) for windows in
                     (lt.r_idx[image].numpy(), transferred(before, lt, image)))
    return own, borrowed


def _chosen(trace: LayerTrace, image: int) -> Bools:
    return bf.picked(trace.r_idx[image].numpy(), trace.grid.n_windows)
