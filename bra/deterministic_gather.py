"""Gather of rows of a matrix, with a backward that is the same each time on a GPU, and fast there.

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


def gather_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of a matrix by their numbers, x[rows]: (n, c), (l,) -> (l, c)."""
    if x.is_cuda and runs_eagerly():
        picked: Tensor = _GatherRows.apply(x, rows)
        return picked
    return x.index_select(0, rows)      # whose backward adds up in order on a CPU


class _GatherRows(torch.autograd.Function):
    """x[rows]; its backward is `_SumRows`, and that one's is this again, so that there are gradients of any order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.save_for_forward(rows)
        ctx.count = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows, = ctx.saved_tensors
        return _SumRows.apply(grad, rows, ctx.count), None

    @staticmethod
    def jvp(ctx: Any, x: Tensor, _rows: None) -> Tensor:
        rows, = ctx.saved_tensors
        return x.index_select(0, rows)


class _SumRows(torch.autograd.Function):
    """(l, c), (l,) -> (n, c): row i is the sum of those of x that `rows` sends to i."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.save_for_forward(rows)
        ctx.count = count
        return sum_rows(x, rows, count)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, = ctx.saved_tensors
        return _GatherRows.apply(grad, rows), None, None

    @staticmethod
    def jvp(ctx: Any, x: Tensor, _rows: None, _count: None) -> Tensor:
        rows, = ctx.saved_tensors
        return sum_rows(x, rows, ctx.count)


def sum_rows(x: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sums of rows by the row that each goes to, in the order in which they stand, without atomics: (l, c), (l,) ->
    (count, c)."""
    sorted_rows, order = rows.sort(stable=True)
    starts = torch.searchsorted(sorted_rows, torch.arange(count, device=rows.device))
    return F.embedding_bag(order, x, starts, mode="sum")
