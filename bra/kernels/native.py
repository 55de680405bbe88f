"""Calls the compiled form of routed attention, `routed.cpp`, where it was built: float32 on a CPU.

setuptools builds it when the package is installed, once for each kind of processor, and leaves out what the machine's
compiler cannot build. Without it everything works, in torch's own operators. The library holds no state; ctypes lets
other Python threads run while it works, and it takes as many threads as torch would.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from typing import Any, Final

import torch
from torch import Tensor

KINDS: Final = {"AVX512": ("avx2", "any"), "AVX2": ("avx2", "any")}
"""By what torch takes the processor for (ATEN_CPU_CAPABILITY lowers it): which builds run on it, fastest first."""
TENSORS: Final = ("q", "k", "v", "routes", "factor", "real", "out", "sums", "grad", "dq", "dk", "dv", "df")
SIZES: Final = ("b", "m", "n", "t", "s", "topk", "cq", "cv")
STRIDED: Final = ("q", "k", "v", "out", "grad", "dq", "dk", "dv")


class _Call(ctypes.Structure):
    """`Call` of routed.cpp, field by field."""

    _fields_ = [*((name, ctypes.c_void_p) for name in TENSORS), *((name, ctypes.c_int64) for name in SIZES),
                *((f"s_{name}", ctypes.c_int64 * 4) for name in STRIDED),
                ("scale", ctypes.c_float), ("threads", ctypes.c_int32)]


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The fastest build that is there and that this processor runs."""
    for kind in KINDS.get(torch.backends.cpu.get_cpu_capability(), ("any",)):
        found = importlib.util.find_spec(f"bra.kernels._routed_{kind}")
        if found is not None and found.origin is not None:
            try:
                return ctypes.CDLL(found.origin)
            except OSError:         # built elsewhere, such as against another C library
                continue
    return None


def suits(itemsize: int) -> bool:
    """Whether floating numbers of so many bytes go through here: float32, where a build runs on this processor."""
    return itemsize == 4 and _library() is not None


def room_bytes(s: int, c_qk: int, c_v: int, k: int) -> int:
    """Bytes that one thread of `forward` works in: keys and values of one window's routes, some tiles beside them."""
    return 4 * (k * s * (c_qk + c_v) + (c_qk + c_v + 128) * 24)


def _run(name: str, q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, factor: Tensor | None,
         real_keys: Tensor | None, **more: Tensor | None) -> None:
    (b, m, n, t, cq), (s, cv), library = q.shape, v.shape[3:], _library()
    assert library is not None
    tensors = {"q": q, "k": k, "v": v, **more}
    # Channels side by side; what is written was made so.
    held = {key: x if x is None or x.stride(-1) == 1 else x.contiguous() for key, x in tensors.items()}
    held |= {"routes": r_idx.contiguous(), "factor": None if factor is None else factor.contiguous(),
             "real": None if real_keys is None else real_keys.contiguous()}
    call = _Call(b=b, m=m, n=n, t=t, s=s, topk=r_idx.shape[2], cq=cq, cv=cv, scale=scale,
                 threads=torch.get_num_threads())
    for key, x in held.items():
        if x is not None:
            setattr(call, key, x.data_ptr())
            if key in STRIDED:
                setattr(call, f"s_{key}", (ctypes.c_int64 * 4)(*x.stride()[:4]))
    if getattr(library, name)(ctypes.byref(call)):
        raise MemoryError(f"no memory for the keys of one window, {r_idx.shape[2] * s} times {cq + cv} numbers.")


def by_token(like: Tensor, c: int, zeros: bool = False) -> Tensor:
    """(b, m, n, t, c) for `like` (b, m, n, t, ·); in memory (b, n, t, m, c): heads side by side, ready to be joined."""
    b, m, n, t = like.shape[:4]
    made = like.new_zeros(b, n, t, m, c) if zeros else like.new_empty(b, n, t, m, c)
    return made.permute(0, 3, 1, 2, 4)


def forward(q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, factor: Tensor | None,
            real_keys: Tensor | None) -> tuple[Tensor, Tensor]:
    """As `cpu.attend_chunked`: (b, m, p2, t, c), and log2 of the sum of each row's exponentials (b, m, p2, t)."""
    out = by_token(q, v.shape[4])
    sums = q.new_empty(q.shape[:4])
    _run("routed_forward", q, k, v, r_idx, scale, factor, real_keys, out=out, sums=sums)
    return out, sums


def backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, factor: Tensor | None,
             real_keys: Tensor | None, out: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of q, k, v, and of the factor (b, p2, k) where there is one; the same bits each time.

    Args:
        grad: (b, m, p2, t, c), the gradient of `out`.
        q: as in `forward`, and so are k, v, r_idx, scale, factor and real_keys.
        out: what `forward` returned.
        sums: likewise.
    """
    dq, dk, dv = by_token(q, q.shape[4]), by_token(k, k.shape[4], zeros=True), by_token(v, v.shape[4], zeros=True)
    df: Any = None if factor is None else q.new_empty(q.shape[0], q.shape[1], *factor.shape[1:])
    _run("routed_backward", q, k, v, r_idx, scale, factor, real_keys, out=out, sums=sums, grad=grad, dq=dq, dk=dk,
         dv=dv, df=df)
    return dq, dk, dv, None if df is None else df.sum(1)
