"""Checkpoints of installations edited by hand, as the YOLOv8 tutorial says, open and compute the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("ultralytics")
from ultralytics import YOLO
from ultralytics.nn.modules import block

import bra.yolo
from bra import attention
from bra.errors import YoloError


class Pasted(nn.Module):
    """Holds what the tutorial's constructor leaves on the object, with the submodules of `layer`."""

    __module__ = "ultralytics.nn.modules.block"
    __qualname__ = "BiLevelRoutingAttention"

    def __init__(self, layer: attention.BiLevelRoutingAttention, **given: Any) -> None:
        super().__init__()
        spec = layer.spec
        for name in ("dim", "n_win", "num_heads", "qk_dim", "topk", "param_routing", "diff_routing", "soft_routing",
                     "param_attention", "kv_downsample_mode", "kv_per_win", "kv_downsample_ratio", "auto_pad"):
            setattr(self, name, getattr(spec, name))
        self.scale = spec.scale
        for name in ("lepe", "router", "kv_gather", "qkv", "wo", "kv_down"):
            setattr(self, name, getattr(layer, name))
        self.attn_act = nn.Softmax(dim=-1)
        for name, value in given.items():
            setattr(self, name, value)


def saved(monkeypatch: pytest.MonkeyPatch, path: Path, what: Any) -> None:
    """Write what an edited installation would: its class is `block.BiLevelRoutingAttention`."""
    with monkeypatch.context() as edited:
        edited.setattr(block, "BiLevelRoutingAttention", Pasted)
        torch.save(what, path)


@pytest.mark.parametrize("options", [
    {}, {"n_win": 5, "topk": 8, "num_heads": 2, "qk_dim": 8}, {"side_dwconv": 5, "auto_pad": True},
    {"kv_downsample_mode": "maxpool", "kv_downsample_ratio": 2}, {"param_attention": "qkv"},
    {"kv_downsample_mode": "ada_avgpool", "kv_per_win": 2}, {"param_routing": True, "diff_routing": True},
    {"soft_routing": True, "qk_scale": 0.5}], ids=str)
def test_a_pasted_layer_becomes_ours(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = attention.BiLevelRoutingAttention(16, **options).eval()
    unused = {} if str(layer.spec.kv_downsample_mode).startswith("ada") else {"kv_per_win": -1}
    saved(monkeypatch, tmp_path / "layer.pt", Pasted(layer, training=False, **unused))
    opened = torch.load(tmp_path / "layer.pt", weights_only=False)
    assert type(opened) is bra.yolo.BiLevelRoutingAttention
    assert not opened.training
    x = torch.rand(1, 16, 20, 30)
    torch.testing.assert_close(opened(x), layer(x), atol=0, rtol=0)
    torch.save(opened, tmp_path / "again.pt")
    assert type(copy.deepcopy(torch.load(tmp_path / "again.pt", weights_only=False))) is type(opened)


def test_a_whole_checkpoint_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = YOLO("yolov8n-bra.yaml").model.eval()
    pasted = copy.deepcopy(model)
    for n, layer in enumerate(pasted.model):
        if isinstance(layer, attention.BiLevelRoutingAttention):
            pasted.model[n] = Pasted(layer, i=layer.i, f=layer.f, type=layer.type, np=layer.np)
    saved(monkeypatch, tmp_path / "theirs.pt", {"model": pasted.half(), "ema": None, "epoch": -1, "train_args": {}})
    opened = YOLO(tmp_path / "theirs.pt")
    assert [type(layer) for layer in opened.model.model] == [type(layer) for layer in model.model]
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(opened.model.float().eval()(x)[0], model.half().float()(x)[0], atol=1e-3, rtol=1e-3)
    assert opened.predict((x[0] * 255).byte().permute(1, 2, 0).numpy(), imgsz=64, device="cpu", verbose=False)


def test_a_stranger_of_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = attention.BiLevelRoutingAttention(16)
    saved(monkeypatch, tmp_path / "layer.pt", Pasted(layer, qkv=nn.Linear(16, 16)))
    with pytest.raises(YoloError, match=r"is not the tutorial's .* state_dict"):
        torch.load(tmp_path / "layer.pt", weights_only=False)
