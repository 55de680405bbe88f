"""Blocks with bi-level routing attention in them that people write most often, as rows. Their class paths never move.

Others name them as they like; what this package takes for one of these is in `SPELLINGS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import C2PSA
from ultralytics.nn.modules.conv import Conv

from bra import attention

MLP_RATIO: Final = 4
SPELLINGS: Final[Mapping[str, str]] = {
    "c2psabra": "C2PSABRA", "c2psabiformer": "C2PSABRA", "c2psabiformerattention": "C2PSABRA", "c2brapsa": "C2PSABRA",
    "c2psabilevelroutingattention": "C2PSABRA", "c2psabilevelrouting": "C2PSABRA", "c2psawithbra": "C2PSABRA",
    "biformerblock": "BiFormerBlock", "biformerlayer": "BiFormerBlock"}
"""Names that people give to these blocks, in small letters and without underscores -> the row of this package."""


def canonical_name(name: str) -> str:
    """The row of this package that a name means; the name itself where it means none.

    >>> canonical_name("C2PSA_BIFormer"), canonical_name("Conv")
    ('C2PSABRA', 'Conv')
    """
    return SPELLINGS.get(name.lower().replace("_", ""), name)


def canonical(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """A model's content with the names of this package in its rows. Never raises: others judge a strange model."""
    parts = {part: [[*row[:2], canonical_name(row[2]), *row[3:]]
                    if isinstance(row, list) and len(row) == 4 and isinstance(row[2], str) else row for row in rows]
             for part in ("backbone", "head") if isinstance(rows := model.get(part), list)}
    return {**model, **parts}


class PSABlockBRA(nn.Module):
    """The block inside C2PSA with BRA in place of its attention: x + BRA(x), then x + two convolutions of that.

    Args:
        c: channels.
        options: keywords of `BRASpec` but `dim`.
    """

    def __init__(self, c: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.attn = attention.BiLevelRoutingAttention(c, **options)
        self.ffn = nn.Sequential(Conv(c, 2 * c, 1), Conv(2 * c, c, 1, act=False))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        x = x + self.attn(x)
        out: Tensor = x + self.ffn(x)
        return out


class C2PSABRA(C2PSA):  # type: ignore[misc]    # ultralytics has no types
    """C2PSA whose blocks attend with BRA; half of the channels pass by.

    Args:
        c1: channels in.
        c2: channels out, the same.
        n: blocks.
        e: share of the channels that is attended.
        options: keywords of `BRASpec` but `dim`, for all n blocks.

    Raises:
        SpecError: an option is impossible for the c1·e channels inside.
    """

    def __init__(self, c1: int, c2: int, n: int = 1, e: float = 0.5, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(c1, c2, 0, e)
        self.m = nn.Sequential(*(PSABlockBRA(self.c, options or {}) for _ in range(n)))


class BiFormerBlock(nn.Module):
    """A block of BiFormer on a map: x + position term, x + BRA(norm(x)), x + MLP(norm(x)).

    Arguments are those of `BRASpec`, in its order.

    Raises:
        SpecError: an argument is impossible; the message names value, range and cure.
    """

    def __init__(self, dim: int, *settings: Any, **named: Any) -> None:
        super().__init__()
        self.attn = attention.BiLevelRoutingAttention(dim, *settings, **named)
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, MLP_RATIO * dim), nn.GELU(), nn.Linear(MLP_RATIO * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        x = x + self.pos_embed(x)
        x = x + self.attn(self.norm1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        out: Tensor = x + self.mlp(self.norm2(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return out


class CountsAsC2PSA(type):
    """Lets a class be found in Ultralytics' sets of layers that take (c1, c2, n, …), which can be neither read nor
    extended from outside; what it builds is a `C2PSABRA`."""

    def __eq__(cls, other: object) -> bool:
        return other is C2PSA or other is cls

    def __hash__(cls) -> int:
        return hash(C2PSA)

    def __repr__(cls) -> str:
        return repr(C2PSABRA)

    def __call__(cls, *args: Any, **kwargs: Any) -> C2PSABRA:
        """A `C2PSABRA` of these arguments."""
        return C2PSABRA(*args, **kwargs)


class C2PSABRARow(C2PSABRA, metaclass=CountsAsC2PSA):
    """What the parser finds under the name C2PSABRA; never instantiated."""


SAFE: Final = (C2PSABRA, PSABlockBRA, BiFormerBlock, nn.GELU, torch.nn.LayerNorm)
"""What checkpoints with these rows hold, for torch's safe loading."""
