"""The same model without its BRA layers, or with other settings in all of them; for counting, not for use."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import nn

from bra.attention import BiLevelRoutingAttention
from bra.spec import BRASpec

NOTES = ("i", "f", "type", "np")
"""What Ultralytics' parser writes on a row, by which its model finds its way."""


def without_bra(model: nn.Module) -> nn.Module:
    """The model with every BRA layer taken out, and the norm and gate around it where it has them.

    A BRA layer returns a map like the one that it reads, so what is left runs as before. The weights are shared.
    """
    return _changed(model, None)


def with_settings(model: nn.Module, narrow: int = 1, **changes: Any) -> nn.Module:
    """The model with these settings of `BRASpec` in every BRA layer, whose weights are new; all others are shared.

    Args:
        model: left as it is.
        narrow: what the channels of q and k are divided by, layer by layer.
        changes: the settings; topk=0 is every window.

    Raises:
        SpecError: a layer cannot have them.
    """
    return _changed(model, {**changes, "narrow": narrow})


def with_full_attention(model: nn.Module) -> nn.Module:
    """The model with every window routed to all."""
    return _changed(model, {"topk": 0})


def _changed(model: nn.Module, changes: dict[str, Any] | None) -> nn.Module:
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    if isinstance(copied, BiLevelRoutingAttention):
        return nn.Identity() if changes is None else BiLevelRoutingAttention.from_spec(_spec(copied.spec, changes))
    layers = {name: layer for name, layer in copied.named_modules() if isinstance(layer, BiLevelRoutingAttention)}
    for name, layer in layers.items():
        if changes is not None:
            _put(copied, name, BiLevelRoutingAttention.from_spec(_spec(layer.spec, changes)))
            continue
        holder, _, last = name.rpartition(".")
        around = copied.get_submodule(holder)
        # A layer with a gate beside it is a residual row of ours: it goes as a whole.
        _put(copied, holder if last == "attn" and hasattr(around, "gate") else name, nn.Identity())
    return copied


def _spec(spec: BRASpec, changes: dict[str, Any]) -> BRASpec:
    made = dict(changes)
    narrow = made.pop("narrow", 1)
    if narrow > 1:
        made["qk_dim"], made["qk_scale"] = spec.dim // narrow, None
    if made.get("topk") == 0:
        made["topk"] = int(made.get("n_win", spec.n_win)) ** 2
    return replace(spec, **made)


def _put(model: nn.Module, name: str, made: nn.Module) -> None:
    old = model.get_submodule(name)
    for note in NOTES:
        if hasattr(old, note):
            object.__setattr__(made, note, getattr(old, note))
    made.train(old.training)
    holder, _, last = name.rpartition(".")
    setattr(model.get_submodule(holder), last, made)
