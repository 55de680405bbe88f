"""Model files from a grammar of rows: possible ones with a few impossible values, and some that are not YAML at all."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st
from model_files import TINY
from mutations import mutants

from bra.yolo.rows import OPTIONS
from bra.yolo.validate import ACTIVATIONS, HEADS, LAYERS

VALUES = (
    -2,
    -1,
    0,
    1,
    2,
    3,
    5,
    7,
    31,
    64,
    640,
    8192,
    8193,
    0.5,
    1e-9,
    1e308,
    10**6,
    10**30,
    float("inf"),
    float("nan"),
    True,
    False,
    None,
    "nc",
    "kpt_shape",
    "nearest",
    "maxpool",
    "conv",
    "none",
    "d",
    "nn.SiLU()",
    "a\nb",
    "x" * 5000,
    "__import__('os').system('true')",
    "os.system",
    [],
    {},
    [1, 2],
    [[[[1]]]],
    [1] * 33,
    {"n_win": 3},
    {"dim": 4},
)
NAMES = ("torch.hub.load", "eval", "TorchVision", "nn.Linear", "Conv ", *sorted(LAYERS), *sorted(HEADS))
SETTINGS = (
    "nc",
    "kpt_shape",
    "reg_max",
    "end2end",
    "depth_multiple",
    "width_multiple",
    "scale",
    "channels",
    "activation",
    "backbone",
    "head",
    "scales",
    "download",
    "yaml_file",
)


@st.composite
def _row(draw: st.DrawFn, at: int) -> list[Any]:
    """A row that can follow, of layers that change size, width, or nothing."""
    kind = draw(
        st.sampled_from(
            ("Conv", "Conv", "C2f", "SPPF", "up", "pad", "pool", "transposed", "ours", "ours", "concat", "other")
        )
    )
    small, width = st.sampled_from((1, 2, 3, 5)), draw(st.sampled_from((8, 16, 32, 48, 33)))
    if kind == "up":
        return [
            -1,
            1,
            "nn.Upsample",
            [draw(st.sampled_from((None, 20, 64))), draw(st.sampled_from((2, 0.5, 1.5, None))), "nearest"],
        ]
    if kind == "pad":
        return [-1, 1, "nn.ZeroPad2d", [[0, draw(small), 0, draw(small)]]]
    if kind == "pool":
        return [-1, 1, "nn.MaxPool2d", [draw(small), draw(small), draw(st.sampled_from((0, 1)))]]
    if kind == "transposed":
        return [-1, 1, "nn.ConvTranspose2d", [width, draw(small), draw(small), 0]]
    if kind == "ours":
        name = draw(st.sampled_from(("BiLevelRoutingAttention", "BRABlock", "C2fBRA")))
        if name == "C2fBRA":
            return [-1, 1, name, [width]]
        wanted = st.dictionaries(
            st.sampled_from(("n_win", "topk", "num_heads", "kv_downsample_ratio")), small, max_size=3
        )
        return [-1, 1, name, [draw(wanted) | draw(st.sampled_from(({}, {"kv_downsample_mode": "avgpool"})))]]
    if kind == "concat":
        return [[-1, draw(st.integers(0, max(0, at - 1)))], 1, "Concat", [1]]
    if kind == "other":
        return [-1, 1, draw(st.sampled_from(sorted(LAYERS))), [width, *draw(st.lists(small, max_size=2))]]
    args = {"Conv": [width, draw(small), draw(st.sampled_from((1, 2)))], "C2f": [width, True], "SPPF": [width, 5]}
    return [-1, draw(st.sampled_from((1, 1, 2))), kind, args[kind]]


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """What a model file holds: possible, or with one or two of its values replaced."""
    rows: list[Any] = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [32, 3, 2]]]
    for _ in range(draw(st.integers(0, 4))):
        rows.append(draw(_row(len(rows))))
    name = draw(
        st.sampled_from(("Detect", "Detect", "Segment", "Pose", "OBB", "Classify", "RTDETRDecoder", "v10Detect"))
    )
    head = [-1 if name == "Classify" else [len(rows) - 1], 1, name, ["nc"] + (["kpt_shape"] if name == "Pose" else [])]
    model: dict[str, Any] = {"nc": 3, "kpt_shape": [5, 3], "scales": {"n": [0.5, 0.25, 64]}}
    model |= {"activation": "nn.ReLU()"} if draw(st.booleans()) else {}
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 1, 2)))):
        if draw(st.integers(0, 3)) == 0:
            value = st.sampled_from((*VALUES, *sorted(ACTIVATIONS)))
            model[draw(st.sampled_from(SETTINGS))] = draw(value)
        else:
            row = [*draw(st.sampled_from(rows))]
            place = draw(st.integers(0, 4))
            if place == 4:
                args = [*row[3], draw(st.sampled_from(VALUES))] if isinstance(row[3], list) else []
                row[3] = [*args[: draw(st.integers(0, len(args)))], draw(st.sampled_from(VALUES))]
            else:
                row[place] = draw(st.sampled_from(NAMES if place == 2 else VALUES))
            rows[draw(st.integers(0, len(rows) - 1))] = row
    if draw(st.integers(0, 9)) == 0:
        rows[-1] = [-1, 1, "BRABlock", [{draw(st.sampled_from(OPTIONS)): draw(st.sampled_from(VALUES))}]]
    return {"backbone": rows, "head": [head]} | model


def model_files() -> st.SearchStrategy[tuple[str, str]]:
    """(text, file name)s: rows from the grammar, changed bytes of a sound file, and any text."""
    written = contents().map(lambda model: str(yaml.safe_dump(model, default_flow_style=None)))
    changed = mutants({"tiny": TINY.encode()}).map(lambda data: data.decode("latin-1"))
    bombs = st.sampled_from(("[", "{a: ", "- ", "a: &a [*a]\n", "? ", "!!python/object:os.system ", "'", "|\n  ", "#"))
    text = (
        written
        | written
        | written
        | changed
        | st.text(max_size=200)
        | st.tuples(bombs, st.integers(1, 9000)).map(lambda one: one[0] * one[1])
    )
    name = st.sampled_from(
        ("yolov8n.yaml", "x.yml", "yolo11x-bra.yaml", "a" * 300 + ".yaml", "../../x.yaml", "\0.yaml")
    )
    return st.tuples(text, name)
