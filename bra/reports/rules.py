"""Rules of routing as text for a terminal and as a page of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from bra.experiments.rules import RuleSummary
from bra.figures.rules import rules as rules_figure
from bra.figures.template import Style, file_name
from bra.messages import ENGLISH, Language, message
from bra.metrics.rules import RULES, UNTRAINED_NOTE, RuleRow, verdict
from bra.reports.figure_html import figure_html, figures_script
from bra.reports.tables import model_line, sheet
from bra.units import quantity

HEADINGS: Final = (message("rule"), message("recall"), message("change of the output"), message("overlap of labels"),
                   "MACs", message("keys and values read"))


def rules_text(found: Sequence[RuleSummary]) -> str:
    """Medians over pictures for a terminal, layer by layer, and what to make of them."""
    parts = []
    for one in found:
        table = [HEADINGS, *(_cells(row) for row in one.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.rjust(n) if at else cell.ljust(n) for at, (cell, n) in
                           enumerate(zip(line, widths, strict=True))).rstrip() for line in table]
        parts.append("\n".join([_title(one), *lines, verdict(one.rows)]))
    return "\n\n".join([*parts, UNTRAINED_NOTE])


def rules_html(found: Sequence[RuleSummary], about: Mapping[str, Any], skipped: Mapping[str, str] | None = None,
               language: Language = ENGLISH) -> str:
    """The same as a page, with a chart for each layer; names in the table are escaped."""
    tell, model = language.translate, model_line(about)
    parts = []
    for one in found:
        head = "".join(f"<th>{escape(tell(name))}</th>" for name in HEADINGS)
        body = "".join("<tr>" + "".join(f"<td>{escape(tell(cell))}</td>" for cell in _cells(row)) + "</tr>"
                       for row in one.rows)
        chart = figure_html(rules_figure(one.rows, Style(language), message("{model} {layer}", model=model,
                                                                            layer=_title(one))),
                            file_name("rules", one.layer))
        parts.append(f"<h2>{escape(tell(_title(one)))}</h2><p>{escape(tell(verdict(one.rows)))}</p>{chart}"
                     f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
    needs = "".join(f"<li><b>{escape(tell(rule.name))}</b> {escape(tell(rule.about))} {escape(tell(rule.training))}"
                    "</li>" for rule in RULES.values())
    parts.append(f"<p>{escape(tell(UNTRAINED_NOTE))}</p><ul>{needs}</ul>")
    if skipped:
        listed = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in sorted(skipped.items()))
        parts.append(f"<h2>{tell(message('Skipped files: {n}', n=len(skipped)))}</h2><ul>{listed}</ul>")
    parts.append(figures_script(language))
    settings = about.get("settings")
    untrained = isinstance(settings, Mapping) and settings.get("untrained") is True
    return sheet(message("Rules of routing"), model, "".join(parts), language, untrained)


def _title(one: RuleSummary) -> str:
    return message("Layer {name}, n_win {n_win}, topk {topk}: medians over {n} pictures",
                   name=one.layer or message("attention"), n_win=one.rows[0].n_win, topk=one.rows[0].topk,
                   n=one.pictures)


def _cells(row: RuleRow) -> tuple[str, ...]:
    overlap = "–" if row.overlap is None else message("{n:.1f} %", n=100 * row.overlap)
    return (RULES[row.rule].name, message("{n:.1f} %", n=100 * row.recall), message("{n:.1f} %", n=100 * row.change),
            overlap, quantity(row.macs), quantity(row.kv_bytes) + "B")
