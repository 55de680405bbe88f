"""Strangers' models are built when they stay within bounds, and leave nothing in the process when they do not."""

from __future__ import annotations

import copy
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

pytest.importorskip("ultralytics")
from model_files import OURS, THEIRS, TINY, half, outputs, refusal, tiny, unbuildable, with_row, written
from ultralytics import YOLO
from ultralytics.nn.modules.conv import Conv

from bra.errors import BRAError, YoloError
from bra.readers.checkpoint import read_checkpoint
from bra.yolo.build import ModelLimits, build_checked, check_model, open_checkpoint

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.mark.parametrize("path", [*OURS, THEIRS["yolov8"], THEIRS["yolo11"]], ids=lambda path: path.stem)
def test_shipped_models_pass_and_build(path: Path) -> None:
    model = check_model(path.read_bytes())
    file = yaml.safe_load(path.read_text())
    assert (model["backbone"], model["head"], model["nc"]) == (file["backbone"], file["head"], 80)
    built = build_checked(model, "n")
    assert not built.training
    assert {p.dtype for p in built.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in built.parameters())
    assert outputs(built).shape == (1, 84, 96 * 128 // 64 + 96 * 128 // 256 + 96 * 128 // 1024)
    name = path.stem.replace("yolov8", "yolov8n").replace("yolo11", "yolo11n")
    assert {k: v.shape for k, v in built.state_dict().items()} == {
        k: v.shape for k, v in YOLO(f"{name}.yaml").model.state_dict().items()}


@pytest.mark.parametrize(("stem", "kind"), [
    ("yolov8-seg", "SegmentationModel"), ("yolo11-pose", "PoseModel"), ("yolo26-obb", "OBBModel"),
    ("yolov8-cls", "ClassificationModel"), ("yolov10n", "DetectionModel"), ("yolov8-rtdetr", "RTDETRDetectionModel")])
def test_the_head_says_the_task(stem: str, kind: str) -> None:
    built = build_checked(check_model(THEIRS[stem].read_text()))
    assert type(built).__name__ == kind
    assert outputs(built).isfinite().all()


@pytest.mark.parametrize("text", [
    "__import__('os').system('touch {marker}')", "nn.SiLU() if open('{marker}', 'w') else 0", "nn.SiLU",
    "torch.hub.load('a', 'b')", "nn.ReLU() ", "(lambda: nn.ReLU())()", 7, ["nn.ReLU()"]])
def test_no_activation_is_evaluated_but_the_known(text: Any, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = text.format(marker=marker) if isinstance(text, str) else text
    assert "activation is" in refusal(tiny(activation=text))
    model = copy.deepcopy(YOLO("yolov8n-bra.yaml").model)
    model.yaml["activation"] = text
    with pytest.raises(YoloError, match="activation is"):
        open_checkpoint(read_checkpoint(written(half(model))))
    assert not marker.exists()


def test_a_known_activation_reaches_its_own_model_only() -> None:
    built = build_checked(tiny(activation="nn.ReLU()"))
    assert {type(part.act) for part in built.modules() if isinstance(part, Conv)} >= {nn.ReLU}
    assert type(Conv.default_act) is nn.SiLU
    broken = with_row([-1, 1, "Conv", []])
    unbuildable({**broken, "activation": "nn.ReLU()"})
    assert type(Conv.default_act) is nn.SiLU, "a row that fails must not leave its activation to the next visitor"
    kinds: list[Any] = []

    def build(activation: str | None) -> None:
        for _ in range(6):
            model = build_checked(tiny(activation=activation))
            kinds.append((activation, type(model.model[0].act).__name__))

    threads = [threading.Thread(target=build, args=(name,)) for name in ("nn.ReLU()", "nn.Mish()", None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(kinds) == {("nn.ReLU()", "ReLU"), ("nn.Mish()", "Mish"), (None, "SiLU")}
    assert len(kinds) == 18
    assert type(Conv.default_act) is nn.SiLU


@pytest.mark.parametrize(("row", "words"), [
    ([-1, 1, "Conv", [8192, 63]], "MB"), ([-1, 100, "C2f", [8192]], "MB"),
    ([-1, 1, "nn.Upsample", [None, 8192, "nearest"]], "MB"), ([-1, 1, "nn.Upsample", [8192, None, "nearest"]], "MB"),
    ([-1, 1, "nn.ZeroPad2d", [[8192, 8192, 8192, 8192]]], "MB"), ([-1, 1, "SPPF", [64, 5, 8192]], "MB"),
    ([-1, 1, "RepNCSPELAN4", [64, 64, 32, 8192]], "20,000"), ([-1, 1, "SPPF", [64, 8191]], "GMACs"),
    ([-1, 1, "nn.MaxPool2d", [8191, 1, 4095]], "GMACs"),
    ([-1, 1, "ResNetLayer", [16, 64, 1, False, 8192]], "20,000"),
    ([-1, 1, "BiLevelRoutingAttention", [8, 7]], "num_heads"),
    ([-1, 1, "BRABlock", [7, 8, 100]], "row 1"), ([-1, 1, "AIFI", [8192, 7]], "AssertionError")],
    ids=lambda value: str(value)[:40])
def test_what_passes_in_parts_and_is_too_much_in_whole(row: Any, words: str) -> None:
    model = with_row(row) | {"scales": {"n": [1.0, 4.0, 8192]}}
    assert words in unbuildable(model)


def test_the_budget_is_of_the_whole_model() -> None:
    model = check_model(THEIRS["yolov8"].read_text())
    with pytest.raises(YoloError, match=r"3,157,200 parameters: 3,000,000 at most"):
        build_checked(model, "n", ModelLimits(parameters=3_000_000))
    # Ultralytics counts 8.7 GFLOPs at 640, two for each multiply-add.
    build_checked(model, "n", ModelLimits(macs=int(4.5e9)))
    with pytest.raises(YoloError, match=r"for a picture of 640 px, .* GMACs"):
        build_checked(model, "n", ModelLimits(macs=int(4.2e9)))
    build_checked(model, "n", ModelLimits(macs=int(1.2e9), imgsz=320))
    with pytest.raises(YoloError, match="MB at one time"):
        build_checked(model, "n", ModelLimits(activation_bytes=10 * 2**20))
    with pytest.raises(YoloError, match="scale is 'q': choose one of n, s, m, l, x"):
        build_checked(model, "q")


def test_flipped_bytes_of_a_model_file_build_or_are_refused() -> None:
    rng, built = random.Random(0), 0
    data = TINY.encode()
    assert build_checked(check_model(data))
    for _ in range(300):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            build_checked(check_model(bytes(flipped)), None, ModelLimits(imgsz=64))
            built += 1
        except BRAError:
            pass
    assert 20 < built < 200
