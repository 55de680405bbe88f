"""Strangers' .pt and .pth files -> tensors and plain facts; no code of the file runs and no class of it is made.

The file is read by a short-lived process with limits on memory, processor time and output
(`bra.readers.child.checkpoint`, run by `bra.readers.sandbox`).
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import safetensors
import safetensors.torch
from torch import Tensor

from bra.errors import CheckpointError
from bra.messages import from_plain, message
from bra.readers.child.main import OUT_OF_MEMORY, REFUSED
from bra.readers.child.pickle_machine import damaged
from bra.readers.sandbox import Limits, run_reader

OTHER_KINDS: Final = ((b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", message("in the format of torch before 1.6")),
                      (b"\x80", message("a bare pickle")), (b"", message("not a checkpoint of torch")))
MAX_HEADER: Final = 16 * 2**20
"""Bytes of names, shapes and facts from the reading process; of YOLO11x with a thousand classes they are 150,000."""
MAX_LABEL: Final = 64
SPARE_OUTPUT: Final = 64 * 2**20
"""Bytes that the reading process may write beyond twice the file."""


@dataclass(frozen=True, slots=True)
class CheckpointLimits:
    """What a checkpoint may take."""

    max_bytes: int = 512 * 2**20    # of the file, and of its tensors
    memory: int = 2**30             # bytes of the reading process; half a megabyte of pickle takes about 30 MB
    cpu_seconds: int = 20
    seconds: float = 60.0           # by the clock, with the wait for a processor


@dataclass(frozen=True, slots=True)
class Part:
    """A module of a checkpoint.

    Attributes:
        path: its class as "module.name".
        settings: what it keeps beside its tensors that decides what it computes, such as eps or stride.
    """

    path: str
    settings: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The name of its class."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a checkpoint says of itself: strangers' words, bounded but not believed.

    Attributes:
        root: class of the model as "module.name"; empty for a plain state_dict.
        task: "detect" and the like; None where it is not said.
        yaml: the rows that it says it was built from; None for a plain state_dict.
        names: class labels in order, without control characters.
        nc: classes, where it is said.
        stride: pixels per token of each output level, or empty.
        imgsz: side that it was trained at, in pixels.
        epoch: the last one, from 0; -1 for a finished training.
        version: Ultralytics' release that wrote it.
        fused: its convolutions have taken in their batch norms.
        layers: class of each numbered layer, as "module.name".
        attention: options that each layer of bi-level routing attention holds, by the layer's name.
        parts: every module, by name; none for a plain state_dict.
    """

    root: str
    task: str | None
    yaml: Mapping[str, Any] | None
    names: tuple[str, ...]
    nc: int | None
    stride: tuple[float, ...]
    imgsz: int | None
    epoch: int | None
    version: str | None
    fused: bool
    layers: tuple[str, ...]
    attention: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Part]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The best model of a file.

    Attributes:
        digest: SHA-256 of the file's bytes, as hex.
        tensors: by state_dict name, on the CPU, in the type that they were saved in.
        facts: what the file says beside them.
    """

    digest: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    facts: Facts


def read_checkpoint(data: bytes, limits: CheckpointLimits | None = None,
                    still: Callable[[], object] = lambda: None) -> Checkpoint:
    """The bytes of a .pt or .pth file of torch.save -> the model that predicts best in it.

    Args:
        data: the file: a training checkpoint, a model, or a state_dict, also under "model" or "state_dict".
        limits: sizes and times beyond which it is refused.
        still: called ten times a second while the file is read; what it raises ends the reading process.

    Raises:
        CheckpointError: not such a file, damaged, or beyond the limits; one sentence with the cure.
    """
    limits = limits or CheckpointLimits()
    if len(data) > limits.max_bytes:
        raise CheckpointError(message("This file has {size:.1f} MB: {most:g} MB at most; save the model without its "
                                      "optimizer, or as half precision.", size=len(data) / 2**20,
                                      most=limits.max_bytes / 2**20))
    if not data.startswith(b"PK\3\4"):
        kind = next(kind for start, kind in OTHER_KINDS if data.startswith(start)) if data else message("empty")
        raise CheckpointError(message("This file is {kind}: choose a .pt or .pth file, or save it again with "
                                      "torch.save.",
                                      kind=kind))
    try:
        raw = _unpacked(data, limits, still)
        size = int.from_bytes(raw[:8], "little")
        if size > MAX_HEADER:
            raise CheckpointError(message("This checkpoint's names, shapes and facts take {size:.1f} MB: {most:g} MB "
                                          "at most; save only the model's state_dict().", size=size / 2**20,
                                          most=MAX_HEADER / 2**20))
        facts = json.loads(json.loads(raw[8:8 + size])["__metadata__"]["facts"])
        axes, tensors = facts.pop("axes"), safetensors.torch.load(raw)
        for name, order in axes.items():
            tensors[name] = tensors[name].permute(order).contiguous()
        return Checkpoint(hashlib.sha256(data).hexdigest(), MappingProxyType(tensors), _facts(facts))
    except MemoryError as error:
        raise CheckpointError(message("This checkpoint is too large to read here: save it as half "
                                      "precision.")) from error
    except OSError as error:
        raise CheckpointError(message("There is no room here to read this checkpoint: try again later, or save it as "
                                      "half precision.")) from error
    except (safetensors.SafetensorError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise damaged(message("what was read from it does not fit together")) from error


def label(text: object) -> str:
    """A stranger's label: one line, no control, direction or unassigned characters, 64 characters at most."""
    kept = "".join(" " if c.isspace() else c for c in str(text)[:10 * MAX_LABEL]
                   if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join(kept.split())[:MAX_LABEL]


def _unpacked(data: bytes, limits: CheckpointLimits, still: Callable[[], object]) -> bytes:
    """The safetensors that the reading process makes of the file."""
    ended = run_reader("checkpoint", data, None, Limits(
        limits.memory + len(data), limits.cpu_seconds, min(2 * len(data), limits.max_bytes) + SPARE_OUTPUT,
        limits.seconds), still)
    status = ended.status
    if status == 0:
        return ended.out
    if status == REFUSED:
        raise _refusal(ended.refusal)
    if status == OUT_OF_MEMORY:
        raise CheckpointError(message("Reading this checkpoint took more than {memory:,.0f} MB of memory: save only "
                                      "the model's state_dict().", memory=limits.memory / 2**20))
    if status is None:
        raise CheckpointError(message("Reading this checkpoint took more than {seconds:g} seconds: try again, or save "
                                      "only the model's state_dict().", seconds=limits.seconds))
    raise CheckpointError(message("Reading this checkpoint was stopped ({end}): save only the model's state_dict(), "
                                  "and choose that file.", end=_end(status)))


def _refusal(words: bytes) -> CheckpointError:
    """What the reading process refused the file with."""
    try:
        return CheckpointError(from_plain(json.loads(words)))
    except (ValueError, RecursionError):
        return damaged(message("what was read from it does not fit together"))


def _end(status: int) -> str:
    if status >= 0:
        return message("status {status}", status=status)
    return {-9: message("killed, or out of processor time"), -24: message("out of processor time")}.get(
        status, message("signal {number}", number=-status))


def _facts(given: Mapping[str, Any]) -> Facts:
    nc, yaml = _whole(given["nc"]), given["yaml"] if isinstance(given["yaml"], dict) else None
    nc = nc if nc is not None or yaml is None else _whole(yaml.get("nc"))
    return Facts(
        root=str(given["root"]), task=_text(given["task"]), yaml=None if yaml is None else MappingProxyType(yaml),
        names=_names(given["names"]), nc=nc, stride=tuple(filter(math.isfinite, given["stride"])),
        imgsz=_whole(given["imgsz"]), epoch=_whole(given["epoch"]), version=_text(given["version"]),
        fused=bool(given["fused"]), layers=tuple(map(str, given["layers"])),
        attention=MappingProxyType({name: MappingProxyType(held) for name, held in given["attention"].items()}),
        parts=MappingProxyType({name: Part(str(path), MappingProxyType(settings))
                                for name, (path, settings) in given["parts"].items()}))


def _names(given: Any) -> tuple[str, ...]:
    """A list of labels, or a mapping from 0, 1, 2, …; anything else is no names."""
    if isinstance(given, dict):
        given = [given[str(n)] for n in range(len(given))] if all(str(n) in given for n in range(len(given))) else []
    return tuple(label(name) for name in given) if isinstance(given, list) else ()


def _whole(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < 2**31 else None


def _text(value: Any) -> str | None:
    return label(value) if isinstance(value, str) else None
