"""A recording as a model that can be looked into: the picture, the answer and the traces are those of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from bra.bra_record import Heard
from bra.errors import BRAError
from bra.hooks import rerouted
from bra.messages import message
from bra.models.base import Answer, Change, Detection, ModelRun, OpenModel, Prepared, no_rerun, on_photo
from bra.photo import Photo
from bra.profiling.model_cost import Cost, CostRow
from bra.readers.recording import Recording, TableRow, read_recording, trace_of
from bra.spec import BRASpec
from bra.tracing import LayersByName, LayerTrace, ModelTrace


@dataclass(frozen=True, slots=True, eq=False)
class OpenRecording(OpenModel):
    """One recorded forward: it looks at its own picture only, and nothing of the model runs.

    Other windows in one layer are computed from the recorded q, k and v; layers after it stay as they were.

    Attributes:
        recording: what the file holds.
    """

    recording: Recording = field(kw_only=True)

    @property
    def photo(self) -> Photo | None:
        """What the network read, as a picture."""
        return self.recording.photo

    @property
    def runs(self) -> bool:
        """No: it holds what a model did, and not the model."""
        return False

    @property
    def cost(self) -> Cost:
        """What the recorder counted: parameters and multiply-adds of each row. Of bytes and time it knows nothing, and
        rows with code of their own say so in their name."""
        macs, layers = sum(row.macs for row in self.table), [*self.recording.trace.layers]
        rows = tuple(CostRow(_row_name(row, layers), row.params, row.macs, 0, 0, row.macs / macs if macs else 0.0,
                             row.macs, returned=(row.out,) if row.out else ()) for row in self.table)
        total = CostRow("total", sum(row.params for row in rows), macs, 0, 0, 1.0, macs)
        return Cost(self.recording.model, self.recording.input, rows, total, ())

    @property
    def table(self) -> tuple[TableRow, ...]:
        """Rows of the recorded model."""
        return self.recording.table

    @property
    def specs(self) -> Mapping[str, BRASpec]:
        """Settings of every layer whose windows can be changed, by name."""
        return MappingProxyType(LayersByName({name: layer.spec for name, layer in self.recording.trace.layers.items()
                                              if layer.attention_known and layer.routed}))

    @property
    def attending(self) -> tuple[str, ...]:
        """Names of the layers that do not route."""
        return tuple(name for name, layer in self.recording.trace.layers.items() if not layer.routed)

    def prepare(self, photo: Photo, side: int) -> Prepared:
        """An empty input of the recorded size: nothing runs on it."""
        shape = self.recording.input
        h, w = (shape[2], shape[3]) if len(shape) == 4 else (photo.height, photo.width)
        return Prepared(torch.empty(1, 3, 0, 0), 0, 0, h, w)

    def answer(self, out: Any, prepared: Prepared) -> Answer:
        """What the recorded model said."""
        return Answer(tuple(Detection(*one) for one in self.recording.detections), self.recording.classes)

    def look(self, photo: Photo, side: int, change: Change | None = None) -> ModelRun:
        """The recorded forward.

        Args:
            photo: the recording's own; any other is refused.
            side: of no effect.
            change: other windows in one layer.

        Raises:
            BRAError: another picture, or a change that cannot be.
        """
        self.check_photo(photo)
        layers = dict(self.recording.trace.layers)
        if change is not None:
            if change.mask_padding is not None:
                raise BRAError(message("a recording cannot be masked: it holds no input that could be padded anew."))
            if change.routing is not None:
                raise BRAError(no_rerun())
            spec = layers[change.layer].spec if change.layer in layers else BRASpec(64)
            layers[change.layer] = self.trace_with(change.layer, change.n_win or spec.n_win, change.topk or spec.topk)
        prepared = self.prepare(photo, side)
        laid = {name: on_photo(layer, prepared) for name, layer in layers.items()}
        trace = ModelTrace(None, MappingProxyType(laid), self.recording.trace.unknown)
        return ModelRun(trace, self.answer(None, prepared))

    def check_photo(self, photo: Photo) -> None:
        """Raise BRAError unless a photo is the recording's own."""
        if self.photo is not None and photo != self.photo:
            raise BRAError(message("a recording holds one picture and no model that could run on another: record that "
                                   "picture, or choose the model's file."))

    def trace_with(self, layer: str, n_win: int, topk: int) -> LayerTrace:
        """A layer's trace with other windows, from its recorded q, k and v.

        Args:
            layer: its name.
            n_win: windows per side, as the layer is set; its own rule makes windows of it.
            topk: windows that each is routed to.

        Raises:
            BRAError: there is no such layer, its attention is not known, or it cannot have such windows.
        """
        return trace_of(self.rerouted(layer, n_win, topk), self._image)

    def rerouted(self, layer: str, n_win: int, topk: int) -> Heard:
        """A layer as it would have been heard with other windows; arguments and errors as for `trace_with`."""
        heard = self.recording.layers.get(layer)
        if heard is None or heard.reach is not None:
            raise BRAError(message("layer {layer!r} has no windows to change: choose one of {layers}.", layer=layer,
                                   layers=", ".join(self.specs)))
        return rerouted(heard, n_win, topk)

    def on_own_photo(self, heard: Heard) -> LayerTrace:
        """The trace of one of its layers, laid on its picture."""
        h, w = self._image or (1, 1)
        return on_photo(trace_of(heard, self._image), Prepared(torch.empty(1, 3, 0, 0), 0, 0, h, w))

    @property
    def _image(self) -> tuple[int, int] | None:
        """(height, width) of what the network read, where it was a picture."""
        shape = self.recording.input
        return (shape[2], shape[3]) if len(shape) == 4 else None


def _row_name(row: TableRow, layers: Sequence[str]) -> str:
    name = f"{row.name} {row.kind.rpartition('.')[2]}"
    if any(f"{layer}.".startswith(f"{row.name}.") or not row.name for layer in layers):
        name = message("{name} · BRA", name=name)
    return name if row.counted else message("{name} (code of its own, not all counted)", name=name)


def open_recording(data: bytes, name: str) -> OpenRecording:
    """The bytes of a recording -> a model that can be looked into.

    Raises:
        BRAError: it is none, is damaged, or asks for too much.
    """
    recording = read_recording(data)
    return OpenRecording(nn.Identity(), name, message("recorded with {model}", model=recording.model),
                         recording=recording)
