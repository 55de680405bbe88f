"""Pretrained weights in a model that has more rows: every tensor in its own layer, and a proof of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("ultralytics")
from ultralytics import YOLO

import bra.yolo
from bra.errors import YoloError
from bra.yolo.blocks import C2PSABRA
from bra.yolo.transplant import align, carry, layers_of, transplant, write_checkpoint

SHIPPED = sorted(path.stem for path in bra.yolo.CFG.glob("*.yaml"))


def named(stem: str, scale: str = "n") -> str:
    head, dash, tail = stem.partition("-")
    return f"{head}{scale}{dash}{tail}.yaml"


def out(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        y: torch.Tensor = model.float().eval()(x)[0]
    return y


@pytest.mark.parametrize("stem", SHIPPED)
def test_every_layer_of_the_source_finds_its_place(stem: str) -> None:
    old, new = YOLO(named(stem[:6])).model, YOLO(named(stem)).model
    result = carry(old, new)
    # Only what reads a replaced or new row, and attention itself, may start fresh.
    allowed = (bra.yolo.BiLevelRoutingAttention, bra.yolo.BRABlock, bra.yolo.C2fBRA, C2PSABRA)
    for name in result.fresh:
        assert isinstance(new.model[int(name.split(".")[1])], allowed), name
    assert bool(result.unused) == (stem in ("yolo11-bra-c2f", "yolo11-bra-c2psa"))
    if stem == "yolo11-bra-c2psa":      # of a row that stands for another, the attention alone starts fresh
        assert {*result.fresh} == {name for name in new.state_dict() if re.match(r"model\.10\..*\battn\.", name)}
    before, after = old.state_dict(), new.state_dict()
    for name in result.carried:
        layer, _, rest = name.removeprefix("model.").partition(".")
        assert after[name].equal(before[f"model.{result.layers[int(layer)]}.{rest}"])


@pytest.mark.parametrize(("scale", "tensors"), [("n", 355), ("s", 355), ("l", 595)])
def test_all_is_carried_and_attention_starts_fresh(scale: str, tensors: int) -> None:
    old = YOLO(named("yolov8", scale)).model
    result = carry(old, YOLO(named("yolov8-bra", scale)).model)
    assert len(result.carried) == len(old.state_dict()) >= tensors      # 8.3.0 has 36 more in its head
    assert len(result.fresh) == 3 * 6
    assert not result.unused


def test_by_name_tensors_would_come_from_the_wrong_layer() -> None:
    result = carry(YOLO(named("yolov8")).model, YOLO(named("yolov8-bra-p3")).model)
    assert result.by_name == 6
    assert result.layers[6] == 5


@pytest.mark.parametrize("stem", ["yolov8-bra-residual", "yolov8-bra-c2f", "yolo11-bra-residual"])
def test_a_residual_model_computes_what_the_pretrained_one_did(stem: str, tmp_path: Path) -> None:
    base = YOLO(named(stem[:6]))
    write_checkpoint(base.model, tmp_path / "base.pt")
    result = transplant(tmp_path / "base.pt", named(stem), tmp_path / "init.pt")
    assert "no tensor is from a wrong layer" in str(result)
    x = torch.rand(1, 3, 96, 128)
    torch.testing.assert_close(out(YOLO(tmp_path / "init.pt").model, x), out(YOLO(tmp_path / "base.pt").model, x),
                               atol=1e-3, rtol=1e-3)


def test_training_begins_with_what_was_carried(trained: Path, rectangles: Path, small: dict, tmp_path: Path) -> None:
    """Two classes in the source: the head comes along; and train() takes all of it."""
    result = transplant(trained / "weights" / "best.pt", "yolov8n-bra.yaml", tmp_path / "init.pt")
    assert not result.fresh
    assert not result.unused
    start = YOLO(tmp_path / "init.pt")
    assert start.names == {0: "red", 1: "blue"}
    weights = {}

    def note(trainer) -> None:
        weights.update({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})

    start.add_callback("on_pretrain_routine_end", note)
    expected = start.model.state_dict()
    start.train(data=str(rectangles), epochs=1, project=str(tmp_path), name="run", **small)
    assert all(weights[name].equal(tensor) for name, tensor in expected.items() if "dfl" not in name)


def test_repeating_layers_are_not_mistaken() -> None:
    """An insertion near the start, before equal layers: the longest run is the wrong one."""
    def model(rows: list) -> torch.nn.Module:
        from ultralytics.nn.tasks import DetectionModel
        head = [[[len(rows) - 1], 1, "Detect", ["nc"]]]
        return DetectionModel({"nc": 2, "backbone": rows, "head": head}, verbose=False)

    pair = [[-1, 1, "Conv", [16, 3, 1]], [-1, 1, "C2f", [16]]]
    first = [-1, 1, "Conv", [16, 3, 2]]
    old, new = model([first, *pair * 3]), model([first, *pair, *[[-1, 1, "BRABlock", []]] * 2, *pair * 2])
    assert align(layers_of(old), layers_of(new)) == {0: 0, 1: 1, 2: 2, 5: 3, 6: 4, 7: 5, 8: 6, 9: 7}
    assert carry(old, new).by_name == 6 + 24      # a Conv and a C2f


def test_a_wrong_wire_is_found(tmp_path: Path) -> None:
    text = (bra.yolo.CFG / "yolov8-bra.yaml").read_text()
    (tmp_path / "yolov8n-wrong.yaml").write_text(text.replace("[[-1, 9], 1, Concat", "[[-1, 7], 1, Concat"))
    with pytest.raises(YoloError, match=r"layer 24 .* which reads other layers: .* bra lint"):
        carry(YOLO(named("yolov8")).model, YOLO(tmp_path / "yolov8n-wrong.yaml").model)


def test_another_family_is_refused(tmp_path: Path) -> None:
    write_checkpoint(YOLO(named("yolov8")).model, tmp_path / "base.pt")
    (tmp_path / "tiny.yaml").write_text(
        "nc: 80\nbackbone:\n  - [-1, 1, BRABlock, [{num_heads: 1}]]\nhead:\n  - [[0], 1, Detect, [nc]]\n")
    with pytest.raises(YoloError, match=r"nothing of .* same family and scale|reads other layers"):
        transplant(tmp_path / "base.pt", tmp_path / "tiny.yaml", tmp_path / "init.pt")
