"""Watches a model's routing while it trains: after each epoch, on one fixed picture, into one file.

    w = bra.watch(model, "photo.jpg", "runs/mine")
    for epoch in range(100):
        ...
        w(epoch)

The app opens the file, runs/mine/routing.bra. What goes wrong is said once in the log and ends nothing. The training is
left as it would have been without: what runs is a copy of the model, and no random numbers are drawn.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from bra import bra_record
from bra.errors import BRAError, TraceError
from bra.hooks import networks_of
from bra.messages import message
from bra.metrics.watched import WatchedNumbers, watched_numbers
from bra.photo import Photo
from bra.readers.timeline import EPOCH, MAGIC, MAX_BYTES, MAX_EPOCHS, PICTURE, VERSION, framed, frames, is_timeline
from bra.tracing import LayerTrace, trace

FILE: Final = "routing.bra"
LOG: Final = logging.getLogger("bra")
NOTHING: Final[Mapping[str, WatchedNumbers]] = MappingProxyType({})
EXACT: Final = 64
"""Windows up to which the logits are kept in 32 bits; those of more in 16."""
MOST: Final = 1024
"""Windows up to which the logits are kept at all."""
QUALITY: Final = 85
OWN: Final = "bra.attention.BiLevelRoutingAttention"


@dataclass(frozen=True, slots=True, eq=False)
class FixedInput:
    """What the model is watched on.

    Attributes:
        x: (1, c, h, w) as the network reads it.
        boxes: (n, 5) class, x0, y0, x1, y1 in pixels of x; None where they are not known.
        rgb: x as a picture (h, w, 3) uint8; None where it is none.
        picture: the same as WebP; b"" likewise.
        stretched: whether its numbers were stretched to be seen.
    """

    x: Tensor = field(repr=False)
    boxes: NDArray[np.float64] | None
    rgb: NDArray[np.uint8] | None = field(repr=False)
    picture: bytes = field(repr=False)
    stretched: bool


def fixed_input(photo: Any, size: int, boxes: ArrayLike | None = None) -> FixedInput:
    """A picture as most models read one, sides multiples of 32 and the longer `size`; a tensor (1, c, h, w) as it is.

    Args:
        photo: anything that `Photo.of` takes, or the tensor that the network reads.
        size: longer side in pixels.
        boxes: (n, 5) class, x0, y0, x1, y1 in pixels of the picture as given.

    Raises:
        BRAError: the picture cannot be read, or the boxes are none.
    """
    if isinstance(photo, Tensor):
        if photo.ndim != 4 or not len(photo):
            raise BRAError(message("a tensor of shape {shape} cannot be watched on: give (1, channels, height, width).",
                                   shape=str(tuple(photo.shape))))
        x = photo[:1].detach().clone()
        width, height = int(x.shape[3]), int(x.shape[2])
    else:
        read = Photo.of(photo)
        x, (width, height) = bra_record.read_picture(read.rgb, size), read.original_size
    scaled = None
    if boxes is not None:
        scaled = np.asarray(boxes, np.float64)
        if scaled.ndim != 2 or scaled.shape[1] != 5 or not np.isfinite(scaled).all():
            raise BRAError(message("boxes of shape {shape} are not possible: give (n, 5) of class, x0, y0, x1, y1 in "
                                   "pixels.", shape=str(scaled.shape)))
        scaled = scaled * [1, *[x.shape[3] / width, x.shape[2] / height] * 2]
    pixels, stretched = bra_record.picture_of(x)
    picture = b"" if pixels is None else bra_record.encoded(pixels, QUALITY)[1].tobytes()
    return FixedInput(x, scaled, pixels, picture, stretched)


def watched_layers(network: nn.Module, given: FixedInput) -> dict[str, LayerTrace]:
    """The routed layers of one forward of a network in eval mode, by name. No random numbers are left drawn.

    Raises:
        TraceError: no BRA layer ran, or none whose routing could be followed.
    """
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(0))
    devices = [like.device] if like.is_cuda else []
    with torch.random.fork_rng(devices):
        found = trace(network, given.x.to(like.device, like.dtype if given.x.is_floating_point() else given.x.dtype))
    layers = {name: layer for name, layer in found.layers.items() if layer.routed}
    if not layers:
        raise TraceError(message("{model} ran without a layer that routes: choose a model that has one.",
                                 model=type(network).__name__))
    return layers


class TimelineFile:
    """The file of a watched training, to be appended to.

    Args:
        path: of the file; one that is there is gone on with.
        model: class of the network.
        given: what the model is watched on.
    """

    def __init__(self, path: Path, model: str, given: FixedInput) -> None:
        self.path = path
        self.given = given
        self.model = model

    def append(self, epoch: int, layers: Mapping[str, LayerTrace], numbers: Mapping[str, WatchedNumbers]) -> None:
        """Add an epoch in one piece of writing, after cutting off a part that a killed run left at the end.

        Raises:
            BRAError: the file is of something else, or as large as it may be.
        """
        head = {"epoch": epoch, "layers": {name: one.to_dict() for name, one in numbers.items()}}
        added = framed(EPOCH, head, routing_recording(self.model, layers.values(), tuple(self.given.x.shape)))
        beginning = MAGIC + framed(PICTURE, {"version": VERSION, "model": self.model, "stretched": self.given.stretched,
                                             "input": list(self.given.x.shape)}, self.given.picture)
        if not self.path.is_file() or not self.path.stat().st_size:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            added, end = beginning + added, 0
        else:
            end = self._end(beginning)
        if end + len(added) > MAX_BYTES:
            raise BRAError(message("{path} is as large as it may be, {most:g} MB: watch fewer epochs, with every=5.",
                                   path=str(self.path), most=MAX_BYTES / 2**20))
        with self.path.open("r+b" if end else "wb") as file:
            file.truncate(end)
            file.seek(end)
            file.write(added)

    def _end(self, beginning: bytes) -> int:
        """Where the last whole frame ends."""
        data = self.path.read_bytes()
        if not is_timeline(data) and not MAGIC.startswith(data):
            raise BRAError(message("{path} is of no watched training, and is left as it is: give another folder.",
                                   path=str(self.path)))
        whole = [*frames(data)]
        if not whole:
            return 0
        if data[:whole[0].end] != beginning:
            raise BRAError(message("{path} is of another model, another picture or another size: give another folder, "
                                   "or delete it.", path=str(self.path)))
        if len(whole) > MAX_EPOCHS:
            raise BRAError(message("{path} has {most:,} epochs, as many as it may: watch fewer, with every=5.",
                                   path=str(self.path), most=MAX_EPOCHS))
        return whole[-1].end


def routing_recording(model: str, layers: Any, shape: Sequence[int]) -> bytes:
    """Layers as a recording of their routing alone: no picture, and no numbers of attention.

    Args:
        model: class of the network.
        layers: traces, of which the first image counts.
        shape: of what the network read.
    """
    entries, arrays = [], {}
    for number, layer in enumerate(layers):
        entry, own = _entry(layer)
        entries.append(entry)
        arrays.update({f"{number}.{name}": array for name, array in own.items()})
    about = {"version": bra_record.VERSION, "model": model, "weights": "", "input": list(shape), "layers": entries,
             "unknown": {}, "table": [], "picture": None, "detections": [], "classes": []}
    return save(arrays, {
        "format": "bra-recording", "version": str(bra_record.VERSION),
        "about": json.dumps(about, ensure_ascii=True, allow_nan=False)})


def _entry(layer: LayerTrace) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """One layer's description and arrays, as `bra_record` writes them."""
    grid, spec, proof = layer.grid, layer.spec, layer.proof
    rows = cols = grid.n_win
    kept = np.arange(grid.n_windows)
    if proof is not None and proof.rule == "floor":         # its windows were laid out in a square of more
        rows, cols = -(-grid.h // grid.window_h), -(-grid.w // grid.window_w)
        kept = (np.arange(rows)[:, None] * grid.n_win + np.arange(cols)).ravel()
    place = np.full(grid.n_windows, -1)
    place[kept] = np.arange(len(kept))
    p2 = len(kept)
    arrays: dict[str, NDArray[Any]] = {
        "r_idx": place[layer.r_idx[:1, kept].numpy()].astype(np.int16),
        "r_weight": layer.r_weight[:1, kept].float().numpy()}
    if (proof is None or proof.affinity) and p2 <= MOST:
        logits = layer.affinity[:1, kept][:, :, kept].float().numpy()
        # What is beyond 16 bits must not become infinite: infinity is what routing may not choose.
        arrays["affinity"] = logits if p2 <= EXACT else \
            np.where(np.isfinite(logits), logits.clip(-6e4, 6e4), logits).astype(np.float16)
    return {
        "name": layer.name, "type": OWN if proof is None else proof.kind, "size": [grid.h, grid.w],
        "windows": [rows, cols], "region": [grid.window_h, grid.window_w], "n_win": grid.n_win, "topk": spec.topk,
        "heads": spec.num_heads, "scale": spec.scale, "soft": spec.soft_routing, "mask_padding": spec.mask_padding,
        "rule": "pad" if proof is None else proof.rule, "routing": "heard" if proof is None else proof.routing,
        "pool": ["identity", 1, 1], "dim": spec.dim, "bits": 0, "known": layer.attention_known, "compared": "output",
        "difference": None if proof is None else proof.difference, "stored_difference": None, "note": "",
        "dtype": "float32"}, arrays


class Watch:
    """Called after each epoch, appends the routing of every BRA layer on a fixed picture to a file.

    Attributes:
        path: of the file.
    """

    def __init__(self, model: Any, photo: Any, folder: str | Path, every: int = 1, size: int = 640,
                 boxes: ArrayLike | None = None) -> None:
        check_every(every)
        self.network = network_in(model)
        self.every = every
        self.given = fixed_input(photo, size, boxes)
        self.path = Path(folder) / FILE
        self.file = TimelineFile(self.path, type(self.network).__name__, self.given)
        self.told: set[str] = set()

    def __call__(self, epoch: int) -> Mapping[str, WatchedNumbers]:
        """Watch after an epoch, if it is one of those to be watched.

        Args:
            epoch: its number, from 0 or 1 on.

        Returns:
            The numbers of each layer by name; empty where it was not watched.
        """
        if epoch % self.every:
            return NOTHING
        try:
            # A copy, since a forward may leave things on a module that training then stumbles over.
            return self.watch(copy.deepcopy(self.network).eval(), int(epoch))[1]
        except Exception as error:      # whatever it is, a training of days does not end for it
            self.tell(error)
            return NOTHING

    def watch(self, network: nn.Module, epoch: int) -> tuple[Mapping[str, LayerTrace], Mapping[str, WatchedNumbers]]:
        """Run a network in eval mode, and append what its layers did: their traces and numbers, by name.

        Raises:
            BRAError: it has no such layer, or the file cannot be appended to.
        """
        layers = watched_layers(network, self.given)
        numbers = {name: watched_numbers(layer, self.given.boxes) for name, layer in layers.items()}
        self.file.append(epoch, layers, numbers)
        return layers, MappingProxyType(numbers)

    def tell(self, error: Exception) -> None:
        """Say in the log what went wrong, once."""
        words = f"{type(error).__name__}: {error}" if not isinstance(error, BRAError) else str(error)
        if words not in self.told and len(self.told) < MOST:
            self.told.add(words)
            LOG.warning("routing is not watched: %s", words)


def watch(model: Any, photo: Any, folder: str | Path, every: int = 1, size: int = 640,
          boxes: ArrayLike | None = None) -> Watch:
    """Watch a model's routing on one picture while any loop of yours trains it; call what is returned with the epoch.

    Args:
        model: the module that is trained, or an object whose module it is. For Ultralytics see `bra.yolo.watch`.
        photo: a file, a Photo, (H, W, 3) uint8, a PIL image, or the tensor (1, c, h, w) that the module reads.
        folder: gets routing.bra; one that is there is gone on with.
        every: epochs from one that is watched to the next.
        size: longer side in pixels at which the module gets the picture, as RGB in 0 to 1; tensors go in as they are.
        boxes: (n, 5) class, x0, y0, x1, y1 in pixels of the photo, where they are known: then it is also watched
            whether windows are routed to windows that show the same.

    Raises:
        BRAError: the picture cannot be read, or an argument cannot be. Later nothing is raised.
    """
    return Watch(model, photo, folder, every, size, boxes)


def check_every(every: Any) -> None:
    """Raise BRAError unless it is a whole number from 1 on."""
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise BRAError(message("every={every!r} is not possible: give a whole number from 1 on.", every=every))


def network_in(model: Any) -> nn.Module:
    """The network that is meant: what was compiled or wrapped for several devices is taken out.

    Raises:
        TraceError: there is none.
    """
    return networks_of(getattr(model, "_orig_mod", model))[0]
