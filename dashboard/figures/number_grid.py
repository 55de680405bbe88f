"""Grids of numbers as on a blackboard, as SVG text that a page and a printed sheet show alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WINDOW_COLOURS: Final = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")
"""Okabe and Ito's, which every common form of colour blindness tells apart; each window's number is written too."""
ACROSS, PAIR, SINGLE = 58, 46, 34
"""Width of a cell, height of one with two numbers, and with one."""
GAP: Final = 12
STREET: Final = 46
"""Between windows, and between windows with arrows."""
HEAD: Final = 22
SIDE_HEAD: Final = 70


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        lines: the texts in it, one under another; empty for one to be filled in.
        window: the window whose colour it has; None for none.
        changed: whether it differs from what it was at first.
        ring: whether it is the one that is looked at.
        framed: whether it was chosen.
        badge: a small text in its corner.
        bold: whether it stands out, as what was filled in on a sheet does.
        token: number of the input token that a click on it chooses.
        label: what it is called for a reader of the screen.
    """

    lines: tuple[str, ...]
    window: int | None = None
    changed: bool = False
    ring: bool = False
    framed: bool = False
    badge: str = ""
    bold: bool = False
    token: int | None = None
    label: str = ""


def number(value: float) -> str:
    """1.875 -> "1.875", 0.19661 -> "0.20"; a true minus sign.

    Eighths are written out, up to three decimals; anything else is rounded to two.
    """
    written_out = abs(value * 8 - round(value * 8)) < 1e-4
    text = f"{value:.3f}".rstrip("0").rstrip(".") if written_out else f"{value:.2f}"
    return ("0" if text in ("-0", "-0.00") else text).replace("-", "−")


def grid(title: str, cells: Sequence[Sequence[Cell]], row_heads: Sequence[str] = (), col_heads: Sequence[str] = (),
         across: int = ACROSS, row_ring: int | None = None) -> str:
    """One figure: a title over rows of cells.

    Args:
        title: what the grid holds, HTML.
        cells: rows of cells; each row equally long.
        row_heads: words before the rows.
        col_heads: words over the columns.
        across: width of a cell.
        row_ring: number of the row that is looked at.
    """
    high = _height(cells)
    left, top = (SIDE_HEAD if row_heads else 2), (HEAD if col_heads else 2)
    columns = max(len(row) for row in cells)
    places = {(r, c): (left + c * across, top + r * high) for r, row in enumerate(cells) for c in range(len(row))}
    parts = [_text(left - 8, top + (n + .5) * high, head, "end", "wx-head") for n, head in enumerate(row_heads)]
    parts += [_text(left + (n + .5) * across, top - 9, head, "middle", "wx-head") for n, head in enumerate(col_heads)]
    parts += _cells(cells, places, across, high)
    if row_ring is not None:
        parts.append(f'<rect class="wx-ring" x="{left}" y="{top + row_ring * high}" width="{columns * across}" '
                     f'height="{high}"/>')
    return _figure(title, parts, left + columns * across + 3, top + len(cells) * high + 3)


