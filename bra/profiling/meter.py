"""Counts one forward operator by operator: multiply-adds, bytes alive, and operators that are not multiply-adds.

The caller's model is neither hooked nor written on. A private copy of its modules runs instead, whose rows tell a
listener when they begin and end; its tensors are either the model's own, or stand-ins that have a shape and no memory,
so that a forward of any size takes none. A listener belongs to one call, in one thread.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from bra.kernels.cpu import chunk_bytes
from bra.messages import message

OUTSIDE: Final = ""
"""Path of the model itself: what runs outside of every row, unless the model is the row."""
CPU_ATTENTION: Final = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""Attention on a CPU, which torch's own FlopCounterMode passes over."""
CHUNKED: Final = torch.ops.bra.attend_chunked
"""Our own attention on a CPU."""
CPU: Final = torch.device("cpu")
META: Final = torch.device("meta")
BATCH_NORM: Final = torch.ops.aten.native_batch_norm.default
NO_ARITHMETIC: Final = frozenset({"_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "lift_fresh"})
SOFTMAX: Final = message("softmax inside attention")
MAY_BE_MASKED: Final = frozenset({"index", "index_put", "index_put_"})
"""Operators whose course hangs on numbers only if they are given a mask, which torch refuses as it runs them."""
Shape = tuple[int, ...]


class NeedsValuesError(Exception):
    """A forward's course hangs on numbers, which stand-ins have not."""


class StandIn(Tensor):
    """A tensor that says it lies on a CPU: it has a shape, strides and a storage of a size, but no memory, no numbers.

    torch's own `FakeTensor` is one too: with it a count takes two to five times as long, and torch never forgets what
    it keeps of every shape.
    """

    on_meta: Tensor

    @staticmethod
    def __new__(cls, on_meta: Tensor) -> StandIn:
        """Of a tensor on the device "meta", which does what this one cannot say of itself."""
        made: StandIn = Tensor._make_wrapper_subclass(
            cls, on_meta.size(), strides=on_meta.stride(), storage_offset=on_meta.storage_offset(),
            dtype=on_meta.dtype, layout=on_meta.layout, device=CPU)
        made.on_meta = on_meta
        return made

    @classmethod
    def like(cls, t: Tensor) -> StandIn:
        """Of the same shape and strides as a tensor, by itself in memory."""
        return cls(torch.empty_strided(t.size(), t.stride(), dtype=t.dtype, device=META))

    def tolist(self) -> Any:
        """Its numbers, of which there are none."""
        raise NeedsValuesError("tolist")

    def numpy(self, *, force: bool = False) -> Any:
        """Its numbers, of which there are none."""
        raise NeedsValuesError("numpy")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """What an operator outside of a meter makes of them."""
        return run_on_stand_ins(func, args, kwargs or {})


def run_on_stand_ins(func: Any, args: Sequence[Any], kwargs: Any) -> Any:
    """What an operator makes of stand-ins, and of constants beside them.

    Raises:
        NeedsValuesError: it asks for numbers.
    """
    name = func._overloadpacket.__name__
    if torch.Tag.data_dependent_output in func.tags \
            or (torch.Tag.dynamic_output_shape in func.tags and name not in MAY_BE_MASKED):
        raise NeedsValuesError(name)
    if func is BATCH_NORM and not args[5]:
        # On "meta" it is worked out in a dozen operators, as for training; here it is a map and two empty tensors.
        return StandIn.like(args[0]), *(StandIn(torch.empty(0, device=META)) for _ in range(2))
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, StandIn)]
    meta_args, meta_kwargs = tree_map_only(Tensor, _on_meta, (args, kwargs))
    if "device" in kwargs or (not given and any(one.name == "device" for one in func._schema.arguments)):
        meta_kwargs["device"] = META
    try:
        out = func(*meta_args, **meta_kwargs)
    except NotImplementedError as error:        # torch does not know the shape of its result without running it
        raise NeedsValuesError(name) from error
    if func._schema.is_mutable and any((t.shape, t.stride()) != (t.on_meta.shape, t.on_meta.stride()) for t in given):
        raise NeedsValuesError(name)            # in place, a tensor was given another shape
    return tree_map_only(Tensor, partial(_stand_in_of, func, args), out)


