"""A layer's trace, and the table of a recording, as files that other programs read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import numpy as np

from bra.readers.recording import TableRow
from bra.tracing import LayerTrace


def routing_csv(trace: LayerTrace, image: int = 0, provenance: str = "") -> str:
    """One line per query window and rank: p²·k lines under a header. Windows are numbered from 0, row by row.

    Where the weights come from stands in each line, if it is given.
    """
    p, rows = trace.grid.n_win, io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["query_window", "query_row", "query_column", "rank", "key_window", "key_row", "key_column",
                     "affinity", "weight", *(["provenance"] if provenance else [])])
    chosen = zip(trace.r_idx[image].tolist(), trace.r_weight[image].tolist(), strict=True)
    for query, (windows, weights) in enumerate(chosen):
        for rank, (key, weight) in enumerate(zip(windows, weights, strict=True), 1):
            writer.writerow([query, *divmod(query, p), rank, key, *divmod(key, p),
                             trace.affinity[image, query, key].item(), weight,
                             *([provenance] if provenance else [])])
    return rows.getvalue()


def recorded_csv(table: Sequence[TableRow]) -> str:
    """The rows of a recorded model: one line each, with whether all of its multiply-adds are counted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "type", "params", "macs", "all_counted", "out"])
    writer.writerows([row.name, row.kind, row.params, row.macs, row.counted, "x".join(map(str, row.out))]
                     for row in table)
    return text.getvalue()


def trace_npz(trace: LayerTrace, image: int = 0, provenance: str = "") -> bytes:
    """q, k, affinity, r_idx, r_weight and the settings (as JSON text in `spec` and `grid`) in one NPZ file.

    `provenance` in it says where the weights come from; "" where that is not known.

    Load it with `numpy.load(file)`; nothing in it is pickled.
    """
    grid = trace.grid
    described = {name: getattr(grid, name) for name in ("h", "w", "n_win", "H", "W", "stride", "origin", "image")}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, allow_pickle=False,
        q=trace.q[image].numpy(), k=trace.k[image].numpy(), affinity=trace.affinity[image].numpy(),
        r_idx=trace.r_idx[image].numpy(), r_weight=trace.r_weight[image].numpy(),
        layer=np.array(trace.name), provenance=np.array(str(provenance)),
        spec=np.array(json.dumps(trace.spec.to_dict())),
        grid=np.array(json.dumps(described)),
    )
    return buffer.getvalue()
