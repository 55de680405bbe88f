"""Whether operators just run, or something records or transforms them."""

from __future__ import annotations

import torch
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext


def runs_eagerly() -> bool:
    """Whether operators just run: no compiler, exporter or tracer records them, where the rounds of a loop would be
    frozen at this map's size, and no transform of `torch.func` is active, which our own backward does not support."""
    recorded = torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export() or \
        torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return not recorded and torch._C._functorch.maybe_current_level() is None


def is_counted() -> bool:
    """Whether somebody listens to torch's functions, as counters of multiplications do: they know no operator of ours.

    A default device is such a listener too, and counts nothing.
    """
    listening = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return any(not isinstance(mode, DeviceContext) for mode in listening)
