"""A classifier learns from a handful of pictures, and a run that was killed ends as the one that was not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bra.errors import BRAError
from bra.models.biformer import FULL_ATTENTION, BiFormer
from bra.training.checkpointing import load_state, read_curve, save_state
from bra.training.classifier import Recipe, follow_weights, rate_at, set_same_qk, train_classifier
from bra.training.dataset import held_out, read_folder

RECIPE = Recipe(epochs=4, side=32, batch=8, rate=3e-3, warmup=1)


def small(classes: int) -> BiFormer:
    return BiFormer((1, 1, 1, 1), (32, 32, 32, 32), n_win=2, topks=(1, 2, 2, FULL_ATTENTION), num_classes=classes,
                    drop_path_rate=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reddish and bluish noise, 30 pictures each."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (root / name).mkdir()
        for n in range(30):
            picture = rng.integers(0, 120, (40, 48, 3), np.uint8)
            picture[..., channel] += 100
            Image.fromarray(picture).save(root / name / f"{n}.png")
    return root


def test_the_split_is_by_name_and_nothing_is_on_both_sides(folder: Path) -> None:
    seen, unseen = read_folder(folder, 32, lambda _: None)
    assert seen.classes == unseen.classes == ("blue", "red")
    assert len(seen.names) + len(unseen.names) == 60
    assert not set(seen.names) & set(unseen.names)
    assert all(held_out(name) for name in unseen.names)
    assert [unseen.classes[n] for n in unseen.labels.tolist()] == [name.split("/")[0] for name in unseen.names]
    assert {min(picture.shape[-2:]) for picture in seen.pictures} == {36}
    assert unseen.judged(32).shape == (len(unseen.names), 3, 32, 32)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BRAError, match="one folder per class"):
        read_folder(tmp_path, 32)


def test_the_loss_falls_and_held_out_pictures_are_told_apart(folder: Path, tmp_path: Path) -> None:
    photographs, message = read_folder(folder, 32, lambda _: None), []
    train_classifier(small, photographs, dataclasses.replace(RECIPE, epochs=8), tmp_path, message.append)
    curve = read_curve(tmp_path / "curve.csv")
    assert [row["epoch"] for row in curve] == list(range(1, 9))
    assert curve[-1]["loss"] < 0.7 * curve[0]["loss"]
    assert curve[-1]["accuracy"] > 0.9
    assert len(message) == 8
    assert "of 8" in message[0]


class Killed(Exception):
    pass


def test_a_killed_run_ends_as_the_one_that_was_not(folder: Path, tmp_path: Path) -> None:
    photographs = read_folder(folder, 32, lambda _: None)
    whole = train_classifier(small, photographs, RECIPE, tmp_path / "whole", lambda _: None).state_dict()

    def kill(line: str) -> None:
        if "epoch 2" in line:
            raise Killed

    with pytest.raises(Killed):
        train_classifier(small, photographs, RECIPE, tmp_path / "cut", kill)
    torch.manual_seed(99)       # whatever the new process draws first must not matter
    lines: list[str] = []
    resumed = train_classifier(small, photographs, RECIPE, tmp_path / "cut", lines.append).state_dict()
    assert len(lines) == 2
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    assert read_curve(tmp_path / "cut" / "curve.csv") == read_curve(tmp_path / "whole" / "curve.csv")


def test_another_seed_is_another_run(folder: Path, tmp_path: Path) -> None:
    photographs = read_folder(folder, 32, lambda _: None)
    losses = []
    for seed in (0, 1):
        recipe = dataclasses.replace(RECIPE, epochs=1, seed=seed)
        train_classifier(small, photographs, recipe, tmp_path / str(seed), lambda _: None)
        losses.append(read_curve(tmp_path / str(seed) / "curve.csv")[0]["loss"])
    assert losses[0] != losses[1]


def test_a_state_is_whole_or_absent(tmp_path: Path) -> None:
    assert load_state(tmp_path / "none.pt") is None
    save_state({"epochs": 1, "numbers": torch.arange(3)}, tmp_path / "a" / "state.pt")
    state = load_state(tmp_path / "a" / "state.pt")
    assert state is not None
    assert state["numbers"].tolist() == [0, 1, 2]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["state.pt"]


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    assert rate_at(1.0, 12, 2.0, 1.0) == pytest.approx(0.505)
    assert rate_at(2.0, 12, 2.0, 1.0) == 1.0
    assert rate_at(7.0, 12, 2.0, 1.0) == pytest.approx(0.5)
    assert rate_at(12.0, 12, 2.0, 1.0) == pytest.approx(0.0)


def test_the_average_follows_by_the_share_it_does_not_keep() -> None:
    average, model = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    with torch.no_grad():
        model.weight.fill_(5.0)
        model.running_mean.fill_(3.0)
    follow_weights(average, model, 0.75)
    assert average.weight.item() == 2.0         # 0.75 · 1 + 0.25 · 5
    assert average.running_mean.item() == 3.0


def test_same_qk_gives_both_the_same_weights() -> None:
    model = small(2)
    set_same_qk(model)
    for layer in (model.stages[0][0].attn, model.stages[1][0].attn):
        q, k, _ = layer.qkv.qkv.weight.split([32, 32, 32])
        assert torch.equal(q, k)
