"""Random weights that are the same in every process and for every visitor."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from bra.attention import BiLevelRoutingAttention

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def redraw(model: nn.Module, seed: int = 0, keep: tuple[type[nn.Module], ...] = ()) -> None:
    """Draw every learned weight as PyTorch initialises it, but not from its generator, which all threads share.

    Args:
        model: changed in place.
        seed: of the draw.
        keep: classes whose weights are not learned. The pooling of k and v, which starts as a mean, stays too.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = {layer.kv_down for layer in model.modules() if isinstance(layer, BiLevelRoutingAttention)}
    kept |= {part for holder in model.modules() if isinstance(holder, keep) for part in holder.modules()}
    for part in model.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part not in kept:
            bound = part.weight[0].numel() ** -0.5
            part.weight.uniform_(-bound, bound, generator=generator)
            if part.bias is not None:
                part.bias.uniform_(-bound, bound, generator=generator)


def untrained(model: Model) -> Model:
    """A copy of a model with random weights, and normalisation layers as new."""
    made = copy.deepcopy(model)
    redraw(made)
    for part in made.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm)):
            part.reset_parameters()
    return made
