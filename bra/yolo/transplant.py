"""Carries pretrained weights into a model that has more rows, so that its layers are numbered otherwise.

Ultralytics loads by name, and a name holds the layer's number: after an insertion it takes tensors of the same shape
from the wrong layer, silently. Here layers are aligned first, then tensors are carried, then the carrying is proved on
a copy whose tensors hold the number of the layer they are from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
import ultralytics
from torch import nn
from ultralytics import YOLO

from bra.errors import LIBRARY, BRAError, YoloError, brief
from bra.messages import message
from bra.yolo.edit import read_yaml
from bra.yolo.lint import model_text
from bra.yolo.rows import rows_of

Shape = tuple[int, ...]
STANDS_FOR: Final = {"C2fBRA": "C2f", "C2PSABRA": "C2PSA"}
"""Rows with our attention inside, and what a pretrained model has in their place; the attention starts fresh."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One numbered layer of a model.

    Attributes:
        index: its number.
        kind: its class, or for a row of `STANDS_FOR` the one that it stands for.
        shapes: its tensors by name.
        sources: numbers of the layers it reads; -1 is the image.
    """

    index: int
    kind: str
    shapes: Mapping[str, Shape]
    sources: tuple[int, ...]

    def common(self, other: Layer) -> list[str]:
        """Names of the tensors that fit in both; none unless they are of one kind."""
        if self.kind != other.kind:
            return []
        return [name for name, shape in self.shapes.items() if other.shapes.get(name) == shape]


@dataclass(frozen=True, slots=True)
class Transplant:
    """What was carried and what was not.

    Attributes:
        layers: target layer -> source layer it was filled from.
        carried: names of the target's tensors that were filled.
        fresh: names of the target's tensors that keep their initial values.
        unused: names of the source's tensors that found no place.
        by_name: how many a loading by name would have taken from a wrong layer.
    """

    layers: Mapping[int, int]
    carried: Sequence[str] = field(repr=False)
    fresh: Sequence[str] = field(repr=False)
    unused: Sequence[str] = field(repr=False)
    by_name: int

    def __str__(self) -> str:
        total = len(self.carried) + len(self.fresh)
        lines = [f"carried {len(self.carried)} of {total} tensors; {len(self.fresh)} start fresh, {len(self.unused)} "
                 "of the source are unused"]
        moved = [f"{source}→{target}" for target, source in self.layers.items() if source != target]
        lines.append(f"layers that moved: {', '.join(moved) or 'none'}")
        for title, names in (("fresh", self.fresh), ("unused", self.unused)):
            if names:
                lines.append(f"{title}: {', '.join(_by_layer(names))}")
        lines.append(f"proved on a copy: no tensor is from a wrong layer (loading by name: {self.by_name})")
        return "\n".join(lines)


def transplant(weights: str | Path, model: str | Path, output: str | Path) -> Transplant:
    """Write a checkpoint of `model` that begins with what `weights` has learned.

    Args:
        weights: a checkpoint (.pt).
        model: a model file, or the name of one that Ultralytics or this package has, with its scale.
        output: the checkpoint to write; train it with YOLO(output).train(…).

    Raises:
        YoloError: one of them is no model, nothing fits, or the proof fails.
    """
    source, target = _opened(weights), _opened(model)
    old, new = source.model.float(), target.model
    if len(old.names) != len(new.names):
        # The last convolution of the head has as many filters as there are classes.
        new = target.model = _like(new, nc=len(old.names))
    new.names = old.names
    result = carry(old, new)
    if not result.carried:
        raise YoloError(message("nothing of {weights} fits {model}: give a model of the same family and scale.",
                                weights=str(weights), model=str(model)))
    write_checkpoint(new, output)
    return result


def _opened(path: str | Path) -> Any:
    """Ultralytics' YOLO of a file or name, as it opens it; a refusal in one sentence."""
    if Path(path).suffix in (".yaml", ".yml"):
        rows_of(read_yaml(model_text(path)))
    elif Path(path).suffix != ".pt":
        # Ultralytics takes any other ending for a model in another format, and keeps its name in place of the model.
        raise YoloError(message("{path} is neither weights nor a model file: give a .pt file that training wrote, or a "
                                ".yaml file.", path=str(path)))
    try:
        return YOLO(str(path))
    except BRAError:
        raise
    except LIBRARY as error:
        raise YoloError(message("Ultralytics cannot open {path} ({error}): give a .pt file that training wrote, or a "
                                ".yaml file.", path=str(path), error=brief(error))) from error


