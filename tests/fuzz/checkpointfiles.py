"""Checkpoints that torch might have written of something strange, and archives whose parts were changed."""

from __future__ import annotations

import math
import struct
from typing import Any

import seeds
import torch
from hypothesis import strategies as st
from modelfiles import contents
from mutations import mutants
from torch import nn
from torch_files import Small, Store, View, archive

SIDES = (0, 1, 2, 4, 8, 10**6, 2**31, 2**62, -1)
LABELS = st.text(max_size=8) | st.sampled_from(("\u202e", "a\nb", "x" * 5000, "\0", "*", "<b>", "$x$"))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | LABELS
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LABELS | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def _views(draw: st.DrawFn) -> View:
    """A tensor over the four numbers that `archive` puts in, or one that claims more."""
    shape = tuple(draw(st.lists(st.sampled_from(SIDES), max_size=3)))
    strides = tuple(draw(st.lists(st.sampled_from(SIDES), min_size=len(shape), max_size=len(shape))))
    if draw(st.booleans()):
        shape, strides = draw(st.sampled_from((((4,), (1,)), ((2, 2), (2, 1)), ((2, 2), (1, 2)), ((0, 9), (7, 7)))))
    store = Store(draw(st.sampled_from((4, 4, 4, 5, 10**15))), draw(st.sampled_from(("0", "0", "1", "../0"))))
    return View(store, shape, strides, draw(st.sampled_from((0, 0, 1, -1, 2**62))))


@st.composite
def _models(draw: st.DrawFn) -> Any:
    """A training's file: its model, its rows, and whatever else it says of itself."""
    model: Any = Small()
    model.yaml = draw(contents() | VALUES)
    model.names, model.stride = draw(VALUES), draw(_views() | VALUES)
    model.task, model.nc, model.args = draw(VALUES), draw(VALUES), draw(VALUES)
    model.model = nn.Sequential()
    if draw(st.booleans()):
        return draw(st.sampled_from(("model", "ema", "state_dict"))), model
    return "model", {draw(LABELS): draw(_views() | VALUES) for _ in range(3)}


@st.composite
def checkpoint_files(draw: st.DrawFn) -> bytes:
    """The file's bytes."""
    kind = draw(st.sampled_from(("values", "values", "pickle", "archive")))
    if kind == "values":
        key, model = draw(_models())
        value = {key: model, "epoch": draw(VALUES), "version": draw(VALUES), "train_args": draw(VALUES)}
        floats = {str(n): struct.pack("<4f", 1, 2, math.nan, 4) for n in range(1)}
        with torch.no_grad():
            return archive({name: _flat(part) for name, part in value.items()}, floats)
    whole = seeds.checkpoints()
    if kind == "archive":
        return draw(mutants(whole))
    entries = seeds.inside(whole[draw(st.sampled_from(sorted(whole)))])
    pickle = next(name for name in entries if name.endswith("data.pkl"))
    entries[pickle] = draw(mutants({"pickle": entries[pickle]}))
    return seeds.archived(entries)


def _flat(value: Any) -> Any:
    """The same with every real tensor as a view of the four numbers, which `archive` can write."""
    if isinstance(value, torch.Tensor):
        return View(Store(4), (4,), (1,))
    if isinstance(value, nn.Module):
        for part in value.modules():
            for held in (part._parameters, part._buffers):
                held.update({name: _flat(tensor) for name, tensor in held.items()})  # type: ignore[misc]
    return value
