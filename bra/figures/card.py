"""Figures of a model card: its curves, and its routing beside the controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import plotly.graph_objects as go

from bra.figures.template import COLORWAY, COLOURS, LIGHT, Style, Table, dressed, hover
from bra.messages import message
from bra.models.card import LayerQuality, ModelCard

METRICS: Final = {"loss": message("training loss"), "cross_entropy": message("cross entropy"),
                  "accuracy": message("accuracy"), "held_out_routing": message("routing loss, held out"),
                  "held_out_distance": message("distance to the teacher's features, held out"),
                  "query_dependence": message("share that depends on the query")}
"""Names of metrics, for people; any other is a name that everybody uses, such as mAP50."""
QUALITIES: Final = {"recall": message("share of full attention on the routed windows"),
                    "overlap": message("likeness of labels, a window and those it is routed to")}
RUN: Final = message("run")
"""The kind of a run that is only a seed."""
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash")
KINDS: Final = {
    message("untrained"): ("untrained", "", COLOURS["rejected"], "square", 16),
    message("trained"): ("trained", "", COLOURS["a"], "circle", 11),
    message("nearest windows"): ("trained", "_nearest", COLOURS["nearest"], "triangle-up", 11),
    message("random windows"): ("trained", "_chance", COLOURS["chance"], "diamond", 11),
    message("best possible"): ("trained", "_oracle", COLOURS["best"], "cross", 10)}
"""Of each kind of routing: whose row it is in, the field's ending, colour, shape, and size. The controls often lie on
the untrained ones, which are drawn first and larger; their own controls would cover those of the trained."""


def curves(card: ModelCard, metric: str, style: Style = LIGHT) -> go.Figure:
    """One line per run over the epochs, variants by colour; the run that is shipped is the thick one."""
    variants = list(dict.fromkeys(variant_of(run) for run in card.curves))
    label, figure, named = metric_name(metric), go.Figure(), set()
    for run, rows in card.curves.items():
        variant = variant_of(run)
        figure.add_scatter(
            x=[row["epoch"] for row in rows], y=[row[metric] for row in rows], mode="lines",
            name=variant_name(variant, style.tr), legendgroup=variant,
            showlegend=len(variants) > 1 and variant not in named,
            line={"color": COLORWAY[variants.index(variant) % len(COLORWAY)],
                  "width": 3 if run == card.shipped else 1.25,
                  "dash": DASHES[variants.index(variant) % len(DASHES)]},
            hovertemplate=hover(style, (message("run"), run), (message("epoch"), "%{x}"), (label, "%{y:.3f}")))
        named.add(variant)
    caption = message("{title} · run {run} is shipped, drawn thick", title=_title(card, style), run=card.shipped)
    return dressed(figure, style, caption, 300, xaxis_title_text=style.tr(message("epoch")),
                   yaxis_title_text=style.tr(label))


def metric_name(metric: str) -> str:
    """A metric as people call it."""
    return METRICS.get(metric, metric)


def _title(card: ModelCard, style: Style) -> str:
    """The model's name, before the colon of its title."""
    return style.tr(card.title.partition(":")[0])


def variant_of(run: str) -> str:
    """"residual-seed1" -> "residual"; a run that is only a seed is its own kind."""
    variant, dash, _ = run.rpartition("-seed")
    return variant if dash else RUN


def variant_name(variant: str, translate: Callable[[str], str]) -> str:
    """A variant as it stands on the page: in every language by its own name, but for runs that have none."""
    return translate(variant) if variant == RUN else variant


def quality_values(card: ModelCard, field: str) -> Table:
    """One value per layer and kind of routing; `field` is "recall" or "overlap"."""
    return [{"layer": row.layer, "kind": kind, "value": value, "n_win": row.n_win, "topk": row.topk}
            for kind, (whose, ending, *_) in KINDS.items() for row in card.quality[whose]
            if (value := _value(row, field + ending)) is not None]


def _value(row: LayerQuality, field: str) -> float | None:
    found: float | None = getattr(row, field)
    return found


def quality(card: ModelCard, field: str, style: Style = LIGHT) -> go.Figure:
    """For each layer trained, untrained, and the controls on one line from 0 to 1.

    A point's `customdata` is [layer, n_win, topk].

    Args:
        card: the card.
        field: "recall" or "overlap".
        style: of the figure.
    """
    layers = [row.layer for row in card.quality["trained"]]
    figure, values = go.Figure(), quality_values(card, field)
    for rank, kind in enumerate((*list(KINDS)[1:], next(iter(KINDS)))):
        _, _, colour, shape, size = KINDS[kind]
        there = [one for one in values if one["kind"] == kind]
        figure.add_scatter(
            x=[one["value"] for one in there], y=[layers.index(one["layer"]) for one in there], mode="markers",
            name=style.tr(kind), zorder=0 if kind == next(iter(KINDS)) else 1 + rank,
            marker={"color": colour, "symbol": shape, "size": size, "line": {"width": 0.5, "color": "#111"}},
            customdata=[[one["layer"], one["n_win"], one["topk"]] for one in there], hovertemplate=hover(
                style, (message("layer"), "%{customdata[0]}"),
                (message("windows"), "n_win %{customdata[1]}, topk %{customdata[2]}"),
                (message("routing"), style.tr(kind)), (QUALITIES[field], "%{x:.1%}")))
    caption = message("{title} · mean over {n} pictures that it did not learn from", title=_title(card, style),
                      n=card.judged)
    return dressed(figure, style, caption, max(270, 150 + 40 * len(layers)), showlegend=True,
                   xaxis={"range": [-0.02, 1.02], "tickformat": ".0%", "title_text": style.tr(QUALITIES[field])},
                   yaxis={"tickvals": list(range(len(layers))), "ticktext": layers,
                          "range": [len(layers) - 0.5, -0.5], "zeroline": False})
