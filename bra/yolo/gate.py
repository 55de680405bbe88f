"""Strangers' model files, judged as plain values before Ultralytics sees them.

Its parser looks names up in its own module and in torch's, evaluates strings, and hands arguments on as they are. What
passes here are the layers of its own detection, segmentation, pose, OBB and classification models and ours, with plain
numbers in bounds; not its layers that fetch something: TorchVision, and those that embed text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import yaml

from bra.errors import YoloError
from bra.spec import KVDownsampleMode, ParamAttention
from bra.yolo.rewrite import read_yaml
from bra.yolo.rows import OPTIONS, OURS, Row, options_of, rows_of, with_rows

LAYERS: Final = frozenset({
    "A2C2f", "AConv", "ADown", "AIFI", "Bottleneck", "C2", "C2PSA", "C2f", "C2fCIB", "C3", "C3Ghost", "C3k2", "CBFuse",
    "CBLinear", "Concat", "Conv", "DWConv", "ELAN1", "GhostConv", "HGBlock", "HGStem", "PSA", "RepC3", "RepNCSPELAN4",
    "ResNetLayer", "SCDown", "SPP", "SPPELAN", "SPPF", "nn.ConvTranspose2d", "nn.Identity", "nn.MaxPool2d",
    "nn.Upsample", "nn.ZeroPad2d", *OURS})
HEADS: Final[Mapping[str, str]] = {
    "Detect": "detect", "v10Detect": "detect", "RTDETRDecoder": "detect", "Segment": "segment", "Segment26": "segment",
    "Pose": "pose", "Pose26": "pose", "OBB": "obb", "OBB26": "obb", "Classify": "classify"}
"""Last row -> the task of its model."""
STRINGS: Final = frozenset({"nc", "kpt_shape", "None", "True", "False", "nearest", "bilinear", "bicubic", "area",
                            *get_args(KVDownsampleMode), *get_args(ParamAttention)})
ACTIVATIONS: Final = frozenset(f"{start}{name}()" for start in ("nn.", "torch.nn.") for name in (
    "SiLU", "ReLU", "ReLU6", "LeakyReLU", "ELU", "GELU", "Mish", "Hardswish", "Sigmoid", "Tanh", "Identity"))
"""Ultralytics evaluates this text as Python; none other reaches it."""
MAX_DEPTH: Final = 8
MAX_VALUES: Final = 10_000
MAX_LIST: Final = 32
SMALLEST: Final = -1


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What a stranger's model may ask for."""

    text_bytes: int = 64 * 2**10
    rows: int = 200
    repeats: int = 100
    number: int = 8192                  # of channels, and of anything else in a row
    classes: int = 30_000
    factor: float = 4.0                 # of depth and of width
    parameters: int = 150_000_000
    calls: int = 20_000                 # of torch, to build it or to run it once; yolov9e takes 5,000
    activation_bytes: int = 2 * 2**30   # at one time, for one picture
    macs: int = 250 * 10**9             # for one picture; yolov3 takes 141, and a core about 20 a second
    imgsz: int = 640                    # px, side of the picture by which the last two are judged


