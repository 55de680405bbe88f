"""Picks rows of a matrix, with a backward that is the same each time on a GPU, and fast there.

The backward of `index_select` and of `gather` adds the gradients of a row that was picked several times with atomics;
under `torch.use_deterministic_algorithms`, which Ultralytics turns on by default, torch does that in an order of its
own, element by element. Here the rows are whole windows, and few: their places are sorted by the row they came from,
and every row's gradients summed in one go, which is what an embedding bag is.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bra.eager import runs_eagerly


def pick(x: Tensor, rows: Tensor) -> Tensor:
    """(n, c), (l,) -> (l, c), x[rows]."""
    if x.is_cuda and runs_eagerly():
        picked: Tensor = _Pick.apply(x, rows)
        return picked
    return x.index_select(0, rows)      # whose backward adds up in order on a CPU


class _Pick(torch.autograd.Function):
    """x[rows]; its backward is `_Sum`, and that one's is this again, so that there are gradients of any order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.save_for_forward(rows)
        ctx.count = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows, = ctx.saved_tensors
        return _Sum.apply(grad, rows, ctx.count), None

    @staticmethod
    def jvp(ctx: Any, x: Tensor, _rows: None) -> Tensor:
        rows, = ctx.saved_tensors
        return x.index_select(0, rows)


class _Sum(torch.autograd.Function):
    """(l, c), (l,) -> (n, c): row i is the sum of those of x that `rows` sends to i."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.save_for_forward(rows)
        ctx.count = count
        return summed(x, rows, count)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, = ctx.saved_tensors
        return _Pick.apply(grad, rows), None, None

    @staticmethod
    def jvp(ctx: Any, x: Tensor, _rows: None, _count: None) -> Tensor:
        rows, = ctx.saved_tensors
        return summed(x, rows, ctx.count)


def summed(x: Tensor, rows: Tensor, count: int) -> Tensor:
    """(l, c), (l,) -> (count, c), rows added up by where they go, in the order in which they stand; no atomics."""
    sorted_rows, order = rows.sort(stable=True)
    starts = torch.searchsorted(sorted_rows, torch.arange(count, device=rows.device))
    return F.embedding_bag(order, x, starts, mode="sum")
