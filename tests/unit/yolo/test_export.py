"""Exported models agree with PyTorch, also at sizes they were not exported at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("ultralytics")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
import onnxruntime
from ultralytics import YOLO

import bra.yolo
from bra.yolo.transplant import write_checkpoint

ROW = "yolov8n-bra.yaml"
INSIDE = "yolov8n-bra-c2f.yaml"
AT = (96, 160)
ELSEWHERE = ((96, 160), (64, 64), (160, 96), (224, 128), (32, 320))


def model_of(stem: str, folder: Path) -> YOLO:
    """A model whose gates are open, so that attention counts, saved where its exports shall lie."""
    model = YOLO(stem)
    with torch.no_grad():
        for block in model.model.modules():
            if isinstance(block, bra.yolo.BRABlock):
                block.gate.fill_(0.5)
    write_checkpoint(model.model, folder / "model.pt")
    return YOLO(folder / "model.pt")


def torch_out(model: YOLO, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        y: torch.Tensor = model.model.float().eval()(x)[0]
    return y


def picture(size: tuple[int, int]) -> torch.Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(size[0] * 1000 + size[1]))


def onnx_out(path: str, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize("stem", [ROW, INSIDE])
def test_dynamic_onnx_agrees_at_sizes_it_was_not_exported_at(stem: str, tmp_path: Path) -> None:
    model = model_of(stem, tmp_path)
    path = model.export(format="onnx", imgsz=AT, dynamic=True, simplify=False, verbose=False)
    for size in ELSEWHERE:
        x = picture(size)
        torch.testing.assert_close(onnx_out(path, x), torch_out(model, x), atol=2e-3, rtol=1e-3)


def test_static_onnx_and_torchscript_agree(tmp_path: Path) -> None:
    model, x = model_of(ROW, tmp_path), picture(AT)
    expected = torch_out(model, x)
    path = model.export(format="onnx", imgsz=AT, simplify=False, verbose=False)
    torch.testing.assert_close(onnx_out(path, x), expected, atol=2e-3, rtol=1e-3)
    script = torch.jit.load(model.export(format="torchscript", imgsz=AT, verbose=False))
    torch.testing.assert_close(script(x)[0] if isinstance(script(x), tuple) else script(x), expected,
                               atol=2e-3, rtol=1e-3)
