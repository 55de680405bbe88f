"""What the chapters of the lesson measure: one layer on one picture, run again with one thing changed.

Every number comes from the layer itself, run by `tracing`; only what differs is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from bra.errors import BRAError
from bra.experiments.compare import LayerInput
from bra.grid import WindowGrid
from bra.messages import message
from bra.metrics import dense as bd
from bra.metrics import routing as bf
from bra.models.base import on_photo
from bra.profiling.formula import LayerCost, layer_cost
from bra.spec import BRASpec
from bra.tracing import LayerTrace, trace

PIXELS_PER_TOKEN = 8
COARSEST: Final = 32
"""Pixels to a token along each side of the coarsest map of a YOLO."""
CHANNELS = 64
"""Of the layer whose cost the first chapter counts."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Full attention beside BRA on a square picture.

    Attributes:
        tokens: of the picture.
        full: the cost of the layer with one window, which attends to everything.
        routed: the cost of the same layer with the usual windows.
    """

    tokens: int
    full: LayerCost
    routed: LayerCost

    @property
    def pairs(self) -> int:
        """Query and key pairs that full attention compares."""
        return self.tokens**2

    @property
    def routed_pairs(self) -> int:
        """Pairs that the tokens compare under routing, the comparisons of windows apart."""
        spec, grid = self.routed.spec, self.routed.grid
        return grid.H * grid.W * spec.topk * grid.n_tokens


def growth(pixels: int, n_win: int = 7, topk: int = 4) -> Growth:
    """The cost of attention on a picture of pixels·pixels, a token for every 8×8."""
    side = -(-pixels // PIXELS_PER_TOKEN)
    full = layer_cost(BRASpec(CHANNELS, n_win=1, topk=1), side, side)
    return Growth(side * side, full, layer_cost(BRASpec(CHANNELS, n_win=n_win, topk=topk), side, side))


@dataclass(frozen=True, slots=True)
class Reached:
    """Pairs of a query and a key that three kinds of attention compare on one map.

    Attributes:
        side: tokens along a side of the map.
        full: every token with every other, as in YOLO11's C2PSA.
        stripes: within four stripes, as in YOLO12's A2C2f.
        routed: BRA with n_win 7 and topk 4, padding included, and the windows among themselves.
    """

    side: int
    full: int
    stripes: int
    routed: int


def reached(pixels: int) -> Reached:
    """What is compared on the coarsest map of a YOLO, a token for every 32×32 of pixels·pixels."""
    side = -(-pixels // COARSEST)
    grid = WindowGrid(side, side, 7)
    return Reached(side, side**4, side**4 // 4, grid.H * grid.W * 4 * grid.n_tokens + grid.n_windows**2)


def rerun(given: LayerInput, sharper: float = 1.0, **changes: Any) -> tuple[LayerTrace, Tensor]:
    """The layer run again on what it was given, some things otherwise: its trace, and its output (c, h, w).

    Args:
        given: a layer and its input. The layer stays as it is: what runs is another over the same weights.
        sharper: factor on the routing affinities alone, above 0: the order of windows, and so the choice, stays.
        changes: options of `BRASpec` that have no weights: n_win, topk, mask_padding, soft_routing.

    Raises:
        BRAError: the changes cannot be.
    """
    spec = replace(given.layer.spec, **changes)
    layer = given.layer.with_spec(spec, given.layer.router.scale * sharper)
    found = trace(layer, given.x)
    size, image = given.x.shape[-2:], given.prepared.x.shape[-2:]
    grid = WindowGrid.over_image(image[0], image[1], size[0], size[1], spec.n_win)
    traced = on_photo(replace(found.layers[""], name=given.name, grid=grid), given.prepared)
    out: Tensor = found.out[0]
    return traced, out


def distance(out: Tensor, other: Tensor) -> float:
    """How far `out` is from `other`: norm of the difference over the norm of `other`. 0 is no change."""
    return float((out.double() - other.double()).norm() / other.double().norm())


@dataclass(frozen=True, slots=True)
class Reweighed:
    """A layer whose routing weights were changed, the choice left as it was.

    Attributes:
        before: (k,) weights of one window's routed windows, best first.
        after: the same, changed.
        same_windows: whether every window chose the same windows in the same order.
        change: `distance` of the outputs.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]
    same_windows: bool
    change: float


