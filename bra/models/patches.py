"""A token embedding of any photograph that needs no training, in front of bi-level routing attention.

Each patch of stride·stride pixels is described by what a camera saw: its mean colour (CIE Lab), the spread of its
colour and the directions of its edges. Each feature is standardised over the image. Random Fourier features (Rahimi
and Recht, 2007) then turn the description into vectors whose dot product is a Gaussian similarity, so that the mean
over a window stands for all of its patches (a kernel mean embedding). Nothing here was learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bra.attention import BiLevelRoutingAttention, QKVLinear
from bra.errors import SpecError
from bra.messages import message
from bra.models.init import redraw
from bra.spec import BRASpec

Projection = Literal["similarity", "random"]

EDGE_DIRECTIONS = 8
FEATURES = 3 + 3 + EDGE_DIRECTIONS
WEIGHTS = (1.0,) * 3 + (0.6,) * 3 + (0.35,) * EDGE_DIRECTIONS
SHARPNESS = 32.0
"""Largest routing logit, that of two equal patches: a softmax that is neither flat nor a single peak."""


@dataclass(frozen=True, slots=True)
class PatchSpec:
    """What a patch model is made of.

    Args:
        attention: settings of its attention layers; `dim` is the number of random Fourier features, even.
        stride: pixels per token, 2 to 64.
        depth: attention layers, one after the other, 1 to 4.
        position: weight of the patch's place beside its look; 0 for none.
        projection: "similarity" has Wq = Wk = Wv = 1: it compares patches as they are; "random" draws every weight as
            PyTorch initialises it: the untrained layer, for contrast.
        seed: of the Fourier features and the random weights.

    Raises:
        SpecError: a value is out of range.
    """

    attention: BRASpec
    stride: int = 8
    depth: int = 2
    position: float = 0.6
    projection: Projection = "similarity"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.stride <= 64:
            raise SpecError(message("stride={stride} is not possible: 2 to 64 pixels per token; use 8.",
                                    stride=self.stride))
        if not 1 <= self.depth <= 4:
            raise SpecError(message("depth={depth} is not possible: 1 to 4 layers; use 2.", depth=self.depth))
        if self.attention.dim % 2:
            raise SpecError(message("dim={dim} is not possible: Fourier features come in pairs; use an even dim.",
                                    dim=self.attention.dim))
        if self.projection == "similarity" and self.attention.qk_channels != self.attention.dim:
            raise SpecError(message("qk_dim={qk_dim} is not possible: Wq = Wk = 1 needs qk_dim = dim = {dim}; leave "
                                    "qk_dim out.", qk_dim=self.attention.qk_channels, dim=self.attention.dim))


class PatchModel(nn.Module):
    """Photograph -> patch features -> `depth` attention layers, each reading what the one before it wrote.

    Under "similarity" a layer replaces each token by the average of the tokens most like it: from layer to layer, like
    gathers with like.

    Args:
        spec: what it is made of.
    """

    def __init__(self, spec: PatchSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed = PatchEmbedding(spec.attention.dim, spec.stride, spec.position, spec.seed)
        attention = spec.attention
        if spec.projection == "similarity":
            # Wq = Wk = 1 leaves the softmax's sharpness to the scale.
            attention = replace(attention, qk_scale=SHARPNESS, side_dwconv=0)
        with torch.random.fork_rng(devices=()):
            self.layers = nn.ModuleList(BiLevelRoutingAttention.from_spec(attention) for _ in range(spec.depth))
        if spec.projection == "similarity":
            for layer in self.layers:
                _set_identity(layer)
        else:
            redraw(self.layers, spec.seed)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) RGB in 0 to 1 -> (b, dim, ceil(H / stride), ceil(W / stride))."""
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return x


