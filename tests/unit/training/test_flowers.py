"""From a folder to weights with a card, by the command that the card names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bra.cli.main import main
from bra.models.biformer import biformer_nano
from bra.models.card import shipped
from bra.training.flowers import train_flowers


def test_the_command_trains_measures_and_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (tmp_path / "in" / name).mkdir(parents=True)
        for n in range(24):
            picture = rng.integers(0, 120, (80, 96, 3), np.uint8)
            picture[..., channel] += 100
            Image.fromarray(picture).save(tmp_path / "in" / name / f"{n}.jpg")
    command = ["train-demo", "flowers", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--seeds", "3", "5",
               "--epochs", "1", "--imgsz", "64"]
    assert main(command) == 0
    assert "Layers that keep clearly more" in capsys.readouterr().out
    card, tensors = shipped("flowers", tmp_path / "out" / "shipped")
    assert card.command == "bra train-demo flowers FOLDER --seeds 3 5 --epochs 1"
    assert card.shipped == "seed3"
    assert card.classes == ("blue", "red")
    assert list(card.curves) == ["seed3", "seed5"]
    assert card.scores["biformer_nano"]["accuracy"] == tuple(card.curves[run][-1]["accuracy"] for run in card.curves)
    assert [row.layer for row in card.quality["trained"]] == [row.layer for row in card.quality["untrained"]]
    assert all(0 < row.recall <= 1 for row in card.quality["trained"])
    state = torch.load(tmp_path / "out" / "seed3" / "last.pt", weights_only=True)["average"]
    model = biformer_nano(2)
    model.load_state_dict(tensors)
    torch.testing.assert_close(model.head.weight, state["head.weight"], atol=1e-3, rtol=0)

    assert main(command) == 0       # finished runs are not repeated
    assert "epoch 1 of 1" not in capsys.readouterr().out


def test_no_seed_and_no_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bra.errors import BRAError

    with pytest.raises(BRAError, match="no seed"):
        train_flowers(tmp_path, tmp_path, [])
    assert main(["train-demo", "flowers", str(tmp_path / "nowhere")]) == 2
    assert "one folder per class" in capsys.readouterr().err
    assert main(["train-demo", "bccd", str(tmp_path), "--epochs", "-1"]) == 2