def write_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Write what YOLO(path) opens: the model in full precision, and nothing of a training."""
    with open(path, "wb") as file:      # torch's own message, where it opens the file, is no OSError
        torch.save({"epoch": -1, "model": copy.deepcopy(model), "ema": None, "optimizer": None, "train_args": {},
                    "version": ultralytics.__version__}, file)


def carry(old: nn.Module, new: nn.Module) -> Transplant:
    """Fill `new` with what fits of `old`, layer by layer, after the same was proved on a copy.

    Raises:
        YoloError: a tensor of the copy came from a layer that is not wired like its own.
    """
    sources, targets = layers_of(old), layers_of(new)
    pairs = align(sources, targets)
    names = _names(sources, targets, pairs)
    _prove(old, new, names, sources, targets)
    state = old.state_dict()
    new.load_state_dict({to: state[origin] for to, origin in names.items()}, strict=False)
    right = {to: _number(origin) for to, origin in names.items()}
    ours, theirs = new.state_dict(), set(names.values())
    by_name = sum(name in state and state[name].shape == tensor.shape and right.get(name) != _number(name)
                  for name, tensor in ours.items())
    return Transplant(pairs, list(names), [name for name in ours if name not in names],
                      [name for name in state if name not in theirs], by_name)


def layers_of(model: nn.Module) -> list[Layer]:
    """The numbered layers of an Ultralytics model."""
    layers: Any = model.model
    found = []
    for layer in layers:
        given = [layer.f] if isinstance(layer.f, int) else layer.f
        kind = type(layer).__name__
        shapes = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()
                  if not (kind in STANDS_FOR and "attn" in name.split("."))}
        found.append(Layer(layer.i, STANDS_FOR.get(kind, kind), shapes,
                           tuple(layer.i + f if f < 0 else f for f in given)))
    return found


def align(sources: Sequence[Layer], targets: Sequence[Layer]) -> dict[int, int]:
    """Target layer -> source layer, in order, such that the most tensors are carried, then the most layers paired.

    The longest common subsequence with weights. `difflib` would do on most models, but it takes the longest run first,
    and the runs of a backbone repeat themselves.
    """
    gain = [[(0, 0)] * (len(targets) + 1) for _ in range(len(sources) + 1)]

    def paired(i: int, j: int) -> tuple[int, int]:
        tensors, layers = gain[i + 1][j + 1]
        return tensors + len(sources[i].common(targets[j])), layers + 1

    for i in reversed(range(len(sources))):
        for j in reversed(range(len(targets))):
            without = max(gain[i + 1][j], gain[i][j + 1])
            gain[i][j] = max(without, paired(i, j)) if sources[i].kind == targets[j].kind else without
    pairs, i, j = {}, 0, 0
    while i < len(sources) and j < len(targets):
        if sources[i].kind == targets[j].kind and gain[i][j] == paired(i, j):
            pairs[targets[j].index] = sources[i].index
            i, j = i + 1, j + 1
        elif gain[i][j] == gain[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _names(sources: Sequence[Layer], targets: Sequence[Layer], pairs: Mapping[int, int]) -> dict[str, str]:
    return {f"model.{to}.{name}": f"model.{origin}.{name}" for to, origin in pairs.items()
            for name in sources[origin].common(targets[to])}


def _prove(old: nn.Module, new: nn.Module, names: Mapping[str, str], sources: Sequence[Layer],
           targets: Sequence[Layer]) -> None:
    """Paint every tensor of a copy with its layer's number, carry it, and look where each number is found.

    What is found is judged by the wiring, which the alignment never looked at: a layer is right when the layers that it
    reads were filled from those that its origin reads, whatever was inserted between.
    """
    painted = {name: torch.full_like(tensor, _number(name)) for name, tensor in old.state_dict().items()}
    copied = copy.deepcopy(new)
    with torch.no_grad():
        for tensor in copied.state_dict().values():
            tensor.fill_(-1)
    copied.load_state_dict({to: painted[origin] for to, origin in names.items()}, strict=False)
    seen: dict[int, set[int]] = {}
    for name, tensor in copied.state_dict().items():
        numbers = {int(tensor.min()), int(tensor.max())} if tensor.numel() else set()
        seen.setdefault(_number(name), set()).update(numbers - {-1})
    origin = {to: next(iter(numbers)) for to, numbers in seen.items() if numbers}
    known = {source: source for source in origin.values()}
    for to, source in origin.items():
        ours = [_upstream(at, targets, origin) for at in targets[to].sources]
        if len(seen[to]) > 1 or ours != [_upstream(at, sources, known) for at in sources[source].sources]:
            raise YoloError(message("layer {to} ({kind}) would be filled from layer {source}, which reads other "
                                    "layers: check the numbers in its row, here {sources}, with bra lint.", to=to,
                                    kind=targets[to].kind, source=source, sources=list(targets[to].sources)))


def _upstream(at: int, layers: Sequence[Layer], origin: Mapping[int, int]) -> Any:
    """Origins of the nearest filled layers above and including `at`; a list where several are joined."""
    if at < 0 or at in origin:
        return origin.get(at, -1)
    above = [_upstream(source, layers, origin) for source in layers[at].sources]
    return above[0] if len(above) == 1 else above


def _number(name: str) -> int:
    """Layer of a tensor's name: model.15.cv1.conv.weight -> 15."""
    return int(name.split(".")[1])


def _by_layer(names: Sequence[str]) -> list[str]:
    """model.22.cv3.0.2.weight and its like -> "layer 22 (6)"."""
    counts: dict[int, int] = {}
    for name in names:
        counts[_number(name)] = counts.get(_number(name), 0) + 1
    return [f"layer {layer} ({count})" for layer, count in counts.items()]


def _like(model: Any, nc: int) -> Any:
    """A new model of the same file for other classes, with what Ultralytics expects to find on it."""
    made = type(model)(model.yaml, nc=nc, verbose=False)
    made.args, made.task = model.args, model.task
    return made
