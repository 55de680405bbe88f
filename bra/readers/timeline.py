"""The file of a watched training, read: one picture, and after it the routing of every epoch in a frame of its own.

    b"BRAWATCH" | frame | frame | …
    frame: 4 bytes of kind | u32 length of head | u32 length of body | u32 CRC-32 of both | head, JSON | body

The first frame (b"PICT") says of which model, and its body is the picture as WebP. Each other one (b"EPOC") has the
epoch and the numbers of its layers in its head, and its body is a recording of the routing alone, as
`readers.recording` reads it. Frames are only ever appended. Where a run was killed, a part of a frame at the end is
left out; where it went on from an earlier epoch, the later frame of that epoch counts, and all that lay between goes.

Numbers are little-endian. Nothing of a file is run, and what it says is judged before anything is made of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NoReturn

from bra.errors import BRAError, CheckpointError
from bra.messages import message
from bra.metrics.watched import SHARES, WatchedNumbers
from bra.photo import Photo
from bra.readers.checkpoint import label
from bra.readers.recording import MAX_LAYERS, MAX_TEXT, Recording, read_recording
from bra.spec import MAX_N_WIN

MAGIC: Final = b"BRAWATCH"
PICTURE: Final = b"PICT"
EPOCH: Final = b"EPOC"
VERSION: Final = 1
HEAD: Final = 16
"""Bytes in front of a frame's head."""
MAX_BYTES: Final = 128 * 2**20
"""Of a file: 300 epochs of a model with four layers take about 20 MB."""
MAX_HEAD: Final = 2**20
MAX_EPOCHS: Final = 10_000
MAX_NUMBERS: Final = 100_000
"""Layers of all epochs together."""
MAX_EPOCH: Final = 10**9


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame of a file.

    Attributes:
        kind: PICTURE or EPOCH.
        start: where its head begins.
        middle: where its body begins.
        end: where the next frame begins.
    """

    kind: bytes
    start: int
    middle: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class WatchedEpoch:
    """What is known of one epoch without reading its routing.

    Attributes:
        epoch: its number, as the training counts.
        layers: the numbers of each layer, by name.
        frame: where its recording lies.
    """

    epoch: int
    layers: Mapping[str, WatchedNumbers] = field(repr=False)
    frame: Frame = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """A watched training.

    Attributes:
        digest: SHA-256 of the file's bytes, as hex.
        model: class of the network.
        photo: the picture that it was watched on, as the network read it; None where it was none.
        stretched: whether the picture's numbers were stretched to be seen.
        epochs: in order, at least one.
    """

    digest: str
    model: str
    photo: Photo | None = field(repr=False)
    stretched: bool
    epochs: tuple[WatchedEpoch, ...] = field(repr=False)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The epochs' numbers."""
        return tuple(one.epoch for one in self.epochs)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order in which they first came."""
        return tuple(dict.fromkeys(name for one in self.epochs for name in one.layers))

    def at(self, epoch: int | None) -> int:
        """Place of the epoch with that number, or of the last before it; of the last one for None."""
        places = [place for place, one in enumerate(self.epochs) if epoch is None or one.epoch <= epoch]
        return places[-1] if places else 0


def is_timeline(data: bytes) -> bool:
    """Whether bytes begin as the file of a watched training does, whatever follows."""
    return data[:len(MAGIC)] == MAGIC


def frames(data: bytes) -> Iterator[Frame]:
    """The whole frames of a file, up to the first that is cut off or damaged."""
    at = len(MAGIC)
    while at + HEAD <= len(data):
        kind, *numbers = data[at:at + 4], *(int.from_bytes(data[at + n:at + n + 4], "little") for n in (4, 8, 12))
        start = at + HEAD
        middle, end = start + numbers[0], start + numbers[0] + numbers[1]
        if kind not in (PICTURE, EPOCH) or end > len(data) or zlib.crc32(memoryview(data)[start:end]) != numbers[2]:
            return
        yield Frame(kind, start, middle, end)
        at = end


def framed(kind: bytes, head: Mapping[str, Any], body: bytes) -> bytes:
    """A frame's bytes. Inverse of `frames`."""
    text = json.dumps(head, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    lengths = b"".join(n.to_bytes(4, "little") for n in (len(text), len(body), zlib.crc32(text + body)))
    return kind + lengths + text + body


def read_timeline(data: bytes) -> Timeline:
    """The bytes of a watched training's file -> what is in it.

    Raises:
        CheckpointError: not such a file, damaged, empty, or beyond the limits; one sentence with the cure.
    """
    if len(data) > MAX_BYTES:
        raise CheckpointError(message("This file of a watched training has {size:.1f} MB: {most:g} MB at most; watch "
                                      "fewer epochs, with every=5.", size=len(data) / 2**20, most=MAX_BYTES / 2**20))
    if not is_timeline(data):
        raise CheckpointError(message("this file is of no watched training: make one with bra.watch."))
    found = frames(data)
    first = next(found, None)
    if first is None or first.kind != PICTURE:
        _damaged("its beginning")
    about = _head(data, first)
    if about.get("version") != VERSION:
        raise CheckpointError(message("this file of a watched training is of version {version}, and version {known} is "
                                      "read here: update the older of the two.", version=label(about.get("version")),
                                      known=VERSION))
    epochs: list[WatchedEpoch] = []
    room = MAX_NUMBERS
    for count, frame in enumerate(found):
        if frame.kind != EPOCH:
            _damaged("two pictures")
        if count >= MAX_EPOCHS or room < 0:
            raise CheckpointError(message("this file of a watched training has more than {most:,} epochs: watch fewer, "
                                          "with every=5.", most=MAX_EPOCHS))
        made = _epoch(_head(data, frame), frame)
        room -= len(made.layers)
        while epochs and epochs[-1].epoch >= made.epoch:        # a run that was killed went on from before it
            epochs.pop()
        epochs.append(made)
    if not epochs:
        raise CheckpointError(message("this file of a watched training has no whole epoch yet: open it again after the "
                                      "first."))
    return Timeline(hashlib.sha256(data).hexdigest(), label(about.get("model")), _photo(data[first.middle:first.end]),
                    about.get("stretched") is True, tuple(epochs))


def recording_of(timeline: Timeline, data: bytes, place: int) -> Recording:
    """The recording of one epoch, with the file's picture.

    Args:
        timeline: what `read_timeline` gave.
        data: for these bytes.
        place: of the epoch among those of the timeline.

    Raises:
        CheckpointError: it is damaged, or beyond the limits.
    """
    frame = timeline.epochs[place].frame
    return replace(read_recording(data[frame.middle:frame.end]), photo=timeline.photo, stretched=timeline.stretched)


def _damaged(why: str) -> NoReturn:
    raise CheckpointError(message("this file of a watched training is damaged ({why}): watch again, in another folder.",
                                  why=why))


def _head(data: bytes, frame: Frame) -> Mapping[str, Any]:
    if frame.middle - frame.start > MAX_HEAD:
        _damaged("a head")
    try:
        head = json.loads(data[frame.start:frame.middle])
    except (ValueError, RecursionError):
        _damaged("a head")
    if not isinstance(head, dict):
        _damaged("a head")
    return head


def _epoch(head: Mapping[str, Any], frame: Frame) -> WatchedEpoch:
    layers = head.get("layers")
    if not isinstance(layers, dict) or len(layers) > MAX_LAYERS:
        _damaged("layers")
    # As recordings read names, so that both call a layer alike.
    found = {"".join(c if c.isprintable() else " " for c in name[:MAX_TEXT]): _numbers(entry)
             for name, entry in layers.items()}
    return WatchedEpoch(_whole(head.get("epoch"), 0, MAX_EPOCH), MappingProxyType(found), frame)


def _numbers(entry: Any) -> WatchedNumbers:
    if not isinstance(entry, dict):
        _damaged("a layer")
    n_win = _whole(entry.get("n_win"), 1, MAX_N_WIN)
    shares = {name: _share(entry.get(name)) for name in SHARES}
    if any(shares[name] is None for name in ("chance", "shared_choices", "entropy", "never_chosen")):
        _damaged("a number")
    most = n_win**2
    return WatchedNumbers(n_win=n_win, topk=_whole(entry.get("topk"), 1, most),
                          in_degree_max=_whole(entry.get("in_degree_max"), 0, most),
                          **shares)  # type: ignore[arg-type]    # those that must be known are


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        _damaged("a whole number")
    return value


def _share(value: Any) -> float | None:
    """A number, moved into 0 to 1; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300 or not math.isfinite(value):
        return None
    return min(1.0, max(0.0, float(value)))


def _photo(encoded: bytes) -> Photo | None:
    try:
        return Photo.from_bytes(encoded) if encoded else None
    except BRAError:
        _damaged("its picture")
