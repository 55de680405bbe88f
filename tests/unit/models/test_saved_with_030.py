"""Checkpoints and whole pickles that release 0.3.0 wrote open, and give the numbers that they gave there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bra import BiLevelRoutingAttention
from bra.errors import CheckpointError
from bra.opening import open_file
from bra.photo import Photo
from bra.readers.checkpoint import read_checkpoint

DATA = Path(__file__).parents[2] / "data"


def numbers(*shape: int) -> Tensor:
    """The input that the stored outputs are of."""
    return torch.linspace(-1, 1, torch.Size(shape).numel()).cos().mul(3).sin().view(shape)


def expected(name: str) -> Tensor:
    found: Tensor = torch.load(DATA / "bra030_expected.pt", weights_only=True)[name]
    return found


def loaded(name: str) -> Any:
    return torch.load(DATA / f"bra030_{name}.pt", weights_only=False)


def gives(model: nn.Module, name: str, *shape: int) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model(numbers(*shape)), expected(name), atol=1e-5, rtol=1e-4)


def test_a_whole_layer() -> None:
    layer = loaded("module")
    assert type(layer) is BiLevelRoutingAttention
    gives(layer, "module", 1, 8, 10, 11)
    gives(layer.with_spec(layer.spec), "module", 1, 8, 10, 11)


def test_a_state_dict() -> None:
    state = torch.load(DATA / "bra030_state.pt", weights_only=True)
    layer = BiLevelRoutingAttention(8, n_win=3, num_heads=2, topk=2, mask_padding=True, soft_routing=True).eval()
    layer.load_state_dict(state)
    gives(layer, "module", 1, 8, 10, 11)
    read = read_checkpoint((DATA / "bra030_state.pt").read_bytes())
    assert {name: tensor.shape for name, tensor in read.tensors.items()} == \
        {name: tensor.shape for name, tensor in layer.state_dict().items()}


def test_a_biformer() -> None:
    model = loaded("biformer").float()
    gives(model, "biformer", 1, 3, 96, 96)
    read = read_checkpoint((DATA / "bra030_biformer.pt").read_bytes())
    assert all(torch.equal(read.tensors[name].float(), tensor) for name, tensor in model.state_dict().items())
    # Read without running its code, it keeps the settings of its own layers.
    opened = open_file((DATA / "bra030_biformer.pt").read_bytes(), "old.pt")
    own = {name: layer.spec for name, layer in model.named_modules() if isinstance(layer, BiLevelRoutingAttention)}
    assert len(own) == 3
    assert {name: (spec.n_win, spec.topk) for name, spec in opened.specs.items()} == \
        {name: (spec.n_win, spec.topk) for name, spec in own.items()}


def test_rows_of_yolo() -> None:
    pytest.importorskip("ultralytics")
    rows = loaded("yolo_rows")
    assert [type(row).__module__ for row in rows] == ["bra.yolo.modules"] * 3
    gives(rows, "yolo_rows", 1, 8, 8, 8)


def test_a_checkpoint_of_yolo() -> None:
    pytest.importorskip("ultralytics")
    model = loaded("yolo_checkpoint")["model"].float().eval()
    with torch.no_grad():
        torch.testing.assert_close(model(numbers(1, 3, 96, 96))[0], expected("yolo_checkpoint"), atol=1e-5, rtol=1e-4)
    opened = open_file((DATA / "bra030_yolo_checkpoint.pt").read_bytes(), "old.pt")
    with torch.no_grad():
        torch.testing.assert_close(opened.module(numbers(1, 3, 96, 96))[0], expected("yolo_checkpoint"), atol=1e-5,
                                   rtol=1e-4)
    look = opened.look(Photo.from_array(np.full((96, 96, 3), 99, np.uint8)), 96)
    assert list(look.trace.layers) == ["model.2", "model.3.attn"]


def test_a_file_that_is_damaged_is_still_refused() -> None:
    data = (DATA / "bra030_module.pt").read_bytes()
    with pytest.raises(CheckpointError):
        read_checkpoint(data[:len(data) // 2])
