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

from bra.errors import ForeignModelError, YoloError
from bra.messages import message
from bra.spec import MAX_N_WIN, KVDownsampleMode, ParamAttention
from bra.yolo.blocks import canonical
from bra.yolo.edit import read_yaml
from bra.yolo.plugins import is_own_block
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
KEYS: Final = frozenset({
    "nc", "scales", "scale", "backbone", "head", "depth_multiple", "width_multiple", "activation", "kpt_shape",
    "reg_max", "end2end", "ch", "channels", "names", "task", "yaml_file"})
"""What Ultralytics reads in a model file, and what it writes there itself."""
ANCHORS: Final = "anchors"
SCALE: Final = 3
MOST_NAMED: Final = 12
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
    n_win: int = 16                     # as many as can be chosen on a page
    num_heads: int = 128                # for each, full attention is summed up by pairs of windows
    number: int = 8192                  # of channels, and of anything else in a row
    classes: int = 30_000
    factor: float = 4.0                 # of depth and of width
    parameters: int = 150_000_000
    calls: int = 20_000                 # of torch, to build it or to run it once; yolov9e takes 5,000
    activation_bytes: int = 2 * 2**30   # at one time, for one picture
    macs: int = 250 * 10**9             # for one picture; yolov3 takes 141, and a core about 20 a second
    moved_bytes: int = 50 * 10**9       # read and written for one picture; yolo11x-bra moves 10
    trace_bytes: int = 512 * 2**20      # that attention layers hand over to be looked into; yolo11x-bra hands over 230
    full_macs: int = 4 * 10**12         # of a layer with every window routed to all, which a page may ask for
    imgsz: int = 640                    # px, side of the picture by which the last five are judged


def check_model(model: str | bytes | Mapping[str, Any], limits: ModelLimits | None = None) -> dict[str, Any]:
    """A model file's text, or its content -> the same as plain values that are safe to give to Ultralytics.

    Keys that no model needs are left out, so that nothing that could act on them meets them.

    Raises:
        YoloError: not a model, or something in it is not allowed; one sentence with the cure.
    """
    limits = limits or ModelLimits()
    given = read_model(model, limits) if isinstance(model, (str, bytes)) else model
    given = canonical(given) if isinstance(given, Mapping) else given
    if isinstance(given, Mapping) and "backbone" not in given and {"train", "val", "path"} & {*given}:
        raise YoloError(message("this describes a data set and not a model: give the file with 'backbone:' and "
                                "'head:'."))
    for part in ("backbone", "head"):
        rows_given = given.get(part) if isinstance(given, Mapping) else None
        for row in rows_given if isinstance(rows_given, list) else ():
            if not (isinstance(row, list) and len(row) == 4 and isinstance(row[0], (int, list))
                    and type(row[1]) is int and isinstance(row[2], str) and isinstance(row[3], list)):
                parts = ", ".join(map(quoted, row[:4])) if isinstance(row, list) else quoted(row)
                raise YoloError(message("a row under '{part}:' is {parts}: a row is [from, repeats, name, "
                                        "[arguments]].",
                                        part=part, parts=parts))
    found = rows_of(given)
    if not 2 <= len(found) <= limits.rows:
        raise YoloError(message("this model has {count} rows: 2 to {most} are possible; shorten it.", count=len(found),
                                most=limits.rows))
    _check_known(found)
    rows = [_row(row, limits) for row in found]
    checked = {**_settings(given, limits), "backbone": given["backbone"]}
    if not 0 < len(given["backbone"]) < len(rows) or rows[-1].name not in HEADS or any(
            row.name in HEADS for row in rows[:-1]):
        raise YoloError(message("this model ends with {name}: give it a backbone, and one head of {heads} as its last "
                                "row.", name=quoted(rows[-1].name), heads=", ".join(HEADS)))
    if HEADS[rows[-1].name] == "pose" and "kpt_shape" not in checked:
        raise YoloError(message("this pose model has no kpt_shape: write one, for example kpt_shape: [17, 3]."))
    return with_rows(checked, rows)


def _check_known(rows: Sequence[Row]) -> None:
    """Raise ForeignModelError, with all of them named, where layers of rows are not opened here."""
    unknown = [row for row in rows if row.name not in LAYERS and row.name not in HEADS and not is_own_block(row.name)]
    if not unknown:
        return
    if len(unknown) == 1:
        raise ForeignModelError(message(
            "{place} names {name}, which is not one of the layers opened here: use those of Ultralytics' own "
            "detection, segmentation, pose, OBB and classification models, or {names}.",
            place=message("row {number}", number=unknown[0].index), name=quoted(unknown[0].name),
            names=", ".join(OURS)))
    listed = [f"{row.index} {quoted(row.name[:24])}" for row in unknown[:MOST_NAMED]]
    raise ForeignModelError(message(
        "rows {listed} are not layers opened here ({count} in all): use those of Ultralytics' own detection, "
        "segmentation, pose, OBB and classification models, or {names}.",
        listed=", ".join([*listed, *(["…"] if len(unknown) > MOST_NAMED else [])]), count=len(unknown),
        names=", ".join(OURS)))


