"""Replaces rows in the text of a model file; comments and everything else stay as they are."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import yaml

from bra.errors import YoloError
from bra.messages import message
from bra.yolo.rows import DIM_FIRST, INSIDE, OURS, Row, options_of, rows_of, with_options, with_rows


def read_yaml(text: str) -> dict[str, Any]:
    """A model file's content, read without running anything.

    Raises:
        YoloError: it is not YAML, or not a mapping.
    """
    try:
        model = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise YoloError(message("this is not YAML ({error}): give a model file of Ultralytics' kind.",
                                error=" ".join(str(error).split()))) from error
    if not isinstance(model, dict):
        raise YoloError(message("a model file holds a mapping, this one a {kind}: give one with 'backbone:' and "
                                "'head:'.",
                                kind=type(model).__name__))
    return model


def with_rows_replaced(text: str, rows: Mapping[int, Row]) -> str:
    """The text with the given rows, by index, in place of its own."""
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    parts = {key.value: value.value for key, value in document.value}
    nodes = [*parts["backbone"], *parts["head"]]
    for index in sorted(rows, reverse=True):
        text = text[:nodes[index].start_mark.index] + written(rows[index]) + text[_end(nodes[index]):]
    return text


def _end(node: Any) -> int:
    """Where a node's text ends: that of a list in block style with its last item, and not where the next one begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def written(row: Row) -> str:
    """A row as people write it: [-1, 1, BiLevelRoutingAttention, [7, 8]]."""
    flow: str = yaml.safe_dump([row.source, row.repeats, row.name, row.args], default_flow_style=True, width=10_000,
                               sort_keys=False, allow_unicode=True)
    return flow.strip()


# A model file with other settings in its BRA rows, or with one BRA row elsewhere. -----------------------------------

PARTS: Final = ("backbone", "head")


def with_row_settings(model: str | Mapping[str, Any], only: Collection[int] | None = None, **changes: Any) -> str:
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


def with_bra_row_after(model: str | Mapping[str, Any], after: int, **options: Any) -> str:
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
        raise YoloError(message("after={after} is no place for a row: 0 to {last} in this model.", after=after,
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
            raise YoloError(message("{row} reads the image itself, so this model cannot be without it: give it a first "
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
    return Row(row.index, row.source, row.repeats, INSIDE[row.name], args) if row.name in INSIDE else row


def _renumbered(row: Row, number: Mapping[int, int], index: int) -> Row:
    """The row at another place, its sources where they are now; -1 stays where it still means the row before."""
    given = [row.source] if isinstance(row.source, int) else row.source
    right = [number.get(at, -1) for at in row.sources]
    sources = [-1 if f == -1 and at in (index - 1, -1) else at for f, at in zip(given, right, strict=True)]
    return Row(index, sources[0] if isinstance(row.source, int) else sources, row.repeats, row.name, row.args)


# Numbers in rows that point elsewhere since rows were inserted above them. ------------------------------------------

def renumbered_sources(rows: Sequence[Row], base: Sequence[Row]) -> dict[int, Row]:
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
    return row.name == base.name or row.name in INSIDE


def _word(row: Row) -> str:
    return f"{row.name} {row.args}"
