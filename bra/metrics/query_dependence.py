"""How much of a layer's routing depends on the query: the share of its affinities' variance that is no column effect.

Take the row means off the affinities A (p2, p2), for a constant added to a row changes no choice:

    B[i, j] = A[i, j] − mean_j A[i, j].

What is left splits into the column means c[j] = mean_i B[i, j], the same for every query, and the rest. As in a
two-way analysis of variance the two are orthogonal, so that

    query dependence = 1 − Σ_j p2·c[j]² / Σ_ij B[i, j]²,     0 to 1.

0: every query ranks the windows alike, and the routing is a fixed selection, whatever the picture shows at the query.
1: no window is wanted more than another on average over all queries. In a model whose router learned nothing we
measured 0.05 to 0.37, with untaught content similarity 0.75, and after training with a routing loss 0.95.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bra.messages import message
from bra.metrics.routing import Floats, Ints, chance, choosable, on_map, shared_choices
from bra.tracing import LayerTrace

COLLAPSED_DEPENDENCE = 0.3
"""Query dependence below which a layer collapsed, where most of its choices are shared too."""
COLLAPSED_SHARED = 0.5
"""Shared choices above which a layer collapsed, on the way from even routing (0) to the same windows for all (1)."""


def query_dependence(trace: LayerTrace, image: int = 0) -> float:
    """Share of the affinities' variance that depends on the query, 0 to 1; formula and range in the module's text.

    Good is above about 0.6, beside a low `shared_choices`: this is what the router wants, that is what it chose. Query
    windows of padding do not ask, and windows that may not be chosen do not answer. NaN where all windows are wanted
    equally.
    """
    return query_dependence_of(_asked(trace, image))


def query_dependence_of(affinity: NDArray[np.floating]) -> float:
    """The same of a matrix of affinities (queries, windows)."""
    rest = affinity - affinity.mean(-1, keepdims=True)
    total = float((rest**2).sum())
    if total <= 1e-12 * max(1.0, float((affinity**2).sum())):
        return float("nan")
    return float(1 - len(rest) * (rest.mean(0) ** 2).sum() / total)


def without_hubs(trace: LayerTrace, image: int = 0) -> Floats:
    """(p2, p2): affinities less the column means over all queries on the map; what depends on the query.

    Not what the layer did: it chose by its affinities as they are. Windows masked as padding stay at -inf.
    """
    logits = trace.affinity[image].double().numpy()
    means = logits[on_map(trace)].mean(0)
    return np.asarray(logits - np.where(np.isfinite(means), means, 0.0))


def choices_without_hubs(trace: LayerTrace, image: int = 0) -> Ints:
    """(p2, k): windows that each query would choose by `without_hubs`, best first, equals by index."""
    return np.argsort(-without_hubs(trace, image), -1, kind="stable")[:, : trace.spec.topk]


def collapsed(trace: LayerTrace, image: int = 0) -> bool:
    """Whether a layer's routing hardly depends on the query: neither what it wants nor what it chose."""
    even = trace.spec.topk / int(choosable(trace).sum())
    return collapsed_by(shared_choices(trace, image), query_dependence(trace, image), even)


def collapsed_by(shared: float | None, dependence: float | None, even: float) -> bool:
    """The same from the numbers.

    Args:
        shared: `shared_choices`; None where it was not measured, and nothing is flagged.
        dependence: `query_dependence`; NaN or None, where all windows are wanted equally, is none at all.
        even: topk over the windows that may be chosen, which is what even routing shares.
    """
    depends = dependence is not None and dependence >= COLLAPSED_DEPENDENCE     # False for NaN
    return shared is not None and even < 1 and (shared - even) / (1 - even) > COLLAPSED_SHARED and not depends


def in_words(trace: LayerTrace, image: int = 0) -> str:
    """How much of a layer's routing depends on the query, in a sentence; "" where nothing is chosen."""
    if not trace.routed or trace.spec.topk >= trace.grid.n_windows:
        return ""
    share, dependence = shared_choices(trace, image), query_dependence(trace, image)
    values = {"share": 100 * share, "topk": trace.spec.topk, "even": 100 * chance(trace),
              "dependence": 0.0 if math.isnan(dependence) else 100 * dependence}
    if collapsed(trace, image):
        return message("Collapsed: {share:.0f} % of all choices in this layer fall on the same {topk} windows (even: "
                       "{even:.0f} %), and {dependence:.0f} % of its affinities' variance depends on the query. It "
                       "hardly matters where you point.", **values)
    return message("{dependence:.0f} % of this layer's affinities' variance depends on the query; {share:.0f} % of all "
                   "choices fall on the same {topk} windows (even: {even:.0f} %).", **values)


def _asked(trace: LayerTrace, image: int) -> Floats:
    """(queries on the map, windows that may be chosen) affinities."""
    return np.asarray(trace.affinity[image].double().numpy()[on_map(trace)][:, choosable(trace)])
