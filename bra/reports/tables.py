"""Settings side by side as text, CSV and a page of their own."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from html import escape
from string import Template
from typing import Any, Final

from bra import viewer
from bra.experiments.compare import CostName, SettingRow, amount, pareto_front
from bra.experiments.probes import ProbeRow
from bra.experiments.recommend import reason
from bra.experiments.sweep_table import Summary, SweepTable, summaries
from bra.figures.compare import deciding
from bra.figures.compare import swept as swept_figure
from bra.figures.template import Style, file_name
from bra.messages import ENGLISH, Language, from_plain, message, semicolon_joined
from bra.models.base import WARNING
from bra.reports.figure_html import figure_html, figures_script
from bra.units import Signed, quantity

COSTS: Final[Mapping[CostName, str]] = {
    "macs": message("multiply-adds"), "peak_bytes": message("bytes alive at the worst "
                                                            "moment"), "seconds": message("seconds")}
HEADINGS = ("n_win", "topk", message("recall"), message("chance"), message("nearest"), message("best"),
            message("padding"), message("depends on the query"), "MACs", message("memory"), message("time"))
COLLAPSED: Final = message("collapsed: every window asks for much the same windows and is routed to much the same "
                           "ones, so that it hardly matters where one points.")
PROBE_GAP: Final = 0.05
"""Share by which one must lie above another before a verdict calls it more."""
PROBE_LEGEND: Final = (
    "survived: share of the area that a query was routed to which it is routed to again on the changed picture",
    "stayed:   the same, if the layer kept to its places whatever the picture shows",
    "nearest:  the same of the nearest windows, which survive whatever leaves neighbours neighbours",
    "chance:   the same of as many random windows")


def compare_text(rows: Sequence[SettingRow], cost: CostName = "macs") -> str:
    """A table for a terminal; * marks the Pareto front of recall against `cost`."""
    table = [("", *HEADINGS)] + [("*" if on else "", *_cells(row)) for row, on in zip(rows, pareto_front(rows, cost),
                                                                                      strict=True)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
    more = [COLLAPSED] if any(row.collapsed for row in rows) else []
    return "\n".join([*lines, f"* no other keeps as much for fewer {COSTS[cost]}.", *more, reason(rows, cost)])


def compare_csv(rows: Sequence[SettingRow], provenance: str = "") -> str:
    """One line per setting under a header of the names of `SettingRow`, and where the weights come from, if given."""
    text, more = io.StringIO(), {"provenance": provenance} if provenance else {}
    writer = csv.DictWriter(text, [*(field.name for field in fields(SettingRow)), *more], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.to_dict() | more for row in rows)
    return text.getvalue()


def compare_html(rows: Sequence[SettingRow], title: str, about: str, cost: CostName = "macs",
                 language: Language = ENGLISH, untrained: bool = False) -> str:
    """A page with the chart that decides and the table; `title` and `about` are escaped here.

    `untrained` weights are said in large letters.
    """
    tell = language.translate
    on_front = pareto_front(rows, cost)
    chart = figure_html(deciding(rows, cost, Style(language), about), file_name("settings", cost))
    head = "".join(f"<th>{tell(name)}</th>" for name in HEADINGS)
    lines = ["".join(f"<td>{tell(cell)}</td>" for cell in _cells(row)) for row in rows]
    body = "".join(f"<tr{' class=front' if on else ''}>{line}</tr>" for line, on in zip(lines, on_front, strict=True))
    joined = message("Thick grey: the Pareto front. Dashed: what the nearest windows of the same number keep; dotted: "
                     "random ones.")
    legend = message("recall: share of full attention that falls on the routed windows; chance, nearest, best: on as "
                     "many random, nearest, and best possible windows. Costs are those of the layer.")
    flags = f"<p class=faint>{tell(COLLAPSED)}</p>" if any(row.collapsed for row in rows) else ""
    parts = (f"<p>{escape(tell(reason(rows, cost)))}</p>{chart}<p class=faint>{tell(joined)}</p>"
             f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
             f"<p class=faint>{tell(legend)}</p>{flags}{figures_script(language)}")
    return sheet(title, about, parts, language, untrained)


def probe_text(rows: Sequence[ProbeRow]) -> str:
    """The probes of a picture for a terminal: a table, what its columns mean, and one verdict for each layer."""
    heads = ("layer", "probe", "survived", "stayed", "nearest", "chance")
    table = [heads] + [(row.layer, row.probe, *(f"{100 * share:.1f} %" for share in (
        row.survived, row.stayed, row.nearest, row.chance))) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(n) if at < 2 else cell.rjust(n) for at, (cell, n) in
                       enumerate(zip(line, widths, strict=True))).rstrip() for line in table]
    verdicts = [f"{layer or 'attention'}: {probe_verdict([row for row in rows if row.layer == layer])}"
                for layer in dict.fromkeys(row.layer for row in rows)]
    return "\n".join([*lines, "", *PROBE_LEGEND, "", *verdicts])


def probe_verdict(rows: Sequence[ProbeRow]) -> str:
    """What the probes of one layer say, in a sentence. Brightness moves nothing, so it is no evidence of following."""
    moved = [row for row in rows if row.probe != "brightness" and math.isfinite(row.survived)]
    if not moved:
        return "open, since no probe that moves the picture could be measured"
    survived, stayed, nearest, chance = (sum(getattr(row, name) for row in moved) / len(moved) for name in
                                         ("survived", "stayed", "nearest", "chance"))
    figures = (f"{100 * survived:.0f} % survive, {100 * stayed:.0f} % if it kept its places, {100 * chance:.0f} % by "
               "chance")
    if survived <= chance + PROBE_GAP:
        return f"no better than chance ({figures})"
    if survived <= stayed + PROBE_GAP:
        return f"may be written into places, not content ({figures})"
    if survived <= nearest + PROBE_GAP:
        return f"follows the picture, no better than its nearest windows would, {100 * nearest:.0f} % ({figures})"
    return f"follows what is in the picture ({figures})"


def sheet(title: str, about: str, body: str, language: Language = ENGLISH, untrained: bool = False) -> str:
    """A page around a body; title and about are told in its language and escaped here, the body is HTML."""
    tell = language.translate
    return Template(viewer.text("sheet.html")).substitute(
        title=escape(tell(title)), about=escape(tell(about)), body=body, lang=escape(language.code),
        warning=f"<p class=warning>{escape(tell(WARNING))}</p>" if untrained else "",
        foot=escape(tell(message("Made by RouteScope."))))


def _cells(row: SettingRow) -> tuple[str, ...]:
    shares = (row.recall, row.chance, row.nearest, row.oracle, row.padding_share)
    return (str(row.n_win), str(row.topk), *(message("{n:.1f} %", n=100 * share) for share in shares),
            depends(row), quantity(row.macs), amount(row, "peak_bytes"), amount(row, "seconds"))


def depends(row: SettingRow | Summary) -> str:
    """Share of the affinities' variance that depends on the query, marked where the layer collapsed; "–" where it is
    not known."""
    if row.query_dependence is None:
        return message("– (collapsed)") if row.collapsed else "–"
    if row.collapsed:
        return message("{n:.1f} % (collapsed)", n=100 * row.query_dependence)
    return message("{n:.1f} %", n=100 * row.query_dependence)


# A sweep as one HTML page: distributions over pictures and confidence intervals of their means. ---------------------

SWEEP_HEADINGS = ("n_win", "topk", message("recall"), message("95 % interval"), message("nearest"),
                  message("over nearest"),
                  message("chance"), message("best"), message("depends on the query"), "MACs", message("memory"))


def sweep_html(swept: SweepTable, skipped: Mapping[str, str] | None = None, language: Language = ENGLISH) -> str:
    """The page as text; names in the table are escaped."""
    rows = summaries(swept.rows)
    layers, model = dict.fromkeys(row.layer for row in rows), model_line(swept.about)
    parts = [_layer(layer, [row for row in rows if row.layer == layer], model, language) for layer in layers]
    if skipped:
        listed = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in sorted(skipped.items()))
        head = language.translate(message("Skipped files: {n}", n=len(skipped)))
        parts.append(f"<h2>{head}</h2><ul>{listed}</ul>")
    if any(row.collapsed for row in rows):
        parts.append(f"<p class=faint>{language.translate(COLLAPSED)}</p>")
    parts.append(figures_script(language))
    title = message("Routing over {n} pictures", n=len(set(swept.rows["picture"].to_pylist())))
    settings = swept.about.get("settings")
    untrained = isinstance(settings, Mapping) and settings.get("untrained") is True
    return sheet(title, model, "".join(parts), language, untrained)


def model_line(about: Mapping[str, Any]) -> str:
    """What was swept, in a line; of a stranger's file only what is plain text."""
    settings = about.get("settings")
    if not isinstance(settings, Mapping):
        return message("The file does not say of which model.")
    model, side = (about.get("name") or settings.get("variant") or settings.get("model", "")), settings.get("side", "")
    given = {"model": str(model)[:80], "side": str(side)[:6]}
    line = message("Model {model}, random weights, pictures at {side} px.", **given) \
        if settings.get("untrained") is True else message("Model {model}, pictures at {side} px.", **given)
    assumed = about.get("assumed")
    try:
        said = [one for plain in assumed[:5] if len(one := from_plain(plain)) < 400] if isinstance(assumed, list) \
            else []
    except ValueError:
        said = []
    return message("{line} {assumed}.", line=line, assumed=semicolon_joined(said)) if said else line


