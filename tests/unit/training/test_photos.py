"""From folders of photographs to weights with a card, by the command; the teacher is a stand-in."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from bra.cli.main import main
from bra.models.biformer import biformer_photos
from bra.models.card import shipped
from bra.training import distillation, photos
from bra.training.dataset import held_out
from bra.training.distillation_data import CHANNELS, Maps


def teacher(rgb: torch.Tensor) -> Maps:
    return tuple(F.avg_pool2d(rgb, stride).repeat(1, channels // 3 + 1, 1, 1)[:, :channels]
                 for stride, channels in zip((16, 32), CHANNELS, strict=True))


def test_the_command_teaches_measures_and_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    for folder in ("in/a", "judged/images", "judged/masks"):
        (tmp_path / folder).mkdir(parents=True)
    for n in range(24):
        coarse = draw.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((80, 80)).save(tmp_path / "in" / "a" / f"{n}.jpg")
    for n in range(2):
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "judged/images" / f"{n}.png")
        Image.fromarray(draw.integers(0, 2, (64, 64), np.uint8)).save(tmp_path / "judged/masks" / f"{n}.png")
    monkeypatch.setattr(photos, "efficientnet_lite0", lambda: teacher)
    monkeypatch.setattr(distillation, "Recipe", partial(distillation.Recipe, steps=2, batch=2))
    command = ["train-demo", "photos", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--seeds", "3", "5",
               "--epochs", "1", "--imgsz", "64"]
    for name in ("noise", "the same again"):
        command += ["--judge", name, str(tmp_path / "judged/images"), str(tmp_path / "judged/masks")]
    assert main(command) == 0
    assert "Layers that bring like to like" in capsys.readouterr().out
    card, tensors = shipped("photos", tmp_path / "out" / "shipped")
    unseen = sum(held_out(f"a/{n}.jpg") for n in range(24))
    assert f"{24 - unseen} photographs to learn from" in card.data
    assert list(card.quality) == ["trained", "untrained", "seed5", "the same again"]
    assert [len(rows) for rows in card.quality.values()] == [6] * 4
    assert card.quality["the same again"] == card.quality["trained"] != card.quality["seed5"]
    assert card.data.endswith("used for nothing else: noise; the same again.")
    assert all(row.overlap is not None and row.query_dependence is not None for row in card.quality["trained"])
    assert card.judged == 2
    assert card.recipe["model"] == "biformer_photos"
    assert card.scores["biformer_photos"]["query_dependence"] == tuple(
        rows[-1]["query_dependence"] for rows in card.curves.values())
    model = biformer_photos()
    model.load_state_dict(tensors)
    state = torch.load(tmp_path / "out" / "seed3" / "last.pt", weights_only=True)["average"]
    torch.testing.assert_close(model.stages[2][3].attn.wo.weight, state["body.stages.2.3.attn.wo.weight"], atol=1e-3,
                               rtol=0)
    assert main(["train-demo", "flowers", "a", "b"]) == 2
    assert "one folder" in capsys.readouterr().err


def test_the_model_is_small() -> None:
    assert sum(p.numel() for p in biformer_photos().parameters()) < 3e6
