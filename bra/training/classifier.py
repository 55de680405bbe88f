"""Trains a classifier of photographs with AdamW, a cosine, and an average of its weights."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bra.attention import BiLevelRoutingAttention, QKVLinear
from bra.training.checkpointing import load_state, save_state, seed_epoch, write_curve
from bra.training.dataset import Augment, Photographs


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        epochs: passes over the pictures.
        side: pixels a side that the model reads.
        batch: pictures per step.
        rate: highest learning rate.
        warmup: epochs over which the rate rises to it; then it falls to 0 along a cosine.
        decay: AdamW's weight decay, on matrices and kernels only.
        smoothing: label smoothing.
        average: how slowly the averaged weights, which are the ones that are kept, follow the trained ones.
        same_qk: whether Wq = Wk at the start, so that routing begins as similarity.
        seed: of everything random.
    """

    epochs: int = 30
    side: int = 160
    batch: int = 32
    rate: float = 2e-3
    warmup: float = 2.0
    decay: float = 0.05
    smoothing: float = 0.1
    average: float = 0.998
    same_qk: bool = True
    seed: int = 0


@torch.no_grad()
def set_same_qk(model: nn.Module) -> None:
    """Make Wk and its bias those of q in every routed layer of equal widths."""
    for layer in model.modules():
        if isinstance(layer, BiLevelRoutingAttention) and isinstance(layer.qkv, QKVLinear):
            Q = layer.qk_dim
            layer.qkv.qkv.weight[Q:2 * Q] = layer.qkv.qkv.weight[:Q]
            layer.qkv.qkv.bias[Q:2 * Q] = layer.qkv.qkv.bias[:Q]


def train_classifier(build: Callable[[int], nn.Module], photographs: tuple[Photographs, Photographs], recipe: Recipe,
                     folder: Path, progress: Callable[[str], None] = print) -> nn.Module:
    """Train, or go on where a cut-off run in `folder` stopped; the result is the same.

    Args:
        build: number of classes -> a model with random weights.
        photographs: training and held out.
        recipe: how.
        folder: gets `last.pt`, the whole state after each epoch, and `curve.csv`.
        progress: told a line per epoch.

    Returns:
        The averaged model in eval mode.
    """
    seen, unseen = photographs
    torch.manual_seed(recipe.seed)
    model = build(len(seen.classes))
    if recipe.same_qk:
        set_same_qk(model)
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(_groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.99))
    state = load_state(folder / "last.pt")
    done = 0
    curve: list[dict[str, float]] = []
    if state is not None and state["recipe"] == asdict(recipe):
        done, curve = state["epochs"], state["curve"]
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    judged = unseen.judged(recipe.side)
    for epoch in range(done, recipe.epochs):
        began = time.monotonic()
        loss = _epoch(model, average, optimizer, seen, recipe, epoch)
        curve.append({"epoch": epoch + 1, "loss": loss, **judge(average, judged, unseen.labels)})
        write_curve(curve, folder / "curve.csv")
        save_state({"recipe": asdict(recipe), "epochs": epoch + 1, "curve": curve, "model": model.state_dict(),
                    "average": average.state_dict(), "optimizer": optimizer.state_dict()}, folder / "last.pt")
        left = (recipe.epochs - epoch - 1) * (time.monotonic() - began)
        progress(f"epoch {epoch + 1} of {recipe.epochs}: loss {loss:.3f}, held out {curve[-1]['accuracy']:.1%}, "
                 f"{left / 60:.0f} min left")
    return average.eval()


def _epoch(model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, seen: Photographs, recipe: Recipe,
           epoch: int) -> float:
    """One pass over the pictures in a random order; returns the mean loss."""
    seed_epoch(recipe.seed, epoch)
    model.train()
    augment = Augment(recipe.side)
    losses: list[float] = []
    # A batch of one has no spread for BatchNorm to divide by.
    batches = [part for part in torch.split(torch.randperm(len(seen.labels)), recipe.batch) if len(part) > 1]
    for at, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(epoch + at / len(batches), recipe.epochs, recipe.warmup, recipe.rate)
        logits = model(augment([seen.pictures[n] for n in batch.tolist()]))
        loss = F.cross_entropy(logits, seen.labels[batch], label_smoothing=recipe.smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        # Early on the average follows closely: it must not remember the random start.
        step = epoch * len(batches) + at
        follow_weights(average, model, min(recipe.average, (1 + step) / (10 + step)))
        losses.append(loss.item())
    return sum(losses) / len(losses)


def rate_at(epoch: float, epochs: int, warmup: float, most: float) -> float:
    """Learning rate at a fractional epoch: a straight rise to `most`, then half a cosine down to 0."""
    if epoch < warmup:
        return most * (epoch + 0.01) / warmup
    share = (epoch - warmup) / max(epochs - warmup, 1e-9)
    return most * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


@torch.no_grad()
def follow_weights(average: nn.Module, model: nn.Module, keep: float) -> None:
    """average = keep · average + (1 − keep) · model; counters and running statistics are taken over as they are."""
    trained = dict(model.named_parameters())
    for name, tensor in average.named_parameters():
        tensor.lerp_(trained[name], 1 - keep)
    buffers = dict(model.named_buffers())
    for name, buffer in average.named_buffers():
        buffer.copy_(buffers[name])


@torch.inference_mode()
def judge(model: nn.Module, pictures: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy and cross entropy (nats) on pictures that the model has not learned from."""
    model.eval()
    logits = torch.cat([model(part) for part in torch.split(pictures, 64)])
    return {"accuracy": (logits.argmax(-1) == labels).double().mean().item(),
            "cross_entropy": F.cross_entropy(logits, labels).item()}


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    return [{"params": matrices, "weight_decay": decay},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}]
