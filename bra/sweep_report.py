"""A sweep as one HTML page: distributions over pictures and confidence intervals of their means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any

from bra import svg, viewer
from bra.sweep_table import Summary, SweepTable, summaries

HEADINGS = ("n_win", "topk", "recall", "95 % interval", "nearest", "over nearest", "chance", "best", "MACs", "memory")
SHOWN_TICKS = 400


def sweep_html(swept: SweepTable, skipped: Mapping[str, str] | None = None) -> str:
    """The page as text; names in the table are escaped."""
    rows = summaries(swept.rows)
    layers = dict.fromkeys(row.layer for row in rows)
    parts = [_layer(layer, [row for row in rows if row.layer == layer]) for layer in layers]
    if skipped:
        listed = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in sorted(skipped.items()))
        parts.append(f"<h2>Skipped files: {len(skipped)}</h2><ul>{listed}</ul>")
    title = f"Routing over {len(set(swept.rows['picture'].to_pylist()))} pictures"
    return Template(viewer.text("sheet.html")).substitute(title=escape(title), about=escape(model_line(swept.about)),
                                                          body="".join(parts))


def model_line(about: Mapping[str, Any]) -> str:
    """What was swept, in a line; of a stranger's file only what is plain text."""
    settings = about.get("settings")
    if not isinstance(settings, Mapping):
        return "The file does not say of which model."
    words = [str(about.get("name") or settings.get("variant") or settings.get("model", ""))[:80]]
    words += ["random weights"] if settings.get("untrained") is True else []
    return f"Model {', '.join(words)}, pictures at {str(settings.get('side', ''))[:6]} px."


def over_nearest(row: Summary) -> str:
    """Whether routing beats the nearest windows, in a word and with its interval."""
    low, high = row.gain
    if math.isnan(low):
        return f"{100 * (row.recall - row.nearest):+.1f} %"
    word = "more" if low > 0 else "less" if high < 0 else "open"
    return f"{100 * low:+.1f} to {100 * high:+.1f} % ({word})"


def _layer(name: str, rows: Sequence[Summary]) -> str:
    lines = []
    for row in rows:
        low, high = row.interval
        span = "–" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f} %"
        cells = (row.n_win, row.topk, f"{100 * row.recall:.1f} %", span, f"{100 * row.nearest:.1f} %",
                 over_nearest(row), f"{100 * row.chance:.1f} %", f"{100 * row.oracle:.1f} %",
                 svg.quantity(row.macs), svg.quantity(row.peak_bytes) + "B")
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    chart = svg.spreads([(f"n_win {row.n_win}, topk {row.topk}", row.values[:SHOWN_TICKS],
                          (row.recall, row.recall) if math.isnan(row.interval[0]) else row.interval)
                         for row in rows], "of full attention kept, one tick per picture; bar: the mean's interval")
    return (f"<h2>Layer {escape(name or 'attention')}</h2>{chart}<div class=scroll><table>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>")
