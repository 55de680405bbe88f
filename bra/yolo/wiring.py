"""Numbers in rows that point elsewhere since rows were inserted above them.

A row written `[[-1, 12], 1, Concat, [1]]` counts layers. Who pastes an attention row in between and leaves the 12 as it
was joins another map, mostly one of the same size, and nothing complains. The model that was pasted into knows better.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from bra.yolo.rows import DIM_FIRST, INSIDE_C2F, Row


def rewired(rows: Sequence[Row], base: Sequence[Row]) -> dict[int, Row]:
    """Rows that do not read what their counterparts in `base` read, as they should be, by index.

    Reading an inserted attention row in place of the row that it reads is no fault.
    """
    place = counterparts(rows, base)
    origin = {target: row for row, target in place.items()}
    corrected = {}
    for row in rows:
        if row.index not in origin:
            continue
        theirs = base[origin[row.index]]
        if len(theirs.sources) != len(row.sources):
            continue
        given = [row.source] if isinstance(row.source, int) else row.source
        right = [_right(rows, place, written, at, was)
                 for written, at, was in zip(given, row.sources, theirs.sources, strict=True)]
        if right != given:
            source = right[0] if isinstance(row.source, int) else right
            corrected[row.index] = Row(row.index, source, row.repeats, row.name, row.args)
    return corrected


def counterparts(rows: Sequence[Row], base: Sequence[Row]) -> dict[int, int]:
    """Row of `base` -> row here, by index. Our inserted rows have none."""
    kept = [row for row in rows if row.name not in DIM_FIRST]
    if len(kept) == len(base) and all(_alike(one, two) for one, two in zip(kept, base, strict=True)):
        return {two.index: one.index for one, two in zip(kept, base, strict=True)}
    matcher = difflib.SequenceMatcher(None, [_word(row) for row in base], [_word(row) for row in kept], autojunk=False)
    return {base[block.a + n].index: kept[block.b + n].index
            for block in matcher.get_matching_blocks() for n in range(block.size)}


def through(rows: Sequence[Row], at: int) -> int:
    """The row whose map arrives at row `at`, our inserted rows passed through; -1 is the image."""
    while 0 <= at < len(rows) and rows[at].name in DIM_FIRST and rows[at].sources[0] < at:
        at = rows[at].sources[0]
    return at


def _right(rows: Sequence[Row], place: Mapping[int, int], written: int, at: int, was: int) -> int:
    """What should be written where `written`, row `at`, stands, and the base reads its row `was`."""
    if written < 0 or was not in place or through(rows, at) == place[was]:
        return written
    right = place[was]
    while right + 1 < len(rows) and rows[right + 1].name in DIM_FIRST and rows[right + 1].sources == (right,):
        right += 1
    return right


def _alike(row: Row, base: Row) -> bool:
    return row.name == base.name or row.name == INSIDE_C2F


def _word(row: Row) -> str:
    return f"{row.name} {row.args}"
