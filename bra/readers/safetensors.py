"""Strangers' .safetensors files -> tensors. Reading one runs nothing, but its header can ask for a lot of objects."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import safetensors
import safetensors.torch
from torch import Tensor

from bra.errors import CheckpointError
from bra.messages import message

MAX_HEADER: Final = 4 * 2**20       # bytes; that of a model of 5,000 tensors has half a megabyte
MAX_TENSORS: Final = 20_000
MAX_AXES: Final = 8
MAX_AXIS: Final = 2**31
MAX_NAME: Final = 250
BYTES: Final[Mapping[str, int]] = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
                                   "U8": 1, "BOOL": 1}
"""Types of numbers that are read, and what each takes."""


def read_safetensors(data: bytes) -> Mapping[str, Tensor]:
    """The bytes of a .safetensors file -> its tensors by name.

    Raises:
        CheckpointError: not such a file, damaged, or its header says what its bytes do not hold.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise CheckpointError(message("this .safetensors file is cut off, or none: download it again."))
    if size > MAX_HEADER:
        raise CheckpointError(message("the header of this .safetensors file has {size:,} bytes: {most:,} at most; save "
                                      "only the model's state_dict().", size=size, most=MAX_HEADER))
    try:
        header = json.loads(data[8:8 + size])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, RecursionError, AttributeError) as error:
        raise CheckpointError(message("the header of this .safetensors file cannot be read: download it again.")) \
            from error
    if len(entries) > MAX_TENSORS:
        raise CheckpointError(message("this .safetensors file has {n:,} tensors: {most:,} at most; save only the "
                                      "model's state_dict().", n=len(entries), most=MAX_TENSORS))
    for name, entry in entries.items():
        _check(name, entry, len(data) - 8 - size)
    try:
        tensors: Mapping[str, Tensor] = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:        # parts that overlap or leave gaps
        raise CheckpointError(message("this .safetensors file is damaged: download it again.")) from error
    return tensors


def _check(name: str, entry: Any, room: int) -> None:
    if not (len(name) <= MAX_NAME and name.isascii() and name.isprintable()):
        raise CheckpointError(message("this .safetensors file names a tensor {name}: names have up to {most} ordinary "
                                      "characters; save the model again.", name=ascii(name[:40]), most=MAX_NAME))
    kind = entry.get("dtype") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or kind not in BYTES:
        raise CheckpointError(message("{name!r} of this .safetensors file is of type {kind}: save it as one of "
                                      "{kinds}.",
                                      name=name[:80], kind=ascii(kind)[:40], kinds=", ".join(BYTES)))
    shape, place = entry.get("shape"), entry.get("data_offsets")
    if not (_whole(shape, MAX_AXIS) and len(shape) <= MAX_AXES and _whole(place, room) and len(place) == 2
            and place[1] - place[0] == math.prod(shape) * BYTES[kind]):
        raise CheckpointError(message("{name!r} of this .safetensors file does not have the bytes that its header "
                                      "says: download it again.", name=name[:80]))


def _whole(values: Any, most: int) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= most for value in values)
