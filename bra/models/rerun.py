"""Looking again with other windows in one layer: what lies before it is not run again, and no model is made anew.

    look, kept = look_on(model, photo, 640)
    look, kept = look_on(model, photo, 640, Change("model.21", 7, 8), kept)     # from row 21 on
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from weakref import ReferenceType, ref

from torch import nn

from bra.hooks import hooked
from bra.models.base import Change, ModelRun, OpenModel, Prepared, on_photo, private, with_windows
from bra.models.steps import INPUT, Point, Step, names_in, run_steps, step_of, within
from bra.photo import Photo
from bra.tracing import LayerTrace, ModelTrace, routed_first, traced


@dataclass(frozen=True, slots=True, eq=False)
class PartialRun:
    """Results of one forward that stay valid when one layer gets other windows: inputs of steps, and traces.

    Attributes:
        module: the model that ran, without holding it: what is kept is of use for it alone,
        photo: for the picture of this digest,
        side: and for this size.
        prepared: the photo as the model read it.
        points: by the number of a step that routes, what was there before it, with every layer as it was built.
        layers: traces on the photo, with every layer as it was built; at least of all before the last point.
    """

    module: ReferenceType[nn.Module] = field(repr=False)
    photo: str
    side: int
    prepared: Prepared = field(repr=False)
    points: Mapping[int, Point] = field(repr=False)
    layers: Mapping[str, LayerTrace] = field(repr=False)


def run_from(model: OpenModel, photo: Photo, side: int, change: Change | None = None,
             kept: PartialRun | None = None) -> tuple[ModelRun, PartialRun | None]:
    """As `OpenModel.look`, going on from what an earlier look kept.

    Args:
        model: the model.
        photo: the picture.
        side: its longer side in pixels when the model reads it.
        change: other windows in one layer.
        kept: from an earlier look; where it is of another model, photo or side, the whole model runs.

    Returns:
        The look, and what the next one can go on from; None for a model that is not made of steps.

    Raises:
        BRAError: the change cannot be, or the photo does not suit a layer.
    """
    steps = replace(model, module=private(model.module)).steps()
    at = len(steps) if change is None else step_of(steps, change.layer)
    if not steps or at is None or (change is not None and change.layer not in model.specs):
        return model.look(photo, side, change), None
    if kept is None or kept.module() is not model.module or (kept.photo, kept.side) != (photo.digest, side):
        kept = PartialRun(ref(model.module), photo.digest, side, model.prepare(photo, side), {}, {})
    start = max((point for point in kept.points if point <= at), default=0)
    given = kept.points[start] if start else {INPUT: kept.prepared.x}
    running = steps if change is None else changed_steps(steps, at, change)
    wanted = [number for number in range(start + 1, min(at + 1, len(steps))) if steps[number].routes]
    modules = nn.ModuleList([step.run for step in running if isinstance(step.run, nn.Module)])
    with model.running(kept.prepared), hooked(modules, _size(kept.prepared)):
        ran = traced(partial(run_steps, running, given, start, wanted), names_in(running), _size(kept.prepared))
        answer = model.answer(ran.out.out, kept.prepared)
    fresh = {name: on_photo(layer, kept.prepared) for name, layer in ran.layers.items()}
    layers = {name: layer for name, layer in kept.layers.items() if _before(steps, name, start)} | fresh
    look = ModelRun(ModelTrace(ran.out.out, routed_first(layers)), answer)
    if any("#" in name or step_of(steps, name) is None for name in fresh):
        return look, None       # a layer that runs twice, or outside of the steps: its trace has no one place
    built = {name: layer for name, layer in fresh.items() if _before(steps, name, at)}
    points = MappingProxyType(within({**kept.points, **ran.out.points}))
    return look, replace(kept, points=points, layers=MappingProxyType({**kept.layers, **built}))


def changed_steps(steps: tuple[Step, ...], at: int, change: Change) -> tuple[Step, ...]:
    """The steps with other windows in one layer of step `at`, over the same weights."""
    step = steps[at]
    assert isinstance(step.run, nn.Module)
    inner = change.layer.removeprefix(step.name).removeprefix(".")
    other = replace(step, run=with_windows(step.run, replace(change, layer=inner)))
    return (*steps[:at], other, *steps[at + 1:])


def _before(steps: tuple[Step, ...], layer: str, at: int) -> bool:
    """Whether the layer is in a step before number `at`."""
    found = step_of(steps, layer)
    return found is not None and found < at


def _size(prepared: Prepared) -> tuple[int, int]:
    return int(prepared.x.shape[-2]), int(prepared.x.shape[-1])
