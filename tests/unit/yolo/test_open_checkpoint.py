"""Models from checkpoints compute what Ultralytics computes, or are refused in words."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics")
from model_files import TINY, half, outputs, tiny, written
from test_tutorial_compat import Pasted, saved
from ultralytics import YOLO

import bra.yolo
from bra import attention
from bra.errors import BRAError, YoloError
from bra.readers.checkpoint import Checkpoint, read_checkpoint
from bra.yolo.build import build_checked, open_checkpoint

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.mark.parametrize("stem", ["best", "cut_off"])
def test_a_trained_checkpoint_computes_what_ultralytics_computes(trained: Path, stem: str) -> None:
    path = trained / "weights" / f"{stem}.pt"
    read = read_checkpoint(path.read_bytes())
    model, facts = open_checkpoint(read)
    theirs = YOLO(path).model
    torch.testing.assert_close(outputs(model), outputs(theirs), atol=1e-5, rtol=1e-5)
    assert (facts.imgsz, facts.names, facts.nc, facts.task) == (96, ("red", "blue"), 2, "detect")
    assert facts.stride == (8.0, 16.0, 32.0)
    assert facts.epoch == {"best": -1, "cut_off": 0}[stem]
    assert model.names == theirs.names
    assert set(facts.attention) == {"model.15", "model.19", "model.23"}


@pytest.mark.parametrize("name",
                            ["yolov8n-bra-residual.yaml", "yolo11n-bra-c2f.yaml", "yolov8n.yaml", "yolov10n.yaml",
                             "yolov8n-seg.yaml", "yolov8n-cls.yaml", "yolo11n-pose.yaml"])
@pytest.mark.parametrize("fused", [False, True], ids=["whole", "fused"])
def test_other_models_come_back_the_same(name: str, fused: bool) -> None:
    model = YOLO(name).model.eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5)       # batch norms and gates that do something
    if fused:
        model.fuse(verbose=False)
    read = read_checkpoint(written({"ema": model, "model": None}))
    assert read.facts.fused is fused
    opened, _ = open_checkpoint(read)
    assert list(opened.state_dict()) == list(model.state_dict())
    torch.testing.assert_close(outputs(opened), outputs(model), atol=1e-4, rtol=1e-4)


def pasted(layer: attention.BiLevelRoutingAttention, **given: Any) -> Any:
    return Pasted(layer, kv_per_win=-1, **given)


@pytest.mark.parametrize("args", [[], [7, 8], [8, 7]], ids=str)
def test_a_hand_edited_installation_keeps_its_options(args: list[int], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """Its constructor may take heads before windows: what the layer became counts, not what its row says here."""
    model = YOLO("yolov8n-bra.yaml").model.eval()
    for n, layer in enumerate(model.model):
        if isinstance(layer, attention.BiLevelRoutingAttention):
            made = bra.yolo.BiLevelRoutingAttention(layer.spec.dim, 7, 8, topk=3, side_dwconv=5, param_attention="qkv")
            made.i, made.f, made.type, made.np = layer.i, layer.f, layer.type, layer.np
            model.model[n] = made
    wanted = outputs(model.half())
    for n, row in enumerate(model.yaml["head"]):
        if row[2] == "BiLevelRoutingAttention":
            model.yaml["head"][n] = [*row[:3], args]
    for n, layer in enumerate(model.model):
        if isinstance(layer, attention.BiLevelRoutingAttention):
            model.model[n] = pasted(layer, i=layer.i, f=layer.f, type=layer.type, np=layer.np)
    saved(monkeypatch, tmp_path / "theirs.pt", {"model": model.half(), "ema": None})
    opened, facts = open_checkpoint(read_checkpoint((tmp_path / "theirs.pt").read_bytes()))
    assert facts.layers[15] == "ultralytics.nn.modules.block.BiLevelRoutingAttention"
    specs = [layer.spec for layer in opened.model if isinstance(layer, attention.BiLevelRoutingAttention)]
    assert [(spec.n_win, spec.num_heads, spec.topk, spec.side_dwconv) for spec in specs] == [(7, 8, 3, 5)] * 3
    torch.testing.assert_close(outputs(opened), wanted, atol=1e-5, rtol=1e-5)


def test_a_plain_state_dict_needs_its_model_file() -> None:
    model = build_checked(tiny())
    read = read_checkpoint(written(model.state_dict()))
    with pytest.raises(YoloError, match="give its model file too"):
        open_checkpoint(read)
    opened, _ = open_checkpoint(read, model=TINY)
    torch.testing.assert_close(outputs(opened), outputs(model), atol=0, rtol=0)
    assert opened.names == {0: "0", 1: "1", 2: "2"}


def test_checkpoints_that_are_not_of_their_rows() -> None:
    model = YOLO("yolov8n-bra.yaml").model

    def words(change: Any) -> str:
        changed = copy.deepcopy(model)
        change(changed)
        with pytest.raises(YoloError) as caught:
            open_checkpoint(read_checkpoint(written(half(changed))))
        return str(caught.value)

    assert "by its rows: the rows are its own" in words(lambda m: m.yaml.update(scale="s"))
    assert "model.25.cv3" in words(lambda m: m.yaml.update(nc=7))
    assert "layer 16 of this checkpoint is 'C2f', and its row makes C3" in words(
        lambda m: m.yaml["head"].__setitem__(6, [-1, 3, "C3", [512]]))
    assert "lacks 1 tensors (model.0.conv.weight)" in words(lambda m: m.model[0].conv._parameters.pop("weight"))
    assert "has besides 1 tensors (model.0.conv.extra)" in words(
        lambda m: m.model[0].conv.register_buffer("extra", torch.ones(1)))
    assert "not finite" in words(lambda m: m.model[0].conv.weight.data.fill_(float("nan")))
    assert "int64 in this checkpoint" in words(
        lambda m: m.model[0].bn.register_buffer("running_var", torch.ones(16, dtype=torch.int64)))
    assert "not one of the layers" in words(lambda m: m.yaml["head"].__setitem__(6, [-1, 1, "os.system", []]))
    assert "without the rows" in words(lambda m: m.__dict__.pop("yaml"))
    assert "n_win=99" in words(lambda m: object.__setattr__(m.model[15].spec, "n_win", 99))


def test_an_attention_inside_that_differs_from_its_row_is_refused() -> None:
    model = YOLO("yolov8n-bra-c2f.yaml").model
    object.__setattr__(model.model[15].attn[0].attn.spec, "topk", 2)
    with pytest.raises(YoloError, match=r"model\.15\.attn\.0\.attn of this .* has topk='2', and its row makes 4"):
        open_checkpoint(read_checkpoint(written(half(model))))


def test_names_are_labels_only() -> None:
    model = build_checked(tiny())
    for given, kept in (({0: "a\x1b[2Jb\u202e", 1: "<b>" * 99, 2: "c\nd"}, ("a[2Jb", ("<b>" * 99)[:64], "c d")),
                        (["x", "y", "z"], ("x", "y", "z")), (dict.fromkeys(range(50), "n"), ("0", "1", "2")),
                        ({0: "a", 2: "b"}, ("0", "1", "2")), ("abc", ("0", "1", "2"))):
        model.names = given
        opened, _ = open_checkpoint(read_checkpoint(written(half(model))))
        assert opened.names == dict(enumerate(kept))


def test_a_stranger_of_values_is_a_checkpoint_error_and_not_a_crash(tmp_path: Path) -> None:
    """Facts of any shape: only the gate reads them."""
    for wrong in ({"nc": 2}, {"backbone": 7, "head": 7}, [1], "x", {"backbone": [[]], "head": [[]]}, None):
        model = copy.deepcopy(build_checked(tiny()))
        model.yaml = wrong
        with pytest.raises(BRAError):
            open_checkpoint(read_checkpoint(written(half(model))))
    assert not list(tmp_path.iterdir())
    assert isinstance(read_checkpoint(written(half(model))), Checkpoint)
    assert "YOLO_OFFLINE" in os.environ
