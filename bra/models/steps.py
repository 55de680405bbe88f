"""A forward as steps, so that it can go on from the middle: other windows in one layer change nothing before it.

A step is a row of a YOLO model, or a block of a BiFormer. Before each step that routes, what it and the later ones
still need is copied and kept; a forward with other windows in that step's layer begins there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bra.attention import BiLevelRoutingAttention

POINT_BYTES = 2**26
"""Most that the points of one forward hold: 64 MiB. Beyond it the earliest are dropped, which save the least."""
INPUT = -1
"""In the place of a step's number: the model's input."""
Point = Mapping[int, Tensor]
"""Outputs of earlier steps by number, as they were before some step."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        name: of its module in the model; its layers' names begin with it.
        run: a module, or a function.
        sources: whose outputs it takes, by number.
        listed: whether it takes them as a list; else it takes its only one as it is.
    """

    name: str
    run: Callable[..., Any]
    sources: tuple[int, ...]
    joined: bool = False

    @property
    def routes(self) -> bool:
        """Whether a layer with windows is in it."""
        return isinstance(self.run, nn.Module) and any(
            isinstance(module, BiLevelRoutingAttention) for module in self.run.modules())

    def holds(self, layer: str) -> bool:
        """Whether the layer of this name is in it."""
        return layer == self.name or layer.startswith(f"{self.name}.")

    def __call__(self, outs: Mapping[int, Any]) -> Any:
        """Its output from those of earlier steps."""
        given = [outs[source] for source in self.sources]
        return self.run(given if self.joined else given[0])


@dataclass(frozen=True, slots=True, eq=False)
class StepsRun:
    """A forward, or the later part of one.

    Attributes:
        out: the last step's output.
        points: by the number of a step that routes, what was there before it.
    """

    out: Any
    points: Mapping[int, Point] = field(repr=False)


def chain(named: Iterable[tuple[str, Callable[..., Any]]]) -> tuple[Step, ...]:
    """Steps of which each takes the output of the one before it."""
    return tuple(Step(name, run, (at - 1,)) for at, (name, run) in enumerate(named))


def step_of(steps: Sequence[Step], layer: str) -> int | None:
    """Number of the step that holds a layer."""
    return next((at for at, step in enumerate(steps) if step.holds(layer)), None)


def names_in(steps: Sequence[Step]) -> dict[nn.Module, str]:
    """The modules of all steps by their names in the model."""
    return {module: ".".join(filter(None, (step.name, inner)))
            for step in steps if isinstance(step.run, nn.Module) for inner, module in step.run.named_modules()}


def needed(steps: Sequence[Step], start: int) -> frozenset[int]:
    """Numbers of the outputs before step `start` that it and later steps take."""
    return frozenset(source for step in steps[start:] for source in step.sources if source < start)


def run_steps(steps: Sequence[Step], given: Mapping[int, Any], start: int = 0, keep: Collection[int] = ()) -> StepsRun:
    """Run the steps from number `start` on.

    Args:
        steps: all steps of the model.
        given: what `needed(steps, start)` names; {INPUT: x} for a whole forward. It is left as it is.
        start: number of the first step to run.
        keep: numbers of steps before which a point is kept, as far as POINT_BYTES go.
    """
    # Copies: a row may change in place what it is given.
    outs: dict[int, Any] = {at: tensor.clone() for at, tensor in given.items()}
    points: dict[int, Point] = {}
    out: Any = None
    for at in range(start, len(steps)):
        if at in keep and (point := _point(outs, needed(steps, at), points)) is not None:
            points[at] = point
            points = within(points)
        out = outs[at] = steps[at](outs)
        for past in outs.keys() - needed(steps, at + 1):
            del outs[past]
    return StepsRun(out, points)


def _point(outs: Mapping[int, Any], names: Collection[int], points: Mapping[int, Point]) -> Point | None:
    """Copies of the named outputs, shared with the last point where nothing changed; None where one is no tensor."""
    if not all(isinstance(outs[name], Tensor) for name in names):
        return None
    last: Point = points[max(points)] if points else {}
    return {name: last[name] if name in last and torch.equal(last[name], outs[name]) else outs[name].clone()
            for name in names}


def within(points: Mapping[int, Point]) -> dict[int, Point]:
    """As many of the points as POINT_BYTES allow, the last ones first."""
    kept = dict(sorted(points.items()))
    while tensor_bytes(tensor for point in kept.values() for tensor in point.values()) > POINT_BYTES:
        del kept[min(kept)]
    return kept


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Memory of the tensors, each counted once."""
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())
