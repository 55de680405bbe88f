"""Two settings, models or checkpoints on one picture: what both look at, what only one sees, what each costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bra.compare import Compared, SettingRow
from bra.metrics.agreement import Shared, even_places, shared, windows_at
from bra.metrics.dense import layer_output
from bra.metrics.routing import Floats
from bra.tracing import LayerTrace


@dataclass(frozen=True, slots=True, eq=False)
class Versus:
    """One layer A against another B.

    Attributes:
        rows: what each keeps of its own full attention, and costs.
        traces: each one's trace.
        shared: areas for the query at each of `areas.even_places()`.
        chance: intersection over union that two random choices of such areas would have, mean over queries.
        difference: (h, w) norm of the difference of both outputs over the mean of their norms, 0 to 2, per token; None
            where their maps or channels differ.
    """

    rows: tuple[SettingRow, SettingRow]
    traces: tuple[LayerTrace, LayerTrace]
    shared: Shared
    chance: float
    difference: Floats | None


def versus(a: Compared, b: Compared) -> Versus:
    """Compare two layers on one picture: the first setting of each."""
    trace_a, trace_b = a.traces[0], b.traces[0]
    places = even_places()
    areas = shared(trace_a, windows_at(trace_a.grid, places), trace_b, windows_at(trace_b.grid, places))
    in_a, in_b = areas.both + areas.only_a, areas.both + areas.only_b
    return Versus((a.rows[0], b.rows[0]), (trace_a, trace_b), areas,
                  float((in_a * in_b / np.maximum(in_a + in_b - in_a * in_b, 1e-12)).mean()),
                  difference(trace_a, trace_b))


def difference(a: LayerTrace, b: LayerTrace) -> Floats | None:
    """(h, w): see `Versus.difference`; 0 where both outputs are 0."""
    y_a, y_b = layer_output(a).double().numpy(), layer_output(b).double().numpy()
    if y_a.shape != y_b.shape:
        return None
    size = (np.linalg.norm(y_a, axis=-1) + np.linalg.norm(y_b, axis=-1)) / 2
    return np.asarray(np.divide(np.linalg.norm(y_a - y_b, axis=-1), size, out=np.zeros_like(size), where=size > 0))