class PatchEmbedding(nn.Module):
    """(b, 3, H, W) RGB in 0 to 1 -> (b, dim, h, w) random Fourier features of the patches.

    Args:
        dim: channels out, even.
        stride: pixels per token; a last patch that reaches over the edge is described by what is there.
        position: weight of the patch's place.
        seed: of the features.
    """

    directions: Tensor

    def __init__(self, dim: int, stride: int, position: float, seed: int) -> None:
        super().__init__()
        self.stride = stride
        self.position = position
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("directions", torch.randn(dim // 2, FEATURES + 2, generator=generator), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        look = patch_features(x, self.stride) * x.new_tensor(WEIGHTS).view(1, -1, 1, 1)
        place = patch_places(look) * self.position
        phase = F.conv2d(torch.cat([look, place], 1), self.directions[..., None, None])
        # Dot product of two tokens: exp(-distance²/2), 1 for equal ones. Dividing by the square root of the number of
        # pairs makes it so; cosines and sines alternate, so that every head gets whole pairs.
        waves = torch.stack([phase.cos(), phase.sin()], 2).flatten(1, 2)
        return waves / math.sqrt(phase.shape[1])


def patch_features(rgb: Tensor, stride: int) -> Tensor:
    """(b, 3, H, W) RGB in 0 to 1 -> (b, 14, h, w): Lab mean, Lab spread, edge directions; each of mean 0, spread 1."""
    def per_patch(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)

    lab = rgb_to_lab(rgb)
    mean = per_patch(lab)
    spread = (per_patch(lab.square()) - mean.square()).clamp(min=0).sqrt()
    edges = per_patch(edge_directions(lab[:, :1])).sqrt()
    features = torch.cat([mean, spread, edges], 1)
    centred = features - features.mean((2, 3), keepdim=True)
    scale = centred.square().mean((2, 3), keepdim=True).sqrt()
    # A feature that hardly varies (the colour of a grey photograph) is noise: it is not blown up.
    floor = scale.new_tensor([1.0] * 6 + [0.1] * EDGE_DIRECTIONS).view(1, -1, 1, 1)
    return centred / scale.maximum(floor)


def patch_places(like: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, 2, h, w): row and column of each patch, mean 0, spread 1 along the longer side."""
    b, _, h, w = like.shape
    rows, cols = (torch.arange(n, device=like.device, dtype=like.dtype) - (n - 1) / 2 for n in (h, w))
    spread = max(h, w) / math.sqrt(12)
    return torch.stack([rows[:, None].expand(h, w), cols.expand(h, w)])[None].expand(b, -1, -1, -1) / spread


def edge_directions(light: Tensor) -> Tensor:
    """(b, 1, H, W) lightness -> (b, 8, H, W): gradient strength in the two of 8 directions nearest to its angle."""
    sobel = light.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    gx, gy = F.conv2d(F.pad(light, (1, 1, 1, 1), mode="replicate"), torch.stack([sobel, sobel.T])[:, None]).unbind(1)
    strength = (gx.square() + gy.square()).sqrt()
    place = (torch.atan2(gy, gx) / math.pi % 1.0) * EDGE_DIRECTIONS                     # edges have no sign
    bins = torch.arange(EDGE_DIRECTIONS, device=light.device).view(1, -1, 1, 1)
    gap = (place[:, None] - bins).abs()
    near = (1 - torch.minimum(gap, EDGE_DIRECTIONS - gap)).clamp(min=0)
    return near * strength[:, None]


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """(b, 3, H, W) sRGB in 0 to 1 -> CIE Lab under D65, L from 0 to 100 (IEC 61966-2-1, CIE 15)."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp(min=0) ** 2.4, rgb / 12.92)
    to_xyz = rgb.new_tensor([[0.4124564, 0.3575761, 0.1804375],
                             [0.2126729, 0.7151522, 0.0721750],
                             [0.0193339, 0.1191920, 0.9503041]])
    white = to_xyz.sum(1)
    xyz = torch.einsum("dc,bchw->bdhw", to_xyz / white[:, None], linear)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@torch.no_grad()
def _set_identity(layer: nn.Module) -> None:
    """Make q, k, v and the output the token itself."""
    assert isinstance(layer, BiLevelRoutingAttention)
    dim = layer.dim
    if isinstance(layer.qkv, QKVLinear):
        layer.qkv.qkv.weight.copy_(torch.eye(dim).repeat(3, 1))
        layer.qkv.qkv.bias.zero_()
    if isinstance(layer.wo, nn.Linear):
        layer.wo.weight.copy_(torch.eye(dim))
        layer.wo.bias.zero_()
