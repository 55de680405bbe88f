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

from bra.bra_record import Reach
from bra.spec import BRASpec


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of a layer of another code base, which was heard from outside.

    Attributes:
        kind: its class, as "module.name".
        routing: "heard" from its router, or "computed" from its q and k.
        attention: whether its attention is known: computed again, it gave what the layer returned.
        difference: largest difference between the two, over the largest output; None where nothing was compared.
        compared: with the layer's "output", or that of its output "projection", after which the layer goes on.
        note: a sentence about it, or "".
        rule: "pad" where the map is padded to a multiple of n_win; "floor" where windows have floor(side / n_win)
            tokens, and there are as many as it takes.
        affinity: whether the logits are those of its router; else they hold the chosen windows alone.
        bits: in which its q, k and v lie in a recording; None where it was not read from one.
        stored: `difference` of what is computed from those bits.
    """

    kind: str
    routing: str
    attention: bool
    difference: float | None
    compared: str = "output"
    note: str = ""
    rule: str = "pad"
    affinity: bool = True
    bits: int | None = None
    stored: float | None = None


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
        region: rows and columns of tokens in a window where they are not the least that cover the map.
        proof: of a layer of another code base.
        reach: of a layer that does not route and is not of this package, which tokens may attend to which.
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
    region: tuple[int, int] | None = None
    proof: Proof | None = None
    reach: Reach | None = None


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
