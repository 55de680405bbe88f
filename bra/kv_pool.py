"""Pooling of k and v inside each window, the seven `kv_downsample_mode`s.

Two of them, "fracpool" and "conv", are named but unwritten in the authors' code; both are built here so that k and v
are pooled over the same places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bra.errors import GridError
from bra.messages import message
from bra.spec import BRASpec


class FractionalPool(nn.Module):
    """Fractional max pooling (Graham, arXiv:1412.6071) whose random cuts are drawn once per call.

    k and v are channels of one map, so they are cut at the same places, and so is every window. In eval mode the cuts
    are the middle ones and the result is always the same.

    Args:
        ratio: a window side of n tokens becomes max(1, n // ratio).
        kernel: side of the pooled region, at most what the window leaves room for.
    """

    def __init__(self, ratio: int, kernel: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, max(1, h // ratio), max(1, w // ratio))."""
        cuts = x.new_empty(1, 1, 2).uniform_() if self.training else x.new_full((1, 1, 2), 0.5)
        size = [max(1, side // self.ratio) for side in x.shape[-2:]]
        kernel = [min(self.kernel, side - out + 1) for side, out in zip(x.shape[-2:], size, strict=True)]
        return F.fractional_max_pool2d(x, kernel, size, _random_samples=cuts.expand(*x.shape[:2], 2))


def make_kv_pool(spec: BRASpec) -> nn.Module:
    """The pooling layer of a spec: (n, Q + c, h, w) -> (n, Q + c, h', w')."""
    mode, ratio, channels = spec.kv_downsample_mode, spec.kv_downsample_ratio, spec.qk_channels + spec.dim
    if mode == "ada_avgpool":
        return nn.AdaptiveAvgPool2d(spec.kv_per_win)
    if mode == "ada_maxpool":
        return nn.AdaptiveMaxPool2d(spec.kv_per_win)
    if mode == "conv":
        # One filter per channel keeps k and v apart; it starts as the mean over its kernel.
        conv = nn.Conv2d(channels, channels, spec.kernel, stride=ratio, groups=channels,
                         padding=max(0, spec.kernel - ratio + 1) // 2)
        nn.init.constant_(conv.weight, 1 / spec.kernel**2)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        return conv
    if mode == "identity" or ratio == 1:
        return nn.Identity()
    if mode == "fracpool":
        return FractionalPool(ratio, spec.kernel)
    return nn.MaxPool2d(ratio) if mode == "maxpool" else nn.AvgPool2d(ratio)


def check_window_fits(spec: BRASpec, h: int, w: int) -> None:
    """Raise GridError when a window of h·w tokens is smaller than the pooling of `spec` needs."""
    need = {"maxpool": spec.kv_downsample_ratio, "avgpool": spec.kv_downsample_ratio,
            "conv": spec.kernel - 2 * (max(0, spec.kernel - spec.kv_downsample_ratio + 1) // 2)}
    side = need.get(spec.kv_downsample_mode)
    if side is not None and min(h, w) < side:
        raise GridError(message("kv_downsample_mode={mode!r} needs windows of at least {side}×{side} tokens, and "
                                "n_win={n_win} makes windows of {h}×{w} here: lower n_win or kv_downsample_ratio, or "
                                "use 'identity'.", mode=spec.kv_downsample_mode, side=side, n_win=spec.n_win, h=h, w=w))


def pool_kv(layer: nn.Module, kv: Tensor) -> Tensor:
    """(b, p2, h, w, c) -> (b, p2, s, c): k and v pooled inside each window, s = h'·w' keys."""
    if isinstance(layer, nn.Identity):
        return kv.flatten(2, 3)
    b, p2 = kv.shape[:2]
    pooled: Tensor = layer(kv.flatten(0, 1).permute(0, 3, 1, 2))
    return pooled.flatten(2).transpose(1, 2).reshape(b, p2, -1, kv.shape[-1])


def pool_real_kv(layer: nn.Module, kv: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """`pool_kv` over the real tokens only.

    Args:
        layer: what `make_kv_pool` made.
        kv: (b, p2, h, w, c).
        real: (p2, h, w) bool, False for padding.

    Returns:
        (b, p2, s, c), and (p2, s) bool: False for keys that pooled padding only.
    """
    if isinstance(layer, nn.Identity):
        return kv.flatten(2, 3), real.flatten(1)
    # The mask rides along as one more channel, so that it is cut and pooled exactly as the tokens are.
    share = real[None, ..., None].to(kv.dtype).expand(len(kv), -1, -1, -1, 1)
    if isinstance(layer, nn.Conv2d):
        reach = F.max_pool2d(share[0].permute(0, 3, 1, 2), layer.kernel_size, layer.stride,
                             layer.padding)  # type: ignore[arg-type]
        return pool_kv(layer, kv * share), reach.flatten(1) > 0
    if isinstance(layer, (nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
        pooled = pool_kv(layer, torch.cat([kv * share, share], -1))
        count = pooled[..., -1:]
        return pooled[..., :-1] / count.clamp(min=torch.finfo(kv.dtype).tiny), count[0, ..., 0] > 0
    lowest = kv.masked_fill(~real[..., None], torch.finfo(kv.dtype).min)
    pooled = pool_kv(layer, torch.cat([lowest, share], -1))
    seen = pooled[..., -1:] > 0
    return torch.where(seen, pooled[..., :-1], 0), seen[0, ..., 0]


def key_support(layer: nn.Module, h: int, w: int) -> tuple[Tensor, Tensor]:
    """(h', h) and (w', w): the share of each row, and of each column, of a window in each row and column of its keys.

    Key (i, j) looked at token (y, x) in the share rows[i, y]·columns[j, x]; every row of both sums to 1. A key's
    attention is handed back to its tokens in these shares. A max pool takes the largest of its tokens channel by
    channel, so no single token owns the key: it is shared evenly over those it looked at.

    Only for a layer that pools the same way each time (any but "fracpool" in training).
    """
    if isinstance(layer, nn.Identity):
        return torch.eye(h), torch.eye(w)
    lines = (torch.eye(h)[:, None, :, None].expand(-1, 1, h, w), torch.eye(w)[:, None, None].expand(-1, 1, h, w))
    if isinstance(layer, nn.Conv2d):
        pooled = [F.max_pool2d(x, layer.kernel_size, layer.stride,
                               layer.padding) for x in lines]  # type: ignore[arg-type]
    else:
        pooled = [layer(x) for x in lines]
    seen = (pooled[0][:, 0, :, 0].T > 0).float(), (pooled[1][:, 0, 0].T > 0).float()
    return seen[0] / seen[0].sum(-1, keepdim=True), seen[1] / seen[1].sum(-1, keepdim=True)
