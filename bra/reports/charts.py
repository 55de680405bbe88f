"""Small charts as SVG text, for pages that need no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from bra.messages import message
from bra.units import quantity

Point = tuple[float, float, str]
"""x, y, and the words that a pointer sees."""
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 320, 56, 44
PERCENT, BETWEEN = message("{n} %"), message("{low:.1f} to {high:.1f} %")
"""How a share and an interval of shares are written, in English."""


def scatter(points: Sequence[Point], marked: Sequence[bool], x_label: str, y_label: str,
            lines: Mapping[str, Sequence[tuple[float, float]]], percent: str = PERCENT) -> str:
    """Shares 0 to 1 over a cost above 0 on a logarithmic axis; the marked points are joined, lines are dashed."""
    xs = [x for x, _, _ in points]
    low, high = math.log10(min(xs)) - 0.03, math.log10(max(xs)) + 0.03

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + (math.log10(x) - low) / (high - low) * (WIDTH - LEFT - 16), _y(y)

    parts = _frame(y_label, x_label, percent)
    for exponent in range(math.floor(low), math.ceil(high) + 1):
        for step in (1, 2, 5):
            value = step * 10.0**exponent
            if low <= math.log10(value) <= high:
                x = at(value, 0)[0]
                parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{HEIGHT - BOTTOM}"/>'
                             f'<text class="faint" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
                             f'{quantity(value)}</text>')
    for name, line in lines.items():
        place = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in sorted(line))
        parts.append(f'<polyline points="{place}" fill="none" stroke="var(--faint)" stroke-dasharray="4 4">'
                     f"<title>{escape(name)}</title></polyline>")
    best = sorted((x, y) for (x, y, _), on in zip(points, marked, strict=True) if on)
    path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in best)
    parts.append(f'<polyline points="{path}" fill="none" stroke="var(--a)" stroke-width="2"/>')
    for (x, y, words), on in zip(points, marked, strict=True):
        cx, cy = at(x, y)
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{6 if on else 4}" '
                     f'fill="var(--{"a" if on else "b"})"><title>{escape(words)}</title></circle>')
    return _svg(parts, HEIGHT)


def spreads(rows: Sequence[tuple[str, Sequence[float], tuple[float, float]]], label: str,
            percent: str = PERCENT, between: str = BETWEEN) -> str:
    """One line per row on an axis from 0 to 1: its values as ticks, the interval of its mean as a bar."""
    height = 28 * len(rows) + BOTTOM
    left, wide = 150, WIDTH - 166
    parts = []
    for n in range(6):
        x = left + n / 5 * wide
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - BOTTOM + 4}"/>'
                     f'<text class="faint" x="{x:.1f}" y="{height - 22}" text-anchor="middle">'
                     f"{percent.format(n=20 * n)}</text>")
    for n, (name, values, (low, high)) in enumerate(rows):
        y = 18 + 28 * n
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        ticks = "".join(f"M{left + value * wide:.1f} {y - 7}v14" for value in values)
        parts.append(f'<path d="{ticks}" stroke="var(--b)" stroke-opacity=".35"/>')
        words = between.format(low=100 * low, high=100 * high)
        parts.append(f'<rect x="{left + low * wide:.1f}" y="{y - 4}" width="{max(2.0, (high - low) * wide):.1f}" '
                     f'height="8" fill="var(--a)"><title>{escape(words)}</title></rect>')
    parts.append(f'<text class="faint" x="{left + wide / 2}" y="{height - 4}" text-anchor="middle">'
                 f"{escape(label)}</text>")
    return _svg(parts, height)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - 8)


def _frame(y_label: str, x_label: str, percent: str) -> list[str]:
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - 16}" y1="{_y(n / 5):.1f}" y2="{_y(n / 5):.1f}"/>'
             f'<text class="faint" x="{LEFT - 6}" y="{_y(n / 5) + 4:.1f}" text-anchor="end">'
             f"{percent.format(n=20 * n)}</text>"
             for n in range(6)]
    parts.append(f'<text class="faint" x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text class="faint" transform="translate(12 {HEIGHT / 2 - 20}) rotate(-90)" text-anchor="middle">'
                 f"{escape(y_label)}</text>")
    return parts


def _svg(parts: Sequence[str], height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">{"".join(parts)}</svg>'
