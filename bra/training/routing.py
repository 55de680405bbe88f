"""The routing loss, which teaches a router where to look, and the targets that it can be given.

A router that only selects gets no gradient. Its affinities do, when they are asked to match a distribution over all
windows: the loss of a layer is the cross entropy between the softmax of each row of affinities and a target row,

    L = −mean over windows i of Σ_j target[i, j] · log softmax_j(affinity[i, ·]).

The target says which windows belong together: by labels, by boxes, by the features of a teacher, or by the layer's own
full attention. None of them is needed after training.

    with recording(gradient=True) as recorder:
        loss = task_loss(model(x), y)
    loss = loss + 0.2 * routing_loss(recorder.captures, LabelTarget(label_map))

Sources: distillation of a distribution, Hinton et al. (arXiv:1503.02531); attention mass as the target of a selector,
DeepSeek-V3.2 (arXiv:2512.02556), whose indexer learns from it with stop-gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bra.errors import BRAError
from bra.messages import message
from bra.recorder import Capture
from bra.tracing import LayerTrace, ModelTrace

Layer = Capture | LayerTrace
Target = Callable[[Layer], Tensor]
"""A layer -> (b, p2, p2): each row sums to 1, or is 0 where nothing is known; such rows teach nothing."""
TEMPERATURE = 0.15
"""Of the softmax over a teacher's cosines."""


def routing_loss(layers: ModelTrace | Mapping[str, LayerTrace] | Sequence[Layer], target: Target | Tensor) -> Tensor:
    """Mean over layers of the cross entropy between routing softmax and target, a scalar in nats.

    The least that is possible is the target's own entropy; ln p2 is what equal affinities give.

    Args:
        layers: captures of `recording(gradient=True)`, through which gradient flows, or a trace, to measure only.
            Layers with full attention are left out.
        target: one of the targets of this module, any function of a layer, or (b, p2, p2) for every layer.

    Raises:
        BRAError: there is no routed layer, or a target has another shape than the layer's affinities.
    """
    if isinstance(layers, ModelTrace):
        layers = layers.layers
    found: Sequence[Layer] = list(layers.values()) if isinstance(layers, Mapping) else layers
    losses = [_cross_entropy(layer, target if isinstance(target, Tensor) else target(layer))
              for layer in found if layer.routed]
    if not losses:
        raise BRAError(message("no routed layer was recorded: run the model inside recording(gradient=True)."))
    return torch.stack(losses).mean()


def _cross_entropy(layer: Layer, target: Tensor) -> Tensor:
    logits = layer.affinity
    if target.shape != logits.shape:
        raise BRAError(message("a target of shape {found} does not fit affinities of shape {wanted}: give one row and "
                               "one column per window.", found=tuple(target.shape), wanted=tuple(logits.shape)))
    log_share = logits.float().log_softmax(-1)
    # A masked window's log share is -inf; where nothing is wanted of it, that is 0 and not NaN.
    rows = -(target * log_share.masked_fill(target == 0, 0.0)).sum(-1)
    return rows.sum() / (target.sum(-1) > 0).sum().clamp(min=1)


# targets --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class LabelTarget:
    """Windows that show the same classes belong together: squared intersection of class histograms, rows to sum 1.

    Attributes:
        labels: (b, H, W) int64 classes over the picture, negative where there is none.
    """

    labels: Tensor

    def __call__(self, layer: Layer) -> Tensor:
        """(b, p2, p2)."""
        classes = F.one_hot(self.labels.clamp(min=-1) + 1).movedim(-1, 1).float()
        return _alike(classes[:, 1:], layer)


