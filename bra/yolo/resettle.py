"""A model file with other settings in its BRA rows, or with one BRA row elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import yaml

from bra.errors import YoloError
from bra.messages import said
from bra.yolo.rewrite import read_yaml, with_rows_replaced, written
from bra.yolo.rows import DIM_FIRST, INSIDE_C2F, OURS, Row, options_of, rows_of, with_options, with_rows

PARTS: Final = ("backbone", "head")


def resettled(model: str | Mapping[str, Any], only: Collection[int] | None = None, **changes: Any) -> str:
    """The file's text with these options in its BRA rows; comments and all else stay.

    Args:
        model: its text, or its content, which is then written out.
        only: numbers of the rows to change; None for every BRA row.
        changes: options of `BRASpec`, such as n_win=5, topk=3.

    Raises:
        YoloError: it is not a model.
    """
    text = model if isinstance(model, str) else as_text(model)
    rows = {row.index: with_options(row, {**options_of(row), **changes}) for row in rows_of(read_yaml(text))
            if row.name in OURS and (only is None or row.index in only)}
    return with_rows_replaced(text, rows)


def placed(model: str | Mapping[str, Any], after: int, **options: Any) -> str:
    """The model without its BRA rows, and with one after row `after` of what is left; who read that row reads this.

    Args:
        model: the file's text or content.
        after: number of the row whose map it reads, counted without BRA rows.
        options: of `BRASpec`, without `dim`.

    Raises:
        YoloError: it is not a model, or has no such row before its last.
    """
    content = without_rows(read_yaml(model) if isinstance(model, str) else model)
    rows = rows_of(content)
    if not 0 <= after < len(rows) - 1:
        raise YoloError(said("after={after} is no place for a row: 0 to {last} in this model.", after=after,
                             last=len(rows) - 2))
    moved = [_renumbered(row, {at: at + (at >= after) for at in range(len(rows))}, row.index + (row.index > after))
             for row in rows]
    new = with_options(Row(after + 1, -1, 1, DIM_FIRST[0], []), options)
    made = [*moved[:after + 1], new, *moved[after + 1:]]
    cut = len(content["backbone"]) + (after < len(content["backbone"]))
    lists = [[row.source, row.repeats, row.name, row.args] for row in made]
    return as_text({**content, "backbone": lists[:cut], "head": lists[cut:]})


def without_rows(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's content without BRA rows, numbers in the other rows as they were before; C2fBRA becomes C2f.

    Raises:
        YoloError: it is not a model, or its first row is one of ours.
    """
    rows = rows_of(model)
    gone = {row.index: row.sources[0] for row in rows if row.name in DIM_FIRST}
    number: dict[int, int] = {}
    for row in rows:
        at = row.index
        while at in gone:
            at = gone[at]
        if at < 0:
            raise YoloError(said("{row} reads the image itself, so this model cannot be without it: give it a first "
                                 "row.", row=row.words))
        number[row.index] = at - sum(index < at for index in gone)
    plain = [_renumbered(_plain(row), number, number[row.index]) for row in rows if row.index not in gone]
    cut = sum(row.index not in gone for row in rows[:len(model["backbone"])])
    return with_rows({**model, "backbone": model["backbone"][:cut]}, plain)


def as_text(model: Mapping[str, Any]) -> str:
    """A model's content as people write it: one row a line."""
    head: str = yaml.safe_dump({name: value for name, value in model.items() if name not in PARTS}, sort_keys=False,
                               default_flow_style=None, allow_unicode=True)
    at, lines = 0, [head]
    for part in PARTS:
        lines.append(f"{part}:\n")
        for source, repeats, name, args in model[part]:
            lines.append(f"  - {written(Row(at, source, repeats, name, args))}     # {at}\n")
            at += 1
    return "".join(lines)


def _plain(row: Row) -> Row:
    args = [arg for arg in row.args if not isinstance(arg, Mapping)]
    return Row(row.index, row.source, row.repeats, "C2f", args) if row.name == INSIDE_C2F else row


def _renumbered(row: Row, number: Mapping[int, int], index: int) -> Row:
    """The row at another place, its sources where they are now; -1 stays where it still means the row before."""
    given = [row.source] if isinstance(row.source, int) else row.source
    right = [number.get(at, -1) for at in row.sources]
    sources = [-1 if f == -1 and at in (index - 1, -1) else at for f, at in zip(given, right, strict=True)]
    return Row(index, sources[0] if isinstance(row.source, int) else sources, row.repeats, row.name, row.args)
