"""Bi-level routing attention (BRA) that can be seen: the module, its trace, and what it costs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from bra.attention import BiLevelRoutingAttention, KVGather, QKVLinear, TopkRouting
from bra.errors import BRAError
from bra.grid import WindowGrid
from bra.recorder import recording
from bra.spec import BRASpec
from bra.tracing import LayerTrace, ModelTrace, trace

if TYPE_CHECKING:
    from bra.listening import record
    from bra.opening import cost
    from bra.profiling.model_cost import Cost, CostRow
    from bra.readers.recording import load
    from bra.reports.view import View, show
    from bra.training.watching import watch

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
    "View",
    "WindowGrid",
    "cost",
    "load",
    "record",
    "recording",
    "show",
    "trace",
    "watch",
]

LATER: Final = {"View": "bra.reports.view", "show": "bra.reports.view", "cost": "bra.opening",
                "Cost": "bra.profiling.model_cost", "CostRow": "bra.profiling.model_cost",
                "record": "bra.listening", "load": "bra.readers.recording",
                "watch": "bra.training.watching"}
"""Public names that are imported when they are asked for, and where they are."""


def __getattr__(name: str) -> Any:
    """What is imported when it is asked for: torch's own counters alone take five times as long as all of the core."""
    if name in LATER:
        return getattr(import_module(LATER[name]), name)
    raise AttributeError(f"module 'bra' has no attribute {name!r}")
