"""A person's own module file, on their own computer: rows of a model file may name its classes.

Importing a file runs it. So this happens only where somebody asks for it by name, on the command line or in
ROUTESCOPE_MODULES, and never for a file that came from elsewhere.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from ultralytics.nn import tasks

from bra.errors import YoloError, brief
from bra.messages import message
from bra.yolo.rows import Parse, Row, rows_of, stand_in, with_rows

TRIED: Final = (32, 64, 160)
"""Sides of the maps on which a block is tried."""


class OwnBlock(type):
    """Makes a person's class known to Ultralytics' parser as one that says itself how many channels it returns, which
    its sets of such layers can be neither read nor extended for from outside."""

    theirs: type[nn.Module]

    def __eq__(cls, other: object) -> bool:
        return other is tasks.Index or other is cls

    def __hash__(cls) -> int:
        return hash(tasks.Index)

    def __repr__(cls) -> str:
        return repr(cls.theirs)

    def __call__(cls, *args: Any) -> nn.Module:
        """A module of the person's class."""
        made: nn.Module = cls.theirs(*args)
        return made


def is_own_block(name: str) -> bool:
    """Whether a row's name is that of a class from a person's module file."""
    return isinstance(getattr(tasks, name, None), OwnBlock)


def import_modules(path: str | Path) -> tuple[str, ...]:
    """Run a person's module file, and let rows name the classes of layers that it defines.

    Args:
        path: of a Python file.

    Returns:
        Their names.

    Raises:
        YoloError: there is no such file, it does not run, it defines no layer, or one of its names is taken.
    """
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise YoloError(message("{path} is no Python file: give the one that defines your blocks, for example "
                                "my_blocks.py.", path=str(path)))
    if not hasattr(tasks, "Index"):
        raise YoloError(message("this Ultralytics is too old for blocks of your own: run pip install -U ultralytics."))
    spec = importlib.util.spec_from_file_location(file.stem, file.resolve())
    if spec is None or spec.loader is None:
        raise YoloError(message("{path} is no Python file: give the one that defines your blocks, for example "
                                "my_blocks.py.", path=str(path)))
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(file.stem)
    sys.modules[file.stem] = module     # so that checkpoints of its classes find it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        if before is None:
            del sys.modules[file.stem]
        else:
            sys.modules[file.stem] = before
        raise YoloError(message("{path} does not run ({kind}: {error}): correct it first.", path=str(path),
                                kind=type(error).__name__, error=brief(error))) from error
    found = {name: value for name, value in vars(module).items() if isinstance(value, type)
             and issubclass(value, nn.Module) and value.__module__ == file.stem}
    if not found:
        raise YoloError(message("{path} defines no class of torch.nn.Module: give the file that defines your blocks.",
                                path=str(path)))
    taken = [name for name in found if hasattr(tasks, name) and not is_own_block(name)]
    if taken:
        raise YoloError(message("{path} defines {names}, names that Ultralytics or this package has already, and rows "
                                "would mean those: rename them.", path=str(path), names=", ".join(sorted(taken))))
    for name, theirs in found.items():
        setattr(tasks, name, OwnBlock(name, (), {"theirs": theirs, "__module__": theirs.__module__}))
    return tuple(found)


def has_own_blocks(model: Mapping[str, Any]) -> bool:
    """Whether any row names a class from a person's module file. Never raises."""
    return any(isinstance(row, Sequence) and len(row) == 4 and isinstance(row[2], str) and is_own_block(row[2])
               for part in ("backbone", "head") if isinstance(model.get(part), list) for row in model[part])


def resolve_own_blocks(model: Mapping[str, Any], image_channels: int, parse: Parse) -> dict[str, Any]:
    """The model with the channels that a person's blocks return, and what their constructors are given, in their rows.

    Both are learned by making and running each: with the row's arguments as they stand; with the channels of its map
    before them; and with those, and the first argument as the channels out, scaled by the model's width.

    Raises:
        YoloError: a row's block cannot be made in any of these ways, or does not run.
    """
    rows = rows_of(model)
    for row in rows:
        if not is_own_block(row.name):
            continue
        if not isinstance(row.source, int):
            raise YoloError(message("{row} reads several rows: a block of your own reads one; put a Concat before it.",
                                    row=row.words))
        channels = _channels(model, rows[:row.index], row, image_channels, parse)
        given, out = _tried(model, row, channels)
        rows[row.index] = Row(row.index, row.source, row.repeats, row.name, [out, *given])
    return with_rows(model, rows)


def _channels(model: Mapping[str, Any], before: Sequence[Row], row: Row, image_channels: int, parse: Parse) -> int:
    """Channels of the map that a row reads."""
    at = row.sources[0]
    if at < 0:
        return image_channels
    rows = [*map(stand_in, before), Row(len(before), at, 1, "nn.BatchNorm2d", [])]
    cut = {**model, "backbone": [[one.source, one.repeats, one.name, list(one.args)] for one in rows], "head": []}
    scales = model.get("scales")
    cut["scale"] = model.get("scale") or (next(iter(scales)) if scales else None)
    with torch.device("meta"):
        layers, _ = parse(cut, image_channels, verbose=False)
    last: Any = list(layers.children())[-1]
    return int(last.num_features)


def _tried(model: Mapping[str, Any], row: Row, channels: int) -> tuple[list[Any], int]:
    """What the block's constructor is given, and the channels that it returns."""
    theirs: type[nn.Module] = getattr(tasks, row.name).theirs
    args = list(row.args)
    ways = [[channels, *args], args]
    if args and type(args[0]) is int:
        wide = [channels, _scaled(model, args[0]), *args[1:]]
        names = [name.lower() for name in list(inspect.signature(theirs).parameters)[:2]]
        said_so = len(names) == 2 and any(word in names[1] for word in ("c2", "out", "c_o", "oup"))
        ways.insert(0 if said_so else 1, wide)
    problem: Exception | None = None
    for given in ways:
        for side in TRIED:
            try:
                with torch.no_grad():
                    out = theirs(*given).eval()(torch.zeros(1, channels, side, side))
            except Exception as error:  # a stranger to this way of making it: of any kind
                problem = problem or error
                continue
            if isinstance(out, torch.Tensor) and out.dim() == 4:
                return given, int(out.shape[1])
    raise YoloError(message("{row}: your {name} cannot be made with ({channels}, {args}) or run on a map of {channels} "
                            "channels ({error}): correct the row or the class.", row=row.words, name=row.name,
                            channels=channels, args=", ".join(map(str, args)),
                            error=brief(problem) if problem else message("it returns no map")))


def _scaled(model: Mapping[str, Any], channels: int) -> int:
    """Channels out, as Ultralytics scales them."""
    scales = model.get("scales") or {}
    scale = model.get("scale") or (next(iter(scales)) if scales else None)
    width, most = (scales[scale][1], scales[scale][2]) if scale in scales else (model.get("width_multiple", 1.0), None)
    return int(-(-min(channels, most or channels) * width // 8) * 8)
