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
    "recording",
    "trace",
]


def __getattr__(name: str) -> Any:
    """`cost` and its records, imported when asked for: torch's own counters take five times as long as all of ours."""
    if name in ("Cost", "CostRow", "cost"):
        import bra.profiling.model_cost

        return getattr(bra.profiling.model_cost, name)
    raise AttributeError(f"module 'bra' has no attribute {name!r}")