def windowed(title: str, cells: Sequence[Sequence[Cell]], cut: int, windows: Sequence[str],
             arrows: Sequence[tuple[int, int]] = (), drawn: bool = True) -> str:
    """One figure: a square map of which the windows are drawn apart.

    Args:
        title: what the map holds, HTML.
        cells: rows of cells.
        cut: cells per side of a window.
        windows: names of the windows, written over them.
        arrows: from window to window.
        drawn: False leaves their room empty.
    """
    high, per_side = _height(cells), len(cells) // cut
    street = STREET if arrows else GAP
    left, right = (STREET - 8 if any(a == b and a % per_side == side for a, b in arrows) else 2
                   for side in (0, per_side - 1))

    def corner(window: int) -> tuple[int, int]:
        down, across = divmod(window, per_side)
        return left + across * (cut * ACROSS + street), HEAD + down * (cut * high + street)

    places = {}
    for r, row in enumerate(cells):
        for c in range(len(row)):
            x, y = corner(r // cut * per_side + c // cut)
            places[r, c] = x + c % cut * ACROSS, y + r % cut * high
    wide, tall = cut * ACROSS, cut * high
    parts = _cells(cells, places, ACROSS, high)
    for window, name in enumerate(windows):
        x, y = corner(window)
        below = per_side > 1 and window >= per_side * (per_side - 1)     # out of the arrows' way
        parts.append(f'<rect class="wx-window" x="{x}" y="{y}" width="{wide}" height="{tall}"/>')
        parts.append(_text(x + 2, y + tall + 11 if below else y - 9, name, "start", "wx-head"))
    for a, b in arrows if drawn else ():
        parts.append(_loop(*corner(a), wide, tall, left=a % per_side == 0) if a == b
                     else _arrow(corner(a), corner(b), wide, tall))
    last = corner(per_side * per_side - 1)
    return _figure(title, parts, last[0] + wide + right + 1, last[1] + tall + HEAD)


def row_of(figures: Sequence[str]) -> str:
    """Figures beside one another, as far as there is room."""
    return f'<div class="wx">{"".join(figures)}</div>'


def sign(text: str) -> str:
    """A sign between two figures, such as × or →."""
    return f'<span class="wx-sign" aria-hidden="true">{escape(text)}</span>'


def _figure(title: str, parts: Sequence[str], wide: float, tall: float) -> str:
    return (f'<figure class="wx-figure"><figcaption>{title}</figcaption><svg viewBox="0 0 {wide} {tall}" '
            f'style="--w:{wide}" role="img">{"".join(parts)}</svg></figure>')


def _height(cells: Sequence[Sequence[Cell]]) -> int:
    return PAIR if any(len(cell.lines) > 1 for row in cells for cell in row) else SINGLE


def _cells(cells: Sequence[Sequence[Cell]], places: Mapping[tuple[int, int], tuple[int, int]], wide: int,
           high: int) -> list[str]:
    every = [(cell, *places[r, c]) for r, row in enumerate(cells) for c, cell in enumerate(row)]
    # Rings last, so that no neighbour lies over them.
    return [*(_cell(cell, x, y, wide, high) for cell, x, y in every),
            *(_ring(cell, x, y, wide, high) for cell, x, y in every if cell.ring or cell.framed)]


def _cell(cell: Cell, x: float, y: float, wide: float, high: float) -> str:
    fill = "" if cell.window is None else f' style="fill:{WINDOW_COLOURS[cell.window]}"'
    parts = [f'<rect class="wx-cell" x="{x}" y="{y}" width="{wide}" height="{high}"{fill}/>']
    for n, line in enumerate(cell.lines):
        at = y + high * (n + 1) / (len(cell.lines) + 1) + (3 * n - 1.5 if len(cell.lines) > 1 else 0)
        parts.append(_text(x + wide / 2, at, line, "middle", "wx-changed" if cell.changed or cell.bold else ""))
    if cell.changed:
        parts.append(f'<path class="wx-mark" d="M{x + wide - 12} {y + 1}h11v11z"/>')
    if cell.badge:
        parts.append(_text(x + 5, y + 11, cell.badge, "start", "wx-badge"))
    if cell.token is None:
        return "".join(parts)
    return (f'<g data-token="{cell.token}" role="button" tabindex="{0 if cell.ring else -1}" '
            f'aria-pressed="{str(cell.ring).lower()}" aria-label="{escape(cell.label)}">{"".join(parts)}</g>')


def _ring(cell: Cell, x: float, y: float, wide: float, high: float) -> str:
    kind = "wx-ring" if cell.ring else "wx-chosen"
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{wide}" height="{high}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _arrow(start: tuple[int, int], end: tuple[int, int], wide: int, tall: int) -> str:
    """From one window's edge to another's, through the street between them; the way back lies beside it."""
    dx, dy = ((b > a) - (b < a) for a, b in zip(start, end, strict=True))
    beside = 0 if dx and dy else 12
    x0, y0 = (at + size * (.5 + .5 * d) for at, size, d in zip(start, (wide, tall), (dx, dy), strict=True))
    x1, y1 = (at + size * (.5 - .5 * d) for at, size, d in zip(end, (wide, tall), (dx, dy), strict=True))
    long = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** .5
    ux, uy = (x1 - x0) / long, (y1 - y0) / long
    x0, y0 = x0 + 3 * ux - beside * uy, y0 + 3 * uy + beside * ux
    x1, y1 = x1 - 5 * ux - beside * uy, y1 - 5 * uy + beside * ux
    return f'<path class="wx-arrow" d="M{x0:.1f} {y0:.1f}L{x1 - 8 * ux:.1f} {y1 - 8 * uy:.1f}"/>' + _tip(x1, y1, ux, uy)


def _loop(x: int, y: int, wide: int, tall: int, left: bool) -> str:
    """From a window out of the map and back into it."""
    edge, turn = (x, -1) if left else (x + wide, 1)
    middle = y + tall / 2
    path = f"M{edge + 3 * turn} {middle - 14}c{28 * turn} -6 {28 * turn} 34 {10 * turn} 28"
    return f'<path class="wx-arrow" d="{path}"/>' + _tip(edge + 4 * turn, middle + 14, -turn, 0)


def _tip(x: float, y: float, ux: float, uy: float) -> str:
    """An arrow's head at (x, y) that points along (ux, uy)."""
    back = x - 12 * ux, y - 12 * uy
    return (f'<path class="wx-tip" d="M{x:.1f} {y:.1f}L{back[0] - 6 * uy:.1f} {back[1] + 6 * ux:.1f}'
            f'L{back[0] + 6 * uy:.1f} {back[1] - 6 * ux:.1f}z"/>')
