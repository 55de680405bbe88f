"""Chooses how a layer attends: `attend_routed` is the only place that does.

Three forms give the same numbers up to rounding. The choice depends on the tensors' shapes, dtype and device and on the
environment variable BRA_ATTEND, on nothing that was measured or noted before:

    chunked    a CPU, float32 or float64: `cpu.attend_chunked`; where its compiled form was not built, and in float64,
               from windows of `LEAST_TOKENS` tokens on
    flex       a CUDA device, where BRA_ATTEND=flex asks for it and the kernel can: `flex.attend`
    gathered   everywhere else, where a counter listens to torch's functions, and in every graph that is compiled,
               exported or traced: `functional.attend_gathered`

FlexAttention is not the default on CUDA since it was never timed there by us; `tests/bench/gpu.py` times all forms.
"""

from __future__ import annotations

import os
import warnings
from typing import Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from bra import functional as BF
from bra.eager import is_counted, runs_eagerly
from bra.kernels import flex, native
from bra.kernels.cpu import attend_chunked

CHOICE: Final = "BRA_ATTEND"
"""Environment variable: "flex" takes the block mask wherever it can run; unset or anything else never does."""
LEAST_TOKENS: Final = 32
"""Tokens per window below which torch's operators have too little to do at once, and its one kernel is faster."""


def attend_routed(q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, factor: Tensor | None = None,
                  real_keys: Tensor | None = None) -> Tensor:
    """Attention of every window's queries to the keys of the windows it chose, by the form that suits the tensors.

    Args:
        q: (b, m, p2, t, Q/m).
        k: (b, m, p2, s, Q/m).
        v: (b, m, p2, s, c/m).
        r_idx: (b, p2, k), the windows that each window chose.
        scale: factor on q·k.
        factor: (b, p2, k) by which gathered k and v are multiplied, or None.
        real_keys: (p2, s) bool, which keys may be attended; None for all.

    Returns:
        (b, m, p2, t, c/m).
    """
    if takes_chunked(q):
        return attend_chunked(q, k, v, r_idx, scale, factor, real_keys)
    if takes_flex(q, factor):
        try:
            return flex.attend(q, k, v, r_idx, scale, real_keys)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            warnings.warn(f"{CHOICE}=flex: the kernel did not compile for q {tuple(q.shape)}, gathering instead "
                          f"({type(error).__name__}).", RuntimeWarning, stacklevel=2)
    return BF.attend_gathered(q, k, v, r_idx, scale, factor, real_keys)


def takes_chunked(q: Tensor) -> bool:
    """Whether queries q (b, m, p2, t, Q/m) are attended by `cpu.attend_chunked`."""
    return (runs_eagerly() and not is_counted() and q.device.type == "cpu" and q.dtype.is_floating_point
            and suits_chunked(q.shape[3], q.element_size()) and not torch.is_autocast_enabled("cpu"))


def suits_chunked(tokens: int, itemsize: int) -> bool:
    """The part of `takes_chunked` that the cost formula needs: tokens per window, and bytes per floating number."""
    return itemsize >= 4 and (tokens >= LEAST_TOKENS or native.suits(itemsize))


def takes_flex(q: Tensor, factor: Tensor | None) -> bool:
    """Whether queries q (b, m, p2, t, Q/m) are attended through FlexAttention.

    Never where operators are counted or run on tensors without numbers, or while CUDA captures a graph: a kernel that
    is still to be compiled refuses there.
    """
    return (q.is_cuda and runs_eagerly() and os.environ.get(CHOICE) == "flex" and not isinstance(q.shape[2], Tensor)
            and _get_current_dispatch_mode() is None and not torch.cuda.is_current_stream_capturing()
            and flex.possible(q, factor))
