"""Teaches a BiFormer features and routing by distillation from a teacher's maps, without labels.

The student learns two things from them: the features at each place (1 − cosine, after a linear that only training has)
and, by the routing loss, which windows belong together.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bra.metrics.query_dependence import query_dependence_of
from bra.models.biformer import BiFormer, normalized
from bra.recorder import Capture, recording
from bra.training.checkpointing import load_state, save_state, seed_epoch, write_curve
from bra.training.classifier import follow_weights, rate_at, set_same_qk
from bra.training.distillation_data import CHANNELS, STRIDES, DistillationData, Maps
from bra.training.routing import AttentionTarget, TeacherTarget, routing_loss

UPRIGHT = 0.75
"""Shorter side over longer of the pictures of every third batch, so that windows of padding are learned too."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a student is taught.

    Attributes:
        epochs: parts of the training, each with a checkpoint at its end.
        steps: per epoch.
        side: pixels a side that the student reads.
        batch: pictures per step.
        rate: highest learning rate.
        warmup: epochs over which the rate rises to it; then it falls to 0 along a cosine.
        decay: AdamW's weight decay, on matrices and kernels only.
        average: how slowly the averaged weights, which are the ones that are kept, follow the trained ones.
        routing: weight of the routing loss; 0 for features alone.
        target: of the routing loss: the teacher's windows, or the layer's own full attention.
        temperature: of the teacher's target.
        same_qk: whether Wq = Wk at the start, so that routing begins as similarity.
        seed: of everything random.
    """

    epochs: int = 4
    steps: int = 170
    side: int = 256
    batch: int = 8
    rate: float = 2e-3
    warmup: float = 0.4
    decay: float = 0.05
    average: float = 0.995
    routing: float = 1.0
    target: Literal["teacher", "attention"] = "teacher"
    temperature: float = 0.15
    same_qk: bool = True
    seed: int = 0


class Student(nn.Module):
    """A BiFormer without a classifier, and the linears to the teacher's channels that only training has.

    Args:
        body: its last stage is at the first of STRIDES.
        channels: of the teacher's maps.
    """

    def __init__(self, body: BiFormer, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        self.body = body
        assert isinstance(body.norm, nn.BatchNorm2d)
        width = body.norm.num_features
        self.to_teacher = nn.ModuleList(nn.Conv2d(width, each, 1) for each in channels)

    def forward(self, x: Tensor) -> Maps:
        """(b, 3, H, W) -> a map as each of the teacher's."""
        features = self.body.forward_features(x)
        return tuple(linear(F.avg_pool2d(features, stride // STRIDES[0]))
                     for linear, stride in zip(self.to_teacher, STRIDES, strict=True))


def distil(build: Callable[[], BiFormer], seen: DistillationData, unseen: DistillationData, recipe: Recipe,
           folder: Path, progress: Callable[[str], None] = print) -> BiFormer:
    """Teach a student, or go on where a cut-off run in `folder` stopped; the result is the same.

    Args:
        build: a student with random weights.
        seen: what is learned.
        unseen: what is held out, for the curve.
        recipe: how.
        folder: gets `last.pt`, the whole state after each epoch, and `curve.csv`.
        progress: told a line per epoch and per fifty steps.

    Returns:
        The averaged student in eval mode.
    """
    torch.manual_seed(recipe.seed)
    model = Student(build(), [each.shape[1] for each in seen.maps])
    if recipe.same_qk:
        set_same_qk(model)
    average = copy.deepcopy(model).requires_grad_(False)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": recipe.decay},
                                   {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}],
                                  lr=recipe.rate, betas=(0.9, 0.98))
    state = load_state(folder / "last.pt")
    done = 0
    curve: list[dict[str, float]] = []
    if state is not None and state["recipe"] == asdict(recipe):
        done, curve = state["epochs"], state["curve"]
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(done, recipe.epochs):
        loss = _epoch(model, average, optimizer, seen, recipe, epoch, progress)
        curve.append({"epoch": epoch + 1, "loss": loss, **judge(average, unseen, recipe)})
        write_curve(curve, folder / "curve.csv")
        save_state({"recipe": asdict(recipe), "epochs": epoch + 1, "curve": curve, "model": model.state_dict(),
                    "average": average.state_dict(), "optimizer": optimizer.state_dict()}, folder / "last.pt")
        progress(f"epoch {epoch + 1} of {recipe.epochs}: " + ", ".join(f"{k} {v:.3f}" for k, v in curve[-1].items()))
    body = average.body
    assert isinstance(body, BiFormer)
    return body.eval()


