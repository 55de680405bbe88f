"""Charts and tables of what a model costs: its rows with BRA's parts in them, and the same BRA row at every place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from bra.advice import EXPLOSION, Choice, Lever, Position
from bra.cost_words import PARTS, REST, part_words, short
from bra.costing import Cost
from dashboard.figures.cards import GREY

# Okabe and Ito's seven colours, one for each part; neighbours in a bar differ in lightness too.
COLOURS = dict(zip(PARTS.values(), ("#E69F00", "#D55E00", "#F0E442", "#0072B2", "#56B4E9", "#009E73", "#CC79A7"),
                   strict=True))
WITH_BRA = "row with BRA"
FUSED, WRITTEN = "fused, as here", "attention written out"
UNITS = {"macs": (1e6, "million multiply-adds"), "params": (1e3, "thousand parameters"), "peak_bytes": (1e6, "MB"),
         "ms": (1, "milliseconds on this machine")}
ADDS_UP = ("macs", "params")
"""Bytes of parts are alive at different moments, and time is measured by row: a row is then one value."""
Spec = dict[str, Any]
Table = list[dict[str, Any]]


def bar_values(cost: Cost, measure: str) -> Table:
    """One value per row, or per part of a row with BRA in it; they add up to the rows' own figures."""
    values: Table = []
    for row in cost.rows:
        if row.layers and measure in ADDS_UP:
            parts: dict[str, int] = {}
            for part in row.parts:
                name = part_words(part.name)
                parts[name] = parts.get(name, 0) + getattr(part, measure)
            values += [{"row": row.name, "part": name, "value": value} for name, value in parts.items()]
        else:
            values.append({"row": row.name, "part": WITH_BRA if row.layers else REST, "value": getattr(row, measure)})
    return values


def bar_colours(cost: Cost, measure: str) -> dict[str, str]:
    """The colours of what is in the bars."""
    there = {one["part"] for one in bar_values(cost, measure) if one["value"]}
    colours = COLOURS | {WITH_BRA: COLOURS[PARTS["qkv"]], REST: GREY}
    return {name: colour for name, colour in colours.items() if name in there}


def legend(colours: dict[str, str]) -> str:
    """The colours in words that run over into a new line where a screen is narrow, which a chart's own do not."""
    words = "".join(f'<span style="white-space: nowrap"><span style="color: {colour}">■</span> {name}</span>'
                    for name, colour in colours.items())
    return f'<div style="display: flex; flex-wrap: wrap; gap: 0 1.1rem; font-size: .875rem">{words}</div>'


def bars(cost: Cost, measure: str) -> Spec:
    """A bar per row of the model, the first on top; BRA's parts in colours, all else grey."""
    unit, label = UNITS[measure]
    colours, order = bar_colours(cost, measure), [*COLOURS, WITH_BRA, REST]
    values = [{**one, "label": short(one["row"]), "shown": one["value"] / unit, "at": order.index(one["part"])}
              for one in bar_values(cost, measure)]
    return {
        "data": {"values": values}, "mark": {"type": "bar"}, "height": {"step": 19},
        "encoding": {
            "y": {"field": "label", "type": "nominal", "sort": None, "title": None,
                  "axis": {"labelLimit": 170, "labelOverlap": False, "labelFlush": False}},
            "x": {"field": "shown", "type": "quantitative", "title": label, "stack": True,
                  "axis": {"tickCount": 6}},
            "color": {"field": "part", "type": "nominal", "legend": None,
                      "scale": {"domain": [*colours], "range": [*colours.values()]}},
            "order": {"field": "at", "type": "quantitative"},
            "tooltip": [{"field": "row"}, {"field": "part"}, {"field": "shown", "format": ",.2f", "title": label}]}}


def place_values(positions: Sequence[Position], measure: str, here: Collection[str]) -> Table:
    """One value per place; of memory two, as it is and with attention written out."""
    values: Table = []
    for place in positions:
        if place.layer is None:
            continue
        line = {"after": place.after, "map": f"{place.h}×{place.w}×{place.dim}", "why": place.why}
        if measure == "peak_bytes":
            values += [{**line, "kind": FUSED, "value": place.layer.peak_bytes},
                       {**line, "kind": WRITTEN, "value": place.layer.explicit_peak_bytes}]
        else:
            kind = "has one now" if place.after in here else "possible"
            values.append({**line, "kind": kind, "value": getattr(place.layer, measure)})
    return values


