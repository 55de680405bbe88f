"""Mends model files whose rows of attention begin with their channels, which no class takes; it leaves them out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bra.errors import YoloError
from bra.messages import message
from bra.spec import MAX_N_WIN
from bra.yolo.edit import with_rows_replaced
from bra.yolo.rows import DIM_FIRST, Row, heads_first, rows_of
from bra.yolo.validate import read_model


@dataclass(frozen=True, slots=True)
class Mended:
    """A file without the channels in its rows.

    Attributes:
        what: how the numbers after the channels are read, in a few words.
        text: the file; comments and all else are as they were.
    """

    what: str
    text: str


def without_channels(data: bytes) -> tuple[Mended, ...]:
    """The ways to mend rows such as [256] or [256, 8]: one, or where a number follows the channels, one for windows
    and one for heads; none for a file without such rows, or one that is no model file. Never raises.

    >>> rows = b"backbone:\\n - [-1, 1, BiLevelRoutingAttention, [256, 8]]\\nhead:\\n - [-1, 1, Detect, [80]]\\n"
    >>> [one.text.split("Attention, ")[1].split("]")[0] for one in without_channels(rows)]
    ['[8', '[7, 8']
    """
    try:
        text = data.decode("utf-8-sig")
        rows = [row for row in rows_of(read_model(text)) if _begins_with_channels(row)]
        if not rows:
            return ()
        windows = {row.index: replace(row, args=row.args[1:]) for row in rows}
        heads = {index: heads_first(row) for index, row in windows.items()}
        made = with_rows_replaced(text, windows), with_rows_replaced(text, heads)
    except (YoloError, UnicodeDecodeError):
        return ()
    if made[0] == made[1]:
        return (Mended(message("without the channels"), made[0]),)
    return (Mended(message("the number after them is n_win"), made[0]),
            Mended(message("the number after them is num_heads"), made[1]))


def _begins_with_channels(row: Row) -> bool:
    return row.name == DIM_FIRST[0] and bool(row.args) and type(row.args[0]) is int and row.args[0] > MAX_N_WIN
