"""Measures how well a model's layers route, over a set of pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bra.errors import BRAError
from bra.metrics import dense, routing
from bra.metrics.overlap import Boxes, LabelMap, labels_on_grid, semantic_overlap
from bra.metrics.query_dependence import query_dependence
from bra.models.base import OpenModel
from bra.models.card import LayerQuality
from bra.photo import Photo
from bra.tracing import LayerTrace

Row = dict[str, float | None]


def routing_quality(model: OpenModel, pictures: Iterable[tuple[Photo, Boxes | LabelMap | None]], side: int,
                    progress: Callable[[str], None] = print,
                    ignore: Collection[int] = ()) -> tuple[LayerQuality, ...]:
    """Quality of every routed layer, mean over pictures.

    Args:
        model: what is judged.
        pictures: photos, and their boxes or label maps where there are any.
        side: pixels a side that the model reads them at.
        progress: told every tenth picture.
        ignore: classes that are left out of every histogram.

    Raises:
        BRAError: there are no pictures.
    """
    found: dict[str, list[Row]] = {}
    settings: dict[str, tuple[int, int]] = {}
    for at, (photo, labels) in enumerate(pictures):
        if at % 10 == 0:
            progress(f"{model.label}: routing of picture {at + 1}")
        for name, trace in model.look(photo, side).trace.layers.items():
            if trace.routed:
                found.setdefault(name, []).append(_row(trace, labels, ignore))
                settings[name] = (trace.grid.n_win, trace.spec.topk)
    if not found:
        raise BRAError("no picture was given, or the model routes nothing: quality cannot be measured.")
    return tuple(LayerQuality(name, *settings[name], **_means(rows)) for name, rows in found.items())


def _row(trace: LayerTrace, labels: Boxes | LabelMap | None, ignore: Collection[int]) -> Row:
    """One layer on one picture."""
    mapped, full = routing.on_map(trace), dense.dense_attention(trace)

    def mean(by_window: NDArray[np.float64]) -> float:
        return float(np.nanmean(by_window[..., mapped]))

    dependence = query_dependence(trace)
    row: Row = {
        "recall": mean(dense.recall(trace, full)), "recall_chance": routing.chance(trace),
        "recall_nearest": mean(dense.recall(trace, full, windows=routing.nearest_windows(trace))),
        "recall_oracle": mean(dense.recall(trace, full, windows=dense.oracle_windows(trace, full))),
        "shared": routing.shared_choices(trace), "query_dependence": dependence if math.isfinite(dependence) else None}
    if labels is not None and len(labels):
        found = semantic_overlap(trace, labels_on_grid(trace.grid, labels, ignore)).to_dict()
        row |= {"overlap": found["routed"], "overlap_chance": found["chance"], "overlap_nearest": found["nearest"],
                "overlap_oracle": found["oracle"]}
    return row


def _means(rows: Sequence[Row]) -> dict[str, Any]:
    names = {name: None for row in rows for name in row}
    means = {}
    for name in names:
        values = [value for row in rows if (value := row.get(name)) is not None]
        means[name] = round(sum(values) / len(values), 5) if values else None
    return means
