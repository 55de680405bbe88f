"""Reads the rows of a YOLO model and gives our layers the channels of their map.

A row says `[from, repeats, name, args]` and not how many channels it gets. The model's own parser knows: it is asked
once, on the meta device where nothing takes memory, with a BatchNorm2d row at the end for every channel count wanted.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bra.errors import BRAError, SpecError, YoloError
from bra.messages import message, message_of
from bra.spec import BRASpec

Parse = Callable[..., tuple[nn.Module, list[int]]]
Model = Mapping[str, Any]
DIM_FIRST: Final = ("BiLevelRoutingAttention", "BRABlock", "BiFormerBlock")
"""Rows whose first constructor argument is `dim`, which nobody writes."""
INSIDE_C2F: Final = "C2fBRA"
INSIDE: Final[Mapping[str, str]] = {INSIDE_C2F: "C2f", "C2PSABRA": "C2PSA"}
"""Rows with attention inside a block of Ultralytics, and that block."""
THIRD: Final[Mapping[str, Any]] = {INSIDE_C2F: False, "C2PSABRA": 0.5}
"""What their third argument is where nobody wrote it: the shortcut, and the share of channels."""
OURS: Final = (*DIM_FIRST, *INSIDE)
OPTIONS: Final = tuple(field.name for field in fields(BRASpec))[1:]
USUAL: Final = {field.name: field.default for field in fields(BRASpec)}
"""Defaults of the tutorial's class."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a model file.

    Attributes:
        index: its place among backbone and head rows, as Ultralytics counts layers.
        source: `from`: the rows it reads; -1 is the one before.
        repeats: how often it is written; scaled by the model's depth.
        name: its layer.
        args: what stands in its brackets.
    """

    index: int
    source: int | list[int]
    repeats: int
    name: str
    args: list[Any]

    def __str__(self) -> str:
        return str(self.words)

    @property
    def words(self) -> str:
        """The row with its number, as it stands in sentences."""
        return message("row {number} [{source}, {repeats}, {name}, {args}]", number=self.index, source=self.source,
                       repeats=self.repeats, name=self.name, args=self.args)

    @property
    def sources(self) -> tuple[int, ...]:
        """Absolute indices of the rows that it reads; -1 is the image."""
        given = [self.source] if isinstance(self.source, int) else self.source
        return tuple(self.index + f if f < 0 else f for f in given)


def rows_of(model: Model) -> list[Row]:
    """Every row of backbone and head.

    Raises:
        YoloError: this is no model, or a row is not `[from, repeats, name, args]`.
    """
    found: list[Row] = []
    for part in ("backbone", "head"):
        rows = model.get(part) if isinstance(model, Mapping) else None
        if not isinstance(rows, list):
            raise YoloError(message("a model without a list of rows under '{part}:' is not a YOLO model: give one with "
                                    "'backbone:' and 'head:'.", part=part))
        for row in rows:
            if not (isinstance(row, Sequence) and len(row) == 4 and isinstance(row[0], (int, list))
                    and isinstance(row[1], int) and isinstance(row[2], str) and isinstance(row[3], list)):
                raise YoloError(message("row {number} is {row!r}: a row is [from, repeats, name, [arguments]], for "
                                        "example [-1, 1, BiLevelRoutingAttention, []].", number=len(found), row=row))
            found.append(Row(len(found), *row))
    return found


def with_rows(model: Model, rows: Sequence[Row]) -> dict[str, Any]:
    """The same model with other rows; those of the backbone stay as many as they were."""
    lists = [[row.source, row.repeats, row.name, list(row.args)] for row in rows]
    cut = len(model["backbone"])
    return {**model, "backbone": lists[:cut], "head": lists[cut:]}


def has_ours(model: Model) -> bool:
    """Whether any row is one of our layers. Never raises: a strange model is the parser's to judge."""
    rows = [*model.get("backbone", ()), *model.get("head", ())]
    return any(len(row) == 4 and isinstance(row[2], str) and row[2] in OURS for row in rows)


