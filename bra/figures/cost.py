"""What a model costs: its rows with BRA's parts in them, its parameters as an icicle, places, and other settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import plotly.graph_objects as go

from bra.figures.template import COLOURS, LIGHT, Style, Table, dressed, escaped, hover, log_ticks, wrapped
from bra.messages import message, semicolon_joined
from bra.profiling.advice import EXPLOSION, Position
from bra.profiling.format import PARTS, REST, part_words, short
from bra.profiling.model_cost import Cost

GREY: Final = COLOURS["rejected"]
PART_COLOURS: Final = dict(zip(PARTS.values(), ("#E69F00", "#D55E00", "#F0E442", "#0072B2", "#56B4E9", "#009E73",
                                                "#CC79A7"), strict=True))
"""One of Okabe and Ito's for each part; neighbours in a bar differ in lightness too."""
WITH_BRA: Final = message("row with BRA")
FUSED, WRITTEN = message("fused, as here"), message("attention written out")
HERE, POSSIBLE = message("has one now"), message("possible")
UNITS: Final = {"macs": (1e6, message("million multiply-adds")), "params": (1e3, message("thousand parameters")),
                "peak_bytes": (1e6, message("MB")), "ms": (1.0, message("milliseconds on this machine"))}
ONE_ROW: Final = {"macs": message("million multiply-adds of one BRA row"),
                  "params": message("thousand parameters of one BRA row"), "peak_bytes": message("MB of one BRA row")}
TOTALS: Final = {"params": message("parameters"), "macs": message("multiply-adds"), "peak_bytes": message("memory")}
ADDS_UP: Final = ("macs", "params")
"""Bytes of parts are alive at different moments, and time is measured by row: a row is then one value."""
MARKS: Final = {HERE: (COLOURS["a"], "diamond"), POSSIBLE: (COLOURS["routed"], "circle"),
                FUSED: (COLOURS["routed"], "circle"), WRITTEN: (COLOURS["best"], "triangle-up")}
"""Colour and shape of each kind of place."""
BETWEEN: Final = " › "
"""What stands between a row's name and its part's in the `ids` of the icicle."""


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
            values.append({"row": row.name, "part": WITH_BRA if row.layers else REST,
                           "value": getattr(row, measure) or 0})
    return values


def bars(cost: Cost, measure: str, style: Style = LIGHT, assumptions: Sequence[str] = ()) -> go.Figure:
    """A bar per row of the model, the first on top; BRA's parts in colours, all else grey.

    A point's `customdata` is [row, value as it is, share of the model's, 0 to 1]. `assumptions` of the model go into
    the caption, here and in the figures below.
    """
    unit, label = UNITS[measure]
    values, colours = bar_values(cost, measure), PART_COLOURS | {WITH_BRA: PART_COLOURS[PARTS["qkv"]], REST: GREY}
    whole = getattr(cost.total, measure) or 1
    figure = go.Figure()
    names = [row.name for row in cost.rows]
    for part, colour in colours.items():
        there = [one for one in values if one["part"] == part and one["value"]]
        if there:
            figure.add_bar(
                orientation="h", name=style.tr(part), marker_color=colour, legendgroup=part,
                y=[names.index(one["row"]) for one in there], x=[one["value"] / unit for one in there],
                customdata=[[one["row"], one["value"], one["value"] / whole] for one in there],
                hovertemplate=hover(style, (message("row"), "%{customdata[0]}"),
                                    (message("part"), escaped(style.tr(part))), (label, "%{x:,.2f}"),
                                    (message("exactly"), "%{customdata[1]:,}"),
                                    *(() if measure == "peak_bytes" else ((SHARE, "%{customdata[2]:.1%}"),))))
    return dressed(figure, style, model_caption(cost, assumptions), 130 + 20 * len(names), barmode="stack",
                   showlegend=True, xaxis_title_text=style.tr(label), yaxis={
                       "tickvals": list(range(len(names))), "range": [len(names) - 0.5, -0.5], "zeroline": False,
                       "showgrid": False,
                       "ticktext": [escaped(style.tr(short(name)))[:34] for name in names]})


SHARE: Final = message("share of the model")


def model_caption(cost: Cost, assumptions: Sequence[str] = ()) -> str:
    """What the numbers are of, and what was assumed of the model; weights do not matter."""
    size = "×".join(map(str, cost.input[2:]))
    said = message("{model} · one image of {size} · costs are the same trained or not", model=cost.model, size=size)
    return semicolon_joined((said, *assumptions))


