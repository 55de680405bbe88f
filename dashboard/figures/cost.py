"""Charts and tables of what a model costs: its rows with BRA's parts in them, and the same BRA row at every place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from bra.profiling.advice import EXPLOSION, Choice, Lever, Position
from bra.profiling.format import PARTS, REST, part_words, short
from bra.profiling.model_cost import Cost
from dashboard.figures.card import GREY
from dashboard.i18n import tr, tr_noop, translate

# Okabe and Ito's seven colours, one for each part; neighbours in a bar differ in lightness too.
COLOURS = dict(zip(PARTS.values(), ("#E69F00", "#D55E00", "#F0E442", "#0072B2", "#56B4E9", "#009E73", "#CC79A7"),
                   strict=True))
WITH_BRA = tr_noop("row with BRA")
FUSED, WRITTEN = tr_noop("fused, as here"), tr_noop("attention written out")
HERE, POSSIBLE = tr_noop("has one now"), tr_noop("possible")
UNITS = {"macs": (1e6, tr_noop("million multiply-adds")), "params": (1e3, tr_noop("thousand parameters")),
         "peak_bytes": (1e6, "MB"), "ms": (1, tr_noop("milliseconds on this machine"))}
ONE_ROW = {"macs": tr_noop("million multiply-adds of one BRA row"), "params": tr_noop("thousand parameters of one BRA "
                                                                                      "row"),
           "peak_bytes": tr_noop("MB of one BRA row")}
ADDS_UP = ("macs", "params")
"""Bytes of parts are alive at different moments, and time is measured by row: a row is then one value."""
MARKS = {HERE: ("#E69F00", "diamond"), POSSIBLE: ("#0072B2", "circle"), FUSED: ("#0072B2", "circle"),
         WRITTEN: ("#D55E00", "triangle-up")}
"""Colour and shape of each kind of place."""
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
    words = "".join(f'<span style="white-space: nowrap"><span style="color: {colour}">■</span> {translate(name)}</span>'
                    for name, colour in colours.items())
    return f'<div style="display: flex; flex-wrap: wrap; gap: 0 1.1rem; font-size: .875rem">{words}</div>'


def bars(cost: Cost, measure: str) -> Spec:
    """A bar per row of the model, the first on top; BRA's parts in colours, all else grey."""
    unit, label = UNITS[measure][0], translate(UNITS[measure][1])
    colours, order = bar_colours(cost, measure), [*COLOURS, WITH_BRA, REST]
    values = [{**one, "part": translate(one["part"]), "label": translate(short(one["row"])),
               "shown": one["value"] / unit,
               "at": order.index(one["part"])} for one in bar_values(cost, measure)]
    return {
        "data": {"values": values}, "mark": {"type": "bar"}, "height": {"step": 19},
        "encoding": {
            "y": {"field": "label", "type": "nominal", "sort": None, "title": None,
                  "axis": {"labelLimit": 170, "labelOverlap": False, "labelFlush": False}},
            "x": {"field": "shown", "type": "quantitative", "title": label, "stack": True,
                  "axis": {"tickCount": 6}},
            "color": {"field": "part", "type": "nominal", "legend": None,
                      "scale": {"domain": [translate(name) for name in colours], "range": [*colours.values()]}},
            "order": {"field": "at", "type": "quantitative"},
            "tooltip": [{"field": "row", "title": tr("row")}, {"field": "part", "title": tr("part")},
                        {"field": "shown", "format": ",.2f", "title": label}]}}


def place_values(positions: Sequence[Position], measure: str, here: Collection[str]) -> Table:
    """One value per place; of memory two, as it is and with attention written out."""
    values: Table = []
    for place in positions:
        if place.layer is None:
            continue
        line = {"after": place.after, "map": f"{place.h}×{place.w}×{place.dim}", "why": translate(place.why)}
        if measure == "peak_bytes":
            values += [{**line, "kind": FUSED, "value": place.layer.peak_bytes},
                       {**line, "kind": WRITTEN, "value": place.layer.explicit_peak_bytes}]
        else:
            kind = HERE if place.after in here else POSSIBLE
            values.append({**line, "kind": kind, "value": getattr(place.layer, measure)})
    return values


