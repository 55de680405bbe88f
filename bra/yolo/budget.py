"""What a model would take, learned on the meta device, where sizes are real and memory is not."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from ultralytics.nn import tasks
from ultralytics.nn.modules.head import Detect

from bra.errors import YoloError
from bra.messages import message
from bra.recorder import Capture, recording
from bra.yolo.validate import ModelLimits

STRIDE: Final = 32
SMALLEST_PICTURE: Final = 256       # px; what Ultralytics runs through every model that it builds
SHARE: Final = 16
AXES: Final = 2
LOOK: Final = 64
"""Operators between two questions whether the work is still wanted."""
EXPONENTIAL: Final = 32
"""Multiply-adds that take as long as the exponential of an attention weight and what is done with it."""
RESIZED: Final = {torch.ops.aten.upsample_bilinear2d: 2, torch.ops.aten.upsample_bicubic2d: 4}
"""Rows of a map that each row of a resized one is made of."""


class Budget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what torch is asked for on the meta device, and refuses before anything real is made.

    Attributes:
        calls: operators called.
        live: bytes of tensors alive; those that died lately may still be in it, a sixteenth of the limit at most.
        macs: multiply-adds of convolutions, products and attention, and comparisons of max pooling.
        moved: bytes read and written, which is all that padding or resizing a map costs.
    """

    def __init__(self, limits: ModelLimits, live_bytes: int, what: str, still: Callable[[], object]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limits, self.live_bytes, self.what, self.still = limits, live_bytes, what, still
        self.calls = self.live = self.macs = self.moved = 0
        self.sweep_at = live_bytes // SHARE
        self.alive: dict[Any, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operator's result; YoloError when it is one too many."""
        packet, kwargs = func._overloadpacket, kwargs or {}
        # Torch would work these out step by step, in as much as 70 ms.
        out = args[0].new_empty(*args[0].shape[:2], *args[1]) if packet in RESIZED else func(*args, **kwargs)
        if packet in flop_registry:
            self.macs += flop_registry[packet](*args, **kwargs, out_val=out) // 2
        elif packet is torch.ops.aten.max_pool2d_with_indices:
            self.macs += out[0].numel() * math.prod([*args[1]] * (AXES // len(args[1])))
        made = [tensor for tensor in tree_leaves(out) if isinstance(tensor, Tensor)]
        for tensor in made:
            storage = tensor.untyped_storage()
            self.add(StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        if not func.is_view:
            given = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
            self.moved += sum(map(_nbytes, given)) + RESIZED.get(packet, 1) * sum(map(_nbytes, made))
        self.calls += 1
        if self.calls % LOOK == 0:
            self.still()
        limits = self.limits
        if self.calls > limits.calls or self.macs > limits.macs:
            raise YoloError(message("{what} takes more than {steps:,} steps of torch or {macs:g} GMACs: choose a "
                                    "smaller scale, or fewer repeats.", what=self.what, steps=limits.calls,
                                    macs=limits.macs / 1e9))
        if self.moved > limits.moved_bytes:
            raise YoloError(message("{what} reads and writes more than {memory:g} GB: choose a smaller scale, fewer "
                                    "repeats, or fewer rows that resize, pad or add up large maps.", what=self.what,
                                    memory=limits.moved_bytes / 1e9))
        return out

    def add(self, storage: Any, size: int) -> None:
        """Count a storage once, for as long as it lives."""
        if storage in self.alive:
            return
        self.alive[storage] = size
        self.live += size
        limit = self.live_bytes
        if self.live > self.sweep_at:
            self.alive = {ref: size for ref, size in self.alive.items() if not ref.expired()}
            self.live = sum(self.alive.values())
            self.sweep_at = min(limit, self.live + limit // SHARE)
        if self.live > limit:
            raise YoloError(message("{what} takes more than {memory:,.0f} MB at one time: choose a smaller scale, or "
                                    "fewer channels.", what=self.what, memory=limit / 2**20))


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class OneKernelAttention(TorchFunctionMode):
    """Attention as a CPU runs it, without its rows in memory; the meta device would write them out.

    Where q and v differ in width a CPU writes them out too, and so does this.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The function's result; of the attention function, a tensor of the result's size."""
        if func is F.scaled_dot_product_attention and args[0].dim() == 4 and args[0].shape[-1] == args[2].shape[-1]:
            q, keys, _ = args
            self.budget.macs += 2 * q.numel() * keys.shape[-2]
            return torch.empty_like(q)
        return func(*args, **(kwargs or {}))


def dry_run(model: Mapping[str, Any], limits: ModelLimits, still: Callable[[], object] = lambda: None) -> None:
    """Build and run a checked model without memory.

    Args:
        model: content of its file.
        limits: what it may take.
        still: called now and then; what it raises ends the work.

    Raises:
        YoloError: it would take more than `limits` gives it. What the parser and torch raise is let through.
    """
    side = max(SMALLEST_PICTURE, -(-limits.imgsz // STRIDE) * STRIDE)
    with torch.device("meta"), torch.no_grad():      # inference_mode would hide convolutions from the count
        # Twice: our rows are resolved by building the model once more.
        with Budget(limits, 2 * 4 * limits.parameters, message("building this model"), still):
            layers, save = tasks.parse_model(copy.deepcopy(dict(model)), ch=3, verbose=False)
        count = sum(parameter.numel() for parameter in layers.parameters())
        if count > limits.parameters:
            raise YoloError(message("this model has {count:,} parameters: {most:,} at most; choose a smaller scale.",
                                    count=count, most=limits.parameters))
        layers.eval()
        # A head that trains returns its maps; one that predicts reads strides, which only a real picture tells.
        layers[-1].training = isinstance(layers[-1], Detect)
        budget = Budget(limits, limits.activation_bytes, message("this model, for a picture of {side} px,", side=side),
                        still)
        # Recorded, as when it is looked into: what its layers hand over stays alive to the end.
        with budget, OneKernelAttention(budget), recording() as recorder:
            x: Any = torch.empty(1, 3, side, side)
            maps: list[Any] = []
            for layer in layers:
                if layer.f != -1:
                    x = maps[layer.f] if isinstance(layer.f, int) else [x if f == -1 else maps[f] for f in layer.f]
                x = layer(x)
                maps.append(x if layer.i in save else None)
        for capture in recorder.captures:
            if (full := _full_macs(capture)) > limits.full_macs:
                raise YoloError(message("an attention layer of this model, for a picture of {side} px, works on "
                                        "{h}×{w} tokens: with all windows routed, which can be chosen here, it would "
                                        "take the time of {full:,.0f} GMACs, and {most:,.0f} are given; put it where "
                                        "the map is smaller, or pool its keys.", side=side, h=capture.size[0],
                                        w=capture.size[1],
                                        full=full / 1e9, most=limits.full_macs / 1e9))
        kept = sum(map(_trace_bytes, recorder.captures))
        if kept > limits.trace_bytes:
            raise YoloError(message("the attention layers of this model, for a picture of {side} px, hand over "
                                    "{kept:,.0f} MB to be looked into: {most:,.0f} MB at most; give them fewer windows "
                                    "or channels, or put them where the map is smaller.", side=side, kept=kept / 2**20,
                                    most=limits.trace_bytes / 2**20))


def _full_macs(capture: Capture) -> int:
    """Multiply-adds of a layer with every window routed to all, each weight's exponential counted as so many."""
    m, p2, keys = capture.k.shape[1:4]
    pairs = m * p2 * capture.q.shape[3] * p2 * keys
    return pairs * (capture.q.shape[-1] + capture.v.shape[-1] + EXPONENTIAL)


def _trace_bytes(capture: Capture) -> int:
    """Bytes that a trace keeps of a layer."""
    weights = (*capture.wo.parameters(),)
    tensors = (capture.q, capture.k, capture.v, capture.lepe, capture.affinity, capture.r_weight, capture.r_idx,
               capture.factor, capture.real_keys, *weights)
    return sum(_nbytes(tensor) for tensor in tensors if tensor is not None)
