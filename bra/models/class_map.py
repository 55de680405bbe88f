"""Where a model's answer comes from: a class heat map (LayerCAM) of its last maps, beside the routing of its layers.

LayerCAM (Jiang et al., IEEE TIP 2021) weights every place of a map by the positive gradient of the class score there,
sums over channels, and keeps what speaks for the class. It explains a score and says nothing of attention: the routing
of a layer and this map may well look at different places.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bra.errors import BRAError
from bra.messages import message
from bra.models.base import Change, OpenModel
from bra.models.rerun import changed_steps
from bra.models.steps import INPUT, Step, step_of
from bra.photo import Photo

CONFIDENCE: Final = 0.25
MOST: Final = 16
"""Predictions that are explained, each by a backward pass of the head."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassMap:
    """A class heat map.

    Attributes:
        heat: (h, w) over the part of the model's input that is the photo, 0 to 1; the largest of all predictions.
        scores: of the predictions that it explains, best first; of a classifier the score of its first class alone.
        level_sizes: (h, w) of the maps that it was made from, before they were laid over the input.
    """

    heat: NDArray[np.float32] = field(repr=False)
    scores: tuple[float, ...]
    level_sizes: tuple[tuple[int, int], ...]


def explains(model: OpenModel) -> bool:
    """Whether a model's answer can be explained: it has learned something, and its forward is known step by step."""
    return bool(model.classes) and not model.untrained and bool(model.steps())


def class_map(model: OpenModel, photo: Photo, side: int, change: Change | None = None, confidence: float = CONFIDENCE,
              most: int = MOST) -> ClassMap:
    """The LayerCAM of what a model says of a photo.

    The model runs to its last step as ever; the last step runs on a copy that shares its weights, with gradients to
    the maps that it reads. Nothing is hooked to the model or written on it.

    Args:
        model: a detector or a classifier.
        photo: the picture.
        side: its longer side in pixels when the model reads it.
        change: other windows in one layer.
        confidence: least score of a prediction to be explained; the best one always is.
        most: predictions at most.

    Raises:
        BRAError: the model answers nothing, or its last step lets no gradient through.
    """
    steps = model.steps()
    if not steps:
        raise BRAError(message("this model's forward cannot be told apart into steps, so what its answer comes from "
                               "cannot be shown: choose a model that is built from rows."))
    at = None if change is None else step_of(steps, change.layer)
    if change is not None and at is not None and change.layer in model.specs:
        steps = changed_steps(steps, at, change)
    prepared = model.prepare(photo, side)
    with model.running(prepared):
        maps = _before(steps, prepared.x)
        with torch.inference_mode(False), torch.enable_grad():
            leaves = {at: t.detach().clone().requires_grad_(True) for at, t in maps.items()}
            out = _private(steps[-1])(leaves)
            # A detector's head makes detections and, without gradients, more.
            scores = _scores(out[0] if isinstance(out, (tuple, list)) else out)
            heat, kept = _heat(scores, list(leaves.values()), prepared.x.shape[-2:], confidence, most)
    rows, cols = slice(prepared.top, prepared.top + prepared.height), slice(prepared.left,
                                                                            prepared.left + prepared.width)
    sizes = tuple((int(t.shape[-2]), int(t.shape[-1])) for t in leaves.values())
    return ClassMap(heat[rows, cols].numpy(), tuple(kept), sizes)


def _before(steps: tuple[Step, ...], x: Tensor) -> dict[int, Tensor]:
    """What the last step reads, by the number of the step that made it."""
    outs: dict[int, Any] = {INPUT: x.clone()}
    last = steps[-1]
    later = [frozenset(source for step in steps[at + 1:] for source in step.sources) for at in range(len(steps))]
    with torch.no_grad():
        for at, step in enumerate(steps[:-1]):
            outs[at] = step(outs)
            for past in outs.keys() - later[at]:
                del outs[past]
    found = {source: outs[source] for source in last.sources}
    if not all(isinstance(t, Tensor) and t.dim() == 4 for t in found.values()):
        raise BRAError(message("the last layer of this model reads no map, so what its answer comes from cannot be "
                               "shown: choose a detector or a classifier."))
    return found


def _private(step: Step) -> Callable[[dict[int, Tensor]], Any]:
    """The step on a copy of its module that shares all weights: heads note sizes on themselves as they run."""
    run = step.run
    if isinstance(run, partial) and run.args and isinstance(run.args[0], nn.Module):
        return replace(step, run=partial(run.func, _copied(run.args[0]), *run.args[1:]))
    return replace(step, run=_copied(run)) if isinstance(run, nn.Module) else step


def _copied(module: nn.Module) -> nn.Module:
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    made: Any = copy.deepcopy(module, shared)
    if hasattr(made, "anchors") and hasattr(made, "shape"):
        # Of the copy alone: its anchors may be tensors that take no part in gradients.
        made.shape = None
    copied: nn.Module = made
    return copied


def _scores(predicted: Any) -> Tensor:
    """(n,) best class score of every prediction.

    A detector's are probabilities, a classifier's may be either: a factor makes no difference to the map.
    """
    if isinstance(predicted, Tensor) and predicted.dim() == 3:
        if predicted.shape[-1] == 6:            # after suppression: box, score, class
            return predicted[0, :, 4]
        return predicted[0, 4:].amax(0)
    if isinstance(predicted, Tensor) and predicted.dim() == 2:
        return predicted[0].amax(-1, keepdim=True)
    raise BRAError(message("this model's answer is neither detections nor classes, so what it comes from cannot be "
                           "shown: choose a detector or a classifier."))


def _heat(scores: Tensor, maps: list[Tensor], size: torch.Size, confidence: float,
          most: int) -> tuple[Tensor, list[float]]:
    """(h, w) over the input, and the scores that it explains."""
    if not scores.requires_grad:
        raise BRAError(message("the head of this model lets no gradient through, so what its answer comes from cannot "
                               "be shown: choose one whose head suppresses afterwards."))
    order = scores.detach().argsort(descending=True)[:most].tolist()
    chosen = [at for rank, at in enumerate(order) if rank == 0 or float(scores.detach()[at]) >= confidence]
    heat = torch.zeros(size)
    for rank, at in enumerate(chosen):
        grads = torch.autograd.grad(scores[at], maps, retain_graph=rank < len(chosen) - 1, allow_unused=True)
        for a, g in zip(maps, grads, strict=True):
            if g is None:
                continue
            level = (g.clamp(min=0) * a.detach()).sum(1, keepdim=True).clamp(min=0).float()
            level = F.interpolate(level, tuple(size), mode="bilinear", align_corners=False)[0, 0]
            # Each level by its own largest: what a prediction is made on would outshine all else.
            heat = torch.maximum(heat, (level / level.max().clamp(min=1e-20)).cpu())
    return heat, scores.detach()[chosen].tolist()