def resolve(model: Model, image_channels: int, parse: Parse) -> dict[str, Any]:
    """The model with `dim`, and every option up to the last one named, written into our rows.

    Args:
        model: as read from the file, with its scale.
        image_channels: channels of the image.
        parse: Ultralytics' own parser.

    Raises:
        YoloError: a row of ours cannot be; the message names the row, the value, the range and the cure.
    """
    rows = rows_of(model)
    dims = build_on_meta(model, rows, image_channels, parse).dims
    return with_rows(model, [_resolved(row, dims[row.index]) if row.index in dims else row for row in rows])


@dataclass(frozen=True, slots=True)
class MetaModel:
    """A model as its parser builds it on the meta device, with stand-ins of the same widths for our layers.

    Attributes:
        layers: one per row.
        dims: channels that the attention of each of our rows works on, by row index.
    """

    layers: list[Any]
    dims: dict[int, int]


def stand_in(row: Row) -> Row:
    """A row of the same widths that Ultralytics' own parser knows."""
    if row.name in DIM_FIRST:
        return Row(row.index, row.source, row.repeats, "nn.Identity", [])
    if row.name in INSIDE:
        plain = [arg for arg in row.args if not isinstance(arg, Mapping)]
        return Row(row.index, row.source, row.repeats, INSIDE[row.name], plain)
    return row


class _Sizes(TorchFunctionMode):
    """Makes `torch.arange` of whole numbers a tensor of its size alone, which is all that "meta" keeps.

    On "meta" torch works it out in Python, for which it imports its compiler first: two seconds of a new process.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The function's result."""
        kwargs = kwargs or {}
        if func is torch.arange and {*kwargs} <= {"dtype"} and all(type(one) is int for one in args):
            return torch.empty(len(range(*args)), dtype=kwargs.get("dtype") or torch.int64)
        return func(*args, **kwargs)


def build_on_meta(model: Model, rows: Sequence[Row], image_channels: int, parse: Parse) -> MetaModel:
    """Build the model without memory, to learn its widths.

    Raises:
        YoloError: one of our rows reads more than one row, or one that is not above it, or cannot be read.
    """
    asking = [row for row in rows if row.name in DIM_FIRST]
    for row in asking:
        if not isinstance(row.source, int) or not -1 <= row.sources[0] < row.index:
            raise YoloError(message("{row} reads from {source}: give one row above it, for example -1.", row=row.words,
                                    source=row.source))
    for row in rows:
        if row.name in OURS:
            options_of(row)
    stand_ins = [stand_in(row) for row in rows]
    ends = [Row(len(rows) + n, row.sources[0], 1, "nn.BatchNorm2d", [])
            for n, row in enumerate(row for row in asking if row.sources[0] >= 0)]
    scales = model.get("scales")
    scale = model.get("scale") or (next(iter(scales)) if scales else None)     # the parser would choose so, and warn
    with torch.device("meta"), _Sizes():
        layers, _ = parse(with_rows({**model, "scale": scale}, [*stand_ins, *ends]), image_channels, verbose=False)
    built: list[Any] = list(layers.children())
    widths = iter(end.num_features for end in built[len(rows):])
    dims = {row.index: next(widths) if row.sources[0] >= 0 else image_channels for row in asking}
    inside = {row.index: built[row.index].c for row in rows if row.name in INSIDE}
    return MetaModel(built[:len(rows)], dims | inside)


def options_of(row: Row) -> dict[str, Any]:
    """Options that a row of ours sets, by name: written in order, or in a mapping at the end.

    Raises:
        YoloError: more values than options, an unknown name, or one given twice.
    """
    args = [_literal(arg) for arg in row.args]
    named = dict(args.pop()) if args and isinstance(args[-1], Mapping) else {}
    if row.name in INSIDE:
        if len(args) not in (1, 2):
            raise YoloError(message("{row} needs the channels out, then perhaps a shortcut and a mapping of options, "
                                    "for example [256, True, {{n_win: 5}}].", row=row.words))
        args = []
    if len(args) > len(OPTIONS):
        raise YoloError(message("{row} has {count} values: {most} at most, in the order {options}.", row=row.words,
                                count=len(args), most=len(OPTIONS), options=", ".join(OPTIONS)))
    given = dict(zip(OPTIONS, args, strict=False))
    if unknown := [str(name) for name in named if name not in OPTIONS]:
        raise YoloError(message("{row} names {names}: the options are {options}; dim is put in by "
                                "itself.", row=row.words,
                                names=", ".join(unknown), options=", ".join(OPTIONS)))
    if twice := [name for name in named if name in given]:
        raise YoloError(message("{row} gives {names} twice, by place and by name: keep one of the two.", row=row.words,
                                names=", ".join(twice)))
    return given | {name: _literal(value) for name, value in named.items()}


