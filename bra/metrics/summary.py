"""One layer's fidelity as a row of numbers, for tables and model cards."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bra.metrics import dense as bd
from bra.metrics import routing as bf
from bra.metrics.query_dependence import query_dependence
from bra.tracing import LayerTrace


@dataclass(frozen=True, slots=True)
class LayerFidelity:
    """Means over the windows on the map (and the heads) of one layer on one image; each is explained at its source.

    Attributes:
        layer: its name.
        routed: False for full attention, which is its own dense attention.
        n_win: windows per side.
        topk: windows each window was routed to.
        windows: windows on the map.
        padding_share: share of the padded map's tokens that are padding.
        recall: `dense.recall` of the routed windows.
        recall_chance: of k windows at random; `fidelity.chance`.
        recall_nearest: of the k nearest windows.
        recall_oracle: of the k windows that would have been best, for all heads together.
        kept_share: `fidelity.kept_share`, to be judged against recall_chance too.
        margin: `fidelity.margin`, mean over the windows where it is finite; NaN when it is nowhere.
        entropy: `fidelity.routing_entropy`.
        in_degree_max: the most windows that read one window.
        in_degree_skew: `fidelity.in_degree_skew`.
        hubs: share of windows that are hubs.
        never_chosen: share of windows that nobody reads.
        shared_choices: `fidelity.shared_choices`.
        query_dependence: `metrics.query_dependence.query_dependence`; NaN where all windows are wanted equally.
        self_routed: share of windows that chose themselves.
        distance: `fidelity.mean_distance` of the routed windows, pixels.
        distance_chance: mean distance to all windows that may be chosen.
        distance_nearest: mean distance to the k nearest windows.
        padding_leak: `fidelity.padding_leak`.
        relative_error: of the output against that of full attention; `dense.output_change`.
        cosine: of the output with that of full attention; `dense.output_change`.
        attention_share: `dense.attention_share`.
    """

    layer: str
    routed: bool
    n_win: int
    topk: int
    windows: int
    padding_share: float
    recall: float
    recall_chance: float
    recall_nearest: float
    recall_oracle: float
    kept_share: float
    margin: float
    entropy: float
    in_degree_max: int
    in_degree_skew: float
    hubs: float
    never_chosen: float
    shared_choices: float
    query_dependence: float
    self_routed: float
    distance: float
    distance_chance: float
    distance_nearest: float
    padding_leak: float
    relative_error: float
    cosine: float
    attention_share: float

    def to_dict(self) -> dict[str, Any]:
        """All numbers by name, fit for JSON: None where one is not finite."""
        return {name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in asdict(self).items()}


def report(trace: LayerTrace, image: int = 0) -> LayerFidelity:
    """Every number about a layer on one image. Takes as long as `dense.dense_attention` does.

    Args:
        trace: the layer.
        image: which image of the batch.
    """
    mapped, grid = bf.on_map(trace), trace.grid
    dense, nearest = bd.dense_attention(trace, image), bf.nearest_windows(trace)
    change = bd.output_change(trace, dense, image)
    margins = bf.margin(trace, image)[mapped]

    def mean(by_window: NDArray[Any]) -> float:
        """Over (…, p2): the windows on the map."""
        return float(np.nanmean(by_window[..., mapped])) if np.isfinite(by_window[..., mapped]).any() else math.nan

    leaks = [bf.padding_leak(trace, int(w), image) for w in np.flatnonzero(mapped)] if grid.padding_share else [0.0]
    return LayerFidelity(
        layer=trace.name, routed=trace.routed, n_win=grid.n_win, topk=trace.spec.topk, windows=int(mapped.sum()),
        padding_share=grid.padding_share,
        recall=mean(bd.recall(trace, dense, image)), recall_chance=bf.chance(trace),
        recall_nearest=mean(bd.recall(trace, dense, image, nearest)),
        recall_oracle=mean(bd.recall(trace, dense, image, bd.oracle_windows(trace, dense))),
        kept_share=mean(bf.kept_share(trace, image)),
        margin=float(margins[np.isfinite(margins)].mean()) if np.isfinite(margins).any() else math.nan,
        entropy=mean(bf.routing_entropy(trace, image)),
        in_degree_max=int(bf.in_degree(trace, image, mapped)[mapped].max()),
        in_degree_skew=bf.in_degree_skew(trace, image),
        hubs=mean(bf.hubs(trace, image)), never_chosen=mean(bf.never_chosen(trace, image)),
        shared_choices=bf.shared_choices(trace, image), query_dependence=query_dependence(trace, image),
        self_routed=mean(bf.self_routed(trace, image)),
        distance=mean(bf.mean_distance(trace, image)),
        distance_chance=mean(bf.window_distances(trace)[:, bf.choosable(trace)].mean(-1)),
        distance_nearest=mean(bf.mean_distance(trace, image, nearest)),
        padding_leak=float(np.mean(leaks)),
        relative_error=mean(change.relative_error), cosine=mean(change.cosine),
        attention_share=mean(bd.attention_share(trace, image)))
