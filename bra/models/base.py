"""A model that can be looked into, whatever it is: photo in, trace and answer out, everything laid on the photo."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from bra.attention import BiLevelRoutingAttention, GivenRouting
from bra.errors import LIBRARY, BRAError, TraceError, brief
from bra.hooks import attending_layers, needs_hooks
from bra.messages import message, semicolon_joined
from bra.models.steps import Step
from bra.photo import Photo
from bra.spec import BRASpec
from bra.tracing import LayersByName, LayerTrace, ModelTrace, trace

UNTRAINED: Final = message("untrained, random weights")
"""Provenance of weights that nobody trained."""
WARNING: Final = message("Untrained weights, drawn at random: this shows how routing works, not where a trained model "
                         "looks.")
"""What stands in large letters above all that comes of such weights, and in every file of it."""

KEPT_CLASSES: Final = 10
"""Classes of a classifier's answer that are kept, most likely first."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A photo as a model reads it.

    Attributes:
        x: (1, 3, h, w).
        top: rows of x above the photo.
        left: columns of x left of the photo.
        height: rows of x that the photo takes.
        width: columns of x that the photo takes.
    """

    x: Tensor = field(repr=False)
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Detection:
    """Something found.

    Attributes:
        label: its class.
        score: 0 to 1.
        box: left, top, right, bottom as shares of the photo's width and height.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of a photo: things found, or its most likely classes with their probabilities."""

    detections: tuple[Detection, ...] = ()
    classes: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What a file cannot tell of its model, where whoever made it knows.

    Attributes:
        n_win: windows per side in every stage, of BiFormer weights without their modules; None for the published ones.
        topks: routed windows per stage of such weights, -2 for a stage of full attention; empty for the published ones.
        heads_first: whether rows of BiLevelRoutingAttention in a YOLO model file begin with the heads, as the official
            class does; the tutorial's begins with the windows.
        epoch: which epoch of the file of a watched training; None for the last.
    """

    n_win: int | None = None
    topks: tuple[int, ...] = ()
    heads_first: bool = False
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Other windows in one layer, another choice among them, or its padding masked: what would it see if …

    Attributes:
        layer: its name.
        n_win: windows per side; None for its own.
        topk: windows each window is routed to; None for its own.
        mask_padding: whether padded tokens are left out; None for as it was built.
        routing: for each window the windows that it is routed to, equally many, in place of the layer's own choice;
            topk is then of no account. None for its own choice.
    """

    layer: str
    n_win: int | None = None
    topk: int | None = None
    mask_padding: bool | None = None
    routing: tuple[tuple[int, ...], ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class ModelRun:
    """One forward on one photo: its trace, whose grids lie on the photo, and its answer."""

    trace: ModelTrace
    answer: Answer


def no_attention(model: str) -> str:
    """What is said of a model without any attention layer that is known here, and what can be done about it."""
    return message("{model} has no layer of bi-level routing attention and no other attention over the tokens of a "
                   "picture, so there is nothing to see: Cost says where to put one and writes the model file, "
                   "bra transplant carries these weights into it, and after bra train it opens here.", model=model)


def no_routing(model: str) -> str:
    """What is said where routing is needed, of a model without bi-level routing attention, and what can be done."""
    return message("{model} has no layer of bi-level routing attention, so there is no routing to see: Cost says where "
                   "to put one and writes the model file, bra transplant carries these weights into it, and after "
                   "bra train it opens here.", model=model)


def no_rerun() -> str:
    """What is said where a model has to run again, of a recording, and what can be done."""
    return message("a recording holds what a model did, and not the model: nothing can run again with other windows. "
                   "Open the model's file.")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OpenModel(ABC):
    """A model in eval mode.

    Attributes:
        module: the model; its weights are never changed.
        label: its name for people.
        provenance: where its weights come from, in the words that stand under every figure.
        classes: names of what it can tell apart; empty for a model whose answer means nothing.
        assumptions: what was assumed where the file does not say it; these stand under every figure too.
        notes: what in the file was left out, said once.
        asks: options of `FileOptions` that whoever made the file may know.
    """

    module: nn.Module
    label: str
    provenance: str
    classes: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    # Some models note sizes on themselves as they run, so one runs at a time.
    lock: Any = field(default_factory=Lock, repr=False)

    def __repr__(self) -> str:
        params = sum(p.numel() for p in self.module.parameters()) / 1e6
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return (f"{type(self).__name__}({str(self.label)!r}: {type(self.module).__name__} of {params:.2f} M "
                f"parameters, {len(self.specs)} routed layers{classes}; {self.provenance})")

    @property
    def photo(self) -> Photo | None:
        """The one picture that it can be looked at on; None for a model that runs on any."""
        return None

    @property
    def runs(self) -> bool:
        """Whether it can run, on other pictures and otherwise made; False for a recording of a model."""
        return True

    @property
    def origin(self) -> str:
        """Provenance and assumptions, as they stand under every figure."""
        return semicolon_joined((self.provenance, *self.assumptions))

    @property
    def untrained(self) -> bool:
        """Whether its weights are random ones."""
        return self.provenance == UNTRAINED

    @property
    def specs(self) -> Mapping[str, BRASpec]:
        """Settings of every routed layer, by name."""
        return MappingProxyType(LayersByName({name: layer.spec for name, layer in self.module.named_modules()
                                              if isinstance(layer, BiLevelRoutingAttention)}))

    @property
    def only_attends(self) -> bool:
        """Whether it has attention that can be seen, and none that routes."""
        return bool(self.attending) and not self.specs

    @property
    def attending(self) -> tuple[str, ...]:
        """Names of its layers of other libraries whose attention does not route."""
        return attending_layers(self.module)

    @abstractmethod
    def prepare(self, photo: Photo, side: int) -> Prepared:
        """The photo as the model reads it, its longer side about `side` pixels."""

    @abstractmethod
    def answer(self, out: Any, prepared: Prepared) -> Answer:
        """What the output `out` of the model says."""

    def steps(self) -> tuple[Step, ...]:
        """Its forward as steps, for `rerun.run_from`; none where it cannot be told apart into such."""
        return ()

    def look(self, photo: Photo, side: int, change: Change | None = None) -> ModelRun:
        """Run the model on a photo.

        Args:
            photo: the picture.
            side: its longer side in pixels when the model reads it.
            change: other windows in one layer.

        Raises:
            BRAError: the change cannot be, the photo does not suit a layer, or a layer's numbers are not finite.
        """
        module = private(self.module) if change is None else with_windows(self.module, change)
        prepared = self.prepare(photo, side)
        with self.running(prepared):
            traced = trace(module, prepared.x)
            answer = self.answer(traced.out, prepared)
        layers = {name: on_photo(layer, prepared) for name, layer in traced.layers.items()}
        return ModelRun(ModelTrace(traced.out, layers), answer)

    @contextmanager
    def running(self, prepared: Prepared) -> Iterator[None]:
        """Around one run of the model: nobody else's at the same time, and where it breaks off, a sentence.

        A stranger's rows may suit one size of picture and not another, which only running them tells.

        Raises:
            BRAError: the model does not run on this input.
        """
        with self.lock:
            try:
                yield
            except BRAError:
                raise
            except LIBRARY as error:
                height, width = prepared.x.shape[-2:]
                raise BRAError(message("this model does not run on a picture of {width}×{height} px ({error}): choose "
                                       "another size, or another model.", width=width, height=height,
                                       error=brief(error))) from error


def on_photo(layer: LayerTrace, at: Prepared) -> LayerTrace:
    """The same trace, its grid in pixels of the photo as it lies in the model's input.

    Raises:
        TraceError: its attention is no numbers.
    """
    check_finite(layer.name, layer.q, layer.k)
    grid = replace(layer.grid, origin=(float(-at.top), float(-at.left)), image=(at.height, at.width))
    return replace(layer, grid=grid)


def check_finite(layer: str, q: Tensor, k: Tensor) -> None:
    """Raise TraceError where products of queries and keys (…, channels) may overflow: attention is then no numbers.

    Finite weights are no help against it, they may be as large as they like.
    """
    largest = [max(abs(float(end)) for end in t.aminmax()) if t.numel() else 0.0 for t in (q, k)]
    if not largest[0] * largest[1] * q.shape[-1] < torch.finfo(torch.float32).max:      # nor where it is NaN
        raise TraceError(message("layer {layer!r} computes numbers that are not finite on this picture: choose a "
                                 "checkpoint of a healthy training.", layer=layer))


def private(model: nn.Module) -> nn.Module:
    """A model that listeners may hang on: itself where its layers report themselves and none is needed, or else a copy
    over the same weights."""
    return copy.deepcopy(model, _weights_of(model)) if needs_hooks(model) else model


def _weights_of(model: nn.Module) -> dict[int, object]:
    """What a copy of a model shares with it, as `copy.deepcopy` wants it told."""
    return {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}


def with_windows(model: nn.Module, change: Change) -> nn.Module:
    """A model over the same weights whose layer `change.layer` has other windows; `model` stays as it is.

    No weight is copied: n_win, topk, the mask and a choice of windows have none.

    Raises:
        BRAError: there is no such layer, or it cannot have such windows.
    """
    routed = [name for name, layer in model.named_modules() if isinstance(layer, BiLevelRoutingAttention)]
    if change.layer not in routed:
        raise BRAError(message("layer {layer!r} has no windows to change: choose one of {layers}.", layer=change.layer,
                               layers=", ".join(routed)))
    layer = model.get_submodule(change.layer)
    assert isinstance(layer, BiLevelRoutingAttention)
    wanted = {name: value for name in ("n_win", "topk", "mask_padding")
              if (value := getattr(change, name)) is not None}
    if change.routing is not None:
        wanted["topk"] = len(change.routing[0]) if change.routing else 0
    changed = layer.with_spec(replace(layer.spec, **wanted))
    if change.routing is not None:
        router = GivenRouting(changed.router, checked_routing(change.routing, changed.n_win**2))
        changed = copy.deepcopy(changed, _weights_of(changed) | {id(changed.router): router})
    return copy.deepcopy(model, _weights_of(model) | {id(layer): changed})


def checked_routing(routing: tuple[tuple[int, ...], ...], n: int) -> Tensor:
    """Routed windows of each of n windows as a tensor (n, k).

    Raises:
        BRAError: there is not one row for each window, rows are not equally long, or a row names a window that is not
            there, or one twice.
    """
    if len(routing) != n or any(len(row) != len(routing[0]) for row in routing):
        raise BRAError(message("a routing of {n} windows needs {n} rows of equally many windows, and this one has "
                               "{rows} rows: give each window as many as topk.", n=n, rows=len(routing)))
    for window, row in enumerate(routing):
        if len({*row}) < len(row) or not all(0 <= one < n for one in row):
            raise BRAError(message("window {window} cannot be routed to {row}: choose different windows of 0 to "
                                   "{last}.", window=window, row=", ".join(map(str, row)), last=n - 1))
    return torch.tensor(routing, dtype=torch.int64)