def places(positions: Sequence[Position], measure: str, here: Collection[str] = ()) -> Spec:
    """The same BRA row after every row, as a dot on a scale of powers of ten.

    Args:
        positions: the places, in the order of the model.
        measure: one of UNITS but the time.
        here: rows after which the model has a BRA row.
    """
    unit, label = UNITS[measure]
    values = [{**one, "shown": one["value"] / unit, "label": f"{one['after']}   {one['map']}"}
              for one in place_values(positions, measure, here)]
    kinds = [kind for kind in ("has one now", "possible", FUSED, WRITTEN) if any(v["kind"] == kind for v in values)]
    colours = {"has one now": "#E69F00", "possible": "#0072B2", FUSED: "#0072B2", WRITTEN: "#D55E00"}
    shapes = {"has one now": "diamond", "possible": "circle", FUSED: "circle", WRITTEN: "triangle-up"}
    layers: list[Spec] = [{
        "data": {"values": values}, "mark": {"type": "point", "filled": True, "opacity": 1, "size": 90},
        "encoding": {
            "y": {"field": "label", "type": "nominal", "sort": None, "title": None,
                  "axis": {"labelLimit": 220, "labelOverlap": False, "grid": True}},
            "x": {"field": "shown", "type": "quantitative", "title": f"{label} of one BRA row",
                  "scale": {"type": "log"}},
            "color": {"field": "kind", "type": "nominal", "legend": {"orient": "top", "title": None},
                      "scale": {"domain": kinds, "range": [colours[kind] for kind in kinds]}},
            "shape": {"field": "kind", "type": "nominal", "legend": {"orient": "top", "title": None},
                      "scale": {"domain": kinds, "range": [shapes[kind] for kind in kinds]}},
            "tooltip": [{"field": "after"}, {"field": "map", "title": "map, h×w×channels"}, {"field": "kind"},
                        {"field": "shown", "format": ",.2f", "title": label}, {"field": "why"}]}}]
    if measure == "peak_bytes":
        layers.append({"data": {"values": [{"limit": EXPLOSION / unit}]},
                       "mark": {"type": "rule", "strokeDash": [4, 4], "color": GREY},
                       "encoding": {"x": {"field": "limit", "type": "quantitative"}}})
    return {"layer": layers, "height": {"step": 21}}


def number_of(name: str) -> int:
    """"15 BiLevelRoutingAttention" -> 15, of a row of Ultralytics."""
    return int(name.partition(" ")[0])


def bra_after(cost: Cost, plain: Cost) -> set[str]:
    """Names, without BRA, of the rows that a BRA row stands after."""
    found, at = set(), -1
    for row in cost.rows:
        kind = row.name.partition(" ")[2].removesuffix("BRA")
        if at + 1 < len(plain.rows) and plain.rows[at + 1].name.partition(" ")[2] == kind:
            at += 1
        elif row.layers and at >= 0:
            found.add(plain.rows[at].name)
    return found


def row_table(cost: Cost) -> Table:
    """The rows, numbers as they are, fit to be sorted."""
    found = []
    for row in cost.rows:
        grid = row.grid
        line: dict[str, Any] = {
            "row": row.name, "parameters": row.params, "multiply-adds": row.macs, "share, %": 100 * row.share,
            "peak, bytes": row.peak_bytes}
        if row.ms is not None:
            line |= {"time, ms": row.ms, "of the time, %": 100 * (row.time_share or 0)}
        line["tokens"] = f"{grid.h}×{grid.w}" if grid else ""
        line["padding"] = f"{100 * grid.padding_share:.1f} %" if grid else ""
        found.append(line)
    return found


def against_table(costs: dict[str, Cost]) -> Table:
    """One line per way to have the model: its totals, and each in per cent of the first."""
    first = next(iter(costs.values())).total
    names = {"parameters": "params", "multiply-adds": "macs", "peak, bytes": "peak_bytes"}
    return [{"": kind, **{name: getattr(cost.total, field) for name, field in names.items()},
             **{f"{name.removesuffix(', bytes')}, %": 100 * getattr(cost.total, field) / (getattr(first, field) or 1)
                for name, field in names.items()}} for kind, cost in costs.items()]


def choice_table(choices: Sequence[Choice]) -> Table:
    """Ways to cut a map at equal coverage."""
    return [{"n_win": one.n_win, "topk": one.topk, "covers, %": 100 * one.coverage,
             "padding, %": 100 * one.padding_share, "multiply-adds": one.layer.macs,
             "fused, bytes": one.layer.peak_bytes, "written out, bytes": one.layer.explicit_peak_bytes,
             "over 1 GiB": " and ".join(WRITTEN if name == "explicit" else "fused" for name in one.explodes)}
            for one in choices]


def lever_table(levers: Sequence[Lever]) -> Table:
    """What each change of one setting saves."""
    return [{"change": one.change, "parameters saved": one.params, "multiply-adds saved": one.macs,
             "bytes saved": one.peak_bytes, "why": one.why} for one in levers]
