"""A detector that was killed while it trained ends as the one that was not; tiles keep small objects' sizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

pytest.importorskip("ultralytics")

from bra.errors import YoloError
from bra.training.checkpointing import load_state
from bra.yolo.training import demos
from bra.yolo.training.demos import DEMOS, corners, cut, on_tile, read_boxes, train_demo
from bra.yolo.training.trainer import STATE, DetectorRecipe, data_file, train_detector

RECIPE = DetectorRecipe("yolov8n-bra-p5.yaml", epochs=6, imgsz=96, batch=4, close_mosaic=6)


class Killed(Exception):
    pass


def kill_after_first(line: str) -> None:
    if "epoch 1 of" in line:
        raise Killed


def test_a_killed_detector_ends_as_the_one_that_was_not(rectangles: Path, tmp_path: Path) -> None:
    data = data_file(rectangles, tmp_path)
    curve = train_detector(RECIPE, data, tmp_path / "whole", lambda _: None)
    with pytest.raises(Killed):
        train_detector(RECIPE, data, tmp_path / "cut", kill_after_first)
    torch.manual_seed(99)       # whatever the new process draws first must not matter
    lines: list[str] = []
    resumed = train_detector(RECIPE, data, tmp_path / "cut", lines.append)
    assert "going on after epoch 1 of 6" in lines[0]

    whole, cut_off = load_state(tmp_path / "whole" / STATE), load_state(tmp_path / "cut" / STATE)
    assert whole is not None
    assert cut_off is not None
    for part in ("model", "average"):
        assert all(torch.equal(cut_off[part][name], tensor) for name, tensor in whole[part].items())
    assert len(curve) == len(resumed) == 6
    for one, two in zip(curve, resumed, strict=True):
        assert {name: value for name, value in one.items() if name != "time"} == \
            {name: value for name, value in two.items() if name != "time"}
    first, last = (row["train/box_loss"] + row["train/cls_loss"] for row in (curve[0], curve[-1]))
    assert last < first

    lines.clear()
    assert train_detector(RECIPE, data, tmp_path / "cut", lines.append) == resumed
    assert lines == ["cut: finished before"]
    with pytest.raises(YoloError, match="another recipe"):
        train_detector(dataclasses.replace(RECIPE, epochs=7), data, tmp_path / "cut", lines.append)


def test_a_data_file_is_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "d.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: a}\n")
    content = yaml.safe_load(data_file(tmp_path / "in" / "d.yaml", tmp_path / "out", val="images/other").read_text())
    assert content == {"path": str(tmp_path / "in"), "train": "images/train", "val": "images/other", "names": {0: "a"}}


def test_a_demo_runs_every_variant_of_every_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bccd.yaml").write_text("path: .\ntrain: t\nval: v\nnames: {0: a}\n")
    asked = []
    monkeypatch.setattr(demos, "train_detector", lambda recipe, _, out, __: asked.append((recipe, out.name)) or [])
    curves = train_demo(DEMOS["bccd"], tmp_path, tmp_path / "out", [0, 1], epochs=1)
    assert list(curves) == [f"{variant}-seed{seed}" for seed in (0, 1)
                            for variant in ("residual-taught", "residual", "none", "plain-taught", "plain")]
    assert {name: recipe.route for recipe, name in asked if name.endswith("seed1")} == {
        "residual-seed1": 0, "none-seed1": 0, "plain-seed1": 0, "residual-taught-seed1": 0.2, "plain-taught-seed1": 0.2}
    assert {recipe.model for recipe, _ in asked} == {"yolov8n-bra-residual.yaml", "yolov8n.yaml", "yolov8n-bra.yaml"}
    assert {(recipe.epochs, recipe.imgsz, recipe.batch) for recipe, _ in asked} == {(1, 224, 8)}
    with pytest.raises(YoloError, match=r"no bccd\.yaml"):
        train_demo(DEMOS["bccd"], tmp_path / "nowhere", tmp_path / "out", [0])


def aerial(root: Path, size: tuple[int, int]) -> None:
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    for stem in ("MOS74", "MOS75", "MOS155", "MOS156"):
        picture = np.full((size[1], size[0], 3), 90, np.uint8)
        picture[100:120, 60:100] = 250
        Image.fromarray(picture).save(root / "images/train" / f"{stem}.jpg")
        shares = 80 / size[0], 110 / size[1], 40 / size[0], 20 / size[1]
        (root / "labels/train" / f"{stem}.txt").write_text(" ".join(map(str, (0, *shares))) + "\n")
    (root / "aerial.yaml").write_text("path: .\ntrain: images/train\nval: images/train\nnames: {0: car}\n")


def test_aerial_trains_on_one_flight_and_is_judged_on_the_other(tmp_path: Path) -> None:
    aerial(tmp_path / "in", (400, 330))
    curves = train_demo(DEMOS["aerial"], tmp_path / "in", tmp_path / "out", [0], epochs=1, imgsz=64,
                        progress=lambda _: None)
    assert list(curves) == ["residual-p3-taught-seed0", "residual-p3-seed0", "none-seed0"]
    names = {part: {path.name.split("_")[0] for path in (tmp_path / "out/tiles" / part / "images").iterdir()}
             for part in ("train", "val")}
    assert names == {"train": {"MOS155", "MOS156"}, "val": {"MOS74", "MOS75"}}
    state = load_state(tmp_path / "out" / "residual-p3-seed0" / STATE)
    assert state is not None
    assert any(".gate" in name for name in state["model"])      # the residual row


def test_tiles_cover_the_picture_and_move_boxes_along(tmp_path: Path) -> None:
    assert list(corners(np.zeros((10, 25, 3), np.uint8), 10, 8)) == [(0, 0), (0, 8), (0, 15)]
    box = (2, 8.0, 2.0, 14.0, 6.0)
    assert on_tile([box], 0, 0, 10) == []                       # 2 of its 6 columns
    assert on_tile([box], 0, 8, 10) == [(2, 0.0, 2.0, 6.0, 6.0)]
    assert on_tile([box], 4, 4, 10) == [(2, 4.0, 0.0, 10.0, 2.0)]   # cut at the tile's edge, half of it left

    aerial(tmp_path / "in", (400, 330))
    source = tmp_path / "in"
    count = cut([source / "images/train/MOS74.jpg"], source / "labels/train", tmp_path / "tiles", 320, 240)
    assert count == 4
    label = (tmp_path / "tiles/labels/MOS74_0_0.txt").read_text().split()
    assert [float(x) for x in label] == pytest.approx([0, 80 / 320, 110 / 320, 40 / 320, 20 / 320], abs=1e-5)
    assert Image.open(tmp_path / "tiles/images/MOS74_0_0.png").size == (320, 320)
    assert read_boxes(tmp_path / "nowhere.txt", 10, 10) == []
    with pytest.raises(YoloError, match="at most 330"):
        cut([source / "images/train/MOS74.jpg"], source / "labels/train", tmp_path / "tiles", 360, 240)


def test_finished_runs_become_weights_with_a_card(rectangles: Path, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from bra.models.card import shipped
    from bra.yolo.training import release

    content = yaml.safe_load(rectangles.read_text())
    source = Path(content["path"])
    (source / "bccd.yaml").write_text(
        yaml.safe_dump({"path": ".", "train": "images/train", "val": "images/val", "names": {0: "red", 1: "blue"}}))
    toy = dataclasses.replace(DEMOS["bccd"], variants={"residual": "yolov8n-bra-p3.yaml", "none": "yolov8n.yaml",
                                                       "plain": "yolov8n-bra-p5.yaml"})
    out = tmp_path / "out"
    train_demo(toy, source, out, [0], epochs=1, imgsz=96, progress=lambda _: None)
    card = release.ship_demo(toy, out, [0], lambda _: None)
    assert card.quality["trained"][0].layer == "model.5"
    again, tensors = shipped("cells", out / "shipped")
    assert again == card
    assert card.classes == ("red", "blue")
    assert card.rows is not None
    assert card.rows["nc"] == 2
    assert "8 micrographs to learn from and 4 to judge by" in card.data
    assert card.recipe["epochs"] == 1
    assert len(card.curves["residual-seed0"]) == 1
    assert card.quality["trained"][0].overlap is not None
    assert card.quality.keys() == {"trained", "untrained", "plain-seed0"}       # the other one routes nothing
    assert card.quality["plain-seed0"][0].layer != "model.5"
    made = release.built(card.rows, tensors)
    state = load_state(out / "residual-seed0" / STATE)
    assert state is not None
    for name, tensor in made.state_dict().items():
        torch.testing.assert_close(tensor.float(), state["average"][name].float(), atol=2e-2, rtol=2e-3)

    with pytest.raises(YoloError, match="not finished"):
        release.ship_demo(toy, out, [0, 1], lambda _: None)
    with pytest.raises(YoloError, match="no demonstration"):
        release.demo_named("cifar")
