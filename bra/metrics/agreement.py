"""Where two routings agree, in places of the picture: their grids may differ, and one may have seen it changed.

A place is (x, y) in shares of the picture's width and height. Areas are counted over places that lie evenly on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bra.errors import GridError
from bra.grid import WindowGrid
from bra.messages import message
from bra.metrics.routing import Floats, Ints, full_softmax, picked
from bra.tracing import LayerTrace

ACROSS, DOWN = 112, 84
"""Places counted: fine enough that a window of 16 per side still holds about thirty."""
NOWHERE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """For the query at each of n places: areas as shares of the places that both saw. NaN where one did not see it.

    Attributes:
        both: routed by A and by B.
        only_a: routed by A alone.
        only_b: routed by B alone.
    """

    both: Floats
    only_a: Floats
    only_b: Floats

    @property
    def union_share(self) -> Floats:
        """(n,) intersection over union, 0 to 1: 1 when both are routed to the same area."""
        return np.asarray(self.both / (self.both + self.only_a + self.only_b))

    @property
    def survived(self) -> Floats:
        """(n,) share of A's area that is B's too, 0 to 1; NaN where B saw none of A's area."""
        whole = self.both + self.only_a
        return np.divide(self.both, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def random_union_share(a: Floats, b: Floats) -> Floats:
    """Intersection over union to be expected of two random choices that cover shares a and b of the picture."""
    return np.asarray(a * b / np.maximum(a + b - a * b, 1e-12))


def even_places(across: int = ACROSS, down: int = DOWN) -> Floats:
    """(n, 2): the centres of across·down equal parts of the picture, row by row."""
    x, y = (np.arange(across) + 0.5) / across, (np.arange(down) + 0.5) / down
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


def windows_at(grid: WindowGrid, places: Floats) -> Ints:
    """(n, 2) places -> (n,) windows that cover them, NOWHERE for places outside of the picture.

    Raises:
        GridError: the grid does not lie on a picture.
    """
    if grid.image is None:
        raise GridError(message("this grid lies on no picture: trace an image, not a map of tokens."))
    token = [np.clip((places[:, axis] * size - origin) // stride, 0, last - 1).astype(np.int64)
             for axis, size, origin, stride, last in zip((1, 0), grid.image, grid.origin, grid.stride,
                                                         (grid.H, grid.W), strict=True)]
    windows = token[0] // grid.window_h * grid.n_win + token[1] // grid.window_w
    return np.where(((places >= 0) & (places <= 1)).all(-1), windows, NOWHERE)


def shared(a: LayerTrace, at_a: Ints, b: LayerTrace, at_b: Ints, image: int = 0) -> Shared:
    """Areas that queries are routed to by both and by one alone.

    Args:
        a: one layer.
        at_a: (n,) its window at each place.
        b: another, or the same on a changed picture.
        at_b: (n,) its window at the same places of the content, NOWHERE for places that it did not see.
        image: which image of both batches.
    """
    seen = (at_a != NOWHERE) & (at_b != NOWHERE)
    in_a, in_b = (picked(lt.r_idx[image].numpy(), lt.grid.n_windows)[:, at[seen]].astype(np.float64)
                  for lt, at in ((a, at_a), (b, at_b)))
    both = in_a @ in_b.T / max(1, seen.sum())                                           # (p2 of A, p2 of B)
    area_a, area_b = in_a.mean(-1), in_b.mean(-1)
    found = both[at_a, at_b]
    made = (found, area_a[at_a] - found, area_b[at_b] - found)
    return Shared(*(np.where(seen, np.maximum(part, 0), np.nan) for part in made))


def attention_recall(a: LayerTrace, b: LayerTrace, image: int = 0) -> float:
    """Share of what layer A attends to on the picture that falls on what layer B is routed to from the same place: mean
    over places, 0 to 1. A does not route; its attention is taken as even within each window of its grid."""
    places = even_places()
    at_a, at_b = windows_at(a.grid, places), windows_at(b.grid, places)
    mass = full_softmax(a, image)
    inside = np.bincount(at_a, minlength=a.grid.n_windows)
    spread = mass[:, at_a] / np.maximum(inside[at_a], 1)                                # (p2 of A, places)
    spread = spread / np.maximum(spread.sum(-1, keepdims=True), 1e-12)
    chosen = picked(b.r_idx[image].numpy(), b.grid.n_windows)[:, at_b].astype(np.float64)
    held = spread @ chosen.T                                                            # (p2 of A, p2 of B)
    return float(held[at_a, at_b].mean())
