"""Rules of routing in one layer: what each keeps of full attention, and how far it moves the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

from bra.figures.template import COLOURS, LIGHT, Style, dressed, escaped, hover
from bra.messages import message
from bra.metrics.rules import RULES, RuleRow
from bra.units import quantity

COLOUR_OF: Final = {"bra": COLOURS["a"], "nearest": COLOURS["nearest"], "chance": COLOURS["chance"],
                    "oracle": COLOURS["rejected"]}
"""Of the bars: the layer's own rule and the controls; all others are alike."""


def rules(rows: Sequence[RuleRow], style: Style = LIGHT, caption: str = "") -> go.Figure:
    """A bar per rule, most kept on top, its name and number above it; marks for the output's change and for labels.

    `customdata` is [name, change of the output, multiply-adds, bytes], the last two in words. A dotted line is chance.
    """
    ranked = sorted(rows, key=lambda row: -row.recall)
    at, names = list(range(len(ranked))), [style.tr(RULES[row.rule].name) for row in ranked]
    figure = go.Figure(go.Bar(
        orientation="h", x=[row.recall for row in ranked], y=at, width=0.34, name=style.tr(message("keeps")),
        marker_color=[COLOUR_OF.get(row.rule, COLOURS["routed"]) for row in ranked], showlegend=False,
        customdata=[[name, row.change, quantity(row.macs), quantity(row.kv_bytes) + "B"]
                    for name, row in zip(names, ranked, strict=True)],
        hovertemplate=hover(style, (message("rule"), "%{customdata[0]}"), (message("keeps"), "%{x:.1%}"),
                            (message("change of the output"), "%{customdata[1]:.1%}"),
                            (message("multiply-adds"), "%{customdata[2]}"),
                            (message("keys and values read"), "%{customdata[3]}"))))
    marks: list[tuple[str, list[float | None], str, str]] = [
        (message("change of the output"), [row.change for row in ranked], "circle", COLOURS["best"])]
    if any(row.overlap is not None for row in ranked):
        marks.append((message("overlap of labels"), [row.overlap for row in ranked], "diamond", COLOURS["chance"]))
    for label, values, symbol, colour in marks:
        figure.add_scatter(x=values, y=at, mode="markers", name=style.tr(label), cliponaxis=False,
                           marker={"symbol": symbol, "size": 10, "color": "#ffffff",
                                   "line": {"width": 2.5, "color": colour}},
                           hovertemplate=hover(style, (label, "%{x:.1%}")))
    for n, name, row in zip(at, names, ranked, strict=True):     # above the bar, where no mark lies on it
        figure.add_annotation(x=0, y=n - 0.2, xref="paper", yanchor="bottom", xanchor="left", showarrow=False,
                              text=f"{escaped(name)} · <b>{row.recall:.1%}</b>")
    for row in ranked:
        if row.rule == "chance":
            figure.add_vline(x=row.recall, layer="below",
                             line={"color": COLOURS["chance"], "dash": "dot", "width": 1.5})
    most = max([1.0, *(value for _, values, _, _ in marks for value in values if value is not None)])
    height = 40 + round(5 * style.size) + round(2.9 * style.size) * len(ranked)
    return dressed(figure, style, caption, height, showlegend=True, margin={"l": 12, "r": 12, "t": 40},
                   xaxis={"range": [0, 1.14 * most], "tickformat": ".0%",
                          "title_text": style.tr(message("of full attention kept; change of the output"))},
                   yaxis={"visible": False, "range": [len(ranked) - 0.5, -0.85]})
