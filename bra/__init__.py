"""Bi-level routing attention (BRA) that can be seen: the module, its trace, and what it costs."""

from bra.attention import BiLevelRoutingAttention, KVGather, QKVLinear, TopkRouting
from bra.costing import Cost, CostRow, cost
from bra.errors import BRAError
from bra.grid import WindowGrid
from bra.record import recording
from bra.spec import BRASpec
from bra.tracing import LayerTrace, ModelTrace, trace

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