def places(positions: Sequence[Position], measure: str, here: Collection[str] = ()) -> Spec:
    """The same BRA row after every row, as a dot on a scale of powers of ten.

    Args:
        positions: the places, in the order of the model.
        measure: one of UNITS but the time.
        here: rows after which the model has a BRA row.
    """
    unit, label = UNITS[measure][0], translate(UNITS[measure][1])
    found = place_values(positions, measure, here)
    values = [{**one, "kind": translate(one["kind"]), "shown": one["value"] / unit,
               "label": f"{one['after']}   {one['map']}"} for one in found]
    there = {one["kind"] for one in found}
    drawn = {kind: look for kind, look in MARKS.items() if kind in there}
    domain = [translate(kind) for kind in drawn]
    colours, shapes = ([look[n] for look in drawn.values()] for n in (0, 1))
    layers: list[Spec] = [{
        "data": {"values": values}, "mark": {"type": "point", "filled": True, "opacity": 1, "size": 90},
        "encoding": {
            "y": {"field": "label", "type": "nominal", "sort": None, "title": None,
                  "axis": {"labelLimit": 220, "labelOverlap": False, "grid": True}},
            "x": {"field": "shown", "type": "quantitative", "title": translate(ONE_ROW[measure]),
                  "scale": {"type": "log"}},
            "color": {"field": "kind", "type": "nominal", "legend": {"orient": "top", "title": None},
                      "scale": {"domain": domain, "range": colours}},
            "shape": {"field": "kind", "type": "nominal", "legend": {"orient": "top", "title": None},
                      "scale": {"domain": domain, "range": shapes}},
            "tooltip": [{"field": "after", "title": tr("after")},
                        {"field": "map", "title": tr("map, h×w×channels")}, {"field": "kind", "title": tr("kind")},
                        {"field": "shown", "format": ",.2f", "title": label}, {"field": "why", "title": tr("why")}]}}]
    if measure == "peak_bytes":
        layers.append({"data": {"values": [{"limit": EXPLOSION / unit}]},
                       "mark": {"type": "rule", "strokeDash": [4, 4], "color": GREY},
                       "encoding": {"x": {"field": "limit", "type": "quantitative"}}})
    return {"layer": layers, "height": {"step": 21}}


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
            tr_noop("row"): translate(row.name), tr_noop("parameters"): row.params, tr_noop("multiply-adds"): row.macs,
            tr_noop("share, %"): 100 * row.share, tr_noop("peak, bytes"): row.peak_bytes}
        if row.ms is not None:
            line |= {tr_noop("time, ms"): row.ms, tr_noop("of the time, %"): 100 * (row.time_share or 0)}
        line[tr_noop("tokens")] = f"{grid.h}×{grid.w}" if grid else ""
        line[tr_noop("padding")] = tr("{share:.1f} %", share=100 * grid.padding_share) if grid else ""
        found.append(line)
    return found


def against_table(costs: dict[str, Cost]) -> Table:
    """One line per way to have the model: its totals, and each in per cent of the first."""
    first = next(iter(costs.values())).total
    names = {tr_noop("parameters"): "params", tr_noop("multiply-adds"): "macs", tr_noop("peak, bytes"): "peak_bytes"}
    shares = {tr_noop("parameters, %"): "params", tr_noop("multiply-adds, %"): "macs", tr_noop("peak, %"): "peak_bytes"}
    return [{"": translate(kind), **{name: getattr(cost.total, field) for name, field in names.items()},
             **{name: 100 * getattr(cost.total, field) / (getattr(first, field) or 1)
                for name, field in shares.items()}} for kind, cost in costs.items()]


def choice_table(choices: Sequence[Choice]) -> Table:
    """Ways to cut a map at equal coverage."""
    over = {(): "", ("explicit",): tr_noop("attention written out"), ("fused",): tr_noop("fused"),
            ("explicit", "fused"): tr_noop("attention written out and fused")}
    return [{"n_win": one.n_win, "topk": one.topk, tr_noop("covers, %"): 100 * one.coverage,
             tr_noop("padding, %"): 100 * one.padding_share, tr_noop("multiply-adds"): one.layer.macs,
             tr_noop("fused, bytes"): one.layer.peak_bytes,
             tr_noop("written out, bytes"): one.layer.explicit_peak_bytes,
             tr_noop("over 1 GiB"): translate(over[one.explodes])} for one in choices]


def lever_table(levers: Sequence[Lever]) -> Table:
    """What each change of one setting saves."""
    return [{tr_noop("change"): one.change, tr_noop("parameters saved"): one.params, tr_noop("multiply-adds "
                                                                                             "saved"): one.macs,
             tr_noop("bytes saved"): one.peak_bytes, tr_noop("why"): translate(one.why)} for one in levers]
