"""Teaching by distillation: pictures and maps stay together, cut-off runs end as whole ones, and students learn."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from bra.errors import BRAError
from bra.models.biformer import BiFormer
from bra.training import distillation_data as made
from bra.training.checkpointing import load_state
from bra.training.distillation import Recipe, Student, augmented, distil, judge, losses_of
from bra.training.distillation_data import DistillationData, Maps, Teacher, composed, found_files, prepare

SIDE = 64
RECIPE = Recipe(epochs=3, steps=6, side=SIDE, batch=4, warmup=0.5)


@pytest.fixture(autouse=True)
def three_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "CHANNELS", (3, 3))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for n in range(20):
        coarse = draw.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(coarse).resize((100, 80), Image.Resampling.NEAREST).save(tmp_path / "in" / f"{n:02}.png")
    return found_files([tmp_path / "in"])


def teacher(rgb: torch.Tensor) -> Maps:
    """Colours in cells of 16 and 32 pixels."""
    return F.avg_pool2d(rgb, 16), F.avg_pool2d(rgb, 32)


def build() -> BiFormer:
    return BiFormer((1, 1, 1), (32, 32, 32), n_win=4, topks=(2, 2, 2), num_classes=0)


def lessons(files: list[Path], folder: Path) -> tuple[DistillationData, DistillationData]:
    return (prepare(files[:16], SIDE, folder / "seen", lambda: teacher, 0, lambda _: None),
            prepare(files[16:], SIDE, folder / "unseen", lambda: teacher, 1, lambda _: None))


def test_pictures_are_crops_and_collages_drawn_from_their_number(files: list[Path]) -> None:
    drawn = [composed(files, n, SIDE, random.Random(n)) for n in range(16)]
    assert {picture.shape for picture in drawn} == {(SIDE, SIDE, 3)}
    assert all((composed(files, n, SIDE, random.Random(n)) == picture).all() for n, picture in enumerate(drawn))
    one_file = composed(files[:1], 0, SIDE, random.Random(0))           # of its own colours only, and those between
    rgb = np.asarray(Image.open(files[0]))
    assert (one_file.min((0, 1)) >= rgb.min((0, 1))).all()
    assert (one_file.max((0, 1)) <= rgb.max((0, 1))).all()


def test_the_teacher_reads_what_is_kept_and_is_not_asked_twice(files: list[Path], tmp_path: Path) -> None:
    whole, _ = lessons(files, tmp_path / "out")
    wanted = teacher(torch.from_numpy(whole.pictures[:]).permute(0, 3, 1, 2).float() / 255)
    for kept, maps in zip(whole.maps, wanted, strict=True):
        np.testing.assert_allclose(kept, maps.numpy(), atol=1e-3)

    def never() -> Teacher:
        raise AssertionError

    again = prepare(files[:16], SIDE, tmp_path / "out" / "seen", never, 0, lambda _: None)
    assert (again.pictures == whole.pictures).all()
    (tmp_path / "out" / "seen" / "done.txt").write_text("8")            # cut off after the first eight
    again.maps[0][8:] = 0
    resumed = prepare(files[:16], SIDE, tmp_path / "out" / "seen", lambda: teacher, 0, lambda _: None)
    np.testing.assert_array_equal(resumed.maps[0], whole.maps[0])
    rgb, maps = whole.batch([5, 2])
    np.testing.assert_allclose(rgb[1].permute(1, 2, 0) * 255, whole.pictures[2], atol=1e-4)
    wanted_map = (torch.from_numpy(whole.maps[1][2]).float() - whole.means[1][:, None, None]) / \
        whole.spreads[1][:, None, None]
    torch.testing.assert_close(maps[1][1], wanted_map)


@pytest.mark.parametrize("upright", [False, True])
def test_pictures_and_maps_are_turned_together(upright: bool) -> None:
    torch.manual_seed(0)
    shapes = set()
    for _ in range(12):
        rgb = 0.4 + 0.2 * F.interpolate(torch.rand(3, 1, 8, 8), scale_factor=32.0).expand(-1, 3, -1, -1)
        seen, maps = augmented(rgb, teacher(rgb), upright)
        shapes.add(tuple(seen.shape[2:]))
        for stride, given in zip((16, 32), maps, strict=True):
            found = F.avg_pool2d(seen, stride)
            assert found.shape == given.shape
            for one, two in zip(found.mean(1), given.mean(1), strict=True):      # colours change by one affine map
                assert np.corrcoef(one.flatten(), two.flatten())[0, 1] > 0.999
    assert shapes == ({(256, 192), (192, 256)} if upright else {(256, 256)})


def test_both_losses_are_those_of_the_recorded_forward(files: list[Path], tmp_path: Path) -> None:
    seen, _ = lessons(files, tmp_path)
    rgb, maps = seen.batch(range(4))
    torch.manual_seed(0)
    model = Student(build(), (3, 3)).eval()
    distance, routing = losses_of(model, rgb, maps, RECIPE)
    found = model((rgb - torch.tensor((0.485, 0.456, 0.406))[:, None, None])
                  / torch.tensor((0.229, 0.224, 0.225))[:, None, None])
    by_hand = [1 - F.cosine_similarity(one, two, dim=1).mean() for one, two in zip(found, maps, strict=True)]
    torch.testing.assert_close(distance, (by_hand[0] + by_hand[1]) / 2)
    assert routing.item() > 0
    assert losses_of(model, rgb, maps, Recipe(routing=0))[1].item() == 0
    attention = losses_of(model, rgb, maps, Recipe(target="attention"))[1]
    assert attention.item() != routing.item()


def test_a_student_learns_and_a_cut_off_one_ends_as_the_one_that_was_not(files: list[Path], tmp_path: Path) -> None:
    both = lessons(files, tmp_path)

    class Killed(Exception):
        pass

    def kill(line: str) -> None:
        if line.startswith("epoch 2"):
            raise Killed

    whole = distil(build, *both, RECIPE, tmp_path / "whole", lambda _: None)
    with pytest.raises(Killed):
        distil(build, *both, RECIPE, tmp_path / "cut", kill)
    torch.manual_seed(99)
    resumed = distil(build, *both, RECIPE, tmp_path / "cut", lambda _: None)
    for name, tensor in whole.state_dict().items():
        assert resumed.state_dict()[name].equal(tensor), name
    state = load_state(tmp_path / "whole" / "last.pt")
    assert state is not None
    first, last = state["curve"][0], state["curve"][-1]
    assert last["loss"] < first["loss"]
    assert last["held_out_distance"] < first["held_out_distance"]
    assert 0 <= last["query_dependence"] <= 1
    torch.manual_seed(0)
    assert last["held_out_routing"] < judge(Student(build(), (3, 3)), both[1], RECIPE)["held_out_routing"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BRAError, match="0 pictures found"):
        found_files([tmp_path])
