"""Recordings such as nobody made: sound ones with other numbers in their description, or other bytes."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from mutations import mutants
from torch import nn

from bra import BiLevelRoutingAttention
from bra.bra_record import record

VALUES = (0, 1, 2, 3, 4, 5, 8, 16, 64, 65, 4096, 2**31, 2**63, -1, 0.5, 1e-9, 1e300, 1e400, None, True, "", "x", [], {},
          [5, 5], [64, 64], [1, 4096], ["maxpool", 2, 2], ["ada_avgpool", 1, 64], "floor", "pad")


@cache
def sound() -> bytes:
    """Two layers on a small picture."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), BiLevelRoutingAttention(16, n_win=3, num_heads=2),
                          BiLevelRoutingAttention(16, n_win=2, num_heads=4, topk=2, mask_padding=True)).eval()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        return Path(record(model, torch.rand(1, 3, 96, 128), f"{folder}/run.bra")).read_bytes()


@st.composite
def recording_files(draw: st.DrawFn) -> bytes:
    """The bytes of a .bra file."""
    if draw(st.integers(0, 2)) == 0:
        return draw(mutants({"recording": sound()}))
    data = sound()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    about: Any = json.loads(header["__metadata__"]["about"])
    for _ in range(draw(st.sampled_from((0, 1, 1, 2, 3)))):
        layer = draw(st.sampled_from(about["layers"])) if about["layers"] else {}
        place = draw(st.sampled_from((layer, layer, layer, about, *about["table"][:1])))
        if place:
            place[draw(st.sampled_from(sorted(place)))] = draw(st.sampled_from(VALUES))
        if not isinstance(about["layers"], list) or not all(isinstance(one, dict) for one in about["layers"]):
            break
        if not isinstance(about["table"], list):
            break
    if draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(sorted(set(header) - {"__metadata__"})))
        header[draw(st.sampled_from(("9.q", "0.lepe_weight", "picture", "0.q_factor")))] = header.pop(name)
    header["__metadata__"]["about"] = json.dumps(about).replace("Infinity", "1e400")
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size:]
