"""The same model without its BRA layers, or with other settings in all of them; for counting, not for use."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from bra.attention import BiLevelRoutingAttention
from bra.spec import BRASpec

NOTES = ("i", "f", "type", "np")
"""What Ultralytics' parser writes on a row, by which its model finds its way."""


class RemovedLayer(nn.Identity):
    """What stands where a BRA layer was taken out."""


def without_bra(model: nn.Module) -> nn.Module:
    """The model with every BRA layer taken out, and the norm and gate around it where it has them.

    A BRA layer returns a map like the one that it reads, so what is left runs as before. Rows of an Ultralytics model
    are numbered as they were before BRA rows were put in. The weights are shared.
    """
    return _changed(model, None)


def with_settings(model: nn.Module, narrow: int = 1, **changes: Any) -> nn.Module:
    """The model with these settings of `BRASpec` in every BRA layer; all other weights are shared.

    The weights of its BRA layers have a shape and no memory (they are on torch's meta device), since a layer that had
    none of them may now ask for gigabytes: `cost` counts such a model, and nothing runs it.

    Args:
        model: left as it is.
        narrow: what the channels of q and k are divided by, layer by layer.
        changes: the settings; topk=0 is every window.

    Raises:
        SpecError: a layer cannot have them.
    """
    return _changed(model, {**changes, "narrow": narrow})


def with_full_attention(model: nn.Module) -> nn.Module:
    """The model with every window routed to all; for counting, as `with_settings`."""
    return _changed(model, {"topk": 0})


def _changed(model: nn.Module, changes: dict[str, Any] | None) -> nn.Module:
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    if isinstance(copied, BiLevelRoutingAttention):
        return RemovedLayer() if changes is None else _made(copied.spec, changes)
    layers = {name: layer for name, layer in copied.named_modules() if isinstance(layer, BiLevelRoutingAttention)}
    for name, layer in layers.items():
        if changes is not None:
            _put(copied, name, _made(layer.spec, changes))
            continue
        holder, _, last = name.rpartition(".")
        around = copied.get_submodule(holder)
        # A layer with a gate beside it is a residual row of ours: it goes as a whole.
        _put(copied, holder if last == "attn" and hasattr(around, "gate") else name, RemovedLayer())
    if changes is None:
        _close_up(copied)
    return copied


def _close_up(model: nn.Module) -> None:
    """Number Ultralytics' rows anew where some are nothing now; who read one of those reads what it read."""
    rows: Any = getattr(model, "model", None)
    if not (isinstance(rows, nn.Sequential) and all(hasattr(row, "f") and hasattr(row, "i") for row in rows)):
        return
    each: list[Any] = list(rows)
    read = {row.i: [row.i + f if f < 0 else f for f in _listed(row.f)] for row in each}
    gone = {row.i for row in each if all(isinstance(m, RemovedLayer) for m in row.modules() if not any(m.children()))}
    kept = [row for row in each if row.i not in gone]
    if any(_through(at, read, gone) < 0 for at in gone):     # only a first row can read the image
        return
    number = {row.i: at for at, row in enumerate(kept)} | {-1: -1}
    for at, row in enumerate(kept):
        sources = [number[_through(source, read, gone)] for source in read[row.i]]
        sources = [-1 if f == -1 and source == at - 1 else source for f, source in
                   zip(_listed(row.f), sources, strict=True)]
        row.i, row.f = at, sources[0] if isinstance(row.f, int) else sources
        if any(isinstance(part, RemovedLayer) for part in row.modules()):
            row.type = row.type.removesuffix("BRA")         # C2fBRA without its attention is C2f
    model.model = nn.Sequential(*kept)
    object.__setattr__(model, "save", sorted({f for row in kept for f in _listed(row.f) if f != -1}))


def _listed(source: int | list[int]) -> list[int]:
    return [source] if isinstance(source, int) else source


def _through(at: int, read: dict[int, list[int]], gone: set[int]) -> int:
    while at in gone:
        at = read[at][0]
    return at


def _made(spec: BRASpec, changes: dict[str, Any]) -> BiLevelRoutingAttention:
    with torch.device("meta"):
        return BiLevelRoutingAttention.from_spec(_spec(spec, changes))


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
