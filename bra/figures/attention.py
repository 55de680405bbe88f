"""What query tokens attend to, head by head, over the picture and under one colour axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from bra.figures.template import (
    ACROSS,
    COLOURS,
    DOWN,
    LIGHT,
    Style,
    attention_scale,
    box_frame,
    colour_bar,
    dressed,
    hover,
    on_picture,
    window_frame,
)
from bra.grid import WindowGrid
from bra.messages import comma_joined, message, spaced
from bra.metrics import routing
from bra.photo import Photo
from bra.tracing import LayerTrace, geometry
from bra.units import percent
from bra.viewer.pack import Place, locate

COLUMNS: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Attended:
    """What one query attends to.

    Attributes:
        role: "a" or "b".
        window: its window.
        token: its token in the window; None for the mean over the window.
        maps: (m, H, W) a head each, padding included; each sums to 1.
    """

    role: str
    window: int
    token: int | None
    maps: NDArray[np.float32]


def attended(trace: LayerTrace, photo: Photo, queries: Sequence[tuple[str, Place, bool]],
             mean_map: Callable[[int], Any] | None = None) -> tuple[Attended, ...]:
    """What queries attend to.

    Args:
        trace: one layer on the picture; image 0 of the batch.
        photo: the picture.
        queries: role "a" or "b", place, and whether the whole window is meant instead of its token at that place.
        mean_map: a window -> its `attention_map`, where that was worked out elsewhere.
    """
    if not trace.attention_known:
        return ()
    found = []
    for role, place, whole in queries:
        window, token = locate(trace.grid, photo, place)
        made = (mean_map or trace.attention_map)(window) if whole else trace.attention_map(window, token)
        found.append(Attended(role, window, None if whole else token, made.float().numpy()))
    return tuple(found)


def about(trace: LayerTrace, of: Attended) -> str:
    """A query in words, where it is routed, and how much of its attention falls on padding."""
    if of.token is None:
        what = message("mean over the tokens of window {window}", window=of.window)
    else:
        row, col = trace.grid.token_of_window(of.window, of.token)
        what = message("token {token} of window {window} (the star; row {row}, column {col})", token=of.token,
                       window=of.window, row=row, col=col)
    who = message("{role} attends to: {what}", role=of.role.upper(), what=what)
    if not trace.routed:
        return message("{who}. {rest}", who=who, rest=_reached(trace, of))
    windows = comma_joined([str(window) for window in trace.r_idx[0, of.window].tolist()])
    leak = routing.padding_share(trace.grid, of.maps)
    rest = message("Routed windows {windows}; all else is 0 because it was not chosen. {leak} of it falls on padding.",
                   windows=windows, leak=percent(leak)) if leak > 0.0005 else message(
        "Routed windows {windows}; all else is 0 because it was not chosen.", windows=windows)
    return message("{who}. {rest}", who=who, rest=rest)


def outside_names(trace: LayerTrace) -> str:
    """The tokens that a layer attends to and that are no places of the picture, in words."""
    n = len(trace.outside)
    if trace.outside[:1] == ("class token",):
        return message("the class token") if n == 1 else message("the class token and {n} others", n=n - 1)
    return message("{n} other tokens", n=n)


def _reached(trace: LayerTrace, of: Attended) -> str:
    """What a query of a layer that does not route reaches, and how much goes beside the picture."""
    reach = message("It does not route: {geometry}. All that it does not reach is 0.", geometry=geometry(trace)) \
        if trace.spec.topk < trace.grid.n_windows else \
        message("It does not route: {geometry}.", geometry=geometry(trace))
    leak = routing.padding_share(trace.grid, of.maps)
    beside = float(trace.outside_attention(of.window, of.token).sum(-1).mean()) if trace.outside else 0.0
    parts = [reach]
    if beside > 0:
        parts.append(message("{share} goes to {tokens}: no places of the picture.", share=percent(beside),
                             tokens=outside_names(trace)))
    if leak > 0.0005:
        parts.append(message("{share} falls on padding.", share=percent(leak)))
    return spaced(parts)


def names_of(heads: int) -> tuple[str, ...]:
    """What can be shown of a layer with so many heads: their mean, their maximum, and each."""
    return (message("mean"), message("max"), *(message("head {n}", n=n) for n in range(heads)))


def shown_maps(of: Attended, which: Sequence[int]) -> NDArray[np.float32]:
    """(n, H, W): mean, maximum or single heads by their places in `names_of`."""
    every = [of.maps.mean(0), of.maps.max(0), *of.maps]
    return np.stack([every[n] for n in which])


def attention(queries: Sequence[Attended], which: Sequence[int], grid: WindowGrid, picture: bytes,
              size: tuple[float, float], style: Style = LIGHT, caption: str = "") -> go.Figure:
    """A subplot per query and map. `z` is the share of the query's attention in per cent, nothing where it is 0;
    `layout.meta` names the queries.

    Args:
        queries: A, or A and B.
        which: of the maps, as places in `names_of`; the same for every query.
        grid: of the layer.
        picture: encoded.
        size: (height, width) of the picture in the pixels of the grid.
        style: of the figure.
        caption: what the numbers are of.
    """
    names = names_of(len(queries[0].maps))
    columns = 1 if style.narrow else min(COLUMNS, max(2, len(which)))
    lines = -(-len(which) // columns)
    titles = [f"{query.role.upper()}: {style.tr(names[which[n]])}" if n < len(which) else ""
              for query in queries for n in range(lines * columns)]
    figure = make_subplots(rows=len(queries) * lines, cols=columns, subplot_titles=titles, horizontal_spacing=0.015,
                           vertical_spacing=min(0.12, 0.3 / (len(queries) * lines)))
    top, left, bottom, right = grid.box()
    dy, dx = grid.stride
    # One scale for all that is drawn, and for what could be switched to: heads are compared by their colours.
    most = max(float(query.maps.max()) for query in queries)
    shapes = []
    for q, query in enumerate(queries):
        for n, values in enumerate(shown_maps(query, which)):
            row, col = q * lines + n // columns + 1, n % columns + 1
            at = (row - 1) * columns + col
            axes = (f"x{at if at > 1 else ''}", f"y{at if at > 1 else ''}")
            figure.add_heatmap(
                z=np.where(values > 0, 100 * values, np.nan).astype(np.float32), x0=left + dx / 2, dx=dx,
                y0=top + dy / 2, dy=dy, coloraxis="coloraxis", opacity=0.85, zsmooth=False, row=row, col=col,
                name=titles[at - 1], hovertemplate=f"{titles[at - 1]}<br>" + hover(
                    style, (message("share of attention"), "%{z:.3~g} %"), (ACROSS, "%{x:.0f}"), (DOWN, "%{y:.0f}")))
            on_picture(figure, grid, picture, style, size, 0.6, axes)
            shapes.append(window_frame(grid, query.window, COLOURS[query.role], axes))
            if query.token is not None:
                shapes.append(box_frame(grid.box_of_token(*grid.token_of_window(query.window, query.token)), "#ffffff",
                                        axes, 1.5))
    # Of a crowd of small pictures the axes all count the same pixels: only the outer ones say so.
    axis_layout: dict[str, Any] = {}
    for n in range(len(queries) * lines * columns):
        last, first = n >= (len(queries) * lines - 1) * columns, n % columns == 0
        axis_layout[f"xaxis{n + 1 if n else ''}"] = {
            "showticklabels": last, "title_text": style.tr(ACROSS) if last and first else ""}
        axis_layout[f"yaxis{n + 1 if n else ''}"] = {
            "showticklabels": first, "title_text": style.tr(DOWN) if first else ""}
    aspect = (bottom - top) / (right - left)
    height = round(170 + len(queries) * lines * (40 + min(330, 760 / columns) * aspect))
    told = [{"role": query.role, "window": query.window, "token": query.token} for query in queries]
    figure.update_layout(meta={"queries": told}, shapes=shapes, coloraxis={
        "colorscale": attention_scale(by_root=True), "cmin": 0, "cmax": 100 * most or 1,
        "colorbar": colour_bar(style, message("share of the query's attention, %"), 26)}, **axis_layout)
    return dressed(figure, style, caption, height, margin_t=110)