def left_out(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences about what a model file holds and `check_model` drops, since Ultralytics builds nothing from it."""
    said: list[str] = []
    keys = [str(key) for key in given if key not in KEYS]
    rows = [key for key in keys if isinstance(given.get(key), list) and any(
        isinstance(row, list) and len(row) == 4 and isinstance(row[2], str) for row in given[key])]
    if rows:
        said.append(message("The rows under {keys} are left out: Ultralytics reads backbone and head, so this is the "
                            "model without them.", keys=", ".join(quoted(key) for key in rows[:MOST_NAMED])))
    if others := [key for key in keys if key not in rows]:
        said.append(message("These keys of the file are left out, as Ultralytics leaves them: {keys}.",
                            keys=", ".join(quoted(key) for key in others[:MOST_NAMED])))
    found = rows_of(given)
    if any(ANCHORS in row.args for row in found if row.name in HEADS):
        said.append(message("“anchors” in the row of the head is left out: Ultralytics' heads have none, so this is "
                            "its head and not that of YOLOv5 or YOLOv7."))
    scales = given.get("scales")
    if isinstance(scales, Mapping) and any(isinstance(one, list) and len(one) > SCALE for one in scales.values()):
        said.append(message("Of each scale the first three numbers are read, depth, width and most channels; what "
                            "follows is left out."))
    return tuple(said)


def read_model(text: str | bytes, limits: ModelLimits | None = None) -> dict[str, Any]:
    """Safe YAML without anchors, aliases, tags or merging: each value was written out, no deeper than a row nests.

    Raises:
        YoloError: it is not such a text, or not a mapping.
    """
    limits = limits or ModelLimits()
    if len(text) > limits.text_bytes:
        raise YoloError(message("this file has {count:,} characters: a model file has {most:,} at most; take out "
                                "comments.", count=len(text), most=limits.text_bytes))
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise YoloError(message("line {line} has an anchor, alias or tag (&, *, !): write the value out.",
                                        line=event.start_mark.line + 1))
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
                raise YoloError(message("line {line} merges another mapping in (<<): write its keys out.",
                                        line=event.start_mark.line + 1))
            if depth > MAX_DEPTH or count > MAX_VALUES:
                raise YoloError(message("line {line} goes beyond {levels} levels or {values:,} values: no model needs "
                                        "that; shorten it.", line=event.start_mark.line + 1, levels=MAX_DEPTH,
                                        values=MAX_VALUES))
        return read_yaml(text)
    except UnicodeDecodeError as error:
        raise YoloError(message("this file is not text in UTF-8: give a model file, which is plain text.")) from error
    except YoloError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:     # dates, endless numbers
        raise YoloError(message("this is not YAML of a model ({error}): give a model file of Ultralytics' kind.",
                                error=quoted(error))) from error


def _settings(given: Mapping[str, Any], limits: ModelLimits) -> dict[str, Any]:
    """Everything but the rows."""
    found: dict[str, Any] = {"nc": _whole("nc", given.get("nc", 80), 1, limits.classes)}
    if given.get("channels", given.get("ch", 3)) != 3:
        raise YoloError(message("this model reads pictures of {channels} channels: only red, green and blue are "
                                "possible; write channels: 3.",
                                channels=quoted(given.get("channels", given.get("ch")))))
    for name in ("depth_multiple", "width_multiple"):
        if name in given:
            found[name] = _factor(name, given[name], limits)
    if given.get("reg_max") is not None:
        found["reg_max"] = _whole("reg_max", given["reg_max"], 1, 64)
    if given.get("end2end") is not None:
        if not isinstance(given["end2end"], bool):
            raise YoloError(message("end2end is {value}: write True or False.", value=quoted(given["end2end"])))
        found["end2end"] = given["end2end"]
    if given.get("kpt_shape") is not None:
        shape = _listed("kpt_shape", given["kpt_shape"], 2)
        found["kpt_shape"] = [_whole("kpt_shape", shape[0], 1, 1000), _whole("kpt_shape", shape[1], 2, 3)]
    if given.get("activation") is not None:
        act = given["activation"]
        if not (isinstance(act, str) and act in ACTIVATIONS):
            raise YoloError(message("activation is {value}, which Ultralytics would run as Python: choose one of "
                                    "{names}.",
                                    value=quoted(act),
                                    names=", ".join(sorted(name for name in ACTIVATIONS if name.startswith("nn.")))))
        found["activation"] = act
    return found | _scales(given, limits)


def _scales(given: Mapping[str, Any], limits: ModelLimits) -> dict[str, Any]:
    scales, scale = given.get("scales"), given.get("scale") or None
    if scales is None:
        return {}
    if not (isinstance(scales, Mapping) and 1 <= len(scales) <= MAX_LIST
            and all(isinstance(name, str) and re.fullmatch(r"[a-z]{1,8}", name) for name in scales)):
        raise YoloError(message("scales is not a short mapping of letters: write for example scales: {n: [0.33, 0.25, "
                                "1024]}."))
    found = {}
    for name, values in scales.items():
        longer = values[:SCALE] if isinstance(values, list) else values      # `left_out` says so
        depth, width, most = _listed(f"scales.{name}", longer, SCALE)
        found[name] = [_factor(f"scales.{name}", depth, limits), _factor(f"scales.{name}", width, limits),
                       _whole(f"scales.{name}", most, 8, limits.number)]
    if scale is not None and not (isinstance(scale, str) and scale in found):
        raise YoloError(message("scale is {scale}: choose one of {names}.", scale=quoted(scale),
                                names=", ".join(found)))
    return {"scales": found} | ({"scale": scale} if scale else {})


def _row(row: Row, limits: ModelLimits) -> Row:
    name, place = row.name, message("row {number}", number=row.index)
    _whole(message("the number of repeats in {row}", row=place), row.repeats, 1, limits.repeats)
    sources = [row.source] if isinstance(row.source, int) else row.source
    if not 1 <= len(sources) <= MAX_LIST or any(type(f) is not int or not (
            f == -1 or 0 <= (row.index + f if f < 0 else f) < row.index) for f in sources):
        raise YoloError(message("{place} reads from {source}: give rows above it, for example -1.", place=place,
                                source=quoted(row.source)))
    if len(row.args) > MAX_LIST:
        raise YoloError(message("{place} has {count} arguments: {most} at most; take the rest out.", place=place,
                                count=len(row.args), most=MAX_LIST))
    args = [_argument(place, arg, limits, mapping=name in OURS) for arg in row.args
            if not (name in HEADS and arg == ANCHORS)]
    checked = Row(row.index, list(sources) if isinstance(row.source, list) else row.source, row.repeats, name, args)
    if name in OURS:
        _check_options(place, options_of(checked), limits)
    return checked


def _check_options(place: str, options: Mapping[str, Any], limits: ModelLimits) -> None:
    for name, most in (("n_win", limits.n_win), ("num_heads", limits.num_heads)):
        value = options.get(name)
        # What is no such number at all is refused by the layer's spec, with the cure for rows that begin with channels.
        if type(value) is int and value > most and not (name == "n_win" and value > MAX_N_WIN):
            raise YoloError(message("{place} asks for {name}={value}: {most} at most in a model that is opened here; "
                                    "write a smaller number.", place=place, name=name, value=value, most=most))


def _argument(place: str, value: Any, limits: ModelLimits, mapping: bool, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool) or (isinstance(value, str) and value in STRINGS):
        return value
    if isinstance(value, (int, float)) and SMALLEST <= value <= limits.number:
        return value
    if isinstance(value, (list, tuple)) and depth < 2 and len(value) <= MAX_LIST:
        return [_argument(place, item, limits, False, depth + 1) for item in value]
    if mapping and isinstance(value, Mapping) and {*value} <= {*OPTIONS}:
        return {key: _argument(place, item, limits, False, 2) for key, item in value.items()}
    allowed: str = message("an argument is a number from {least} to {most:,}, True, False, None, a short list of "
                           "these, or one of {words}", least=SMALLEST, most=limits.number,
                           words=", ".join(sorted(STRINGS)))
    if mapping:
        allowed = message("{allowed}; a mapping sets {options}", allowed=allowed, options=", ".join(OPTIONS))
    raise YoloError(message("{place} holds {value}: {allowed}.", place=place, value=quoted(value), allowed=allowed))


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise YoloError(message("{name} is {value}: write a whole number from {least} to {most:,}.", name=name,
                                value=quoted(value), least=least, most=most))
    return int(value)


def _factor(name: str, value: Any, limits: ModelLimits) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= limits.factor:
        raise YoloError(message("{name} is {value}: write a factor above 0, up to {most:g}.", name=name,
                                value=quoted(value), most=limits.factor))
    return float(value)


def _listed(name: str, value: Any, length: int) -> Sequence[Any]:
    if not (isinstance(value, (list, tuple)) and len(value) == length):
        raise YoloError(message("{name} is {value}: write a list of {length} numbers.", name=name, value=quoted(value),
                                length=length))
    return value


def quoted(value: object) -> str:
    """A stranger's value for a message: one line, 60 characters at most; a collection by its kind only."""
    plain = isinstance(value, (str, float, bool, Exception)) or (isinstance(value, int) and abs(value) < 2**64)
    text = str(value)[:200] if plain or value is None else f"a {type(value).__name__}"
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return repr(line if len(line) <= 60 else line[:59] + "…")