def over_nearest(row: Summary) -> str:
    """Whether routing beats the nearest windows, in a word and with its interval."""
    low, high = row.gain
    if math.isnan(low):
        return message("{gain:+.1f} points", gain=Signed(100 * (row.recall - row.nearest)))
    word = message("more") if low > 0 else message("less") if high < 0 else message("open")
    return message("{low:+.1f} to {high:+.1f} points ({word})", low=Signed(100 * low), high=Signed(100 * high),
                   word=word)


def _layer(name: str, rows: Sequence[Summary], model: str, language: Language) -> str:
    tell, lines = language.translate, []
    for row in rows:
        low, high = row.interval
        span = "–" if math.isnan(low) else tell(message("{low:.1f} to {high:.1f} %", low=100 * low, high=100 * high))
        recall, nearest, chance, best = (tell(message("{n:.1f} %", n=100 * share)) for share in
                                         (row.recall, row.nearest, row.chance, row.oracle))
        cells = (row.n_win, row.topk, recall, span, nearest, tell(over_nearest(row)), chance, best,
                 tell(depends(row)), quantity(row.macs), quantity(row.peak_bytes) + "B")
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{tell(heading)}</th>" for heading in SWEEP_HEADINGS)
    layer = message("Layer {name}", name=name or message("attention"))
    caption = message("{model} {layer}", model=model, layer=layer)
    chart = figure_html(swept_figure(rows, Style(language), caption), file_name("sweep", name))
    title = tell(layer)
    return (f"<h2>{escape(title)}</h2>{chart}<div class=scroll><table>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>")