def _on_meta(t: Tensor) -> Tensor:
    return t.on_meta if isinstance(t, StandIn) else t.to(META)


def _stand_in_of(func: Any, args: Sequence[Any], made: Tensor) -> StandIn:
    if func._overloadpacket is torch.ops.aten.convolution:
        # Without a device, torch lays the result out as a GPU would.
        x, w = args[:2]
        as_cpu = torch._C._conv_determine_backend_memory_format(x, w, torch._C._select_conv_backend(*args))
        made = made.contiguous(memory_format=as_cpu)
    return StandIn(made)


class SpanListener(Protocol):
    """Is told when each row of one forward begins and ends."""

    def begin(self, path: str, given: Any) -> None:
        """A row begins, with these arguments."""

    def end(self, path: str, out: Any) -> None:
        """It ended, with this result."""


class ReportingForward:
    """A module's forward that says when it begins and ends."""

    def __init__(self, path: str, forward: Callable[..., Any], listener: SpanListener) -> None:
        self.path, self.forward, self.listener = path, forward, listener

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns."""
        self.listener.begin(self.path, (args, kwargs))
        out = self.forward(*args, **kwargs)
        self.listener.end(self.path, out)
        return out


def reporting_copy(model: nn.Module, paths: Iterable[str], listener: SpanListener,
                 tensor: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
    """A copy of a model's modules, in eval mode, that tells `listener` of the modules at `paths`.

    Args:
        model: read, never written.
        paths: names as in `named_modules`.
        listener: hears them.
        tensor: makes the stand-in of a parameter or buffer; None shares the model's own.
    """
    own = [*model.parameters(), *model.buffers()]
    private = copy.deepcopy(model, {id(t): t if tensor is None else tensor(t) for t in own})
    for path in paths:
        module = private.get_submodule(path)
        vars(module)["forward"] = ReportingForward(path, module.forward, listener)
    return private.eval()


def shapes_of(values: Any) -> tuple[Shape, ...]:
    """Shapes of all tensors in nested arguments or results."""
    return tuple(tuple(int(n) for n in t.shape) for t in tree_leaves(values) if isinstance(t, Tensor))


@dataclass(slots=True)
class Span:
    """What ran inside one path, all its calls together; macs without those of other paths inside it.

    Attributes:
        macs: multiply-adds of its operators.
        added: most bytes alive beyond those that were when a call began.
        alive: most bytes alive in all.
        given: shapes of the tensors that each call was given.
        returned: shapes that each call returned.
    """

    macs: int = 0
    added: int = 0
    alive: int = 0
    given: list[tuple[Shape, ...]] = field(default_factory=list)
    returned: list[tuple[Shape, ...]] = field(default_factory=list)


def workspace(func: Any, args: Sequence[Any], out: Any) -> int:
    """Bytes that an operator takes and gives back: those of a depthwise convolution, which on a CPU writes its result
    in blocks of channels first, and those of our own attention. Other kernels' own memory depends on the machine and is
    not counted."""
    if func._overloadpacket is CHUNKED:
        q, _, v, r_idx, _, factor, real_keys = args
        (b, m, p2, t, c_qk), (s, c_v) = q.shape, v.shape[3:]
        return chunk_bytes(m, b * p2, t, s, c_qk, c_v, r_idx.shape[2], q.element_size(), factor is not None,
                           real_keys is not None)
    if func._overloadpacket is not torch.ops.aten.convolution:
        return 0
    depthwise = args[8] > 1 and args[8] == args[1].shape[0] and out.is_contiguous()
    return int(out.nbytes) if depthwise else 0


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators of one forward, by the path in which they run.

    Attributes:
        spans: by path.
        passed: operators that are not multiply-adds: name -> calls, elements of the largest tensor each.
    """

    def __init__(self, stand_ins: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.spans: dict[str, Span] = {OUTSIDE: Span()}
        self.passed: dict[str, tuple[int, int]] = {}
        self._stand_ins = stand_ins
        self._open: list[tuple[str, int]] = []
        self._alive = 0
        self._known: dict[int, int] = {}

    def know(self, tensors: Iterable[Tensor], counted: bool) -> None:
        """Tell of tensors that were there before: weights, which do not count, and inputs, which do."""
        for t in tensors:
            self._add_storage(_storage(t), None if counted else 0)

    def begin(self, path: str, given: Any) -> None:
        """A row begins."""
        span = self.spans.setdefault(path, Span())
        span.given.append(shapes_of(given))
        span.alive = max(span.alive, self._alive)
        self._open.append((path, self._alive))

    def end(self, path: str, out: Any) -> None:
        """A row ended."""
        self._open.pop()
        self.spans[path].returned.append(shapes_of(out))

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if self._stand_ins and given and not any(isinstance(t, StandIn) for t in given):
            return func(*args, **kwargs)       # constants of the model, whose values may be asked for
        before = self._alive
        out = run_on_stand_ins(func, args, kwargs) if self._stand_ins else func(*args, **kwargs)
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        for t in made:
            self._add_storage(_storage(t))
        self._count(func, args, kwargs, out, given + made)
        alive = self._alive + workspace(func, args, out)
        for path, start in self._open or [(OUTSIDE, before)]:
            span = self.spans[path]
            span.added, span.alive = max(span.added, alive - start), max(span.alive, alive)
        return out

    def _count(self, func: Any, args: Sequence[Any], kwargs: Any, out: Any, tensors: Sequence[Tensor]) -> None:
        packet, macs = func._overloadpacket, 0
        name, elements = packet.__name__, max((t.numel() for t in tensors), default=0)
        if packet is CPU_ATTENTION:
            q, k, v = (t.shape for t in args[:3])
            pairs = prod(q[:-1]) * k[-2]
            macs, elements, name = pairs * (q[-1] + v[-1]), pairs, SOFTMAX
        elif packet is CHUNKED:
            q, k, v, r_idx = (t.shape for t in args[:4])
            pairs = prod(q[:-1]) * k[-2] * r_idx[-1]
            macs, elements, name = pairs * (q[-1] + v[-1]), pairs, SOFTMAX
        elif packet in flop_registry:
            macs = flop_registry[packet](*args, **kwargs, out_val=out) // 2
            name = SOFTMAX if "attention" in name else ""
        self.spans[self._open[-1][0] if self._open else OUTSIDE].macs += macs
        if name and tensors and not func.is_view and name not in NO_ARITHMETIC and func.namespace != "prim":
            if name is not SOFTMAX:
                name = name.removeprefix("_").removeprefix("native_").removeprefix("unsafe_")
            calls, so_far = self.passed.get(name, (0, 0))
            self.passed[name] = calls + 1, so_far + elements

    def _add_storage(self, storage: torch.UntypedStorage, size: int | None = None) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes() if size is None else size
            self._alive += self._known[key]
            weakref.finalize(storage, self._remove_storage, key)

    def _remove_storage(self, key: int) -> None:
        self._alive -= self._known.pop(key)


def _storage(t: Tensor) -> torch.UntypedStorage:
    return (t.on_meta if isinstance(t, StandIn) else t).untyped_storage()


def metered(model: nn.Module, paths: Sequence[str], shape: Shape, dtype: torch.dtype) -> Meter:
    """One forward on an input of `shape`, without memory where the model allows it."""
    try:
        return _metered(model, paths, shape, dtype, stand_ins=True)
    except NeedsValuesError:
        return _metered(model, paths, shape, dtype, stand_ins=False)


def _metered(model: nn.Module, paths: Sequence[str], shape: Shape, dtype: torch.dtype, stand_ins: bool) -> Meter:
    meter = Meter(stand_ins)
    private = reporting_copy(model, paths, meter, _stand_in if stand_ins else None)
    x = StandIn.like(torch.empty(shape, dtype=dtype, device=META)) if stand_ins else torch.zeros(shape, dtype=dtype)
    with torch.no_grad():
        meter.know([*private.parameters(), *private.buffers()], counted=False)
        meter.know([x], counted=True)
        with meter:
            private(x)
    return meter


def _stand_in(t: Tensor) -> Tensor:
    empty = StandIn.like(t)
    if isinstance(t, nn.Parameter):
        vars(empty)["_is_param"] = True     # `nn.Parameter(empty)` would import torch.distributed, 2 s, to do the same
    return empty
