"""Model files as strangers might send them, and what is asked of each."""

from __future__ import annotations

import copy
import io
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from chinese import in_chinese
from torch import nn

pytest.importorskip("ultralytics")
from ultralytics.utils import ROOT as ULTRALYTICS

import bra.yolo
from bra.errors import YoloError
from bra.yolo.build import ModelLimits, build_checked, check_model

OURS = sorted(bra.yolo.CFG.glob("*.yaml"))
THEIRS = {path.stem: path for path in (ULTRALYTICS / "cfg" / "models").rglob("*.yaml")}
TINY = """
nc: 3
scales: {n: [0.5, 0.25, 64], s: [1.0, 0.5, 64]}
backbone:
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [-1, 1, BiLevelRoutingAttention, [4, 2]]
  - [-1, 2, C2f, [64, True]]
  - [[1, 3], 1, Concat, [1]]
  - [[3, 4], 1, Detect, [nc]]
"""


def tiny(**changed: Any) -> dict[str, Any]:
    return {**yaml.safe_load(TINY), **changed}


def with_row(row: Any, at: int = 1) -> dict[str, Any]:
    """The tiny model with another row in its backbone."""
    model = tiny()
    model["backbone"][at:at + 1] = [row]
    return model


def refusal(model: Any, limits: ModelLimits | None = None) -> str:
    with pytest.raises(YoloError) as caught:
        check_model(model, limits)
    in_chinese(caught.value.args[0])
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert ": " in sentence, "cause: cure"
    assert "\n" not in sentence
    assert len(sentence) < 700
    return sentence


def unbuildable(model: Any, limits: ModelLimits | None = None) -> str:
    """Words of a model that passes the gate and is refused when it is tried, soon and without memory."""
    status = Path("/proc/self/status")
    checked, started = check_model(model, limits), time.monotonic()
    before = int(status.read_text().split("VmRSS:")[1].split()[0]) if status.exists() else 0
    with pytest.raises(YoloError) as caught:
        build_checked(checked, None, limits)
    assert time.monotonic() - started < 60
    assert not status.exists() or int(status.read_text().split("VmRSS:")[1].split()[0]) - before < 300_000
    in_chinese(caught.value.args[0])
    return str(caught.value)


def half(model: nn.Module) -> dict[str, Any]:
    return {"model": copy.deepcopy(model).half(), "ema": None, "epoch": -1, "train_args": {"imgsz": 96}}


def written(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def outputs(model: nn.Module) -> torch.Tensor:
    x = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        y = model.float().eval()(x)
    while isinstance(y, (tuple, list)):         # a head of masks gives (what it predicts, prototypes) first
        y = y[0]
    found: torch.Tensor = y
    return found