def icicle(cost: Cost, style: Style = LIGHT, assumptions: Sequence[str] = ()) -> go.Figure:
    """Parameters of the model, its rows, and the parts of rows with BRA; `ids` are "", row, or row › part."""
    ids, labels, parents, sizes, colours = [""], [cost.model], [""], [cost.total.params], [GREY]
    ids[0] = cost.model
    for row in cost.rows:
        if not row.params:
            continue
        ids.append(row.name)
        labels.append(style.tr(short(row.name)))
        parents.append(ids[0])
        sizes.append(row.params)
        colours.append(PART_COLOURS[PARTS["qkv"]] if row.layers else GREY)
        found: dict[str, int] = {}
        for part in row.parts if row.layers else ():
            found[part_words(part.name)] = found.get(part_words(part.name), 0) + part.params
        for name, size in found.items():
            if size:
                ids.append(f"{row.name}{BETWEEN}{name}")
                labels.append(style.tr(name))
                parents.append(row.name)
                sizes.append(size)
                colours.append(PART_COLOURS.get(name, GREY))
    whole = cost.total.params or 1
    figure = go.Figure(go.Icicle(
        ids=ids, labels=[escaped(label) for label in labels], parents=parents, values=sizes, branchvalues="total",
        marker_colors=colours, tiling={"orientation": "h", "pad": 1}, sort=False, root_color="rgba(0,0,0,0)",
        customdata=[[size / whole] for size in sizes], texttemplate="%{label}<br>%{value:,}",
        hovertemplate="%{label}<br>" + hover(style, (message("parameters"), "%{value:,}"),
                                             (SHARE, "%{customdata[0]:.1%}"))))
    return dressed(figure, style, model_caption(cost, assumptions), 460, margin={"l": 8, "r": 8, "t": 30})


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
            kind = HERE if place.after in here else POSSIBLE
            values.append({**line, "kind": kind, "value": getattr(place.layer, measure)})
    return values


def places(positions: Sequence[Position], measure: str, here: Collection[str] = (), style: Style = LIGHT,
           caption: str = "") -> go.Figure:
    """The same BRA row after every row, as a dot on a scale of powers of ten.

    A point's `customdata` is [row that it stands after, map, value as it is, why].

    Args:
        positions: the places, in the order of the model.
        measure: one of UNITS but the time.
        here: rows after which the model has a BRA row.
        style: of the figure.
        caption: what the numbers are of.
    """
    unit, label = UNITS[measure]
    found = place_values(positions, measure, here)
    at = {after: n for n, after in enumerate(dict.fromkeys(one["after"] for one in found))}
    maps = {one["after"]: one["map"] for one in found}
    figure = go.Figure()
    for kind, (colour, shape) in MARKS.items():
        there = [one for one in found if one["kind"] == kind]
        if there:
            figure.add_scatter(
                mode="markers", name=style.tr(kind), marker={"color": colour, "symbol": shape, "size": 10},
                x=[one["value"] / unit for one in there], y=[at[one["after"]] for one in there],
                customdata=[[one["after"], one["map"], one["value"],
                             "<br>".join(wrapped(style.tr(one["why"])))] for one in there],
                hovertemplate=hover(style, (message("after"), "%{customdata[0]}"),
                                    (message("map, h×w×channels"), "%{customdata[1]}"), (label, "%{x:,.2f}"),
                                    (message("why"), "%{customdata[3]}")))
    if measure == "peak_bytes":
        figure.add_vline(x=EXPLOSION / unit, line={"color": GREY, "dash": "dash"}, annotation_text="1 GiB")
    return dressed(figure, style, caption, 140 + 22 * len(at), showlegend=True,
                   xaxis=log_ticks([one["value"] / unit for one in found] or [1]) | {
                       "title_text": style.tr(ONE_ROW[measure])}, yaxis={
                       "tickvals": list(at.values()), "ticktext": [f"{after[:26]}   {maps[after]}" for after in at],
                       "range": [len(at) - 0.5, -0.5], "zeroline": False})




def against(costs: Mapping[str, Cost], style: Style = LIGHT, assumptions: Sequence[str] = ()) -> go.Figure:
    """One group of bars per way to have the model: its totals in per cent of the first, its absolute value on them.

    `customdata` is [value as it is].
    """
    first = next(iter(costs.values()))
    colours = ("#E69F00", "#0072B2", "#009E73")
    figure = go.Figure()
    for (measure, name), colour in zip(TOTALS.items(), colours, strict=True):
        whole = getattr(first.total, measure) or 1
        unit = style.tr(message("bytes")) if measure == "peak_bytes" else ""
        figure.add_bar(name=style.tr(name), x=[style.tr(kind) for kind in costs], marker_color=colour,
                       y=[100 * getattr(cost.total, measure) / whole for cost in costs.values()],
                       customdata=[[getattr(cost.total, measure)] for cost in costs.values()], hovertemplate=hover(
                           style, (message("model"), "%{x}"), (name, f"%{{customdata[0]:,}} {unit}"),
                           (message("of the model as it is"), "%{y:.1f} %")))
    return dressed(figure, style, model_caption(first, assumptions), 300, showlegend=True, xaxis_title_text=style.tr(
        message("way to have the model")), yaxis_title_text=style.tr(message("% of the model as it is")))
