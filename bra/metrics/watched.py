"""The numbers that are followed while a model trains: of one layer on one fixed picture, after one epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bra.metrics import dense, routing
from bra.metrics.overlap import semantic_overlap
from bra.metrics.query_dependence import collapsed_by, query_dependence
from bra.tracing import LayerTrace

QUERIES = 64
"""Tokens whose full attention is worked out: of all tokens of a large map it takes longer than an epoch may."""


@dataclass(frozen=True, slots=True)
class WatchedNumbers:
    """One layer after one epoch. Means are over the windows on the map, and the heads; None where not known.

    Attributes:
        n_win: windows per side.
        topk: windows each window is routed to.
        recall: `dense.recall` of the routed windows, 0 to 1, over QUERIES tokens or so in place of all.
        recall_nearest: the same of the k nearest windows.
        chance: k over the windows that may be chosen: `routing.chance`, what random windows keep.
        query_dependence: `metrics.query_dependence.query_dependence`, 0 to 1.
        shared_choices: `routing.shared_choices`, 0 to 1.
        entropy: `routing.routing_entropy`, 0 to 1.
        in_degree_max: the most windows that read one window.
        never_chosen: share of windows that nobody reads.
        overlap: `overlap.semantic_overlap` with the routed windows, 0 to 1, where boxes are known.
        overlap_nearest: the same with the k nearest windows.
        overlap_chance: the same with all windows.
    """

    n_win: int
    topk: int
    recall: float | None
    recall_nearest: float | None
    chance: float
    query_dependence: float | None
    shared_choices: float
    entropy: float
    in_degree_max: int
    never_chosen: float
    overlap: float | None = None
    overlap_nearest: float | None = None
    overlap_chance: float | None = None

    @property
    def collapsed(self) -> bool:
        """Whether the layer's routing hardly depends on the query, as `query_dependence.collapsed_by` judges."""
        dependence = math.nan if self.query_dependence is None else self.query_dependence
        return collapsed_by(self.shared_choices, dependence, self.chance)

    def to_dict(self) -> dict[str, float | int | None]:
        """All numbers by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


SHARES = tuple(field.name for field in fields(WatchedNumbers) if field.name not in ("n_win", "topk", "in_degree_max"))
"""Names of the numbers between 0 and 1."""


def watched_numbers(trace: LayerTrace, boxes: ArrayLike | None = None) -> WatchedNumbers:
    """The numbers of a routed layer on the first image of its trace.

    Args:
        trace: the layer.
        boxes: (n, 5) class, x0, y0, x1, y1 in pixels of the traced image, as for `semantic_overlap`; None where what
            the picture shows is not known.
    """
    mapped = routing.on_map(trace)

    def mean(by_window: NDArray[Any]) -> float | None:
        """Over (…, p2): the windows on the map."""
        return _known(by_window[..., mapped].mean())

    recall = nearest = None
    if trace.attention_known:
        mass = dense.sampled_mass(trace, QUERIES)
        recall, nearest = (mean(dense.recall_of(mass, of)) for of in
                           (trace.r_idx[0].numpy(), routing.nearest_windows(trace)))
    alike: Mapping[str, float | int | None] = {} if boxes is None else semantic_overlap(
        trace, np.asarray(boxes, np.float64).reshape(-1, 5)).to_dict()
    return WatchedNumbers(
        n_win=trace.grid.n_win, topk=trace.spec.topk, recall=recall, recall_nearest=nearest,
        chance=routing.chance(trace), query_dependence=_known(query_dependence(trace)),
        shared_choices=routing.shared_choices(trace), entropy=mean(routing.routing_entropy(trace)) or 0.0,
        in_degree_max=int(routing.in_degree(trace, of=mapped)[mapped].max()),
        never_chosen=mean(routing.never_chosen(trace)) or 0.0, overlap=alike.get("routed"),
        overlap_nearest=alike.get("nearest"), overlap_chance=alike.get("chance"))


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def collapsed_since(epochs: Sequence[int], collapsed: Sequence[bool]) -> int | None:
    """The first epoch of the last unbroken row of epochs in which a layer was collapsed; None where the last was not.

    Args:
        epochs: in order.
        collapsed: whether the layer was, at each.
    """
    since = None
    for epoch, was in zip(epochs, collapsed, strict=True):
        since = (epoch if since is None else since) if was else None
    return since
