"""`bra_watch` and `bra.yolo.watch`: every epoch once, resumed with the run, into trackers, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ultralytics")
from ultralytics import YOLO

import bra.yolo
from bra.cli.main import main
from bra.errors import BRAError
from bra.metrics.watched import WatchedNumbers
from bra.readers.timeline import read_timeline, recording_of
from bra.tracing import trace
from bra.training.watching import fixed_input, watched_layers
from bra.yolo.training import trackers
from bra.yolo.training.watching import Rows, boxes_beside, rows_to_routing

ROOT = Path(__file__).parents[3]
NUMBERS = WatchedNumbers(n_win=7, topk=4, recall=0.5, recall_nearest=None, chance=4 / 49, query_dependence=0.25,
                         shared_choices=0.75, entropy=1.0, in_degree_max=9, never_chosen=0.0)


def picture(rectangles: Path) -> Path:
    return rectangles.parent / "images" / "val" / "0.png"


def test_the_command_watches_every_epoch_once_and_a_resumed_run_goes_on(rectangles: Path, tmp_path: Path) -> None:
    asked = ["train", "model=yolov8n-bra-p5.yaml", f"data={rectangles}", "imgsz=96", "epochs=3", "batch=4", "workers=0",
             "device=cpu", "plots=False", f"project={tmp_path}", "name=run", f"bra_watch={picture(rectangles)}",
             "save_period=1"]
    assert main(asked) == 0
    path = tmp_path / "run" / "routing.bra"
    found = read_timeline(path.read_bytes())
    assert found.numbers == (1, 2, 3)
    assert found.layers == ("model.10",)
    assert found.photo is not None
    assert (found.photo.width, found.photo.height) == (96, 96)
    before = path.read_bytes()
    YOLO(tmp_path / "run" / "weights" / "epoch1.pt").train(resume=True)
    assert path.read_bytes()[:len(before)] == before
    assert read_timeline(path.read_bytes()).numbers == (1, 2, 3)


def test_what_is_watched_is_the_averaged_model(rectangles: Path, small: dict[str, Any], tmp_path: Path) -> None:
    model = YOLO("yolov8n-bra.yaml")
    bra.yolo.watch(model, picture(rectangles), every=2)
    seen: dict[int, Any] = {}
    boxes: list[Any] = []

    def look(trainer: Any) -> None:
        if trainer.save_dir.name != "run":
            return
        boxes.append(trainer.callbacks["on_fit_epoch_end"][0].__self__.watch.given.boxes)
        x = fixed_input(picture(rectangles), 96).x
        seen[trainer.epoch + 1] = trace(trainer.ema.ema, x).layers

    model.add_callback("on_model_save", look)
    model.train(data=str(rectangles), epochs=4, project=str(tmp_path), name="run", **small)
    data = (tmp_path / "run" / "routing.bra").read_bytes()
    found = read_timeline(data)
    assert found.numbers == (2, 4)
    np.testing.assert_allclose(boxes[0], boxes_beside(picture(rectangles)))      # they lie beside the picture
    for place, epoch in enumerate((2, 4)):
        layers = recording_of(found, data, place).trace.layers
        assert [*layers] == [*seen[epoch]]
        for name, layer in layers.items():
            assert torch.equal(layer.r_idx, seen[epoch][name].r_idx)
    # Another training of the same object is watched where it is asked for, in its own folder.
    model.train(data=str(rectangles), epochs=1, project=str(tmp_path), name="other", **small)
    assert not (tmp_path / "other" / "routing.bra").exists()
    bra.yolo.watch(model, picture(rectangles), every=2)
    model.train(data=str(rectangles), epochs=2, project=str(tmp_path), name="again", **small)
    assert read_timeline((tmp_path / "again" / "routing.bra").read_bytes()).numbers == (2,)
    assert (tmp_path / "run" / "routing.bra").read_bytes() == data


@pytest.mark.parametrize("asked", [{"bra_watch": "missing.jpg"}, {"bra_watch_every": 0}])
def test_what_cannot_be_watched_does_not_stop_a_training(asked: dict[str, Any], rectangles: Path,
                                                         small: dict[str, Any], tmp_path: Path) -> None:
    model = YOLO("yolov8n-bra-p5.yaml")
    model.train(data=str(rectangles), epochs=1, project=str(tmp_path), name="run",
                **({"bra_watch": str(picture(rectangles))} | asked), **small)
    assert (tmp_path / "run" / "results.csv").is_file()
    assert not (tmp_path / "run" / "routing.bra").exists()


def test_a_model_without_such_rows_is_trained_unwatched(rectangles: Path, small: dict[str, Any],
                                                        tmp_path: Path) -> None:
    YOLO("yolov8n.yaml").train(data=str(rectangles), epochs=1, project=str(tmp_path), name="run",
                               bra_watch=str(picture(rectangles)), **small)
    assert (tmp_path / "run" / "weights" / "last.pt").is_file()
    assert not (tmp_path / "run" / "routing.bra").exists()


def test_from_python_a_wrong_picture_is_refused_at_once(rectangles: Path) -> None:
    model = YOLO("yolov8n-bra-p5.yaml")
    with pytest.raises(BRAError, match="every=0"):
        bra.yolo.watch(model, picture(rectangles), every=0)
    with pytest.raises(BRAError, match="not a PNG"):
        bra.yolo.watch(model, rectangles)
    assert "bra_watch" not in model.overrides


def test_boxes_are_read_as_ultralytics_writes_them(tmp_path: Path, rectangles: Path) -> None:
    from PIL import Image

    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    photo = tmp_path / "images" / "a.png"
    Image.new("RGB", (200, 100)).save(photo)
    assert boxes_beside(photo) is None
    (tmp_path / "labels" / "a.txt").write_text("3 0.5 0.5 0.2 0.4\n1 0.1 0.2 0.5 0.2 0.3 0.8\n")
    np.testing.assert_allclose(boxes_beside(photo), [[3, 80, 30, 120, 70], [1, 20, 20, 100, 80]])


@pytest.mark.parametrize("name", ["yolov8n-bra.yaml", "yolov8n-bra-p5.yaml", "yolo11n-bra.yaml"])
def test_rows_after_the_last_that_routes_are_left_out_and_change_nothing(name: str, rectangles: Path) -> None:
    torch.manual_seed(0)
    model = YOLO(name).model.eval()
    given = fixed_input(picture(rectangles), 96)
    count = rows_to_routing(model)
    assert 0 < count < len(model.model)
    whole, part = watched_layers(model, given), watched_layers(Rows(model, count).eval(), given)
    assert [*whole] == [*part]
    assert all(torch.equal(whole[layer].affinity, part[layer].affinity) for layer in whole)
    assert rows_to_routing(torch.nn.Sequential()) == 0


# Trackers. ----------------------------------------------------------------------------------------------------------


def test_scalars_are_the_numbers_that_are_known() -> None:
    assert trackers.scalars_of({"model.9": NUMBERS}) == {
        "routing/model.9/recall": 0.5, "routing/model.9/chance": 4 / 49, "routing/model.9/query_dependence": 0.25,
        "routing/model.9/shared_choices": 0.75, "routing/model.9/entropy": 1.0, "routing/model.9/in_degree_max": 9.0,
        "routing/model.9/never_chosen": 0.0}


TRAINED = """
import sys
from pathlib import Path
from ultralytics import YOLO, SETTINGS
import bra.yolo
SETTINGS.update({"tensorboard": sys.argv[1] == "on", "wandb": False})
model = YOLO("yolov8n-bra-p5.yaml")
bra.yolo.watch(model, sys.argv[3])
model.train(data=sys.argv[2], epochs=2, imgsz=96, batch=4, workers=0, device="cpu", plots=False, verbose=False,
            project=sys.argv[4], name=sys.argv[1])