@dataclass(frozen=True, slots=True, eq=False)
class BoxTarget:
    """As LabelTarget, for boxes: what a box covers has its class, the smaller on top, and the rest is one class more.

    Attributes:
        images: (n,) int64, the image of the batch that each box is in.
        classes: (n,) int64.
        boxes: (n, 4) centre x, centre y, width, height as shares of the picture.
        batch: images b.
    """

    images: Tensor
    classes: Tensor
    boxes: Tensor
    batch: int

    def painted(self, height: int, width: int, n_classes: int) -> Tensor:
        """(b, n_classes + 1, height, width) bool: the class at the centre of each cell, background last."""
        x, y, w, h = self.boxes.float().unbind(-1)
        down = (torch.arange(height, device=x.device) + 0.5) / height
        across = (torch.arange(width, device=x.device) + 0.5) / width
        inside = ((down - y[:, None]).abs() <= h[:, None] / 2)[:, :, None] & \
            ((across - x[:, None]).abs() <= w[:, None] / 2)[:, None]                    # (n, height, width)
        # Of the boxes over a cell the smallest wins: each cell keeps the highest rank.
        rank = torch.empty_like(x, dtype=torch.long)
        rank[(w * h).argsort(descending=True)] = torch.arange(1, len(x) + 1, device=x.device)
        top = torch.zeros(self.batch, height * width, dtype=torch.long, device=x.device)
        top.scatter_reduce_(0, self.images.long()[:, None].expand(-1, height * width),
                            (inside * rank[:, None, None]).flatten(1), "amax")
        by_rank = torch.full((len(x) + 1,), n_classes, dtype=torch.long, device=x.device)
        by_rank[rank] = self.classes.long()
        return F.one_hot(by_rank[top], n_classes + 1).view(self.batch, height, width, -1).movedim(-1, 1).bool()

    def __call__(self, layer: Layer) -> Tensor:
        """(b, p2, p2)."""
        h, w = _size(layer)
        fine = max(1, 64 // max(h, w))          # several cells a token on small maps, so that small boxes count
        n_classes = int(self.classes.max()) + 1 if len(self.classes) else 0
        return _alike(self.painted(fine * h, fine * w, n_classes).float(), layer)


@dataclass(frozen=True, slots=True, eq=False)
class TeacherTarget:
    """Windows that a teacher finds alike belong together: softmax of the centred cosine of window means, no labels.

    Attributes:
        features: (b, C, H, W), the teacher's map over the same picture, or several maps, whose cosines are averaged.
        temperature: lower is a sharper target.
    """

    features: Tensor | Sequence[Tensor]
    temperature: float = TEMPERATURE

    def __call__(self, layer: Layer) -> Tensor:
        """(b, p2, p2)."""
        maps = [self.features] if isinstance(self.features, Tensor) else self.features
        cosines = []
        for features in maps:
            means, known = window_means(features.detach().float(), _size(layer), layer.spec.n_win)
            unit = F.normalize(means - (means * known[:, None]).sum(1, keepdim=True) / known.sum(), dim=-1)
            cosines.append(unit @ unit.mT)
        cosine = torch.stack(cosines).mean(0).masked_fill(~known, float("-inf"))
        return (cosine / self.temperature).softmax(-1) * known[:, None]


@dataclass(frozen=True, slots=True)
class AttentionTarget:
    """The layer's own full attention: the mass that a window's tokens put on each window, mean over tokens and heads.

    Gradient is stopped, so that attention does not learn to please the router. Costs as much as full attention.
    """

    @torch.no_grad()
    def __call__(self, layer: Layer) -> Tensor:
        """(b, p2, p2)."""
        real = _known(layer)
        logits = torch.einsum("bmptc,bmjsc->bmptjs", layer.q, layer.k) * layer.spec.scale
        logits = logits.masked_fill(~real[:, None], float("-inf"))
        mass = logits.flatten(-2).softmax(-1).view(logits.shape).sum(-1)                  # (b, m, p2, t, p2)
        return mass.mean((1, 3)) * real[:, None]


def window_means(x: Tensor, size: tuple[int, int], n_win: int) -> tuple[Tensor, Tensor]:
    """Mean of a map over each window of a layer: (b, C, H, W) -> (b, p2, C) and which windows have any, (p2,) bool.

    Args:
        x: a map over the same picture, at any resolution; where it is coarser than the layer's, it is interpolated.
        size: (h, w) tokens of the layer's map before padding.
        n_win: windows per side p.
    """
    if x.shape[-2] < size[0] or x.shape[-1] < size[1]:
        x = F.interpolate(x, size, mode="bilinear")
    down, across = (_membership(n, tokens, n_win, x) for n, tokens in zip(x.shape[-2:], size, strict=True))
    count = down.sum(0)[:, None] * across.sum(0)                                          # (p, p)
    sums = down.mT @ x @ across                                                           # (b, C, p, p)
    return (sums / count.clamp(min=1)).flatten(2).mT, count.flatten() > 0


def _membership(n: int, tokens: int, n_win: int, like: Tensor) -> Tensor:
    """(n, p): 1 where a row of a map of n rows lies in a window of a layer of so many tokens."""
    row = ((torch.arange(n, device=like.device) + 0.5) * tokens / n).long() // -(-tokens // n_win)
    return F.one_hot(row, n_win).to(like.dtype)


def _alike(classes: Tensor, layer: Layer) -> Tensor:
    """(b, classes, H, W) of 0 and 1 -> (b, p2, p2): squared histogram intersections, rows summing to 1 or to 0."""
    shares, _ = window_means(classes, _size(layer), layer.spec.n_win)
    total = shares.sum(-1, keepdim=True)
    shares = shares / total.clamp(min=1e-6)
    alike = torch.zeros(len(shares), shares.shape[1], shares.shape[1], dtype=shares.dtype, device=shares.device)
    for share in shares.unbind(-1):
        alike = alike + torch.minimum(share[:, :, None], share[:, None])
    target = alike.square()
    return target / target.sum(-1, keepdim=True).clamp(min=1e-6)


def _size(layer: Layer) -> tuple[int, int]:
    return layer.size if isinstance(layer, Capture) else (layer.grid.h, layer.grid.w)


def _known(layer: Layer) -> Tensor:
    """(p2,) bool: windows with at least one token on the map."""
    h, w = _size(layer)
    like: Any = layer.affinity
    down, across = (_membership(n, n, layer.spec.n_win, like).sum(0) for n in (h, w))
    return (down[:, None] * across).flatten() > 0
