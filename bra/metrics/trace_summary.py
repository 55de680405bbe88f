"""A trace as text for a terminal and as a table for a notebook: settings, recall, query dependence, a block picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from bra.markup import table_html
from bra.metrics.between_layers import overlap, routed_layers, transferred
from bra.metrics.dense import dense_attention, recall
from bra.metrics.query_dependence import query_dependence
from bra.metrics.routing import chance, on_map, shared_choices
from bra.tracing import LayerTrace

HEAD: Final = ("layer", "tokens", "n_win", "topk", "heads", "recall", "chance", "query dep.", "shared", "as before",
               "taken over")
LEGEND: Final = ("recall: share of full attention that falls on the routed windows; chance: on as many random ones; "
                 "query dep.: share of the affinities' variance that depends on the query; shared: of all choices, "
                 "those of the topk windows chosen most; as before: overlap on the picture with what the routed "
                 "layer before is routed to; taken over: recall if the layer took over that choice.")
MOST_WEIGHTS: Final = 2**28
"""Attention weights of a layer up to which its recall is worked out for a print: about a second on one core."""
CELLS: Final = 32
"""Rows and columns of a block picture; of more windows, each cell stands for several."""
SHADES: Final = " ░▒▓█"


def layer_numbers(trace: LayerTrace, image: int = 0, before: LayerTrace | None = None) -> dict[str, float]:
    """Recall, chance, query dependence, shared choices, and of two layers overlap and recall of the other's choice.

    All 0 to 1; NaN where one is not worked out. `before` is the routed layer that ran before, if there is one.
    """
    kept = taken = alike = math.nan
    if before is not None and before.grid.image == trace.grid.image:
        alike = overlap(before, trace, image)[0]
    if not trace.routed:
        kept = 1.0
    elif trace.attention_known and trace.spec.num_heads * math.prod((*trace.q.shape[2:4], *trace.k.shape[2:4])) <= \
            MOST_WEIGHTS:
        dense, mapped = dense_attention(trace, image), on_map(trace)
        kept = float(recall(trace, dense, image)[:, mapped].mean())
        if before is not None and not math.isnan(alike):
            taken = float(recall(trace, dense, image, transferred(before, trace, image))[:, mapped].mean())
    return {"recall": kept, "chance": chance(trace), "query dep.": query_dependence(trace, image) if trace.routed else
            math.nan, "shared": shared_choices(trace, image) if trace.routed else math.nan, "as before": alike,
            "taken over": taken}


def _cells(trace: LayerTrace, before: LayerTrace | None) -> tuple[str, ...]:
    grid, spec = trace.grid, trace.spec
    shown = (f"{100 * value:.0f} %" if math.isfinite(value) else "–"
             for value in layer_numbers(trace, before=before).values())
    return (trace.name or "attention", f"{grid.h}×{grid.w}", str(spec.n_win), str(spec.topk) if trace.routed else "all",
            str(spec.num_heads), *shown)


def _rows(layers: Mapping[str, LayerTrace]) -> list[tuple[str, ...]]:
    routed = routed_layers(layers)
    before = dict(zip((lt.name for lt in routed[1:]), routed, strict=False))
    return [_cells(trace, before.get(trace.name)) for trace in layers.values()]


def layers_text(layers: Mapping[str, LayerTrace], picture: str | None = None) -> str:
    """A table of layers, and the routing of one of them as a block picture.

    Args:
        layers: by name.
        picture: which layer to draw; None for the first that is routed.
    """
    table = [HEAD, *_rows(layers)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.rjust(n) if at else cell.ljust(n) for at, (cell, n) in
                       enumerate(zip(line, widths, strict=True))).rstrip() for line in table]
    wanted = [trace for name, trace in layers.items() if (trace.routed if picture is None else name == picture)]
    for drawn in wanted[:1]:
        lines += ["", f"{drawn.name or 'attention'}: query windows 0 to {drawn.grid.n_windows - 1} down, the windows "
                  "that they are routed to across", block_picture(drawn)]
    return "\n".join(lines)


def layers_html(layers: Mapping[str, LayerTrace]) -> str:
    """The table of `layers_text` for a notebook."""
    title = f"{len(layers)} attention layers" if len(layers) > 1 else "1 attention layer"
    return table_html(title, HEAD, _rows(layers), LEGEND)


def block_picture(trace: LayerTrace, image: int = 0) -> str:
    """The routing as characters: a row of queries, a column of windows; the darker, the more of a cell is routed."""
    p2 = trace.grid.n_windows
    chosen = np.zeros((p2, p2))
    np.put_along_axis(chosen, trace.r_idx[image].numpy(), 1.0, -1)
    edges = np.linspace(0, p2, min(p2, CELLS) + 1).round().astype(int)
    sums = np.add.reduceat(np.add.reduceat(chosen, edges[:-1], 0), edges[:-1], 1)
    share = sums / np.outer(np.diff(edges), np.diff(edges))
    shade = np.ceil(share * (len(SHADES) - 1)).astype(int)
    return "\n".join("".join(2 * SHADES[at] for at in row).rstrip() for row in shade)
