"""Charts of what a model costs: its rows with BRA's parts in them, and the same BRA row at every place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bra.advice import Choice, Lever, Position
from bra.costing import Cost
from dashboard.figures.cards import COLOURS, GREY

PARTS = {"qkv": COLOURS[0], "routing": "#F0E442", "QKᵀ": COLOURS[1], "AV": "#56B4E9", "LePE": COLOURS[2],
         "output": COLOURS[3]}
OTHER = "rest of the model"
UNITS = {"macs": (1e6, "million multiply-adds"), "params": (1e3, "thousand parameters"), "peak_bytes": (1e6, "MB")}
Spec = dict[str, Any]
Table = list[dict[str, Any]]


def part_of(name: str) -> str:
    """"model.attn QKᵀ" and "QKᵀ" -> "QKᵀ"; whatever is no part of BRA is the rest of the model."""
    last = name.rsplit(" ", 1)[-1]
    return last if last in PARTS else OTHER


def bar_values(cost: Cost, measure: str) -> Table:
    """One value per row, or per part of a row with BRA in it; they add up to the rows' own figures.

    Bytes of parts do not add up, since they are alive at different moments: a row is then one value.
    """
    values: Table = []
    for row in cost.rows:
        if row.layers and row.parts and measure != "peak_bytes":
            for part in row.parts:
                values.append({"row": row.name, "part": part_of(part.name), "value": getattr(part, measure)})
        else:
            name = "BRA row, all its parts" if row.layers else OTHER
            values.append({"row": row.name, "part": name, "value": getattr(row, measure)})
    return [value for value in values if value["value"]]


def bars(cost: Cost, measure: str) -> Spec:
    """A bar per row of the model; BRA's parts in colours, all else grey."""
    unit, label = UNITS[measure]
    values = [{**value, "shown": value["value"] / unit} for value in bar_values(cost, measure)]
    names = [name for name in (*PARTS, "BRA row, all its parts", OTHER) if any(v["part"] == name for v in values)]
    colours = {**PARTS, "BRA row, all its parts": COLOURS[4], OTHER: GREY}
    return {
        "data": {"values": values}, "mark": {"type": "bar"}, "height": 430,
        "encoding": {
            "x": {"field": "row", "type": "nominal", "sort": None, "title": None,
                  "axis": {"labelAngle": -60, "labelLimit": 90, "labelOverlap": False}},
            "y": {"field": "shown", "type": "quantitative", "title": label, "stack": True, "aggregate": "sum"},
            "color": {"field": "part", "type": "nominal", "title": None, "sort": names, "legend": {"orient": "top"},
                      "scale": {"domain": names, "range": [colours[name] for name in names]}},
            "order": {"field": "part", "sort": "descending"},
            "tooltip": [{"field": "row"}, {"field": "part"},
                        {"field": "shown", "aggregate": "sum", "format": ",.2f", "title": label}]}}


def places(positions: Sequence[Position]) -> Spec:
    """The same BRA row after every row: multiply-adds across, parameters up; maps of one size are one point."""
    by_map: dict[str, list[Position]] = {}
    for place in positions:
        if place.layer is not None:
            by_map.setdefault(f"{place.h}×{place.w}×{place.dim}", []).append(place)
    values = [{"map": size, "after": ", ".join(place.after for place in found), "macs": found[0].layer.macs / 1e6,
               "params": found[0].layer.params / 1e3, "why": found[0].why}
              for size, found in by_map.items() if found[0].layer is not None]
    return {
        "data": {"values": values}, "height": 340,
        "encoding": {
            "x": {"field": "macs", "type": "quantitative", "title": "million multiply-adds", "scale": {"type": "log"}},
            "y": {"field": "params", "type": "quantitative", "title": "thousand parameters", "scale": {"type": "log"}},
            "tooltip": [{"field": "map", "title": "map"}, {"field": "after", "title": "after"},
                        {"field": "macs", "format": ",.0f"}, {"field": "params", "format": ",.0f"}, {"field": "why"}]},
        "layer": [
            {"mark": {"type": "point", "filled": True, "size": 90, "color": COLOURS[0], "opacity": 1}},
            {"mark": {"type": "text", "align": "left", "dx": 8, "dy": -6, "color": GREY, "fontSize": 12},
             "encoding": {"text": {"field": "map"}}}]}


def row_table(cost: Cost) -> Table:
    """The rows, numbers as they are, fit to be sorted."""
    found = []
    for row in cost.rows:
        grid = row.grid
        line: dict[str, Any] = {
            "row": row.name, "parameters": row.params, "multiply-adds": row.macs, "share, %": 100 * row.share,
            "peak, bytes": row.peak_bytes, "tokens": f"{grid.h}×{grid.w}" if grid else "",
            "padding": f"{100 * grid.padding_share:.1f} %" if grid else ""}
        if row.ms is not None:
            line |= {"time, ms": row.ms, "of the time, %": 100 * (row.time_share or 0)}
        found.append(line)
    return found


def against_table(costs: dict[str, Cost]) -> Table:
    """One line per way to have the model: its totals, and what it is more or less than the first."""
    first = next(iter(costs.values())).total
    return [{"": name, "parameters": cost.total.params, "multiply-adds": cost.total.macs,
             "peak, bytes": cost.total.peak_bytes,
             "multiply-adds, of the first, %": 100 * cost.total.macs / first.macs if first.macs else None}
            for name, cost in costs.items()]


def choice_table(choices: Sequence[Choice]) -> Table:
    """Ways to cut a map at equal coverage."""
    return [{"n_win": one.n_win, "topk": one.topk, "covers, %": 100 * one.coverage,
             "padding, %": 100 * one.padding_share, "multiply-adds": one.layer.macs,
             "fused, bytes": one.layer.peak_bytes, "written out, bytes": one.layer.explicit_peak_bytes, "why": one.why}
            for one in choices]


def lever_table(levers: Sequence[Lever]) -> Table:
    """What each change of one setting saves."""
    return [{"change": one.change, "parameters saved": one.params, "multiply-adds saved": one.macs,
             "bytes saved": one.peak_bytes, "why": one.why} for one in levers]
