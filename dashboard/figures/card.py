"""Charts of a model card: its curves, and its routing beside the controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bra.models.card import LayerQuality, ModelCard
from dashboard.i18n import tr, tr_noop, translate

# Okabe and Ito's colours, which every common form of colour blindness tells apart; grey is readable on both themes.
COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00")
GREY = "#8a8f98"
METRICS = {"loss": tr_noop("training loss"), "cross_entropy": tr_noop("cross entropy"), "accuracy": tr_noop("accuracy")}
"""Names of metrics, for people; any other is a name that everybody uses, such as mAP50."""
KINDS = (tr_noop("trained"), tr_noop("untrained"), tr_noop("nearest windows"), tr_noop("random windows"),
         tr_noop("best possible"))
Spec = dict[str, Any]
LEGEND: Spec = {"orient": "top", "title": None, "columns": 3}
"""In lines of three, since a legend on a phone is cut off where its line is longer than the chart."""


def curves(card: ModelCard, metric: str, label: str) -> Spec:
    """One line per run over the epochs, variants by colour; the shipped run is the thick one."""
    variants = list(dict.fromkeys(variant_of(run) for run in card.curves))
    values = [{"run": run, "variant": variant_of(run), "epoch": row["epoch"], "value": row[metric],
               "shipped": run == card.shipped} for run, rows in card.curves.items() for row in rows]
    return {
        "data": {"values": values}, "mark": {"type": "line", "interpolate": "linear"}, "height": 280,
        "encoding": {
            "x": {"field": "epoch", "type": "quantitative", "title": tr("epoch"), "axis": {"tickMinStep": 1},
                  "scale": {"nice": False, "zero": False}},
            "y": {"field": "value", "type": "quantitative", "title": label, "scale": {"zero": False}},
            "color": {"field": "variant", "type": "nominal", "title": None,
                      "scale": {"domain": variants, "range": list(COLOURS[:len(variants)])},
                      "legend": {"orient": "top"} if len(variants) > 1 else None},
            "detail": {"field": "run"},
            "strokeDash": {"field": "variant", "type": "nominal", "legend": None},
            "size": {"condition": {"test": "datum.shipped", "value": 3}, "value": 1.25},
            "tooltip": [{"field": "run", "title": tr("run")}, {"field": "epoch", "title": tr("epoch")},
                        {"field": "value", "format": ".3f", "title": label}]}}


def variant_of(run: str) -> str:
    """"residual-seed1" -> "residual"; a run that is only a seed is its own kind."""
    variant, dash, _ = run.rpartition("-seed")
    return variant if dash else "run"


def quality(card: ModelCard, field: str, label: str) -> Spec:
    """For each layer: trained, untrained, and the controls on one line from 0 to 1.

    Args:
        card: the card.
        field: "recall" or "overlap".
        label: of the axis.
    """
    values = [{"layer": row.layer, "what": translate(what), "value": value, "below": what == "untrained"}
              for kind in ("untrained", "trained") for row in card.quality[kind]
              for what, value in _marks(row, field, kind).items() if value is not None]
    order = [translate(kind) for kind in KINDS]
    return {
        "data": {"values": values}, "height": {"step": 44},
        "mark": {"type": "point", "filled": True, "opacity": 1},
        "encoding": {
            "y": {"field": "layer", "type": "nominal", "title": None, "axis": {"labelLimit": 160},
                  "sort": [row.layer for row in card.quality["trained"]]},
            "x": {"field": "value", "type": "quantitative", "title": label, "scale": {"domain": [0, 1]},
                  "axis": {"format": ".0%"}},
            "color": {"field": "what", "type": "nominal", "title": None, "sort": order, "legend": LEGEND,
                      "scale": {"domain": order, "range": [COLOURS[0], GREY, COLOURS[1], COLOURS[2], COLOURS[3]]}},
            # The controls often lie on the untrained ones: these are drawn first, and larger.
            "size": {"condition": {"test": "datum.below", "value": 330}, "value": 120},
            "shape": {"field": "what", "type": "nominal", "sort": order, "legend": LEGEND,
                      "scale": {"domain": order, "range": ["circle", "square", "triangle-up", "diamond", "cross"]}},
            "tooltip": [{"field": "layer", "title": tr("layer")}, {"field": "what", "title": tr("routing")},
                        {"field": "value", "format": ".1%", "title": label}]}}


def _marks(row: LayerQuality, field: str, kind: str) -> Mapping[str, float | None]:
    own: dict[str, float | None] = {kind: getattr(row, field)}
    if kind == "untrained":
        return own      # its controls lie where the trained ones' do, or so near that they would cover them
    controls = {tr_noop("nearest windows"): "nearest", tr_noop("random windows"): "chance",
                tr_noop("best possible"): "oracle"}
    return own | {what: getattr(row, f"{field}_{control}") for what, control in controls.items()}


def score_table(card: ModelCard) -> list[dict[str, str]]:
    """One row per variant: each metric's mean over seeds, and its smallest and largest value."""
    rows = []
    for variant, metrics in card.scores.items():
        row = {tr_noop("variant"): variant, tr_noop("seeds"): str(len(next(iter(metrics.values()))))}
        for metric, values in metrics.items():
            mean = sum(values) / len(values)
            row[METRICS.get(metric, metric)] = f"{mean:.3f}" if len(values) == 1 else \
                tr("{mean:.3f} ({low:.3f} to {high:.3f})", mean=mean, low=min(values), high=max(values))
        rows.append(row)
    return rows
