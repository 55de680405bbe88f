"""Figures of the lesson: how cost grows with the picture, and bars of shares and amounts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go

from bra.figures.template import COLOURS, LIGHT, Style, dressed, escaped, hover
from bra.messages import message
from bra.teaching.experiments import Growth

GROWTH_OF: Final = message("one layer, 64 channels · formula, weights play no part")
KINDS: Final = {"main": COLOURS["a"], "other": COLOURS["rejected"], "bad": COLOURS["routed"]}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        name: what it is of.
        share: its length; 1 is 100 %.
        text: the number in words.
        kind: "main" for what the chapter is about, "other" for what it is held against, "bad" for what is lost.
    """

    name: str
    share: float
    text: str
    kind: str = "main"


def bars(rows: Sequence[Bar], axis: str, style: Style = LIGHT, caption: str = "") -> go.Figure:
    """Bars below each other, each with its name above it and its number at its end, so that names have room on a phone.

    `customdata` is [name, number in words].

    Args:
        rows: from top to bottom.
        axis: what the length is a share of.
        style: of the figure.
        caption: what the numbers are of.
    """
    at = list(range(len(rows)))
    lengths = [100 * max(row.share, 0) for row in rows]
    most = max([100, *lengths])
    figure = go.Figure(go.Bar(
        orientation="h", x=lengths, y=at, width=0.4, marker_color=[KINDS[row.kind] for row in rows],
        text=[row.text for row in rows], textposition="outside", constraintext="none", cliponaxis=False,
        customdata=[[row.name, row.text] for row in rows],
        hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>"))
    for n, row in zip(at, rows, strict=True):
        figure.add_annotation(x=0, y=n - 0.25, xref="paper", yanchor="bottom", xanchor="left", showarrow=False,
                              text=escaped(row.name))
    row_height = round(3.1 * style.size)
    return dressed(figure, style, caption, 16 + round(4.4 * style.size) + row_height * len(rows), showlegend=False,
                   margin={"l": 12, "r": 12, "t": 16},
                   xaxis={"range": [0, 1.18 * most], "ticksuffix": " %", "title_text": axis,
                          "tickvals": [0, 25, 50, 75, 100, *range(150, math.ceil(most), 50)]},
                   yaxis={"visible": False, "range": [len(rows) - 0.5, -0.85]})


def growth(every: Sequence[Growth], pixels: Sequence[int], at: int, style: Style = LIGHT) -> go.Figure:
    """Multiply-adds of full attention and of BRA over the side of the picture; the side that is looked at is marked.

    `customdata` is [tokens, pairs that are compared].
    """
    figure = go.Figure()
    for name, colour, of, pairs in ((message("full attention"), COLOURS["routed"], "full", "pairs"),
                                    (message("BRA"), COLOURS["a"], "routed", "routed_pairs")):
        figure.add_scatter(
            x=list(pixels), y=[getattr(one, of).macs / 1e9 for one in every], mode="lines+markers",
            name=style.tr(name), line={"color": colour, "width": 3},
            customdata=[[one.tokens, getattr(one, pairs)] for one in every], hovertemplate=hover(
                style, (message("side, pixels"), "%{x}"), (message("tokens"), "%{customdata[0]:,}"),
                (message("pairs compared"), "%{customdata[1]:,}"),
                (message("thousand million multiply-adds"), "%{y:,.3f}")))
    figure.add_vline(x=at, line={"color": COLOURS["rejected"], "dash": "dash"})
    return dressed(figure, style, GROWTH_OF, round(22 * style.size),
                   showlegend=True, xaxis_title_text=style.tr(message("side of the picture, pixels")),
                   yaxis_title_text=style.tr(message("thousand million multiply-adds")))
