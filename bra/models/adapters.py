"""The models of this package as models that can be looked into."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bra.models.base import KEPT_CLASSES, Answer, OpenModel, Prepared
from bra.models.biformer import BiFormer, Stack, normalized
from bra.models.steps import Step, chain
from bra.photo import Photo, to_tensor


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OpenPatches(OpenModel):
    """A patch model: reads the photo at its own shape and answers nothing."""

    def prepare(self, photo: Photo, side: int) -> Prepared:
        """RGB in 0 to 1."""
        return _whole(to_tensor(photo.resized(side)))

    def answer(self, out: Any, prepared: Prepared) -> Answer:
        """Nothing."""
        return Answer()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OpenClassifier(OpenModel):
    """A BiFormer: reads the photo at its own shape, normalised, and names its most likely classes."""

    def prepare(self, photo: Photo, side: int) -> Prepared:
        """RGB less ImageNet's mean, over its spread; at least 32 px a side, filled up with the mean where needed."""
        prepared = _whole(normalized(to_tensor(photo.resized(side))))
        # Four halvings of a smaller side would leave nothing.
        down, across = (max(0, 32 - n) for n in prepared.x.shape[-2:])
        x = F.pad(prepared.x, (0, across, 0, down)) if down or across else prepared.x
        return Prepared(x, 0, 0, prepared.height, prepared.width)

    def steps(self) -> tuple[Step, ...]:
        """Downsampling and blocks one after the other, then the norm, and the mean over the map and the classifier."""
        model = self.module
        if type(model) is not BiFormer:
            return ()
        named: list[tuple[str, Callable[..., Any]]] = []
        for n, (down, stage) in enumerate(zip(model.downsample_layers, model.stages, strict=True)):
            blocks, inside = (stage.blocks, ".blocks") if isinstance(stage, Stack) else (stage, "")
            named.append((f"downsample_layers.{n}", down))
            named.extend((f"stages.{n}{inside}.{at}", block) for at, block in blocks.named_children())
        return chain([*named, ("norm", model.norm), ("head", partial(_classified, model.head))])

    def answer(self, out: Any, prepared: Prepared) -> Answer:
        """The most likely classes, most likely first; nothing of a model without names for them."""
        if not self.classes:
            return Answer()
        share: Tensor = out[0].float().softmax(-1)
        best = share.topk(min(KEPT_CLASSES, len(share)))
        return Answer(classes=tuple(
            (self.classes[at], value)
            for value, at in zip(best.values.tolist(), best.indices.tolist(), strict=True) if math.isfinite(value)))


def _classified(head: nn.Module, x: Tensor) -> Any:
    return head(x.mean((2, 3)))


def _whole(x: Tensor) -> Prepared:
    return Prepared(x, 0, 0, x.shape[-2], x.shape[-1])