def reweighed(given: LayerInput, window: int, sharper: float, soft: bool) -> Reweighed:
    """Make all routing affinities `sharper` times as large; `soft` lets the layer multiply by the weights."""
    (old, out), (new, moved) = (rerun(given, factor, soft_routing=soft) for factor in (1.0, sharper))
    weights = [tuple(float(w) for w in one.r_weight[0, window]) for one in (old, new)]
    return Reweighed(weights[0], weights[1], bool(torch.equal(old.r_idx, new.r_idx)), distance(moved, out))


@dataclass(frozen=True, slots=True)
class Leak:
    """What padding takes in one layer on one picture; shares from 0 to 1.

    Attributes:
        of_map: share of the map that is padding.
        of_attention: share of attention that falls on it, mean over the windows on the map.
        worst: the same of the window that loses most.
        change: `distance` of the layer's output from its output with the padding masked.
    """

    of_map: float
    of_attention: float
    worst: float
    change: float


def leak(given: LayerInput, n_win: int, topk: int, masked: bool) -> tuple[LayerTrace, Leak]:
    """The layer with other windows, and what of its attention padding gets."""
    (lt, out), (_, clean) = (rerun(given, n_win=n_win, topk=topk, mask_padding=mask) for mask in (masked, True))
    shares = [bf.padding_leak(lt, int(window)) for window in np.flatnonzero(bf.on_map(lt))]
    # Shares are float32 and are told from 1: what is below a millionth is rounding.
    mean, worst = (round(float(share), 6) + 0.0 for share in (np.mean(shares), max(shares)))
    return lt, Leak(lt.grid.padding_share, mean, worst, distance(out, clean))


@dataclass(frozen=True, slots=True)
class OutputParts:
    """What a layer's output is made of; shares and distances from 0.

    Attributes:
        attention: share of attention in what is put out, the rest being the position term; `dense.attention_share`.
        at_random: `distance` of the output when every window is routed to random windows instead.
        to_nearest: the same with the nearest windows.
        without_lepe: the same without the position term, the routing left as it is.
    """

    attention: float
    at_random: float
    to_nearest: float
    without_lepe: float


def output_parts(lt: LayerTrace, seed: int = 0) -> OutputParts:
    """What the routing, and what the position term, does for a layer's output on one picture."""
    out, mapped = bd.layer_output(lt), bf.on_map(lt)

    def routed_to(windows: bf.Ints) -> float:
        return distance(bd.layer_output(replace(lt, r_idx=torch.from_numpy(windows)[None], factor=None)), out)

    return OutputParts(float(np.nanmean(bd.attention_share(lt)[:, mapped])), routed_to(bf.random_windows(lt, seed)),
                       routed_to(bf.nearest_windows(lt)), distance(bd.layer_output(replace(lt, lepe=None)), out))


@dataclass(frozen=True, slots=True)
class Score:
    """A guess of where a window is routed to, and the two controls, in windows of `of`.

    Attributes:
        hits: guessed and routed.
        nearest: hits of the nearest windows.
        chance: hits to be expected of random windows.
        of: windows that were routed to.
    """

    hits: int
    nearest: int
    chance: float
    of: int


def score(lt: LayerTrace, window: int, guess: Sequence[int]) -> Score:
    """How many of a window's routed windows were guessed; the guess should name as many as were routed to.

    Raises:
        BRAError: it names more, or windows that the layer has not.
    """
    for one in guess:
        lt.grid.check_window(one)
    routed = set(lt.r_idx[0, window].tolist())
    if len(set(guess)) > len(routed):
        raise BRAError(message("{n} windows are marked: mark {k} at most.", n=len(set(guess)), k=len(routed)))
    near = set(bf.nearest_windows(lt)[window].tolist())
    return Score(len(routed & set(guess)), len(routed & near), len(routed) * bf.chance(lt), len(routed))
