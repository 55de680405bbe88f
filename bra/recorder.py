"""Listening to the attention layers of one forward pass, for models whose forward is not ours.

    with recording() as rec:
        model(x)
    rec.captures

The recorder lives in a ContextVar: it is seen by this call alone, so two threads may run one model at once, and no
module is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor, nn

from bra.spec import BRASpec


@dataclass(frozen=True, slots=True)
class Capture:
    """What one layer hands over in one forward; b batch, m heads, p2 windows, t tokens, s keys per window.

    Attributes:
        layer: the module that ran; read, never written.
        spec: its settings; of a layer with full attention, those of the BRA layer that attends alike.
        kv_pool: the module that pooled its k and v inside each window.
        wo: the module that made the output of attention and position term; a linear or the identity.
        size: (h, w) of its map before padding.
        q: (b, m, p2, t, Q/m).
        k: (b, m, p2, s, Q/m), pooled when the layer pools.
        v: (b, m, p2, s, c/m), likewise.
        lepe: (b, m, p2, t, c/m), the position term that was added to the attention, or None.
        affinity: (b, p2, p2) routing logits of all windows, the rejected ones included.
        r_weight: (b, p2, k).
        r_idx: (b, p2, k).
        factor: (b, p2, k) that gathered k and v are multiplied by, or None.
        real_keys: (p2, s) bool, or None when padding is not masked.
        routed: False for full attention, whose windows are only laid over it to look at it.
        x: (b, c, h, w) what the layer was given, where the recorder asks for it.
    """

    layer: nn.Module
    spec: BRASpec
    kv_pool: nn.Module
    wo: nn.Module
    size: tuple[int, int]
    q: Tensor
    k: Tensor
    v: Tensor
    lepe: Tensor | None
    affinity: Tensor
    r_weight: Tensor
    r_idx: Tensor
    factor: Tensor | None
    real_keys: Tensor | None
    routed: bool = True
    x: Tensor | None = None


@dataclass(slots=True)
class Recorder:
    """Collects captures in the order in which layers run; a layer that runs twice is here twice.

    Attributes:
        inputs: whether routed layers hand over their input too.
        gradient: whether gradient flows through the affinities that they hand over, even where routing has none.
        captures: what they handed over.
    """

    inputs: bool = False
    gradient: bool = False
    captures: list[Capture] = field(default_factory=list)


_active: ContextVar[Recorder | None] = ContextVar("bra_recorder", default=None)


def active_recorder() -> Recorder | None:
    """The recorder of this call, if someone is listening."""
    return _active.get()


@contextmanager
def recording(inputs: bool = False, gradient: bool = False) -> Iterator[Recorder]:
    """Collect every attention layer of this package that runs inside the block, in this thread.

    Args:
        inputs: keep a copy of what each routed layer was given, so that it can be run again alone.
        gradient: let gradient through the affinities, for a loss on them; outputs stay what they are.
    """
    recorder = Recorder(inputs, gradient)
    token = _active.set(recorder)
    try:
        yield recorder
    finally:
        _active.reset(token)
