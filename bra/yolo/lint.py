"""Reads a model file as its author should have been able to: what is wrong, why, and what to write instead."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch
from ultralytics.nn import tasks

from bra.errors import BRAError, YoloError
from bra.grid import WindowGrid
from bra.messages import message, message_of
from bra.spec import MAX_N_WIN, BRASpec
from bra.yolo.blocks import canonical
from bra.yolo.edit import counterparts, read_yaml, renumbered_sources, with_rows_replaced, written
from bra.yolo.guesses import guessed
from bra.yolo.registration import CFG, ParseModel
from bra.yolo.rows import (
    DIM_FIRST,
    OURS,
    USUAL,
    MetaModel,
    Parse,
    Row,
    build_on_meta,
    notes_on_rows,
    options_of,
    other_reading,
    rows_of,
    spec_of,
    with_options,
)

Level = Literal["error", "warning", "note"]
FAMILIES: Final = ("yolov8", "yolo11", "yolov5", "yolo12", "yolo26")
STRIDE: Final = 32


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a row.

    Attributes:
        level: "error" builds not or computes something else; "warning" wastes; "note" is worth knowing.
        row: its index; -1 for the whole file.
        text: one sentence with the cure.
        fix: the row as it should be, where that can be said.
    """

    level: Level
    row: int
    text: str
    fix: Row | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Findings, the file's text with every fix in it, and what reading it so assumes of the classes in its rows."""

    findings: tuple[Finding, ...]
    fixed: str
    assumptions: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Those that must be dealt with."""
        return tuple(finding for finding in self.findings if finding.level == "error")


def lint(path: str | Path, imgsz: int = 640, base: str | None = None) -> Report:
    """Check a model file.

    Args:
        path: a file, or the name of one that Ultralytics or this package has.
        imgsz: side of the square picture in pixels, by which windows and padding are judged.
        base: the model that rows were inserted into; None finds it by the file's name, then by its rows.

    Raises:
        YoloError: there is no such file, or it is not a model.
    """
    if not 1 <= imgsz <= 8192:
        raise YoloError(message("imgsz={imgsz} is not possible: 1 to 8192 pixels; 640 is usual.", imgsz=imgsz))
    text = model_text(path)
    model = canonical(read_yaml(text) | {"scale": tasks.guess_model_scale(str(path))})
    rows, findings = rows_of(model), []
    said = () if model_file(path).parent == CFG else notes_on_rows([row for row in rows if _readable(row)])
    guesses = guessed(model)
    if guesses.rows:
        # What is not known is not rewired and not mended: every finding is a sentence alone.
        findings.append(Finding("error", -1, guesses.sentence))
        parser = tasks.parse_model
        assert isinstance(parser, ParseModel)
        stood_in = rows_of(guesses.model)
        probed = _probed(guesses.model, stood_in, parser.original)
        found = [*_impossible(probed, stood_in), *_padded(probed, stood_in, imgsz)]
        findings += [Finding(finding.level, finding.row, guesses.marked(finding.row, finding.text))
                     for finding in found if finding.row >= 0]
        if whole := next((finding.text for finding in found if finding.row < 0), ""):
            findings.append(Finding("note", -1, message("taken so, the file does not build or run ({why}); the guess "
                                                        "may be wrong: import their classes with --modules.",
                                                        why=whole)))
        return Report(tuple(findings), text, said)
    for index, row in _moved(rows, path, base).items():
        findings.append(Finding("error", index, _moved_words(rows, row), row))
        rows[index] = row
    parser = tasks.parse_model
    assert isinstance(parser, ParseModel)
    probed = _probed(model, rows, parser.original)      # a fix changes settings, never a width
    for check in (_impossible, _open_to_both, partial(_padded, imgsz=imgsz)):
        for finding in check(probed, rows):
            if finding.fix is not None and _may_be_theirs(rows[finding.row]):
                finding = replace(finding, fix=None)
            findings.append(finding)
            if finding.fix is not None:
                rows[finding.row] = finding.fix
    fixes = {finding.row: rows[finding.row] for finding in findings if finding.fix is not None}
    return Report(tuple(findings), with_rows_replaced(text, fixes) if fixes else text, said)


def _readable(row: Row) -> bool:
    try:
        options_of(row)
    except YoloError:
        return False
    return True


def _may_be_theirs(row: Row) -> bool:
    """Whether a row of one of our names may be for another class of that name: numbers by place tell nothing."""
    return row.name in OURS[1:] and bool(row.args) and not any(isinstance(arg, Mapping) for arg in row.args)


def model_file(path: str | Path) -> Path:
    """Where the file of a name such as yolov8n-bra.yaml lies; the scale in it is no part of the file's name.

    Raises:
        YoloError: there is no such file, or its name is not that of a model file.
    """
    if Path(path).suffix not in (".yaml", ".yml"):
        raise YoloError(message("{path} is no model file: give a .yaml file, or a name such as yolov8n-bra.yaml.",
                                path=str(path)))
    unscaled = re.sub(r"(\d+)[nsmlx](?=[-.])", r"\1", Path(path).name)
    where = tasks.check_yaml(str(path), hard=False) or tasks.check_yaml(str(Path(path).with_name(unscaled)), hard=False)
    if not where or not Path(where).exists():
        raise YoloError(message("{path} does not exist: give a model file, or a name such as yolov8n-bra.yaml.",
                                path=str(path)))
    return Path(where)


def model_text(path: str | Path) -> str:
    """The text of a model file, by its path or name.

    Raises:
        YoloError: there is no such file, or it is no text.
    """
    try:
        return model_file(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise YoloError(message("this file is not text in UTF-8: give a model file, which is plain text.")) from error


def _moved(rows: Sequence[Row], path: str | Path, base: str | None) -> dict[int, Row]:
    match = re.match(r"yolov?\d+", Path(path).name)
    stems = [base.removesuffix(".yaml")] if base else [match[0]] if match else list(FAMILIES)
    for stem in stems:
        if not tasks.check_yaml(f"{stem}.yaml", hard=False):
            if base:
                raise YoloError(message("--base {base} does not exist: give a model of Ultralytics, such as "
                                        "yolov8.yaml.",
                                        base=base))
            continue
        theirs = rows_of(tasks.yaml_model_load(f"{stem}.yaml"))
        if base or match or len(counterparts(rows, theirs)) == len(theirs):
            return renumbered_sources(rows, theirs)
    return {}


def _moved_words(rows: Sequence[Row], row: Row) -> str:
    def named(source: int | list[int]) -> str:
        each = [source] if isinstance(source, int) else source
        return ", ".join(f"{at} ({rows[at].name})" if 0 <= at < len(rows) else str(at) for at in each)

    return message("{row} reads {sources}, numbers from before rows were inserted; what it read is now {now}: write "
                   "{written}.", row=rows[row.index].words, sources=named(rows[row.index].source),
                   now=named(row.source),
                   written=written(row))


def _probed(model: Mapping[str, Any], rows: Sequence[Row], parse: Parse) -> list[MetaModel] | Exception:
    """The model at every scale that the file is for, or what keeps it from being built: errors of its parser's own, of
    any kind, since rows of its layers may be wrong too."""
    scales = [model["scale"]] if model.get("scale") else list(model.get("scales") or [None])
    try:
        return [build_on_meta({**model, "scale": scale}, rows, 3, parse) for scale in scales]
    except Exception as error:
        return error


def _impossible(probed: list[MetaModel] | Exception, rows: Sequence[Row]) -> list[Finding]:
    """Settings that no layer can have, at any scale that the file is for."""
    if isinstance(probed, BRAError):
        return [Finding("error", -1, message_of(probed))]
    if isinstance(probed, Exception):
        return [Finding("error", -1, message("Ultralytics cannot build this model ({kind}: {error}): correct the rows "
                                             "of its own layers first.", kind=type(probed).__name__,
                                             error=str(probed)))]
    ours, findings = [row for row in rows if row.name in OURS], []
    for row in ours:
        dims = sorted({one.dims[row.index] for one in probed})
        for dim in dims:
            try:
                spec_of(row, dim)
            except YoloError as error:
                text = message_of(error)
                if _channels_written(row):
                    text = message("{error} If {channels} is the channels, take it out, and say what the {next} after "
                                   "it is: [{{n_win: {next}}}], or [{{num_heads: {next}}}].", error=text,
                                   channels=row.args[0], next=row.args[1])
                findings.append(Finding("error", row.index, text, _possible(row, dims)))
                break
    return findings


def _open_to_both(probed: list[MetaModel] | Exception, rows: Sequence[Row]) -> list[Finding]:
    """Numbers that are possible with the windows first and with the heads first."""
    if isinstance(probed, Exception):       # said by `_impossible`
        return []
    findings = []
    for row in rows:
        dims = sorted({one.dims[row.index] for one in probed if row.index in one.dims})
        other = other_reading(row, dims) if row.name in OURS else None
        if other is not None:
            now, then = options_of(row), options_of(other)
            findings.append(Finding("note", row.index, message(
                "{row} is read with the windows first, as the tutorial's class: n_win {n_win}, {heads} heads; for a "
                "class with the heads first, such as the authors', it says n_win {other_n_win}, {other_heads} heads: "
                "if that is yours, write {written} here.", row=row.words, n_win=now.get("n_win", USUAL["n_win"]),
                heads=now.get("num_heads", USUAL["num_heads"]), other_n_win=then["n_win"],
                other_heads=then["num_heads"], written=written(other))))
    return findings


def _possible(row: Row, dims: Sequence[int]) -> Row | None:
    """The nearest row that works for all these channel counts, when one is found."""
    given = {name: value for name, value in options_of(row).items() if value is not None}
    n_win, heads = given.get("n_win", 7), given.get("num_heads", 8)
    if _channels_written(row):
        return None         # only its author knows whether windows or heads follow
    tries = [given]
    if isinstance(n_win, int) and n_win > MAX_N_WIN:
        tries.append({name: value for name, value in given.items() if name != "n_win"})
    if {"n_win", "num_heads"} <= set(given):
        tries.append({**given, "n_win": heads, "num_heads": n_win})
    common = math.gcd(*dims, *([given["qk_dim"]] if isinstance(given.get("qk_dim"), int) else []))
    fitting = max((d for d in range(1, min(common, 32) + 1) if common % d == 0
                   and d <= max(heads if isinstance(heads, int) else 8, 1)), default=1)
    tries += [{**one, "num_heads": fitting} for one in tries]
    for one in tries:
        p = one.get("n_win", 7)
        for options in (one, {**one, "topk": p * p} if isinstance(p, int) and 0 < p <= MAX_N_WIN else one):
            if _works(options, dims):
                return with_options(row, options)
    return None


def _channels_written(row: Row) -> bool:
    """Whether a row begins with its channels, and a number of windows or heads after them."""
    return row.name == DIM_FIRST[0] and len(row.args) > 1 and all(type(arg) is int for arg in row.args[:2]) and \
        row.args[0] > MAX_N_WIN


def _works(options: Mapping[str, Any], dims: Sequence[int]) -> bool:
    try:
        for dim in dims:
            BRASpec(dim, **options)
    except (BRAError, TypeError):
        return False
    return True


def _padded(probed: list[MetaModel] | Exception, rows: Sequence[Row], imgsz: int) -> list[Finding]:
    """Windows filled up with padding, wholly or in part, at an image size."""
    try:
        if isinstance(probed, Exception):
            raise probed
        sizes = map_sizes(probed[0].layers, rows, imgsz)
    except Exception as error:  # torch's and Ultralytics' own, of any kind
        return [Finding("note", -1, message("the sizes of its maps are unknown, since it does not run ({error}): "
                                            "correct the other findings first.", error=str(error)))]
    findings = []
    for index, (h, w) in sizes.items():
        row = rows[index]
        options = options_of(row)
        n_win = options.get("n_win", 7)
        if not (isinstance(n_win, int) and 1 <= n_win <= MAX_N_WIN):
            continue
        grid = WindowGrid(h, w, n_win)
        empty = int(grid.padding_windows.sum())
        if not grid.padding_share:
            continue
        fitting = [p for p in range(2, MAX_N_WIN + 1) if math.gcd(h, w) % p == 0] or [1]
        best = min(fitting, key=lambda p: (abs(p - n_win), p))
        words = message("{row}: at {imgsz} pixels its map of {h}×{w} is padded to {H}×{W} for n_win={n_win}, so "
                        "{share:.1%} of the tokens are padding", row=row.words,
                        imgsz=imgsz, h=h, w=w, H=grid.H, W=grid.W, n_win=n_win,
                        share=grid.padding_share)
        others = ", ".join(str(p) for p in fitting if p != best)
        cure = message("n_win={best} pads none, nor would {others}", best=best, others=others) if others else \
            message("n_win={best} pads none", best=best)
        if empty:
            fixed = {**options, "n_win": best}
            if options.get("topk", 4) > best * best:
                fixed["topk"] = best * best
            found = message("{words}, and {empty} of {n} windows hold nothing else: {cure}.", words=words, empty=empty,
                            n=n_win * n_win, cure=cure)
            findings.append(Finding("warning", index, found, with_options(row, fixed)))
        else:
            findings.append(Finding("note", index, message("{words}: {cure}; or set mask_padding: true.", words=words,
                                                           cure=cure)))
    return findings


def map_sizes(layers: Sequence[Any], rows: Sequence[Row], imgsz: int) -> dict[int, tuple[int, int]]:
    """(h, w) of the map that each of our rows reads, by row index; learned from `Probe.layers`, without memory."""
    ours = [row.index for row in rows if row.name in OURS]
    side = -(-imgsz // STRIDE) * STRIDE
    maps: list[Any] = []
    sizes: dict[int, tuple[int, int]] = {}
    x: Any = torch.empty(1, 3, side, side, device="meta")
    for row, layer in zip(rows[:max(ours, default=-1) + 1], layers, strict=False):
        given = [x if f == -1 else maps[f] for f in ([row.source] if isinstance(row.source, int) else row.source)]
        if row.index in ours:
            sizes[row.index] = (int(given[0].shape[-2]), int(given[0].shape[-1]))
        x = layer.eval()(given[0] if isinstance(row.source, int) else given)
        maps.append(x)
    return sizes
