"""Files of watched trainings such as nobody made: whole frames with other numbers in them, or other bytes."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from mutations import mutants
from recordingfiles import VALUES, sound
from torch import nn

from bra import BiLevelRoutingAttention
from bra.readers.timeline import EPOCH, MAGIC, PICTURE, framed, frames
from bra.training.watching import watch


@cache
def sound_timeline() -> bytes:
    """Three epochs of two layers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), BiLevelRoutingAttention(16, n_win=3, num_heads=2),
                          BiLevelRoutingAttention(16, n_win=2, num_heads=4, topk=2, mask_padding=True)).eval()
    with tempfile.TemporaryDirectory() as folder:
        w = watch(model, torch.rand(1, 3, 96, 128), folder)
        for epoch in range(3):
            w(epoch)
        return w.path.read_bytes()


@st.composite
def timeline_files(draw: st.DrawFn) -> bytes:
    """The bytes of a routing.bra."""
    data = sound_timeline()
    if draw(st.integers(0, 2)) == 0:
        return draw(mutants({"timeline": data}))
    parts: list[tuple[bytes, Any, bytes]] = [
        (one.kind, json.loads(data[one.start:one.middle]), data[one.middle:one.end]) for one in frames(data)]
    for _ in range(draw(st.sampled_from((0, 1, 1, 2)))):
        at = draw(st.integers(0, len(parts) - 1))
        kind, head, body = parts[at]
        layers = head.get("layers")
        place = draw(st.sampled_from([head, *(layers.values() if isinstance(layers, dict) else ())]))
        if isinstance(place, dict) and place:
            value = draw(st.sampled_from([one for one in VALUES if one != float("inf")]))
            place[draw(st.sampled_from(sorted(place)))] = value
        change = draw(st.integers(0, 7))
        if change == 0:
            body = draw(st.sampled_from((b"", body[:-1], sound())))
        elif change == 1:
            kind = draw(st.sampled_from((PICTURE, EPOCH)))
        parts[at] = kind, head, body
    if draw(st.integers(0, 5)) == 0:
        parts = draw(st.permutations(parts))
    made = MAGIC + b"".join(framed(*part) for part in parts)
    return made[:draw(st.integers(len(made) - 40, len(made)))]
