"""Curves of a watched training: the numbers of one layer, or one number of every layer, over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import plotly.graph_objects as go

from bra.figures.template import COLORWAY, COLOURS, LIGHT, Style, dressed, hover
from bra.messages import message
from bra.metrics.watched import WatchedNumbers
from bra.readers.timeline import Timeline

NAMES: Final[Mapping[str, str]] = MappingProxyType({
    "recall": message("recall of full attention"), "recall_nearest": message("recall of the nearest windows"),
    "query_dependence": message("query dependence"), "shared_choices": message("shared choices"),
    "entropy": message("entropy of the routing"), "most_read": message("windows that read the most read one"),
    "never_chosen": message("windows that nobody reads"), "overlap": message("label overlap"),
    "overlap_nearest": message("label overlap of the nearest windows"), "chance": message("chance")})
"""What each number is called; all are shares of 0 to 1."""
CONTROLS: Final[Mapping[str, str]] = MappingProxyType({
    "recall_nearest": COLOURS["nearest"], "overlap_nearest": COLOURS["nearest"], "chance": COLOURS["chance"]})
"""What others are held against; drawn dotted."""
HEIGHT: Final = 360


def value_of(numbers: WatchedNumbers, name: str) -> float | None:
    """One of the numbers in NAMES."""
    if name == "most_read":
        return numbers.in_degree_max / numbers.n_win**2
    found: float | None = getattr(numbers, name)
    return found


def series(timeline: Timeline, layer: str, name: str) -> tuple[list[int], list[float | None]]:
    """Epochs, and one number of a layer at each."""
    seen = [(one.epoch, value_of(one.layers[layer], name)) for one in timeline.epochs if layer in one.layers]
    return [epoch for epoch, _ in seen], [value for _, value in seen]


def layer_curves(timeline: Timeline, layer: str, epoch: int, style: Style = LIGHT, caption: str = "") -> go.Figure:
    """Every number of one layer over the epochs, as far as it is known.

    Args:
        timeline: the training.
        layer: its name.
        epoch: the one that is marked.
        style: of the figure.
        caption: what the numbers are of.
    """
    return _curves([(NAMES[name], CONTROLS.get(name), *series(timeline, layer, name)) for name in NAMES], epoch,
                   message("share, %"), style, caption)


def number_curves(timeline: Timeline, name: str, epoch: int, style: Style = LIGHT, caption: str = "") -> go.Figure:
    """One number of every layer over the epochs; arguments as for `layer_curves`, `name` one of NAMES."""
    return _curves([(layer or message("attention"), None, *series(timeline, layer, name))
                    for layer in timeline.layers], epoch, NAMES[name], style, caption)


def _curves(lines: Sequence[tuple[str, str | None, list[int], list[float | None]]], epoch: int, title: str,
            style: Style, caption: str) -> go.Figure:
    figure = go.Figure()
    colours = iter(COLORWAY * len(lines))
    for name, control, epochs, values in lines:
        if not any(value is not None for value in values):
            continue
        colour = control or next(colours)
        figure.add_scatter(
            x=epochs, y=values, name=style.tr(name), mode="lines+markers" if len(epochs) <= 60 else "lines",
            line={"color": colour, "width": 1.5 if control else 2, "dash": "dot" if control else "solid"},
            marker={"size": 5}, hovertemplate=hover(style, (message("epoch"), "%{x}"), (name, "%{y:.1%}")))
    figure.add_vline(x=epoch, line={"dash": "dash", "color": COLOURS["rejected"], "width": 2},
                     annotation_text=style.tr(message("epoch {epoch}", epoch=epoch)),
                     annotation_position="bottom right")
    rows = -(-len(figure.data) // (1 if style.narrow else 3))
    return dressed(figure, style, caption, HEIGHT + 22 * rows, showlegend=True, margin_t=44 + 22 * rows, xaxis={
        "title_text": style.tr(message("epoch")), "tickformat": "d"}, yaxis={
        "tickformat": ".0%", "range": [-0.02, 1.02], "title_text": style.tr(title)})
