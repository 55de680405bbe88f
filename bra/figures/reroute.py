"""What became of a model's answer when one layer was routed otherwise: its scores, and its boxes on the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

from bra.experiments.reroute import FATES, AnswerRow, row_names
from bra.figures.template import COLOURS, LIGHT, Style, dressed, escaped, hover, on_picture
from bra.grid import WindowGrid
from bra.messages import message

MOST_ROWS: Final = 20
"""Rows of a chart: of more, those that changed most."""
BEFORE, AFTER = message("before"), message("afterwards")
COLOUR_OF: Final = {"kept": COLOURS["routed"], "lost": COLOURS["best"], "new": COLOURS["nearest"]}
"""Of the boxes on the picture, by what became of them."""


def shown_rows(rows: Sequence[AnswerRow]) -> list[int]:
    """Numbers of the rows of a chart, in order: all, or of many those that came, went or changed most."""
    order = sorted(range(len(rows)), key=lambda at: -2.0 if (change := rows[at].change) is None else -abs(change))
    return sorted(order[:MOST_ROWS])


def scores(rows: Sequence[AnswerRow], style: Style = LIGHT, caption: str = "") -> go.Figure:
    """Score of each box or probability of each class before and after, a line between them.

    `customdata` of a mark is [name, score before, score after], the scores in words.

    Args:
        rows: as `compare_answers` gives them, with labels in the figure's language.
        style: of the figure.
        caption: what the numbers are of.
    """
    chosen, names = shown_rows(rows), row_names(rows)
    picked = [rows[at] for at in chosen]
    about = [_about(rows[at], names[at]) for at in chosen]
    places = list(range(len(chosen)))
    lines_x: list[float | None] = []
    lines_y: list[float | None] = []
    for at, row in zip(places, picked, strict=True):
        if row.before is not None and row.after is not None:
            lines_x += [row.before, row.after, None]
            lines_y += [at, at, None]
    figure = go.Figure(go.Scatter(x=lines_x, y=lines_y, mode="lines", showlegend=False, hoverinfo="skip",
                                  line={"width": 3, "color": COLOURS["rejected"]}))
    # A ring around a dot: both are seen where little changed.
    for name, values, mark, side, colour in (
            (BEFORE, [row.before for row in picked], "circle-open", 15, COLOURS["routed"]),
            (AFTER, [row.after for row in picked], "circle", 8, COLOURS["best"])):
        figure.add_scatter(x=values, y=places, mode="markers", name=style.tr(name), customdata=about, cliponaxis=False,
                           hovertemplate=_read(style), marker={"symbol": mark, "size": side, "color": colour,
                                                              "line": {"width": 2.5, "color": colour}})
    return dressed(figure, style, caption, 90 + round(5 * style.size) + round(1.9 * style.size) * len(chosen),
                   showlegend=True, xaxis={"range": [0, 1.03], "tickformat": ".0%",
                                           "title_text": style.tr(message("score or probability"))},
                   yaxis={"tickvals": places, "ticktext": [escaped(names[at]) for at in chosen],
                          "range": [len(chosen) - 0.4, -0.6], "zeroline": False})


def boxes(rows: Sequence[AnswerRow], grid: WindowGrid, picture: bytes, size: tuple[float, float],
          style: Style = LIGHT, caption: str = "") -> go.Figure:
    """The boxes on the picture: where they are afterwards, and where those were that are lost.

    `customdata` of a box is [name, score before, score after], the scores in words.

    Args:
        rows: of a detector, with labels in the figure's language.
        grid: of the layer.
        picture: encoded.
        size: (height, width) of the picture in the pixels of the grid.
        style: of the figure.
        caption: what the numbers are of.
    """
    figure, named = go.Figure(), list(zip(rows, row_names(rows), strict=True))
    for fate, label in FATES.items():
        chosen = [(row, name) for row, name in named if row.fate == fate]
        x: list[float | None] = []
        y: list[float | None] = []
        about: list[list[str]] = []
        for row, name in chosen:
            left, top, right, bottom = row.after_box or row.before_box or (0.0, 0.0, 0.0, 0.0)
            x += [size[1] * left, size[1] * right, size[1] * right, size[1] * left, size[1] * left, None]
            y += [size[0] * top, size[0] * top, size[0] * bottom, size[0] * bottom, size[0] * top, None]
            about += [_about(row, name)] * 6
        if chosen:
            figure.add_scatter(x=x, y=y, mode="lines", name=f"{style.tr(label)} ({len(chosen)})", customdata=about,
                               hovertemplate=_read(style), line={"color": COLOUR_OF[fate], "width": 2.5,
                                                                 "dash": "dot" if fate == "lost" else "solid"})
    on_picture(figure, grid, picture, style, size)
    return dressed(figure, style, caption, 540, showlegend=True)


def _about(row: AnswerRow, name: str) -> list[str]:
    return [escaped(name), *("–" if score is None else f"{score:.2%}" for score in (row.before, row.after))]


def _read(style: Style) -> str:
    return hover(style, (message("what"), "%{customdata[0]}"), (BEFORE, "%{customdata[1]}"),
                 (AFTER, "%{customdata[2]}"))
