"""Routed attention on a CPU, a few windows at a time: neither the gathered keys nor the weights are ever held whole.

float32 goes through the compiled form of `native` where that was built; what follows is of the form in torch's own
operators, which takes the rest.

What is small per head decides the form. With 8 channels in a head, a matrix product is as fast as its longest row of
numbers in a register, so weights are laid (keys, queries): both products then run along the queries, not along 8
channels. exp2 is the fastest exponential that torch has, so the base of the softmax goes into the scale. Its largest
weight is not looked for: without it a row's sum only has to stay within what floats can hold, which is looked up
afterwards; where one did not, all is done again with the largest weight taken off first.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor

from bra.kernels import native

CHUNK_ELEMENTS = 2**20
"""Attention weights held at once: 4 MiB of float32, which caches hold; smaller ones make threads wait for each other
more often. Where one window has more, some of its queries."""
LEAST_QUERIES = 32
"""Queries that go through together however many keys there are: fewer would starve the products."""
LEAST_SUM, LARGEST_SUM = 2.0**-60, 2.0**60
"""A row's sum of exponentials in here has lost nothing: numbers of float32 reach from 2^-126 to 2^127."""


def attend_chunked(q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, factor: Tensor | None = None,
                   real_keys: Tensor | None = None) -> Tensor:
    """Gather and attend: (b, m, p2, t, c) from q (b, m, p2, t, Q), k, v (b, m, p2, s, ·) and r_idx (b, p2, k).

    Args:
        q: queries, float32 or float64 on a CPU, as k and v.
        k: keys of every window.
        v: values of every window.
        r_idx: the windows that each window chose.
        scale: factor on q·k.
        factor: (b, p2, k) by which gathered k and v are multiplied, or None.
        real_keys: (p2, s) bool, which keys may be attended; None for all.
    """
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (q, k, v, factor)):
        out: Tensor = _Attend.apply(q, k, v, r_idx, scale, factor, real_keys)
        return out
    result: Tensor = _attend(q, k, v, r_idx, scale, factor, real_keys)[0]
    return result


def chunk_bytes(m: int, p2: int, t: int, s: int, c_qk: int, c_v: int, k: int, itemsize: int, soft: bool,
                masked: bool) -> int:
    """Bytes that `attend_chunked` takes and gives back, beyond what it is given, its result and the rows' sums.

    Args:
        m: heads.
        p2: windows, of all images.
        t: queries in a window.
        s: keys in a window.
        c_qk: channels of a head's queries and keys.
        c_v: channels of a head's values.
        k: routed windows.
        itemsize: bytes per number.
        soft: whether there is a factor.
        masked: whether keys are masked.
    """
    if native.suits(itemsize):
        return native.room_bytes(s, c_qk, c_v, k)
    rows, keys = m * p2, k * s
    group, span = rounds(rows, t, keys)
    by_head = rows * (t * c_qk + s * (c_qk + c_v)) if m > 1 and p2 > 1 else 0       # else they lie so already
    gathered = group * keys * (c_qk + c_v) + soft * group * keys * max(c_qk, c_v)
    return (by_head + group * (keys * span + span * c_qk) + gathered) * itemsize + rows * (k * 8 + keys * masked)


