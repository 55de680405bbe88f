"""Settings side by side: what they keep of full attention over what they cost, and distributions over pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import plotly.graph_objects as go

from bra.experiments.compare import CostName, SettingRow, pareto_front
from bra.experiments.sweep_table import Summary
from bra.figures.template import COLORWAY, COLOURS, LIGHT, Style, dressed, hover, log_ticks
from bra.messages import message
from bra.units import quantity

AXES: Final[dict[CostName, tuple[str, float]]] = {
    "macs": (message("million multiply-adds of the layer"), 1e-6),
    "peak_bytes": (message("MB alive at the layer's worst moment"), 1e-6),
    "seconds": (message("milliseconds of the layer, on this machine"), 1e3)}
KEPT: Final = message("of full attention kept")
BY_SHARE: Final[dict[str, Any]] = {"range": [0, 1.02], "tickformat": ".0%"}
SHOWN_TICKS: Final = 400


def deciding(rows: Sequence[SettingRow], cost: CostName, style: Style = LIGHT, caption: str = "") -> go.Figure:
    """A point per setting, a series per n_win; the Pareto front; beneath it what nearest and random windows keep.

    A point's `customdata` is [n_win, topk, nearest, chance, multiply-adds, memory]; the last two with their units.
    """
    title, factor = AXES[cost]
    costed = [(row, float(value) * factor, on) for row, on in zip(rows, pareto_front(rows, cost), strict=True)
              if (value := getattr(row, cost)) is not None]
    figure = go.Figure()
    for n, (field, name, dash) in enumerate((("nearest", message("nearest windows"), "dash"),
                                             ("chance", message("random windows"), "dot"))):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for n_win in sorted({row.n_win for row, _, _ in costed}):
            line = sorted((x, getattr(row, field)) for row, x, _ in costed if row.n_win == n_win)
            xs += [*(x for x, _ in line), None]
            ys += [*(y for _, y in line), None]
        figure.add_scatter(x=xs, y=ys, mode="lines", name=style.tr(name), legendrank=2000 + n,
                           line={"color": COLOURS[field], "dash": dash, "width": 1.5},
                           hovertemplate=hover(style, (name, "%{y:.1%}"), (title, "%{x:,.3~f}")))
    best = sorted((x, row.recall) for row, x, on in costed if on)
    figure.add_scatter(x=[x for x, _ in best], y=[y for _, y in best], mode="lines", hoverinfo="skip",
                       name=style.tr(message("Pareto front")), legendrank=1999,
                       line={"color": COLOURS["rejected"], "width": 3, "shape": "hv"})
    colours = [colour for colour in COLORWAY if colour not in (COLOURS["nearest"], COLOURS["chance"],
                                                               COLOURS["rejected"])]
    for n, n_win in enumerate(sorted({row.n_win for row, _, _ in costed})):
        these = sorted(((x, row, on) for row, x, on in costed if row.n_win == n_win), key=lambda one: one[0])
        figure.add_scatter(
            x=[x for x, _, _ in these], y=[row.recall for _, row, _ in these], mode="markers+lines",
            name=f"n_win {n_win}", line={"color": colours[n % len(colours)], "width": 1},
            marker={"size": [15 if on else 9 for _, _, on in these], "opacity": 1,
                    "line": {"width": 1, "color": "rgba(0,0,0,.5)"}},
            customdata=[[row.n_win, row.topk, row.nearest, row.chance, quantity(row.macs),
                         quantity(row.peak_bytes) + "B"] for _, row, _ in these],
            hovertemplate=hover(style, (message("setting"), "n_win %{customdata[0]}, topk %{customdata[1]}"),
                                (message("keeps"), "%{y:.1%}"), (message("nearest"), "%{customdata[2]:.1%}"),
                                (message("chance"), "%{customdata[3]:.1%}"), (title, "%{x:,.3~f}"),
                                (message("multiply-adds"), "%{customdata[4]}"),
                                (message("memory"), "%{customdata[5]}")))
    return dressed(figure, style, caption, 400, yaxis=BY_SHARE | {"title_text": style.tr(KEPT)}, showlegend=True,
                   xaxis=log_ticks([x for _, x, _ in costed] or [1]) | {"title_text": style.tr(title)})


def swept(rows: Sequence[Summary], style: Style = LIGHT, caption: str = "") -> go.Figure:
    """One layer of a sweep: every picture's recall as a tick, the mean with its 95 % interval, nearest and random.

    `customdata` of the means is [low, high, pictures].
    """
    at = list(range(len(rows)))
    figure = go.Figure()
    # Of many pictures, evenly many of them: a browser draws each tick.
    values = [(n, value) for n, row in zip(at, rows, strict=True) for value in row.values[:SHOWN_TICKS]]
    figure.add_scatter(x=[value for _, value in values], y=[n for n, _ in values], mode="markers",
                       name=style.tr(message("one picture")), opacity=0.4,
                       marker={"symbol": "line-ns", "size": 12, "line": {"width": 1.5, "color": COLOURS["routed"]},
                               "color": COLOURS["routed"]},
                       hovertemplate=hover(style, (message("keeps"), "%{x:.1%}")))
    spans = [(0.0, 0.0) if math.isnan(row.interval[0]) else (row.interval[1] - row.recall, row.recall - row.interval[0])
             for row in rows]
    figure.add_scatter(
        x=[row.recall for row in rows], y=at, mode="markers", name=style.tr(message("mean, 95 % interval")),
        marker={"symbol": "diamond", "size": 9, "color": COLOURS["a"], "line": {"width": 1, "color": "#111"}},
        error_x={"type": "data", "symmetric": False, "array": [up for up, _ in spans],
                 "arrayminus": [down for _, down in spans], "color": COLOURS["a"], "thickness": 4, "width": 0},
        customdata=[[low, high, row.pictures] for row, (up, down) in zip(rows, spans, strict=True)
                    for low, high in [(row.recall - down, row.recall + up)]],
        hovertemplate=hover(style, (message("mean"), "%{x:.1%}"), (message("interval from"), "%{customdata[0]:.1%}"),
                            (message("interval to"), "%{customdata[1]:.1%}"),
                            (message("pictures"), "%{customdata[2]:,}")))
    for field, name, shape in (("nearest", message("nearest windows"), "triangle-down"),
                               ("chance", message("random windows"), "x"),
                               ("oracle", message("best possible"), "star")):
        colour = COLOURS["best" if field == "oracle" else field]
        figure.add_scatter(x=[getattr(row, field) for row in rows], y=at, mode="markers", name=style.tr(name),
                           marker={"symbol": shape, "size": 10, "color": colour,
                                   "line": {"width": 0.5, "color": "#111"}},
                           visible="legendonly" if field == "oracle" else True,
                           hovertemplate=hover(style, (name, "%{x:.1%}")))
    return dressed(figure, style, caption, 150 + 30 * len(rows), showlegend=True,
                   xaxis=BY_SHARE | {"title_text": style.tr(KEPT)}, yaxis={
                       "tickvals": at, "ticktext": [setting_name(row) for row in rows],
                       "range": [len(rows) - 0.5, -0.5], "zeroline": False, "showgrid": False})


def setting_name(row: Summary | SettingRow) -> str:
    """How a setting is called on an axis."""
    return f"n_win {row.n_win}, topk {row.topk}"