def _epoch(model: Student, average: nn.Module, optimizer: torch.optim.Optimizer, seen: DistillationData,
           recipe: Recipe, epoch: int, progress: Callable[[str], None]) -> float:
    """Some steps on pictures drawn at random; returns the mean loss."""
    seed_epoch(recipe.seed, epoch)
    model.train()
    losses: list[float] = []
    batches = torch.randint(len(seen.pictures), (recipe.steps, recipe.batch)).unbind()
    began = time.monotonic()
    for at, numbers in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(epoch + at / len(batches), recipe.epochs, recipe.warmup, recipe.rate)
        rgb, maps = augmented(*seen.batch(numbers.tolist()), upright=at % 3 == 2)
        distance, routing = losses_of(model, rgb, maps, recipe)
        loss = distance + recipe.routing * routing
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step = epoch * len(batches) + at
        follow_weights(average, model, min(recipe.average, (1 + step) / (10 + step)))
        losses.append(loss.item())
        if at % 50 == 49:
            left = (len(batches) - at - 1) * (time.monotonic() - began) / (at + 1)
            progress(f"  step {at + 1} of {len(batches)}: {sum(losses[-50:]) / 50:.3f} (features {distance:.3f}, "
                     f"routing {routing:.3f}), {left / 60:.0f} min to the end of the epoch")
    return sum(losses) / len(losses)


def losses_of(model: Student, rgb: Tensor, maps: Maps, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Distance of the features (1 − cosine, mean over places and maps) and routing loss, of pictures in 0 to 1."""
    with recording(gradient=True) as recorder:
        found = model(normalized(rgb))
    distance = distance_of(found, maps)
    if not recipe.routing:
        return distance, distance.new_zeros(())
    target = AttentionTarget() if recipe.target == "attention" else TeacherTarget(maps, recipe.temperature)
    return distance, routing_loss(recorder.captures, target)


def distance_of(found: Maps, maps: Maps) -> Tensor:
    """1 − cosine of the features at each place, mean over places and maps."""
    return torch.stack([1 - F.cosine_similarity(one, two, dim=1).mean()
                        for one, two in zip(found, maps, strict=True)]).mean()


def augmented(rgb: Tensor, maps: Maps, upright: bool) -> tuple[Tensor, Maps]:
    """Random flips of both, random colours of the pictures, drawn per picture from torch's own generator.

    Args:
        rgb: (b, 3, side, side) in 0 to 1.
        maps: of the same pictures.
        upright: whether a part of UPRIGHT the width, or of the height, is cut out of all.
    """
    b, side = len(rgb), rgb.shape[-1]
    flip = (torch.rand(b) < 0.5)[:, None, None, None]
    both = [torch.where(flip, x.flip(-1), x) for x in (rgb, *maps)]
    if upright:
        least = side // STRIDES[-1]         # cells of the coarsest map
        cells = round(UPRIGHT * least)
        at = int(torch.randint(least - cells + 1, ()))
        lying = bool(torch.rand(()) < 0.5)
        both = [x.narrow(-2 if lying else -1, at * x.shape[-1] // least, cells * x.shape[-1] // least) for x in both]
    rgb, maps = both[0], tuple(both[1:])
    draw = torch.empty(b, 1, 1, 1)
    grey = rgb.mean(1, keepdim=True)
    saturation = torch.where(torch.rand(b, 1, 1, 1) < 0.15, 0.0, draw.clone().uniform_(0.5, 1.5))
    rgb = grey + (rgb - grey) * saturation
    rgb = rgb * torch.empty(b, 3, 1, 1).uniform_(0.85, 1.15)
    middle = rgb.mean((1, 2, 3), keepdim=True)
    rgb = middle + (rgb - middle) * draw.clone().uniform_(0.6, 1.3) + draw.clone().uniform_(-0.15, 0.15)
    return rgb.clamp(0, 1), maps


@torch.no_grad()
def judge(model: nn.Module, unseen: DistillationData, recipe: Recipe) -> dict[str, float]:
    """Distance of features, routing loss and share of query-dependent routing on what was not learned from."""
    model.eval()
    assert isinstance(model, Student)
    rows: list[tuple[float, float, float]] = []
    for numbers in torch.split(torch.arange(len(unseen.pictures)), recipe.batch):
        rgb, maps = unseen.batch(numbers.tolist())
        with recording() as recorder:
            found = model(normalized(rgb))
        routed: list[Capture] = [capture for capture in recorder.captures if capture.routed]
        rows.append((distance_of(found, maps).item(),
                     routing_loss(routed, TeacherTarget(maps, recipe.temperature)).item(),
                     float(np.mean([query_dependence_of(a.double().numpy()) for c in routed for a in c.affinity]))))
    means = np.mean(rows, 0)
    return {"held_out_distance": float(means[0]), "held_out_routing": float(means[1]),
            "query_dependence": float(means[2])}
