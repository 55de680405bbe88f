"""`bra_route=0.2` for Ultralytics: adds the routing loss of every BRA row, from the batch's boxes, to a model's loss.

Off by default. The number is the loss's weight against Ultralytics' own sum of losses, per picture. It is an argument
like any other: `bra train … bra_route=0.2`, `YOLO(…).train(…, bra_route=0.2)`. It is kept among the checkpoint's
arguments, so that a resumed run goes on with it, and reaches distributed workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from ultralytics.nn import tasks
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT

from bra.errors import YoloError
from bra.messages import message
from bra.recorder import recording
from bra.training.routing import BoxTarget, routing_loss

ARGUMENT: Final = "bra_route"


def register_routing_loss() -> None:
    """Make Ultralytics take the argument and add the loss; to be called once."""
    DEFAULT_CFG_DICT[ARGUMENT] = 0.0
    setattr(DEFAULT_CFG, ARGUMENT, 0.0)
    tasks.BaseModel.loss = _with_routing(tasks.BaseModel.loss)


def _with_routing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Ultralytics' loss of a model, and the routing loss where the model trains with a weight for it."""

    def loss(self: Any, batch: dict[str, Any], preds: Any = None) -> Any:
        """Loss to learn from, and its parts to print."""
        weight = weight_of(getattr(self, "args", None))
        if not (weight and self.training and torch.is_grad_enabled()):
            return original(self, batch, preds)
        if preds is not None:
            raise YoloError(message("bra_route listens to the forward, which compile=True runs elsewhere: leave one of "
                                    "the two out."))
        with recording(gradient=True) as recorder:
            total, parts = original(self, batch)
        if not any(capture.routed for capture in recorder.captures):
            raise YoloError(message("bra_route={weight} was given and the model has no row that routes: choose one "
                                    "such as yolov8n-bra-residual.yaml, or leave it out.", weight=weight))
        added = weight * routing_loss(recorder.captures, target_of(batch))
        # Ultralytics sums over the parts and multiplies by the pictures.
        return total + added * len(batch["img"]) / total.numel(), parts

    return loss


def weight_of(args: Any) -> float:
    """The weight in a trainer's arguments; 0 where there is none.

    Raises:
        YoloError: it is not a number from 0 on.
    """
    given = args.get(ARGUMENT, 0.0) if isinstance(args, dict) else getattr(args, ARGUMENT, 0.0)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given < float("inf"):
        raise YoloError(message("bra_route={given!r} is not possible: give a number from 0 on, such as "
                                "0.2.", given=given))
    return float(given)


def target_of(batch: dict[str, Any]) -> BoxTarget:
    """What the boxes of Ultralytics' batch say of which windows belong together.

    Raises:
        YoloError: the batch has no boxes, as in classification.
    """
    if "bboxes" not in batch or "batch_idx" not in batch:
        raise YoloError(message("bra_route needs boxes, which this task does not have: leave it out."))
    image: Tensor = batch["img"]
    return BoxTarget(batch["batch_idx"].to(image.device).view(-1).long(),
                     batch["cls"].to(image.device).view(-1).long(), batch["bboxes"].to(image.device), len(image))
