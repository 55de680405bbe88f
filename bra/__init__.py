"""Bi-level routing attention (BRA) that can be seen: the module, its trace, and what it costs."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bra.attention import BiLevelRoutingAttention, KVGather, QKVLinear, TopkRouting
    from bra.errors import BRAError
    from bra.grid import WindowGrid
    from bra.hooks import record
    from bra.opening import cost
    from bra.profiling.model_cost import Cost, CostRow
    from bra.readers.recording import load
    from bra.recorder import recording
    from bra.reports.view import View, show
    from bra.spec import BRASpec
    from bra.tracing import LayerTrace, ModelTrace, trace
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

WHERE: Final = {
    "BRAError": "bra.errors", "BRASpec": "bra.spec", "BiLevelRoutingAttention": "bra.attention",
    "Cost": "bra.profiling.model_cost", "CostRow": "bra.profiling.model_cost", "KVGather": "bra.attention",
    "LayerTrace": "bra.tracing", "ModelTrace": "bra.tracing", "QKVLinear": "bra.attention",
    "TopkRouting": "bra.attention", "View": "bra.reports.view", "WindowGrid": "bra.grid", "cost": "bra.opening",
    "load": "bra.readers.recording", "record": "bra.hooks", "recording": "bra.recorder",
    "show": "bra.reports.view", "trace": "bra.tracing", "watch": "bra.training.watching"}
"""Where the public names are."""


def __getattr__(name: str) -> Any:
    """A public name or a module of this package, imported when it is asked for: a page draws its frame before torch."""
    if name in WHERE:
        return getattr(import_module(WHERE[name]), name)
    if not name.startswith("_") and find_spec(f"bra.{name}") is not None:
        return import_module(f"bra.{name}")
    raise AttributeError(f"module 'bra' has no attribute {name!r}")