def check_model(model: str | bytes | Mapping[str, Any], limits: ModelLimits | None = None) -> dict[str, Any]:
    """A model file's text, or its content -> the same as plain values that are safe to give to Ultralytics.

    Keys that no model needs are left out, so that nothing that could act on them meets them.

    Raises:
        YoloError: not a model, or something in it is not allowed; one sentence with the cure.
    """
    limits = limits or ModelLimits()
    given = _read(model, limits) if isinstance(model, (str, bytes)) else model
    if isinstance(given, Mapping) and "backbone" not in given and {"train", "val", "path"} & {*given}:
        raise YoloError("this describes a data set and not a model: give the file with 'backbone:' and 'head:'.")
    for part in ("backbone", "head"):
        rows_given = given.get(part) if isinstance(given, Mapping) else None
        for row in rows_given if isinstance(rows_given, list) else ():
            if not (isinstance(row, list) and len(row) == 4 and isinstance(row[0], (int, list))
                    and type(row[1]) is int and isinstance(row[2], str) and isinstance(row[3], list)):
                parts = ", ".join(map(quoted, row[:4])) if isinstance(row, list) else quoted(row)
                raise YoloError(f"a row under '{part}:' is {parts}: a row is [from, repeats, name, [arguments]].")
    found = rows_of(given)
    if not 2 <= len(found) <= limits.rows:
        raise YoloError(f"this model has {len(found)} rows: 2 to {limits.rows} are possible; shorten it.")
    rows = [_row(row, limits) for row in found]
    checked = {**_settings(given, limits), "backbone": given["backbone"]}
    if not 0 < len(given["backbone"]) < len(rows) or rows[-1].name not in HEADS or any(
            row.name in HEADS for row in rows[:-1]):
        raise YoloError(f"this model ends with {quoted(rows[-1].name)}: give it a backbone, and one head of "
                        f"{', '.join(HEADS)} as its last row.")
    if HEADS[rows[-1].name] == "pose" and "kpt_shape" not in checked:
        raise YoloError("this pose model has no kpt_shape: write one, for example kpt_shape: [17, 3].")
    return with_rows(checked, rows)


def _read(text: str | bytes, limits: ModelLimits) -> dict[str, Any]:
    """Safe YAML without anchors, aliases or tags: each value was written out, and nests no deeper than a row."""
    if len(text) > limits.text_bytes:
        raise YoloError(f"this file has {len(text):,} characters: a model file has {limits.text_bytes:,} at most; take "
                        "out comments.")
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise YoloError(f"line {event.start_mark.line + 1} has an anchor, alias or tag (&, *, !): write the "
                                "value out.")
            if depth > MAX_DEPTH or count > MAX_VALUES:
                raise YoloError(f"line {event.start_mark.line + 1} goes beyond {MAX_DEPTH} levels or {MAX_VALUES:,} "
                                "values: no model needs that; shorten it.")
        return read_yaml(text)
    except UnicodeDecodeError as error:
        raise YoloError("this file is not text in UTF-8: give a model file, which is plain text.") from error
    except YoloError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:     # dates, endless numbers
        raise YoloError(f"this is not YAML of a model ({quoted(error)}): give a model file of Ultralytics' "
                        "kind.") from error


def _settings(given: Mapping[str, Any], limits: ModelLimits) -> dict[str, Any]:
    """Everything but the rows."""
    found: dict[str, Any] = {"nc": _whole("nc", given.get("nc", 80), 1, limits.classes)}
    if given.get("channels", given.get("ch", 3)) != 3:
        raise YoloError(f"this model reads pictures of {quoted(given.get('channels', given.get('ch')))} channels: only "
                        "red, green and blue are possible; write channels: 3.")
    for name in ("depth_multiple", "width_multiple"):
        if name in given:
            found[name] = _factor(name, given[name], limits)
    if given.get("reg_max") is not None:
        found["reg_max"] = _whole("reg_max", given["reg_max"], 1, 64)
    if given.get("end2end") is not None:
        if not isinstance(given["end2end"], bool):
            raise YoloError(f"end2end is {quoted(given['end2end'])}: write True or False.")
        found["end2end"] = given["end2end"]
    if given.get("kpt_shape") is not None:
        shape = _listed("kpt_shape", given["kpt_shape"], 2)
        found["kpt_shape"] = [_whole("kpt_shape", shape[0], 1, 1000), _whole("kpt_shape", shape[1], 2, 3)]
    if given.get("activation") is not None:
        act = given["activation"]
        if not (isinstance(act, str) and act in ACTIVATIONS):
            raise YoloError(f"activation is {quoted(act)}, which Ultralytics would run as Python: choose one of "
                            f"{', '.join(sorted(name for name in ACTIVATIONS if name.startswith('nn.')))}.")
        found["activation"] = act
    return found | _scales(given, limits)