"""


def test_tensorboards_own_files_hold_the_same_numbers_and_the_picture(rectangles: Path, tmp_path: Path) -> None:
    """In a process of its own: Ultralytics writes nothing to a tracker while pytest runs."""
    pytest.importorskip("tensorboard")
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(ROOT), "YOLO_CONFIG_DIR": str(tmp_path / "settings")}
    (tmp_path / "settings").mkdir()
    for setting in ("on", "off"):
        subprocess.run([sys.executable, "-c", TRAINED, setting, str(rectangles), str(picture(rectangles)),
                        str(tmp_path)], check=True, env=environment, cwd=tmp_path, timeout=200, capture_output=True)
    found = read_timeline((tmp_path / "on" / "routing.bra").read_bytes())
    events = EventAccumulator(str(tmp_path / "on"), {"scalars": 0, "images": 0}).Reload()
    for name, value in trackers.scalars_of(found.epochs[1].layers).items():
        scalars = events.Scalars(name)
        assert [one.step for one in scalars] == [1, 2]
        assert scalars[1].value == pytest.approx(value, rel=1e-6)
    images = events.Images("routing/model.10")
    assert [one.step for one in images] == [1, 2]
    import io

    assert Image.open(io.BytesIO(images[1].encoded_image_string)).size == (320, 320)
    assert not [*(tmp_path / "off").glob("events.*")]
    assert read_timeline((tmp_path / "off" / "routing.bra").read_bytes()).numbers == (1, 2)


def test_weights_and_biases_gets_the_same_before_its_epoch_is_closed(monkeypatch: pytest.MonkeyPatch,
                                                                     rectangles: Path) -> None:
    logged: list[tuple[dict[str, Any], bool]] = []
    module = ModuleType(trackers.WEIGHTS_AND_BIASES)
    module.wb = SimpleNamespace(Image=np.asarray, run=SimpleNamespace(          # type: ignore[attr-defined]
        log=lambda values, commit: logged.append((values, commit))))
    monkeypatch.setitem(sys.modules, trackers.WEIGHTS_AND_BIASES, module)
    model = YOLO("yolov8n-bra-p5.yaml").model.eval()
    given = fixed_input(picture(rectangles), 96)
    layers = watched_layers(model, given)
    monkeypatch.setattr(trackers, "SETTINGS", {"wandb": False})
    trackers.track({"model.9": NUMBERS}, layers, given.rgb, 3)
    assert logged == []
    monkeypatch.setattr(trackers, "SETTINGS", {"wandb": True})
    trackers.track({"model.9": NUMBERS}, layers, given.rgb, 3)
    (values, commit), = logged
    assert commit is False
    assert values.pop("routing/model.10").shape == (320, 320, 3)
    assert values == trackers.scalars_of({"model.9": NUMBERS})