def heads_first(row: Row) -> Row:
    """A row of BiLevelRoutingAttention whose first numbers are num_heads and n_win, in the order read here.

    The authors' class takes the heads first, the tutorial's the windows; a row does not say which of them it is for.
    """
    if row.name != DIM_FIRST[0] or not row.args or isinstance(row.args[0], Mapping):
        return row
    heads, *rest = row.args
    if rest and not isinstance(rest[0], Mapping):
        return replace(row, args=[rest[0], heads, *rest[1:]])
    named = dict(rest[0]) if rest else {}
    n_win = named.pop("n_win", USUAL["n_win"])
    return replace(row, args=[n_win, heads, *([named] if named else [])])


def other_reading(row: Row, dims: Sequence[int]) -> Row | None:
    """The row as written for a class with heads first, if that can be too, for all these channel counts, and differs.

    None where one of the two readings is impossible: then the row says for which class it was written.
    """
    swapped = heads_first(row)
    try:
        for dim in dims:
            if spec_of(row, dim) == spec_of(swapped, dim):
                return None
    except BRAError:
        return None
    return swapped


def notes_on_rows(rows: Sequence[Row]) -> tuple[str, ...]:
    """Sentences about what rows of attention leave to the class that reads them; nothing for rows that are not ours."""
    plain = [row for row in rows if row.name == DIM_FIRST[0]]
    needed = ("num_heads", "n_win", "topk")
    said: list[str] = []
    if any(not {*needed} <= {*options_of(row)} for row in plain):
        said.append(message("assumes the tutorial's class ({heads} heads, n_win {n_win}, topk {topk})",
                            heads=USUAL["num_heads"], n_win=USUAL["n_win"], topk=USUAL["topk"]))
    if names := sorted({row.name for row in rows if row.name in OURS[1:]}):
        said.append(message("{names} meant as the block of this package, not another's of that name",
                            names=", ".join(names)))
    return tuple(said)


def spec_of(row: Row, dim: int) -> BRASpec:
    """The settings of a row's attention.

    Raises:
        YoloError: they cannot be; the message begins with the row.
    """
    options = options_of(row)
    try:
        return BRASpec(dim, **options)
    except SpecError as error:
        raise YoloError(message("{row}: {error}", row=row.words, error=message_of(error))) from error
    except TypeError as error:
        raise YoloError(message("{row}: {error}: write plain values, for example [7, 8] or "
                                "[{{n_win: 7}}].", row=row.words,
                                error=str(error))) from error


def with_options(row: Row, options: Mapping[str, Any]) -> Row:
    """The row with these options: by place where they are the first ones, else by name."""
    by_place = tuple(options) == OPTIONS[:len(options)] and row.name not in INSIDE and not any(
        isinstance(arg, Mapping) for arg in row.args)
    if by_place:
        return replace(row, args=list(options.values()))
    before = [arg for arg in row.args if not isinstance(arg, Mapping)] if row.name in INSIDE else []
    if not options:
        return replace(row, args=before)
    return replace(row, args=[*before, *([THIRD[row.name]] if len(before) == 1 else []), dict(options)])


def _resolved(row: Row, dim: int) -> Row:
    spec_of(row, dim)
    options = options_of(row)
    if row.name in INSIDE:
        c2, *shortcut = (arg for arg in row.args if not isinstance(arg, Mapping))
        args = [c2, *(shortcut or [THIRD[row.name]]), options] if options else [c2, *shortcut]
        return Row(row.index, row.source, row.repeats, row.name, args)
    last = max((OPTIONS.index(name) for name in options), default=-1)
    values = [options.get(name, USUAL[name]) for name in OPTIONS[: last + 1]]
    return Row(row.index, row.source, row.repeats, row.name, [dim, *values])


def _literal(value: Any) -> Any:
    """What Ultralytics' parser makes of a string: YAML knows no None, so people write 'None'."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value

