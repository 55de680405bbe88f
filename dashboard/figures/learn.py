"""The lesson's charts as plain HTML, which grows with the type when it is projected. Numbers in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        name: what it is of.
        share: its length, 0 to 1.
        text: the number in words.
        kind: "main" for what the chapter is about, "other" for what it is held against, "bad" for what is lost.
    """

    name: str
    share: float
    text: str
    kind: str = "main"


def bars(rows: Sequence[Bar]) -> str:
    """Bars below each other, each with its name and its number."""
    made = "".join(
        f'<div class="rs-name">{escape(row.name)}</div><div class="rs-track"><div class="rs-fill rs-{row.kind}" '
        f'style="width: {100 * min(max(row.share, 0), 1):.2f}%"></div></div>'
        f'<div class="rs-text">{escape(row.text)}</div>'
        for row in rows)
    return f'<div class="rs-bars">{made}</div>'


def columns(heights: Sequence[tuple[float, float]], at: int, labels: Sequence[str]) -> str:
    """Two heights for each column, 0 to 1, one in front of the other; column `at` is the chosen one.

    Args:
        heights: of the column behind and of the one in front.
        at: which one is chosen.
        labels: under the first and the last column.
    """
    made = "".join(
        f'<div class="rs-column{" rs-chosen" if n == at else ""}"><div class="rs-fill rs-bad" '
        f'style="height: {100 * behind:.2f}%"></div><div class="rs-fill rs-main" style="height: {100 * front:.2f}%">'
        "</div></div>" for n, (behind, front) in enumerate(heights))
    under = "".join(f"<span>{escape(label)}</span>" for label in labels)
    return f'<div class="rs-columns">{made}</div><div class="rs-under">{under}</div>'


def figure(text: str, *parts: str) -> str:
    """A sentence and the charts below it."""
    return f'<div class="rs-figure"><p>{escape(text)}</p>{"".join(parts)}</div>'


def note(text: str) -> str:
    """A sentence between charts."""
    return f"<p>{escape(text)}</p>"


def verdict(right: bool, word: str, answer: str) -> str:
    """The answer to a question in Markdown, its first word in bold: not by colour alone."""
    return f"{':material/check_circle:' if right else ':material/cancel:'} **{word}** {answer}"


def percent(share: float) -> str:
    """0.0714 -> "7.1 %"; 0 % and 100 % are said of exact ones only."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    if 0.995 <= share < 1:
        return f"{min(99.9, 100 * share):.1f} %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"
