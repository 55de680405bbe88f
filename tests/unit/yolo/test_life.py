"""A model's life: odd sizes, training for real, resuming, reopening elsewhere, distributed workers."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ultralytics")
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.modules import block
from ultralytics.utils import dist
from ultralytics.utils.torch_utils import ModelEMA

import bra
import bra.yolo
from bra.yolo.transplant import write_checkpoint

FILES = sorted(path.stem for path in bra.yolo.CFG.glob("*.yaml"))
ROOT = Path(__file__).parents[3]


def named(stem: str) -> str:
    head, _, tail = stem.partition("-")
    return f"{head}n-{tail}.yaml"


def outputs(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        y: torch.Tensor = model.eval()(x)[0]
    return y


def fresh(code: str, *args: str) -> str:
    """What a new Python prints, which knows nothing but where packages lie."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("stem", FILES)
def test_every_shipped_model_runs_is_copied_fused_and_narrowed(stem: str) -> None:
    model = YOLO(named(stem)).model
    x = torch.rand(2, 3, 96, 160)
    y = outputs(model, x)
    assert y.shape == (2, 84, (96 * 160) // 64 + (96 * 160) // 256 + (96 * 160) // 1024)
    for other in (copy.deepcopy(model), ModelEMA(model).ema, copy.deepcopy(model).fuse(verbose=False)):
        torch.testing.assert_close(outputs(other, x), y, atol=2e-3, rtol=1e-3)
    assert outputs(model, torch.rand(1, 3, 32, 32)).shape == (1, 84, 21)
    assert model.info(verbose=True)[1] == sum(p.numel() for p in model.parameters())
    for kind in (torch.bfloat16, torch.float16):
        assert outputs(copy.deepcopy(model).to(kind), x.to(kind)).isfinite().all()


@pytest.mark.parametrize("family", ["yolov8", "yolo11"])
def test_the_residual_neck_starts_as_the_model_without_it(family: str) -> None:
    model, base = YOLO(f"{family}n-bra-residual.yaml").model, YOLO(f"{family}n.yaml").model
    rows = [n for n, layer in enumerate(model.model) if not isinstance(layer, bra.yolo.BRABlock)]
    for mine, its in zip((model.model[n] for n in rows), base.model, strict=True):
        its.load_state_dict(mine.state_dict())
    x = torch.rand(1, 3, 96, 96)
    torch.testing.assert_close(outputs(model, x), outputs(base, x), atol=1e-4, rtol=1e-5)


def test_c2f_with_attention_inside_starts_as_c2f() -> None:
    inside, plain = YOLO("yolov8n-bra-c2f.yaml").model, YOLO("yolov8n.yaml").model
    missing, unexpected = inside.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(".attn." in name for name in missing)
    x = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(outputs(inside, x), outputs(plain, x), atol=1e-4, rtol=1e-5)
    assert all(layer.forward_split(torch.ones(1, layer.cv1.conv.in_channels, 8, 8)).equal(
        layer(torch.ones(1, layer.cv1.conv.in_channels, 8, 8)))
        for layer in inside.modules() if isinstance(layer, bra.yolo.C2fBRA))


def test_gradient_reaches_the_gate_first_and_the_attention_then() -> None:
    block = bra.yolo.BRABlock(16)
    x = torch.rand(1, 16, 14, 14)
    assert block(x).equal(x)
    block(x).square().sum().backward()
    assert block.gate.grad is not None
    assert block.gate.grad.abs().min() > 0
    with torch.no_grad():
        block.gate.fill_(0.1)
    block(x).square().sum().backward()
    assert block.attn.wo.weight.grad.abs().max() > 0


def test_every_layer_can_be_traced() -> None:
    trace = bra.trace(YOLO("yolov8n-bra.yaml").model.eval(), torch.rand(1, 3, 96, 160))
    assert list(trace.layers) == ["model.15", "model.19", "model.23"]
    assert [(layer.grid.h, layer.grid.w) for layer in trace.layers.values()] == [(12, 20), (6, 10), (3, 5)]
    assert {layer.grid.image for layer in trace.layers.values()} == {(96, 160)}


def test_compiled_gives_the_same() -> None:
    layer = bra.yolo.BRABlock(16).eval()
    with torch.no_grad():
        layer.gate.fill_(1.0)
    x = torch.rand(1, 16, 10, 12)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_training_moves_the_attention_and_ema_keeps_up(trained: Path) -> None:
    start, end = YOLO("yolov8n-bra.yaml"), YOLO(trained / "weights" / "best.pt")
    assert type(end.model.model[15]) is bra.yolo.BiLevelRoutingAttention
    assert end.model.yaml["nc"] == 2
    assert {name for name, _ in end.model.named_parameters()} == {name for name, _ in start.model.named_parameters()}
    assert (trained / "results.csv").read_text().count("\n") == 3


def test_validated_and_predicted(trained: Path, rectangles: Path, small: dict[str, Any]) -> None:
    model = YOLO(trained / "weights" / "last.pt")
    numbers = model.val(data=str(rectangles), project=str(trained), name="val", **small)
    assert 0 <= numbers.box.map <= 1
    picture = np.full((70, 131, 3), 127, np.uint8)
    result = model.predict(picture, imgsz=96, device="cpu", conf=0.001, verbose=False)[0]
    assert result.orig_shape == (70, 131)
    assert result.names == {0: "red", 1: "blue"}


def test_resumed_where_it_was_cut_off(trained: Path) -> None:
    epochs = []
    model = YOLO(trained / "weights" / "cut_off.pt")
    model.add_callback("on_train_epoch_end", lambda trainer: epochs.append(trainer.epoch))
    model.train(resume=True)
    assert epochs == [1]
    assert type(model.trainer.ema.ema.model[15]) is bra.yolo.BiLevelRoutingAttention


def test_a_fresh_process_opens_it_without_naming_us(trained: Path) -> None:
    code = ("import sys, torch\nfrom ultralytics import YOLO\nassert 'bra' not in sys.modules\n"
            "model = YOLO(sys.argv[1])\nassert 'bra.yolo' in sys.modules\n"
            "print(float(model.model.float().eval()(torch.ones(1, 3, 64, 96))[0].double().sum()))\n"
            "again = YOLO('yolov8n-bra.yaml')      # its coming registered the rows\nprint(len(again.model.model))\n")
    total, layers = fresh(code, str(trained / "weights" / "best.pt")).split()[-2:]
    here = outputs(YOLO(trained / "weights" / "best.pt").model.float(), torch.ones(1, 3, 64, 96)).double().sum()
    assert float(total) == pytest.approx(float(here), rel=1e-5)
    assert layers == "26"


def test_a_worker_of_one_rank_knows_the_rows(rectangles: Path, small: dict[str, Any], tmp_path: Path) -> None:
    arguments = {"model": "yolov8n-bra.yaml", "data": str(rectangles), "epochs": 1, "project": str(tmp_path),
                 "name": "worker", "exist_ok": True, **small}
    trainer = DetectionTrainer(overrides=arguments)
    script = dist.generate_ddp_file(trainer)
    try:
        assert Path(script).read_text().count("import bra.yolo") == 1
        fresh("import runpy, sys\nassert 'bra' not in sys.modules\nrunpy.run_path(sys.argv[1], run_name='__main__')",
              script)
    finally:
        dist.ddp_cleanup(trainer, script)
    assert (tmp_path / "worker" / "weights" / "last.pt").is_file()


def test_an_unknown_worker_script_is_refused(tmp_path: Path) -> None:
    from bra.yolo.registration import GenerateDDPFile

    def other(trainer: Any) -> str:
        path = tmp_path / "script.py"
        path.write_text("pass\n")
        return str(path)

    with pytest.raises(bra.BRAError, match="worker script in a way not known"):
        GenerateDDPFile(other)(None)


@pytest.mark.parametrize("stem", ["yolov8n-bra.yaml", "yolo11n-bra-c2f.yaml", "yolov8n-bra-residual.yaml"])
def test_opened_under_the_guard_of_known_classes(stem: str, tmp_path: Path) -> None:
    write_checkpoint(YOLO(stem).model, tmp_path / "model.pt")
    kept = torch.load(tmp_path / "model.pt", map_location="cpu", weights_only=False)["model"]
    torch.save([layer for layer in kept.modules() if type(layer).__module__.startswith("bra.")], tmp_path / "ours.pt")
    with torch.serialization.safe_globals([torch.nn.Linear, torch.nn.LayerNorm, torch.nn.Conv2d, torch.nn.Identity,
                                           torch.nn.ModuleList, torch.nn.Sequential, torch.nn.BatchNorm2d,
                                           torch.nn.SiLU, block.Conv, block.Bottleneck]):
        assert torch.load(tmp_path / "ours.pt", weights_only=True)
