"""Figures of one layer's routing: affinities ranked, the routing matrix, who is chosen, where attention goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import plotly.graph_objects as go

from bra.figures.template import (
    COLOURS,
    LIGHT,
    Style,
    attention_scale,
    colour_bar,
    dressed,
    hover,
    on_picture,
    window_frame,
)
from bra.grid import WindowGrid
from bra.messages import message
from bra.metrics import routing
from bra.tracing import LayerTrace

AFFINITY: Final = message("affinity, dot product of window means")
SHARE: Final = message("share of attention on the picture")
MOST_WINDOWS: Final = 576
"""Windows of which a browser still draws the whole matrix: 24 × 24."""
MOST_RANKS: Final = 400
MOST_BARS: Final = 49
"""Windows of a layer that reaches all that are told apart by bars."""
Query = tuple[str, int]
"""Role "a" or "b", and its window."""


def place_of(grid: WindowGrid, window: int) -> tuple[int, int]:
    """(row, column) of a window."""
    return divmod(window, grid.n_win)


def ranking(trace: LayerTrace, queries: Sequence[Query], style: Style = LIGHT, caption: str = "",
            image: int = 0) -> go.Figure:
    """Affinity of every window to each query, the highest first; the chosen lie left of the line at k.

    A point's `customdata` is [window, row, column, share of the softmax over all, weight or ""]. Of a layer that does
    not route it is the share of attention that each window gets.
    """
    if not trace.routed:
        return _shares(trace, queries, style, caption, image)
    grid, k = trace.grid, trace.spec.topk
    shares = routing.full_softmax(trace, image)
    figure = go.Figure()
    for role, query in queries:
        logits = trace.affinity[image, query].double().numpy()
        # The chosen first and in the module's own order, whatever it does with equals.
        chosen = trace.r_idx[image, query].tolist()
        weights = dict(zip(chosen, trace.r_weight[image, query].double().tolist(), strict=True))
        rest = [w for w in np.argsort(-logits, kind="stable").tolist() if w not in weights]
        for windows, start, name in ((chosen, 0, message("{role}: chosen", role=role.upper())),
                                     (rest[: MOST_RANKS - k], k, message("{role}: rejected", role=role.upper()))):
            figure.add_bar(
                x=list(range(start + 1, start + 1 + len(windows))), y=_finite(logits[windows]),
                name=style.tr(name), marker={"color": COLOURS[role], "opacity": 1 if start == 0 else 0.35},
                customdata=[[w, *place_of(grid, w), shares[query, w], f"{weights[w]:.4f}" if w in weights else "–"]
                            for w in windows],
                hovertemplate=hover(style, (message("query"), role.upper()), (message("rank"), "%{x}"), (
                    message("window"), "%{customdata[0]}, " + style.tr(message("row")) + " %{customdata[1]}, "
                    + style.tr(message("column")) + " %{customdata[2]}"), (AFFINITY, "%{y:.4~g}"),
                    (message("share of the softmax over all"), "%{customdata[3]:.2%}"),
                    (message("routing weight"), "%{customdata[4]}")))
    if k < grid.n_windows:
        figure.add_vline(x=k + 0.5, line={"dash": "dash", "color": COLOURS["rejected"], "width": 2},
                         annotation_text=f"topk {k}", annotation_position="top right")
    return dressed(figure, style, caption, 380, barmode="group", showlegend=True,
                   xaxis_title_text=style.tr(message("rank of the key window")),
                   yaxis_title_text=style.tr(AFFINITY))


def _shares(trace: LayerTrace, queries: Sequence[Query], style: Style, caption: str, image: int) -> go.Figure:
    """Share of attention of each window that a query's window reaches, the largest first; `customdata` is [window, row,
    column]."""
    grid, shares = trace.grid, routing.full_softmax(trace, image)
    figure = go.Figure()
    for role, query in queries:
        windows = [w for w in np.argsort(-shares[query], kind="stable").tolist() if shares[query, w] > 0][:MOST_RANKS]
        figure.add_bar(
            x=list(range(1, 1 + len(windows))), y=[float(shares[query, w]) for w in windows], name=role.upper(),
            marker={"color": COLOURS[role]}, customdata=[[w, *place_of(grid, w)] for w in windows],
            hovertemplate=hover(style, (message("query"), role.upper()), (message("rank"), "%{x}"), (
                message("window"), "%{customdata[0]}, " + style.tr(message("row")) + " %{customdata[1]}, "
                + style.tr(message("column")) + " %{customdata[2]}"), (SHARE, "%{y:.2%}")))
    return dressed(figure, style, caption, 380, barmode="group", showlegend=True,
                   xaxis_title_text=style.tr(message("rank of the key window")),
                   yaxis={"title_text": style.tr(SHARE), "tickformat": ".1%"})


def _finite(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def drawable(trace: LayerTrace) -> bool:
    """Whether a browser can draw the matrix of all pairs of windows."""
    return trace.grid.n_windows <= MOST_WINDOWS


def matrix(trace: LayerTrace, queries: Sequence[Query] = (), style: Style = LIGHT, caption: str = "",
           image: int = 0) -> go.Figure:
    """Affinity of every query window (row) to every key window (column); a dot on each pair that was chosen.

    A dot's `customdata` is [rank, weight]. A box that is drawn on it gives ranges of x and y, which are windows.
    """
    n = trace.grid.n_windows
    if not trace.routed:
        return _share_matrix(trace, queries, style, caption, image)
    affinity = trace.affinity[image].float().numpy()
    finite = np.sort(affinity[np.isfinite(affinity)])
    # One loud pair would leave all others one colour; colours end where one in a hundred is beyond.
    low, high = (float(finite[round(share * (len(finite) - 1))]) for share in (0.01, 0.99))
    chosen, weights = trace.r_idx[image].numpy(), trace.r_weight[image].double().numpy()
    rows, ranks = np.indices(chosen.shape)
    figure = go.Figure(go.Heatmap(
        z=np.where(np.isfinite(affinity), affinity, np.nan), zmin=low, zmax=high, name=style.tr(message("affinity")),
        colorscale=attention_scale(), colorbar=colour_bar(style, message("affinity, middle 98 %")),
        hovertemplate=hover(style, (message("query window"), "%{y}"), (message("key window"), "%{x}"),
                            (message("affinity"), "%{z:.4~g}"))))
    figure.add_scatter(
        x=chosen.ravel(), y=rows.ravel(), mode="markers", name=style.tr(message("chosen")),
        marker={"size": max(2.0, min(8.0, 130 / n)), "color": "#ffffff", "line": {"width": 0.75, "color": "#111"}},
        customdata=np.stack([ranks.ravel() + 1, weights.ravel(), affinity[rows.ravel(), chosen.ravel()]], -1),
        hovertemplate=hover(style, (message("query window"), "%{y}"), (message("key window"), "%{x}"),
                            (message("affinity"), "%{customdata[2]:.4~g}"), (message("rank"), "%{customdata[0]}"),
                            (message("routing weight"), "%{customdata[1]:.4f}")))
    return _matrix(figure, n, queries, style, caption)


def _share_matrix(trace: LayerTrace, queries: Sequence[Query], style: Style, caption: str, image: int) -> go.Figure:
    """Share of attention from every query window (row) to every key window (column); nothing where none can go."""
    shares = routing.full_softmax(trace, image)
    figure = go.Figure(go.Heatmap(
        z=np.where(shares > 0, 100 * shares, np.nan), zmin=0, zmax=100 * float(np.quantile(shares, 0.99)) or 1,
        name=style.tr(SHARE), colorscale=attention_scale(),
        colorbar=colour_bar(style, message("share of attention, %")),
        hovertemplate=hover(style, (message("query window"), "%{y}"), (message("key window"), "%{x}"),
                            (SHARE, "%{z:.3~g} %"))))
    return _matrix(figure, trace.grid.n_windows, queries, style, caption)


def _matrix(figure: go.Figure, n: int, queries: Sequence[Query], style: Style, caption: str) -> go.Figure:
    """A matrix of windows against windows, with the rows of queries framed."""
    for role, query in queries:
        figure.add_shape(type="rect", x0=-0.5, x1=n - 0.5, y0=query - 0.5, y1=query + 0.5,
                         line={"color": COLOURS[role], "width": 2})
    return dressed(figure, style, caption, 580, dragmode="select", showlegend=True, margin_t=92,
                   legend={"x": 1, "xanchor": "right"}, xaxis={
        "title_text": style.tr(message("key window, number")), "range": [-0.5, n - 0.5], "constrain": "domain",
        "showgrid": False, "zeroline": False}, yaxis={
        "title_text": style.tr(message("query window, number")), "range": [n - 0.5, -0.5], "scaleanchor": "x",
        "constrain": "domain", "showgrid": False, "zeroline": False})


def in_degree(trace: LayerTrace, picture: bytes, size: tuple[float, float], queries: Sequence[Query] = (),
              style: Style = LIGHT, caption: str = "", image: int = 0) -> go.Figure:
    """How many windows chose each window, over the picture; × on those that nobody reads. Of a layer that does not
    route, the share of all attention that each window gets, in per cent.

    `customdata` of a cell is [window, share of all windows that chose it].

    Args:
        trace: the layer.
        picture: encoded.
        size: (height, width) of the picture in the pixels of the grid.
        queries: windows to frame.
        style: of the figure.
        caption: what the numbers are of.
        image: which of the batch.
    """
    grid, n = trace.grid, trace.grid.n_win
    counts = (routing.in_degree(trace, image) if trace.routed else 100 * routing.received(trace, image)).reshape(n, n)
    what = message("chosen by so many windows") if trace.routed else message("share of all attention, %")
    numbers = "%{z}" if trace.routed else "%{z:.2~f}"
    top, left, bottom, right = grid.box()
    down, across = (bottom - top) / n, (right - left) / n
    windows = np.arange(n * n).reshape(n, n)
    figure = go.Figure(go.Heatmap(
        z=counts, x0=left + across / 2, dx=across, y0=top + down / 2, dy=down, zmin=0,
        zmax=max(1, int(counts.max())) if trace.routed else float(counts.max()),
        colorscale=attention_scale(), opacity=0.78, customdata=np.stack([windows, counts / grid.n_windows], -1),
        text=[["×" if not count else str(count) if trace.routed else f"{count:.2g}" for count in line]
              for line in counts.tolist()],
        texttemplate="%{text}" if n <= 16 else None,
        colorbar=colour_bar(style, what),
        hovertemplate=hover(style, (message("window"), "%{customdata[0]}"), (what, numbers), *(
            [(message("share of all windows"), "%{customdata[1]:.1%}")] if trace.routed else []))))
    on_picture(figure, grid, picture, style, size)
    figure.update_layout(shapes=[window_frame(grid, query, COLOURS[role], width=3) for role, query in queries])
    return dressed(figure, style, caption, 540, dragmode="select", margin_t=92)


def where(trace: LayerTrace, query: Query, masses: Sequence[float], style: Style = LIGHT, caption: str = "",
          image: int = 0) -> go.Figure:
    """For each routed window of one query, best first: its routing weight, and the attention that falls on it. Of a
    layer that does not route, the windows that get most of it.

    A bar's `customdata` is [window, row, column, rank].

    Args:
        trace: the layer.
        query: role and window.
        masses: (p2,) attention per window, mean over heads and the query's tokens; see `window_masses`.
        style: of the figure.
        caption: what the numbers are of.
        image: which of the batch.
    """
    role, window = query
    chosen = trace.r_idx[image, window].tolist()
    bars = [(message("attention"), masses, COLOURS[role])]
    if trace.routed:
        weights = dict(zip(chosen, trace.r_weight[image, window].double().tolist(), strict=True))
        bars.append((message("routing weight"), [weights.get(w, 0.0) for w in range(trace.grid.n_windows)],
                     COLOURS["rejected"]))
    else:       # nothing was chosen: the token's own windows, most attention first
        chosen = sorted((w for w in chosen if masses[w] > 0), key=lambda w: -masses[w])[:MOST_BARS]
    names = [str(w) for w in chosen]
    about = [[w, *place_of(trace.grid, w), n + 1] for n, w in enumerate(chosen)]
    figure = go.Figure()
    for name, values, colour in bars:
        figure.add_bar(x=names, y=[float(values[w]) for w in chosen], name=style.tr(name), marker_color=colour,
                       customdata=about,
                       hovertemplate=hover(style, (message("window"), "%{customdata[0]}"),
                                           (message("row"), "%{customdata[1]}"),
                                           (message("column"), "%{customdata[2]}"),
                                           (message("rank"), "%{customdata[3]}"), (name, "%{y:.2%}")))
    return dressed(figure, style, caption, 360, barmode="group", showlegend=True, xaxis={
        "type": "category", "title_text": style.tr(
            message("routed window of query {role}, best first", role=role.upper()) if trace.routed else
            message("window, most attention of query {role} first", role=role.upper()))},
        yaxis={"tickformat": ".0%", "title_text": style.tr(message("share, %")), "rangemode": "tozero"})


def window_masses(grid: WindowGrid, maps: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[float]:
    """(m, H, W) attention maps -> (p2,): what falls on each window, mean over heads; sums to 1."""
    found: list[float] = grid.to_windows(maps.astype(np.float64)).sum(-1).mean(0).tolist()
    return found
