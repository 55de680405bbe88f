"""Strangers' recordings, which `bra.bra_record` writes -> traces. Reading one runs nothing of it.

A recording is a safetensors file: numbers, and one text that describes them. Sizes are judged before anything is made
of them, since a small file can describe large windows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bra.bra_record import VERSION, Heard, Reach, areas_of, laid_windows, reached, real_tokens
from bra.errors import BRAError, CheckpointError
from bra.hooks import capture_of
from bra.messages import message
from bra.photo import Photo
from bra.readers.checkpoint import label
from bra.readers.safetensors import read_safetensors
from bra.spec import MAX_N_WIN, MAX_SIDE_DWCONV
from bra.tracing import MASS_ELEMENTS, LayerTrace, ModelTrace, layer_trace

MAX_BYTES: Final = 128 * 2**20
"""Of a file; the recorder writes about 47 MB at most."""
MAX_LAYERS: Final = 500
MAX_ROWS: Final = 5_000
MAX_SIDE: Final = 4096              # tokens of a map, and pixels of the input
MAX_TRACE: Final = 512 * 2**20      # bytes of all traces, padding included
MAX_FULL_MACS: Final = 4 * 10**12   # of a layer with every window routed to all, which a page may ask for
EXPONENTIAL: Final = 32
"""Multiply-adds that take as long as the exponential of an attention weight."""
MAX_AREAS: Final = 2**14
MAX_SHARE: Final = 64               # stripes, and sides of a window that a layer attends within
MAX_OUTSIDE: Final = 64             # tokens that are no places of the picture
MAX_TOKENS: Final = 2**18           # of a layer that does not route
MAX_WEIGHTS: Final = 2**32          # attention weights that rank the windows of all layers that do not route
MAX_TEXT: Final = 200
MAX_ANSWERS: Final = 300
POOLS: Final = ("identity", "maxpool", "avgpool", "ada_maxpool", "ada_avgpool")
RULES: Final = ("pad", "floor")
LEFT_OUT: Final = message("routing known, attention not: its numbers were left out of the file for their size")
OWN_WAY: Final = message("routing known, attention not: it attends in a way of its own")


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of the recorded model.

    Attributes:
        name: its place in the model.
        kind: its class.
        params: parameters.
        out: shape of its result, or empty.
        macs: multiply-adds of convolutions, linear layers, and the attention of layers that were heard.
        counted: whether these are all; else it holds code of its own that may multiply matrices.
    """

    name: str
    kind: str
    params: int
    out: tuple[int, ...]
    macs: int
    counted: bool


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One forward of somebody's model.

    Attributes:
        digest: SHA-256 of the file's bytes, as hex.
        model: class of the network.
        weights: name of the file that its weights came from, or "".
        input: shape of what the network read, or empty.
        photo: what the network read, as a picture; None where it was none.
        stretched: whether the picture's numbers were stretched to be seen.
        layers: what was heard, by layer name, as far as it is in the file.
        trace: of all layers; `.out` is None.
        table: rows of the model.
        detections: label, score, and left, top, right, bottom as shares of the picture.
        classes: labels and probabilities.
    """

    digest: str
    model: str
    weights: str
    input: tuple[int, ...]
    photo: Photo | None = field(repr=False)
    stretched: bool
    layers: Mapping[str, Heard] = field(repr=False)
    trace: ModelTrace = field(repr=False)
    table: tuple[TableRow, ...] = field(repr=False)
    detections: tuple[tuple[str, float, tuple[float, float, float, float]], ...] = field(repr=False)
    classes: tuple[tuple[str, float], ...] = field(repr=False)


def load(path: str | Path, epoch: int | None = None) -> ModelTrace:
    """The trace in a recording, which `bra.record` or `bra_record.py` wrote, or in the file of a watched training.

    Args:
        path: of the file.
        epoch: of a watched training, whose last epoch up to this one is meant; None for its last.

    Raises:
        BRAError: it is none, is damaged, or asks for too much.
    """
    from bra.readers import timeline  # which reads its epochs with this module

    data = Path(path).read_bytes()
    if not timeline.is_timeline(data):
        return read_recording(data).trace
    found = timeline.read_timeline(data)
    return timeline.recording_of(found, data, found.at(epoch)).trace


def is_recording(data: bytes) -> bool:
    """Whether bytes begin as a recording does, whatever follows."""
    size = int.from_bytes(data[:8], "little")
    return size < 4 * 2**20 and b'"bra-recording"' in data[8:8 + min(size, 2**16)]


def read_recording(data: bytes) -> Recording:
    """The bytes of a recording -> what is in it.

    Raises:
        CheckpointError: not a recording, damaged, or beyond the limits; one sentence with the cure.
    """
    if len(data) > MAX_BYTES:
        raise CheckpointError(message("This recording has {size:.1f} MB: {most:g} MB at most; record a smaller "
                                      "picture.",
                                      size=len(data) / 2**20, most=MAX_BYTES / 2**20))
    tensors = read_safetensors(data)
    about = _about(data)
    try:
        return _recording(hashlib.sha256(data).hexdigest(), about, tensors)
    except _DamagedError as error:
        raise CheckpointError(message("this recording is damaged ({why}): record again.",
                                      why=str(error)[:80])) from error


class _DamagedError(Exception):
    """What does not fit together."""


def _about(data: bytes) -> Mapping[str, Any]:
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    said_of = header.get("__metadata__")
    if not isinstance(said_of, dict) or said_of.get("format") != "bra-recording":
        raise CheckpointError(message("this file is no recording: make one with bra.record or bra_record.py."))
    if said_of.get("version") != str(VERSION):
        raise CheckpointError(message("this recording is of version {version}, and version {known} is read here: "
                                      "update the older of the two.", version=label(said_of.get("version")),
                                      known=VERSION))
    try:
        about = json.loads(said_of.get("about", ""), parse_constant=_no_constant)
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(message("this recording is damaged ({why}): record again.",
                                      why=message("its description"))) \
            from error
    if not isinstance(about, dict):
        raise CheckpointError(message("this recording is damaged ({why}): record again.",
                                      why=message("its description")))
    return about


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _recording(digest: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Recording:
    entries = _list(about, "layers", MAX_LAYERS)
    given = about.get("input")
    shape = tuple(_whole(given, n, 0, 2**31) for n in range(len(given))) if isinstance(given, list) and \
        len(given) <= 8 else ()
    image = (shape[2], shape[3]) if len(shape) == 4 and min(shape[2:]) >= 1 and max(shape[2:]) <= MAX_SIDE else None
    layers: dict[str, Heard] = {}
    traces: dict[str, LayerTrace] = {}
    room, weights = MAX_TRACE, MAX_WEIGHTS
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise _DamagedError("a layer")
        heard, stored = _layer(entry, {name.partition(".")[2]: t for name, t in tensors.items()
                                       if name.partition(".")[0] == str(number)})
        room -= _trace_bytes(heard)
        if heard.reach is not None:
            weights -= min(MASS_ELEMENTS, heard.heads * _pairs(heard))
        if room < 0 or weights < 0:
            raise CheckpointError(message("the layers of this recording take more than {most:,.0f} MB to look into: "
                                          "record a smaller picture.", most=MAX_TRACE / 2**20))
        if heard.name in layers:
            raise _DamagedError("two layers of one name")
        layers[heard.name] = heard
        traces[heard.name] = trace_of(heard, image, stored)
    photo, stretched = _photo(about.get("picture"), tensors.get("picture"))
    given = about.get("unknown")
    unknown: dict[str, Any] = given if isinstance(given, dict) else {}
    trace = ModelTrace(None, MappingProxyType(traces), MappingProxyType(
        {label(name): label(why) for name, why in list(unknown.items())[:MAX_LAYERS]}))
    return Recording(
        digest, _text(about, "model"), _text(about, "weights"), shape, photo, stretched, MappingProxyType(layers),
        trace, tuple(map(_row, _list(about, "table", MAX_ROWS))), _detections(_list(about, "detections", MAX_ANSWERS)),
        tuple((label(one[0]), _share(one[1])) for one in _list(about, "classes", MAX_ANSWERS)
              if isinstance(one, list) and len(one) == 2))


def trace_of(heard: Heard, image: tuple[int, int] | None, stored: Mapping[str, Any] | None = None) -> LayerTrace:
    """A recorded layer as a trace.

    Args:
        heard: the layer.
        image: height and width of what the network read; None lays the grid over the map itself.
        stored: bits, and the difference that they bring about.

    Raises:
        CheckpointError: the layer cannot be.
    """
    try:
        made = layer_trace(heard.name, capture_of(heard), image or heard.size)
    except BRAError as error:
        raise CheckpointError(message("layer {layer!r} of this recording cannot be looked into ({error}): record "
                                      "again.",
                                      layer=heard.name, error=error.args[0])) from error
    if made.proof is None or stored is None:
        return made
    return replace(made, proof=replace(made.proof, **stored))


def _layer(entry: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> tuple[Heard, dict[str, Any]]:
    """A layer as it was heard, and the bits that it is stored in."""
    h, w = (_whole(entry.get("size"), n, 1, MAX_SIDE) for n in (0, 1))
    windows = _whole(entry.get("windows"), 0, 1, MAX_N_WIN), _whole(entry.get("windows"), 1, 1, MAX_N_WIN)
    region = _whole(entry.get("region"), 0, 1, MAX_SIDE), _whole(entry.get("region"), 1, 1, MAX_SIDE)
    reach = None if entry.get("reach") is None else _reach(entry["reach"], (h, w), arrays)
    if reach is not None:
        windows, region = laid_windows((h, w), reach)
    for side, count, inside in () if reach is not None else zip((h, w), windows, region, strict=True):
        if not 0 <= count * inside - side < max(count, inside):
            raise _DamagedError("windows that do not suit their map")
    p2 = windows[0] * windows[1]
    heads = _whole(entry, "heads", 1, 1024)
    if reach is None:
        topk = _whole(entry, "topk", 1, p2)
        r_idx = _tensor(arrays, "r_idx", (1, p2, topk)).long()
    else:
        r_idx = reached(areas_of(reach, (h, w), windows, region))[None]
        topk = int(r_idx.shape[-1])
    if int(r_idx.min()) < 0 or int(r_idx.max()) >= p2:
        raise _DamagedError("a window that does not exist")
    r_weight = _numbers(arrays, "r_weight", (1, p2, topk)).clamp(0, 1) if reach is None else \
        torch.full((1, p2, topk), 1 / topk)
    affinity = _tensor(arrays, "affinity", (1, p2, p2)).float() if "affinity" in arrays else None
    if affinity is not None and bool((affinity.isnan() | (affinity == float("inf"))).any()):
        raise _DamagedError("routing that is no numbers")
    bits = entry.get("bits")
    if bits not in (0, 8, 16, 32):
        raise _DamagedError("bits")
    scale, difference, stored = (_maybe(entry.get(name)) for name in ("scale", "difference", "stored_difference"))
    pool = entry.get("pool")
    mode = pool[0] if isinstance(pool, list) and len(pool) == 3 else ""
    rule = entry.get("rule")
    if mode not in POOLS or rule not in RULES or scale is None or not 0 < scale < 1e6:
        raise _DamagedError("settings")
    known = entry.get("known") is True
    if reach is not None and not (known and bits):
        raise _DamagedError("a layer without numbers")
    heard = Heard(
        name=_text(entry, "name"), module=None, kind=_text(entry, "type"), size=(h, w), windows=windows, region=region,
        n_win=_whole(entry, "n_win", 1, MAX_SIDE) if reach is None else windows[0], topk=topk, heads=heads,
        scale=scale, soft=entry.get("soft") is True,
        mask_padding=entry.get("mask_padding") is True, rule=rule, r_idx=r_idx, r_weight=r_weight, affinity=affinity,
        routing="heard" if entry.get("routing") == "heard" else "computed",
        pool=(mode, _whole(pool, 1, 1, MAX_N_WIN), _whole(pool, 2, 1, MAX_N_WIN)), known=known and bits > 0,
        compared="projection" if entry.get("compared") == "projection" else "output", difference=difference,
        note="" if known and bits else LEFT_OUT if known else OWN_WAY, dtype=_text(entry, "dtype"),
        reach=reach)
    if heard.known:
        _fill(heard, arrays, bits)
    return heard, {"bits": bits, "stored": stored}


def _reach(entry: Any, size: tuple[int, int], arrays: Mapping[str, Tensor]) -> Reach:
    """What a layer attends to that does not route; of the right shape only as far as its map tells."""
    if not isinstance(entry, dict) or (kind := entry.get("kind")) not in ("whole", "stripes", "windows"):
        raise _DamagedError("reach")
    stripes = _whole(entry, "stripes", 1, MAX_SHARE)
    rows, columns = (_whole(entry.get("window"), n, 1, MAX_SHARE) for n in (0, 1))
    shift = _whole(entry.get("shift"), 0, 0, rows - 1), _whole(entry.get("shift"), 1, 0, columns - 1)
    names = tuple(label(name) for name in _list(entry, "names", MAX_OUTSIDE))
    areas = 4 * -(-size[1] // columns) * -(-size[0] // rows)
    if math.prod(size) > MAX_TOKENS or (kind == "stripes" and math.prod(size) % stripes) or (
            kind == "windows" and areas > MAX_AREAS):
        raise _DamagedError("reach")
    reach = Reach(kind, stripes, (rows, columns), shift, names=names)
    if "reach_bias" in arrays and arrays["reach_bias"].dim() == 3 and kind == "windows":
        reach.bias = _numbers(arrays, "reach_bias", (arrays["reach_bias"].shape[0], 2 * rows - 1, 2 * columns - 1))
    for name in ("k", "v") if names else ():
        found = arrays.get(f"reach_{name}")
        width = found.shape[-1] if found is not None and found.dim() == 3 else 0
        setattr(reach, name, _numbers(arrays, f"reach_{name}", (1, len(names), width)))
    return reach


def _pairs(heard: Heard) -> int:
    """Pairs of a query and a key that its windows ask for, padding included."""
    return math.prod(heard.windows) * math.prod(heard.region) * heard.topk * _keys(heard)


def _fill(heard: Heard, arrays: Mapping[str, Tensor], bits: int) -> None:
    """q, k, v, and the weights around them."""
    h, w = heard.size
    Q, c = (arrays[name].shape[-1] if name in arrays and arrays[name].dim() == 4 else 0 for name in ("q", "v"))
    if not (Q and c) or Q % heard.heads or c % heard.heads or max(Q, c) > 2**16:
        raise _DamagedError("channels")
    keys = _keys(heard)
    full = math.prod(heard.windows) ** 2 * math.prod(heard.region) * keys if heard.reach is None else _pairs(heard)
    reach = heard.reach
    if reach is not None and (heard.pool[0] != "identity" or (reach.bias is not None and len(reach.bias) != heard.heads)
                              or any(part is not None and part.shape[-1] != wide
                                     for part, wide in ((reach.k, Q), (reach.v, c)))):
        raise _DamagedError("reach")
    if keys < 1 or full * (Q + c + EXPONENTIAL * heard.heads) > MAX_FULL_MACS:
        raise CheckpointError(message("layer {layer!r} of this recording is too large to route every window to all, "
                                      "which can be chosen here: record a smaller picture.", layer=heard.name))
    if _trace_bytes(heard, Q, c) > MAX_TRACE:
        raise CheckpointError(message("the layers of this recording take more than {most:,.0f} MB to look into: "
                                      "record a smaller picture.", most=MAX_TRACE / 2**20))
    for name, channels in (("q", Q), ("k", Q), ("v", c)):
        numbers = _numbers(arrays, name, (1, h, w, channels))
        setattr(heard, name, numbers * _numbers(arrays, f"{name}_factor", (channels,)) if bits == 8 else numbers)
    heard.pad = _numbers(arrays, "pad", (2 * Q + c,))
    heard.emb = _pair(arrays, "emb", (Q, Q))
    heard.wo = _pair(arrays, "wo", (c, c))
    if "lepe_weight" in arrays:
        side = arrays["lepe_weight"].shape[-1] if arrays["lepe_weight"].dim() == 4 else 0
        if side % 2 == 0 or side > MAX_SIDE_DWCONV:
            raise _DamagedError("a position term")
        heard.lepe = _pair(arrays, "lepe", (c, 1, side, side))
    if heard.mask_padding and not bool(real_tokens(heard).any()):
        raise _DamagedError("nothing but padding")


def _keys(heard: Heard) -> int:
    mode, ratio, side = heard.pool
    if mode == "identity":
        return heard.region[0] * heard.region[1]
    return side * side if mode.startswith("ada_") else (heard.region[0] // ratio) * (heard.region[1] // ratio)


def _trace_bytes(heard: Heard, Q: int = 0, c: int = 0) -> int:
    """What its trace takes: q, k, v and position term over the padded square of windows, and the affinity."""
    p = max(heard.windows)
    Q, c = Q or (0 if heard.q is None else heard.q.shape[-1]), c or (0 if heard.v is None else heard.v.shape[-1])
    # Pooled keys are sometimes more than the tokens that they are pooled from.
    tokens, keys = heard.region[0] * heard.region[1], _keys(heard)
    return 4 * p * p * (tokens * (Q + c) + max(tokens, keys) * (Q + c) + p * p)


def _pair(arrays: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor | None] | None:
    if f"{name}_weight" not in arrays:
        return None
    bias = _numbers(arrays, f"{name}_bias", shape[:1]) if f"{name}_bias" in arrays else None
    return _numbers(arrays, f"{name}_weight", shape), bias


def _tensor(arrays: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    found = arrays.get(name)
    if found is None or tuple(found.shape) != shape:
        raise _DamagedError(name)
    return found


def _numbers(arrays: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """float32, finite."""
    found = _tensor(arrays, name, shape).float()
    if not bool(found.isfinite().all()):
        raise _DamagedError(f"{name} is not finite")
    return found


def _photo(about: Any, numbers: Tensor | None) -> tuple[Photo | None, bool]:
    if not isinstance(about, dict) or numbers is None or numbers.dtype != torch.uint8:
        return None, False
    array: NDArray[np.uint8] = numbers.numpy()
    try:
        if about.get("kind") == "webp" and array.ndim == 1:
            photo = Photo.from_bytes(array.tobytes())
        elif array.ndim == 3 and array.shape[2] == 3 and min(array.shape[:2]) >= 16 and max(array.shape[:2]) <= 2048:
            photo = Photo.from_array(array)
        else:
            return None, False
    except BRAError as error:
        raise _DamagedError("its picture") from error
    return photo, about.get("stretched") is True


def _row(entry: Any) -> TableRow:
    if not isinstance(entry, dict):
        raise _DamagedError("a row")
    out = entry.get("out")
    shape = tuple(_whole(out, n, 0, 2**31) for n in range(min(len(out), 8))) if isinstance(out, list) else ()
    return TableRow(_text(entry, "name"), _text(entry, "type"), _whole(entry, "params", 0, 2**40), shape,
                    _whole(entry, "macs", 0, 2**60), entry.get("counted") is True)


def _detections(entries: Sequence[Any]) -> tuple[tuple[str, float, tuple[float, float, float, float]], ...]:
    found = []
    for one in entries:
        if isinstance(one, list) and len(one) == 6:
            left, top, right, bottom = (_share(value) for value in one[2:])
            found.append((label(one[0]), _share(one[1]), (left, top, right, bottom)))
    return tuple(found)


def _share(value: Any) -> float:
    number = _maybe(value)
    return 0.0 if number is None else min(1.0, max(0.0, number))


def _maybe(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300:
        return None
    return float(value) if math.isfinite(value) else None


def _text(entry: Mapping[str, Any], name: str) -> str:
    found = entry.get(name)
    if not isinstance(found, str):
        raise _DamagedError(name)
    return "".join(c if c.isprintable() else " " for c in found[:MAX_TEXT])


def _list(about: Mapping[str, Any], name: str, most: int) -> list[Any]:
    found = about.get(name)
    if not isinstance(found, list) or len(found) > most:
        raise _DamagedError(name)
    return found


def _whole(entry: Any, name: Any, least: int, most: int) -> int:
    """A whole number of a mapping or a list."""
    try:
        found = entry[name]
    except (LookupError, TypeError) as error:
        raise _DamagedError(str(name)) from error
    if type(found) is not int or not least <= found <= most:
        raise _DamagedError(str(name))
    return found
