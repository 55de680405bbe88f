"""How much of a layer's routing depends on the query: the share of its affinities' variance that is no column effect.

Take the row means off the affinities A (p2, p2), for a constant added to a row changes no choice:

    B[i, j] = A[i, j] − mean_j A[i, j].

What is left splits into the column means c[j] = mean_i B[i, j], the same for every query, and the rest. As in a
two-way analysis of variance the two are orthogonal, so that

    query dependence = 1 − Σ_j p2·c[j]² / Σ_ij B[i, j]²,     0 to 1.

0: every query ranks the windows alike, and the routing is a fixed selection, whatever the picture shows at the query.
1: no window is wanted more than another on average over all queries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bra.metrics.routing import Floats, choosable, on_map
from bra.tracing import LayerTrace


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


def _asked(trace: LayerTrace, image: int) -> Floats:
    """(queries on the map, windows that may be chosen) affinities."""
    return np.asarray(trace.affinity[image].double().numpy()[on_map(trace)][:, choosable(trace)])