def rounds(windows: int, t: int, keys: int) -> tuple[int, int]:
    """How many windows, and how many of their t queries each, go through at once against so many keys each."""
    group = max(1, min(windows, CHUNK_ELEMENTS // max(keys * t, 1)))
    return group, t if keys * t <= CHUNK_ELEMENTS else min(t, max(LEAST_QUERIES, CHUNK_ELEMENTS // keys))


class _Rows:
    """Windows of all images and heads in one row each, and the chunks that they go through in."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, factor: Tensor | None,
                 real_keys: Tensor | None) -> None:
        b, m, p2, s = k.shape[:4]
        self.heads, self.shape, self.scale = m, q.shape[:3], scale * math.log2(math.e)
        self.q, self.k, self.v = (t.reshape(-1, *t.shape[3:]) for t in (q, k, v))       # (b·m·windows, t, Q) …
        first = torch.arange(b * m, device=k.device).view(b, m, 1, 1) * p2
        self.rows = (r_idx[:, None] + first).flatten(0, 2)                              # (b·m·windows, k)
        self.factor = None if factor is None else factor[:, None].expand(-1, m, -1, -1).flatten(0, 2)
        self.masked = None
        if real_keys is not None:
            self.masked = ~real_keys[r_idx][:, None].expand(-1, m, -1, -1, -1).flatten(3).flatten(0, 2)
        self.n_keys = self.rows.shape[1] * s
        self.group, self.span = rounds(len(self.q), self.q.shape[1], self.n_keys)

    def chunks(self) -> list[slice]:
        return [slice(at, at + self.group) for at in range(0, len(self.q), self.group)]

    def parts(self) -> list[slice]:
        """The queries of each window that go through together: all, unless a window is large."""
        return [slice(at, at + self.span) for at in range(0, self.q.shape[1], self.span)]

    def room(self) -> Tensor:
        """Space for the weights of one part of a chunk: windows · keys · queries."""
        return self.q.new_empty(self.group * self.n_keys * self.span)

    def within(self, room: Tensor, q: Tensor) -> Tensor:
        """As much of the space as the weights of queries (windows, queries, Q) take: (windows, keys, queries)."""
        return room[: len(q) * self.n_keys * q.shape[1]].view(len(q), self.n_keys, q.shape[1])

    def gathered(self, kv: Tensor, chunk: slice) -> Tensor:
        """(windows, k·s, ·) chosen keys or values, without their factor."""
        rows = self.rows[chunk]
        return kv.index_select(0, rows.flatten()).view(len(rows), self.n_keys, -1)

    def times_factor(self, chosen: Tensor, chunk: slice) -> Tensor:
        if self.factor is None:
            return chosen
        factor = self.factor[chunk]
        return (chosen.view(*factor.shape, -1, chosen.shape[2]) * factor[..., None, None]).flatten(1, 2)

    def weights(self, q: Tensor, keys: Tensor, chunk: slice, shifted: bool, room: Tensor) -> Tensor:
        """(windows, keys, queries) exponentials, not yet divided by their sum."""
        weights = torch.bmm(keys, q.mT, out=self.within(room, q))
        if self.masked is not None:
            weights.masked_fill_(self.masked[chunk, :, None], -math.inf)
        if shifted:
            weights.sub_(weights.amax(1, keepdim=True))
        return weights.exp2_()

    def forward(self) -> tuple[Tensor, Tensor, bool]:
        """(b, m, windows, t, c), the sums (b·m·windows, 1, t), and whether largest weights had to be taken off."""
        out = self.q.new_empty(len(self.q), self.v.shape[2], self.q.shape[1])
        sums = self.q.new_empty(len(self.q), 1, self.q.shape[1])
        self._fill(out, sums, shifted=False)
        shifted = not self._in_range(sums)
        if shifted:
            self._fill(out, sums, shifted=True)
        return out.view(*self.shape, *out.shape[1:]).mT, sums, shifted

    def _in_range(self, sums: Tensor) -> bool:
        least, largest = (float(t) for t in torch.aminmax(sums)) if sums.numel() else (1.0, 1.0)
        return least > LEAST_SUM and largest < LARGEST_SUM

    def _fill(self, out: Tensor, sums: Tensor, shifted: bool) -> None:
        room = self.room()
        for chunk in self.chunks():
            keys, values = (self.times_factor(self.gathered(t, chunk), chunk) for t in (self.k, self.v))
            for part in self.parts():
                weights = self.weights(self.q[chunk, part] * self.scale, keys, chunk, shifted, room)
                total = torch.sum(weights, 1, keepdim=True, out=sums[chunk, :, part])
                torch.bmm(values.mT, weights, out=out[chunk, :, part]).div_(total)
            del keys, values        # else they would still be there while the next are gathered

    def backward(self, grad: Tensor, out: Tensor, sums: Tensor, shifted: bool) -> tuple[Tensor, ...]:
        """Gradients of q, k, v and, where there is one, of the factor; weights are computed again, chunk by chunk.

        Args:
            grad: (b, m, windows, t, c), the gradient of `out`.
            out: what `forward` returned.
            sums: likewise.
            shifted: likewise.
        """
        out, grad = (t.mT.reshape(-1, t.shape[4], t.shape[3]) for t in (out, grad))             # (rows, c, t)
        dq, dk, dv = (t.new_zeros(len(t), t.shape[2], t.shape[1]) for t in (self.q, self.k, self.v))    # (rows, ·, t)
        df = None if self.factor is None else torch.zeros_like(self.factor)
        room, slopes = self.room(), self.room()
        for chunk in self.chunks():
            raw_keys, raw_values = (self.gathered(t, chunk) for t in (self.k, self.v))
            keys, values = self.times_factor(raw_keys, chunk), self.times_factor(raw_values, chunk)
            # values·toward - mean in one product: a column of ones meets a row of means.
            with_one = torch.cat([values, values.new_ones(1).expand(*values.shape[:2], 1)], 2)
            d_keys = d_values = None
            for part in self.parts():
                q = self.q[chunk, part] * self.scale
                weights = self.weights(q, keys, chunk, shifted, room)
                toward = grad[chunk, :, part] / sums[chunk, :, part]
                mean = (toward * out[chunk, :, part]).sum(1, keepdim=True)
                slope = torch.bmm(with_one, torch.cat([toward, -mean], 1), out=self.within(slopes, q)).mul_(weights)
                torch.bmm(keys.mT, slope, out=dq[chunk, :, part])
                more_keys, more_values = torch.bmm(q.mT, slope.mT), torch.bmm(toward, weights.mT)
                d_keys = more_keys if d_keys is None else d_keys.add_(more_keys)
                d_values = more_values if d_values is None else d_values.add_(more_values)
            assert d_keys is not None
            assert d_values is not None
            d_keys.mul_(math.log(2))
            if df is not None:
                by_key = (d_keys * raw_keys.mT).sum(1) + (d_values * raw_values.mT).sum(1)
                torch.sum(by_key.view(len(d_keys), df.shape[1], -1), 2, out=df[chunk])
            self.scatter(dk, d_keys, chunk)
            self.scatter(dv, d_values, chunk)
            del raw_keys, raw_values, keys, values, with_one, d_keys, d_values
        return dq.mul_(self.scale * math.log(2)).mT, dk.mT, dv.mT, *(() if df is None else (df,))

    def scatter(self, total: Tensor, chosen: Tensor, chunk: slice) -> None:
        """Add gradients (windows, c, k·s) of gathered keys or values to those (b·m·windows, c, s) they came from."""
        rows = self.rows[chunk]
        by_rank = chosen.view(*chosen.shape[:2], rows.shape[1], -1).transpose(1, 2)      # (windows, k, c, s)
        if self.factor is not None:
            by_rank = by_rank * self.factor[chunk][..., None, None]
        total.index_add_(0, rows.flatten(), by_rank.flatten(0, 1))


def _forward(q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, factor: Tensor | None,
             real_keys: Tensor | None) -> tuple[Tensor, Tensor, bool]:
    if native.suits(q.element_size()):
        out, sums = native.forward(q, k, v, r_idx, scale, factor, real_keys)
        return out, sums.view(-1, 1, q.shape[3]), False
    return _Rows(q, k, v, r_idx, scale, factor, real_keys).forward()


def _shapes(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, bool]:
    """What `_forward` returns, of tensors that have a shape and no numbers."""
    b, m, p2, t = q.shape[:4]
    sums, compiled = q.new_empty(b * m * p2, 1, t), native.suits(q.element_size())
    out = native.by_token(q, v.shape[4]) if compiled else q.new_empty(b, m, p2, v.shape[4], t).mT
    return out, sums, False


SCHEMA: Final = ("attend_chunked(Tensor q, Tensor k, Tensor v, Tensor r_idx, float scale, Tensor? factor, "
                 "Tensor? real_keys) -> (Tensor, Tensor, bool)")
# One operator to whoever counts operators: its rounds are its own affair. Not `torch.library.custom_op`, which imports
# the compiler, 1.2 s and 150 MB, when it first runs. Asked for first, since a server may import this file anew.
if not hasattr(torch.ops.bra, "attend_chunked"):
    _LIBRARY: Final = torch.library.Library("bra", "FRAGMENT")  # type: ignore[no-untyped-call]
    _LIBRARY.define(SCHEMA)  # type: ignore[no-untyped-call]
    _LIBRARY.impl("attend_chunked", _forward, "CPU")  # type: ignore[no-untyped-call]
    _LIBRARY.impl("attend_chunked", _shapes, "Meta")  # type: ignore[no-untyped-call]
_attend: Final = torch.ops.bra.attend_chunked


class _Attend(torch.autograd.Function):
    """The same with gradients: q, k, v and the routing are kept for them, and one sum for every row."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, factor: Tensor | None,
                real_keys: Tensor | None) -> Tensor:
        out: Tensor
        out, sums, ctx.shifted = _attend(q, k, v, r_idx, scale, factor, real_keys)
        ctx.save_for_backward(q, k, v, r_idx, factor, real_keys, out, sums)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():      # create_graph=True: without an error the second gradient would be too small
            raise RuntimeError("this attention gives no gradient of a gradient: call the layer with "
                               "ret_attn_mask=True, whose every step has one.")
        q, k, v, r_idx, factor, real_keys, out, sums = ctx.saved_tensors
        if native.suits(q.element_size()):
            dq, dk, dv, by_window = native.backward(grad, q, k, v, r_idx, ctx.scale, factor, real_keys, out, sums)
            return dq, dk, dv, None, None, by_window, None
        rows = _Rows(q, k, v, r_idx, ctx.scale, factor, real_keys)
        with torch.autocast("cpu", enabled=False):      # a backward inside of it must not round some products
            dq, dk, dv, *df = rows.backward(grad, out, sums, ctx.shifted)
        b, m = k.shape[:2]
        by_window = None if factor is None else df[0].view(b, m, *factor.shape[1:]).sum(1)
        return dq.reshape(q.shape), dk.reshape(k.shape), dv.reshape(v.shape), None, None, by_window, None
