"""Attention blocks as other code bases write them, small, with their weights written out where they can say them.

`Tokens` and `ShiftedBlock` are built as those of timm and of Swin's authors are; the rest are the libraries' own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Tokens(nn.Module):
    """Attention of timm's kind: one linear for q, k, v; `written` keeps the weights of the last call."""

    def __init__(self, dim: int = 32, num_heads: int = 4, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q_norm = nn.LayerNorm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim) if qk_norm else nn.Identity()
        self.written = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        self.written = (self.scale * self.q_norm(q) @ self.k_norm(k).mT).softmax(-1)
        return self.proj((self.written @ v).transpose(1, 2).reshape(b, n, c))


class Turned(Tokens):
    """The same with something of its own: keys are turned by one place before they are met."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(((self.scale * q @ k.roll(1, 2).mT).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class Vit(nn.Module):
    """Patches, tokens before them, and blocks of `Tokens`."""

    def __init__(self, block: Any = Tokens, patch: int = 16, dim: int = 32, registers: int = 0,
                 cls: bool = True) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        if cls:
            self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        if registers:
            self.reg_token = nn.Parameter(torch.randn(1, registers, dim))
        self.blocks = nn.ModuleList([block(dim), block(dim)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        before = [getattr(self, name).expand(len(x), -1, -1) for name in ("cls_token", "reg_token")
                  if hasattr(self, name)]
        x = torch.cat([*before, x], 1)
        for block in self.blocks:
            x = x + block(x)
        return x


class WindowAttention(nn.Module):
    """Attention of Swin's authors: it gets windows, and what may not be attended across seams as a mask."""

    def __init__(self, dim: int, window: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.window_size, self.scale = num_heads, (window, window), (dim // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, num_heads))
        rows, cols = (t.flatten() for t in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
        self.register_buffer("relative_position_index", (rows[:, None] - rows + window - 1) * (2 * window - 1) + (
            cols[:, None] - cols + window - 1))
        self.written = torch.zeros(0)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        index: Any = self.relative_position_index
        logits = self.scale * q @ k.mT + self.relative_position_bias_table[index].permute(2, 0, 1)
        if mask is not None:
            logits = (logits.reshape(-1, len(mask), self.num_heads, t, t) + mask[:, None]).reshape(n, -1, t, t)
        self.written = logits.softmax(-1)
        return self.proj((self.written @ v).transpose(1, 2).reshape(n, t, c))


class ShiftedBlock(nn.Module):
    """Pads a map (b, h, w, c) to whole windows, rolls it, and attends within them."""

    def __init__(self, dim: int = 32, window: int = 4, shift: int = 2, num_heads: int = 4) -> None:
        super().__init__()
        self.window_size, self.shift_size = window, shift
        self.attn = WindowAttention(dim, window, num_heads)

    def rolled(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (windows, t, c)."""
        s, (b, h, w, c) = self.window_size, x.shape
        x = nn.functional.pad(x, (0, 0, 0, -w % s, 0, -h % s)).roll((-self.shift_size, -self.shift_size), (1, 2))
        return x.reshape(b, x.shape[1] // s, s, x.shape[2] // s, s, c).transpose(2, 3).reshape(-1, s * s, c)

    def forward(self, x: Tensor) -> Tensor:
        s, by, (b, h, w, c) = self.window_size, self.shift_size, x.shape
        high, wide = h + -h % s, w + -w % s
        parts = torch.zeros(1, high, wide, 1)
        for n, rows in enumerate((slice(0, high - s), slice(high - s, high - by), slice(high - by, high))):
            for m, cols in enumerate((slice(0, wide - s), slice(wide - s, wide - by), slice(wide - by, wide))):
                parts[:, rows, cols] = 3 * n + m
        parts = parts.reshape(1, high // s, s, wide // s, s).transpose(2, 3).reshape(-1, s * s)
        mask = torch.where(parts[:, None] == parts[:, :, None], 0.0, -100.0) if by else None
        out = self.attn(self.rolled(x), mask).reshape(b, high // s, wide // s, s, s, c).transpose(2, 3)
        return out.reshape(b, high, wide, c).roll((by, by), (1, 2))[:, :h, :w]
