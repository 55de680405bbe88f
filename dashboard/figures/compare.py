"""The chart that decides between settings: what they keep of full attention over what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bra.experiments.compare import CostName, SettingRow, amount, front
from bra.experiments.sweep_table import Summary
from dashboard.figures.card import COLOURS, GREY
from dashboard.i18n import tr, tr_noop, translate

Spec = dict[str, Any]
AXES: dict[CostName, tuple[str, float]] = {
    "macs": (tr_noop("million multiply-adds of the layer"), 1e-6),
    "peak_bytes": (tr_noop("MB alive at the layer's worst moment"), 1e-6),
    "seconds": (tr_noop("milliseconds of the layer, on this server"), 1e3)}


def deciding(rows: Sequence[SettingRow], cost: CostName) -> Spec:
    """A point per setting, joined by n_win; the Pareto front, and beneath it what nearest and random windows keep."""
    title, factor = AXES[cost]
    values = [{"n_win": row.n_win, "topk": row.topk, "recall": row.recall, "nearest": row.nearest,
               "chance": row.chance, "cost": getattr(row, cost) * factor, "front": on,
               "macs": translate(amount(row, "macs")), "memory": translate(amount(row, "peak_bytes"))}
              for row, on in zip(rows, front(rows, cost), strict=True) if getattr(row, cost) is not None]
    sizes = sorted({row.n_win for row in rows})
    x = {"field": "cost", "type": "quantitative", "title": translate(title),
         "scale": {"type": "log", "nice": False, "padding": 12}, "axis": {"format": "~s", "tickCount": 6}}
    y = {"type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"format": ".0%"},
         "title": tr("of full attention kept")}
    controls = [{"mark": {"type": "line", "strokeDash": dash, "color": GREY, "strokeWidth": 1.25},
                 "encoding": {"x": x, "y": y | {"field": name}, "detail": {"field": "n_win"}}}
                for name, dash in (("nearest", [5, 3]), ("chance", [1, 3]))]
    # The palette is six colours long, as are the rows.
    colour = {"field": "n_win", "type": "ordinal", "title": "n_win", "legend": {"orient": "top"},
              "scale": {"domain": sizes, "range": [*COLOURS, GREY][:len(sizes)]}}
    points = {
        "name": "points", "mark": {"type": "point", "filled": True, "opacity": 1, "cursor": "pointer"},
        "encoding": {
            "x": x, "y": y | {"field": "recall"}, "color": colour,
            "size": {"condition": {"test": "datum.front", "value": 190}, "value": 60},
            "tooltip": [{"field": "n_win"}, {"field": "topk"},
                        {"field": "recall", "format": ".1%", "title": tr("keeps")},
                        {"field": "nearest", "format": ".1%", "title": tr("nearest")},
                        {"field": "chance", "format": ".1%", "title": tr("chance")},
                        {"field": "macs", "title": tr("multiply-adds")}, {"field": "memory", "title": tr("memory")}]}}
    best = {"transform": [{"filter": "datum.front"}], "mark": {"type": "line", "strokeWidth": 2.5, "color": GREY},
            "encoding": {"x": x, "y": y | {"field": "recall"}}}
    return {"data": {"values": values}, "height": 380, "layer": [*controls, best, points],
            "params": [{"name": "pick", "select": {"type": "point", "fields": ["n_win", "topk"]}, "views": ["points"]}]}


def swept(rows: Sequence[Summary]) -> Spec:
    """One layer of a sweep: every picture's recall as a tick, the mean's interval over it, the nearest windows."""
    ticks = [{"setting": setting_name(row), "recall": value} for row in rows for value in row.values[:400]]
    means = [{"setting": setting_name(row), "low": row.interval[0], "high": row.interval[1], "nearest": row.nearest}
             for row in rows if row.pictures > 1]
    y = {"field": "setting", "type": "nominal", "title": None, "sort": None}
    x = {"type": "quantitative", "title": tr("of full attention kept"), "scale": {"domain": [0, 1]},
         "axis": {"format": ".0%"}}
    return {"height": {"step": 26}, "layer": [
        {"data": {"values": ticks}, "mark": {"type": "tick", "opacity": 0.35, "color": COLOURS[1]},
         "encoding": {"y": y, "x": x | {"field": "recall"}}},
        {"data": {"values": means}, "mark": {"type": "bar", "height": 8, "color": COLOURS[0]},
         "encoding": {"y": y, "x": x | {"field": "low"}, "x2": {"field": "high"},
                      "tooltip": [{"field": "setting", "title": tr("setting")},
                                  {"field": "low", "format": ".1%", "title": tr("interval from")},
                                  {"field": "high", "format": ".1%", "title": tr("interval to")}]}},
        {"data": {"values": means}, "mark": {"type": "point", "shape": "triangle-down", "filled": True, "size": 70,
                                             "color": COLOURS[2], "opacity": 1},
         "encoding": {"y": y, "x": x | {"field": "nearest"}}}]}


def setting_name(row: Summary) -> str:
    """How a setting is called on an axis."""
    return f"n_win {row.n_win}, topk {row.topk}"
