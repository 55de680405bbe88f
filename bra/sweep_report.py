"""A sweep as one HTML page: distributions over pictures and confidence intervals of their means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bra import svg
from bra.compare_table import sheet
from bra.experiments.sweep_table import Summary, SweepTable, summaries
from bra.messages import ENGLISH, Language, said

SWEEP_HEADINGS = ("n_win", "topk", said("recall"), said("95 % interval"), said("nearest"), said("over nearest"),
            said("chance"), said("best"), "MACs", said("memory"))
SHOWN_TICKS = 400


def sweep_html(swept: SweepTable, skipped: Mapping[str, str] | None = None, language: Language = ENGLISH) -> str:
    """The page as text; names in the table are escaped."""
    rows = summaries(swept.rows)
    layers = dict.fromkeys(row.layer for row in rows)
    parts = [_layer(layer, [row for row in rows if row.layer == layer], language) for layer in layers]
    if skipped:
        listed = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in sorted(skipped.items()))
        head = language.tell(said("Skipped files: {n}", n=len(skipped)))
        parts.append(f"<h2>{head}</h2><ul>{listed}</ul>")
    title = said("Routing over {n} pictures", n=len(set(swept.rows["picture"].to_pylist())))
    return sheet(title, model_line(swept.about), "".join(parts), language)


def model_line(about: Mapping[str, Any]) -> str:
    """What was swept, in a line; of a stranger's file only what is plain text."""
    settings = about.get("settings")
    if not isinstance(settings, Mapping):
        return said("The file does not say of which model.")
    model, side = (about.get("name") or settings.get("variant") or settings.get("model", "")), settings.get("side", "")
    given = {"model": str(model)[:80], "side": str(side)[:6]}
    if settings.get("untrained") is True:
        return said("Model {model}, random weights, pictures at {side} px.", **given)
    return said("Model {model}, pictures at {side} px.", **given)


def over_nearest(row: Summary) -> str:
    """Whether routing beats the nearest windows, in a word and with its interval."""
    low, high = row.gain
    if math.isnan(low):
        return said("{gain:+.1f} %", gain=100 * (row.recall - row.nearest))
    word = said("more") if low > 0 else said("less") if high < 0 else said("open")
    return said("{low:+.1f} to {high:+.1f} % ({word})", low=100 * low, high=100 * high, word=word)


def _layer(name: str, rows: Sequence[Summary], language: Language) -> str:
    tell, lines = language.tell, []
    for row in rows:
        low, high = row.interval
        span = "–" if math.isnan(low) else tell(said("{low:.1f} to {high:.1f} %", low=100 * low, high=100 * high))
        recall, nearest, chance, best = (tell(said("{n:.1f} %", n=100 * share)) for share in
                                         (row.recall, row.nearest, row.chance, row.oracle))
        cells = (row.n_win, row.topk, recall, span, nearest, tell(over_nearest(row)), chance, best,
                 svg.quantity(row.macs), svg.quantity(row.peak_bytes) + "B")
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{tell(heading)}</th>" for heading in SWEEP_HEADINGS)
    chart = svg.spreads([(f"n_win {row.n_win}, topk {row.topk}", row.values[:SHOWN_TICKS],
                          (row.recall, row.recall) if math.isnan(row.interval[0]) else row.interval)
                         for row in rows],
                        tell(said("of full attention kept, one tick per picture; bar: the mean's interval")),
                        tell(svg.PERCENT), tell(svg.BETWEEN))
    title = tell(said("Layer {name}", name=name or said("attention")))
    return (f"<h2>{escape(title)}</h2>{chart}<div class=scroll><table>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>")
