"""Bi-level routing attention (BRA) that can be seen: the module, its trace, and what it costs."""

from typing import TYPE_CHECKING, Any

from bra.attention import BiLevelRoutingAttention, KVGather, QKVLinear, TopkRouting
from bra.errors import BRAError
from bra.grid import WindowGrid
from bra.recorder import recording
from bra.spec import BRASpec
from bra.tracing import LayerTrace, ModelTrace, trace

if TYPE_CHECKING:
    from bra.profiling.model_cost import Cost, CostRow, cost
    from bra.readers.recording import load

__all__ = [
    "BRAError",
    "BRASpec",
    "BiLevelRoutingAttention",
    "Cost",
    "CostRow",
    "KVGather",
    "LayerTrace",
    "ModelTrace",
    "QKVLinear",
    "TopkRouting",
    "WindowGrid",
    "cost",
    "load",
    "recording",
    "trace",
]


def __getattr__(name: str) -> Any:
    """What is imported when asked for: `cost` and its records, since torch's own counters take five times as long as
    all of ours, and what writes and reads recordings."""
    if name in ("Cost", "CostRow", "cost"):
        import bra.profiling.model_cost

        return getattr(bra.profiling.model_cost, name)
    if name == "record":
        from bra.listening import record

        return record
    if name == "load":
        from bra.readers.recording import load

        return load
    raise AttributeError(f"module 'bra' has no attribute {name!r}")