def _scales(given: Mapping[str, Any], limits: ModelLimits) -> dict[str, Any]:
    scales, scale = given.get("scales"), given.get("scale") or None
    if scales is None:
        return {}
    if not (isinstance(scales, Mapping) and 1 <= len(scales) <= MAX_LIST
            and all(isinstance(name, str) and re.fullmatch(r"[a-z]{1,8}", name) for name in scales)):
        raise YoloError("scales is not a short mapping of letters: write for example scales: {n: [0.33, 0.25, 1024]}.")
    found = {}
    for name, values in scales.items():
        depth, width, most = _listed(f"scales.{name}", values, 3)
        found[name] = [_factor(f"scales.{name}", depth, limits), _factor(f"scales.{name}", width, limits),
                       _whole(f"scales.{name}", most, 8, limits.number)]
    if scale is not None and not (isinstance(scale, str) and scale in found):
        raise YoloError(f"scale is {quoted(scale)}: choose one of {', '.join(found)}.")
    return {"scales": found} | ({"scale": scale} if scale else {})


def _row(row: Row, limits: ModelLimits) -> Row:
    name, place = row.name, f"row {row.index}"
    if name not in LAYERS and name not in HEADS:
        raise YoloError(f"{place} names {quoted(name)}, which is not one of the layers opened here: use those of "
                        "Ultralytics' own detection, segmentation, pose, OBB and classification models, or "
                        f"{', '.join(OURS)}.")
    _whole(f"the number of repeats in {place}", row.repeats, 1, limits.repeats)
    sources = [row.source] if isinstance(row.source, int) else row.source
    if not 1 <= len(sources) <= MAX_LIST or any(type(f) is not int or not (
            f == -1 or 0 <= (row.index + f if f < 0 else f) < row.index) for f in sources):
        raise YoloError(f"{place} reads from {quoted(row.source)}: give rows above it, for example -1.")
    if len(row.args) > MAX_LIST:
        raise YoloError(f"{place} has {len(row.args)} arguments: {MAX_LIST} at most; take the rest out.")
    args = [_argument(place, arg, limits, mapping=name in OURS) for arg in row.args]
    checked = Row(row.index, list(sources) if isinstance(row.source, list) else row.source, row.repeats, name, args)
    if name in OURS:
        options_of(checked)
    return checked


def _argument(place: str, value: Any, limits: ModelLimits, mapping: bool, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool) or (isinstance(value, str) and value in STRINGS):
        return value
    if isinstance(value, (int, float)) and SMALLEST <= value <= limits.number:
        return value
    if isinstance(value, (list, tuple)) and depth < 2 and len(value) <= MAX_LIST:
        return [_argument(place, item, limits, False, depth + 1) for item in value]
    if mapping and isinstance(value, Mapping) and {*value} <= {*OPTIONS}:
        return {key: _argument(place, item, limits, False, 2) for key, item in value.items()}
    raise YoloError(f"{place} holds {quoted(value)}: an argument is a number from {SMALLEST} to {limits.number:,}, "
                    f"True, False, None, a short list of these, or one of {', '.join(sorted(STRINGS))}"
                    f"{'; a mapping sets ' + ', '.join(OPTIONS) if mapping else ''}.")


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise YoloError(f"{name} is {quoted(value)}: write a whole number from {least} to {most:,}.")
    return int(value)


def _factor(name: str, value: Any, limits: ModelLimits) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= limits.factor:
        raise YoloError(f"{name} is {quoted(value)}: write a factor above 0, up to {limits.factor:g}.")
    return float(value)


def _listed(name: str, value: Any, length: int) -> Sequence[Any]:
    if not (isinstance(value, (list, tuple)) and len(value) == length):
        raise YoloError(f"{name} is {quoted(value)}: write a list of {length} numbers.")
    return value


def quoted(value: object) -> str:
    """A stranger's value for a message: one line, 60 characters at most; a collection by its kind only."""
    plain = isinstance(value, (str, float, bool, Exception)) or (isinstance(value, int) and abs(value) < 2**64)
    text = str(value)[:200] if plain or value is None else f"a {type(value).__name__}"
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return repr(line if len(line) <= 60 else line[:59] + "…")
