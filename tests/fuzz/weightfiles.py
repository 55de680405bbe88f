"""Weights of BiFormers such as nobody trained, and headers that say what is not there."""

from __future__ import annotations

import json
import math
from typing import Any

import safetensors.torch
import seeds
from hypothesis import strategies as st
from mutations import mutants

KINDS = ("F32", "F16", "F64", "BF16", "I64", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "U64", "I8", "x", "", 7, None)
SIDES = (0, 1, 2, 3, 31, 32, 33, 64, 2**22, 2**31, 2**62, 2**63, 2**64, -1, 1.0, "4", None)


@st.composite
def weight_files(draw: st.DrawFn) -> bytes:
    """The bytes of a .safetensors file."""
    if draw(st.integers(0, 3)) == 0:
        return draw(mutants({"biformer": safetensors.torch.save(seeds.biformer())}))
    shapes: dict[str, Any] = {name: list(tensor.shape) for name, tensor in seeds.biformer().items()}
    kinds: dict[str, Any] = {name: "I64" if name.endswith("tracked") else "F32" for name in shapes}
    names = sorted(shapes)
    for _ in range(draw(st.sampled_from((0, 1, 1, 2, 3)))):
        name, change = draw(st.sampled_from(names)), draw(st.sampled_from(("shape", "rows", "kind", "gone", "more")))
        if change == "shape":
            shapes[name] = draw(st.lists(st.sampled_from(SIDES), max_size=9))
        elif change == "rows":  # the same everywhere: a model of that width
            old, new = draw(st.sampled_from((32, 64, 3, 96, 128))), draw(st.sampled_from(SIDES))
            shapes = {one: [new if side == old else side for side in shape] for one, shape in shapes.items()}
        elif change == "kind":
            kinds[name] = draw(st.sampled_from(KINDS))
        elif change == "gone":
            shapes.pop(name, None)
        else:
            other = draw(
                st.text(max_size=9) | st.sampled_from(("stages.9999.0.x", "stages.0.999.norm1.weight", "__metadata__"))
            )
            shapes[other], kinds[other] = draw(st.lists(st.sampled_from(SIDES), max_size=3)), "F32"
    header: dict[str, Any] = {}
    at = 0
    for name, shape in shapes.items():
        sound = all(type(side) is int for side in shape) and 0 <= math.prod(shape) <= 2**16
        size = {"I64": 8, "F64": 8, "F16": 2, "BF16": 2}.get(str(kinds[name]), 4) * math.prod(shape) if sound else 0
        header[name] = {"dtype": kinds[name], "shape": shape, "data_offsets": [at, at + size]}
        at += size
    if draw(st.integers(0, 9)) == 0:
        header[draw(st.sampled_from(names))] = draw(st.sampled_from(([], None, 7, {}, {"dtype": "F32"})))
    body = draw(st.sampled_from((b"\0", b"\0", b"?", b"\xff"))) * at
    message = draw(st.sampled_from((None, None, None, None, None, None, 0, 2**40, 2**64 - 1)))
    return seeds.tensors_file(json.dumps(header).encode(), body, message)
