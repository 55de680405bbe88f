"""The classes that YOLO rows name. Checkpoints keep these class paths, so they never move.

Unpickling one of them imports this package, and importing it registers: a checkpoint brings its own support.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import C2f

from bra import attention


class BiLevelRoutingAttention(attention.BiLevelRoutingAttention):
    """The row that people have: attention in place of the map, no norm before it and no shortcut around it."""


class BRABlock(nn.Module):
    """Attention beside the map: x + gate · BRA(LayerNorm(x)), with a gate of zeros, so that it starts as the identity.

    A pretrained model into which it is put therefore computes what it computed before. Arguments are those of
    `BRASpec`, in its order.

    Raises:
        SpecError: an argument is impossible; the message names value, range and cure.
    """

    def __init__(self, dim: int, *settings: Any, **named: Any) -> None:
        super().__init__()
        attn = attention.BiLevelRoutingAttention(dim, *settings, **named)
        self.norm = nn.LayerNorm(dim)
        self.attn = attn
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        normed = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        attended: Tensor = self.attn(normed)
        return x + self.gate[:, None, None] * attended


class C2fBRA(C2f):  # type: ignore[misc]    # ultralytics has no types
    """C2f whose every bottleneck is followed by a `BRABlock`: pretrained C2f weights fit, and keep their meaning.

    Args:
        c1: channels in.
        c2: channels out.
        n: bottlenecks.
        shortcut: whether the bottlenecks have one.
        options: keywords of `BRASpec` but `dim`, for all n blocks.

    Raises:
        SpecError: an option is impossible for the c2/2 channels inside.
    """

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False,
                 options: Mapping[str, Any] | None = None) -> None:
        super().__init__(c1, c2, n, shortcut)
        self.attn = nn.ModuleList(BRABlock(self.c, **(options or {})) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h, w)."""
        return self._gathered(list(self.cv1(x).chunk(2, 1)))

    def forward_split(self, x: Tensor) -> Tensor:
        """The same with split() in place of chunk(), which Ultralytics prefers when it exports."""
        return self._gathered(list(self.cv1(x).split((self.c, self.c), 1)))

    def _gathered(self, parts: list[Tensor]) -> Tensor:
        for bottleneck, attn in zip(self.m, self.attn, strict=True):
            parts.append(attn(bottleneck(parts[-1])))
        out: Tensor = self.cv2(torch.cat(parts, 1))
        return out
