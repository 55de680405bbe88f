"""Ultralytics kept off the network and out of the home folder, and a data set of coloured rectangles."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

HOME = Path(tempfile.mkdtemp(prefix="bra-yolo-"))
# Read when ultralytics is imported, so set before any test file is.
os.environ |= {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": str(HOME), "MPLCONFIGDIR": str(HOME),
               "YOLO_VERBOSE": "false"}
if (matplotlib := importlib.util.find_spec("matplotlib")) and matplotlib.origin:
    font = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    for folder in (HOME, HOME / "Ultralytics"):
        folder.mkdir(exist_ok=True)
        shutil.copy(font, folder / "Arial.ttf")     # what Ultralytics would download to draw with

COLOURS = ((220, 40, 40), (40, 80, 220))


@pytest.fixture(scope="session", autouse=True)
def _no_litter() -> Any:
    yield
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data.yaml of 8 training and 4 validation pictures, 96×96, red and blue rectangles on grey."""
    root = tmp_path_factory.mktemp("rectangles")
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir(parents=True)
        for n in range(count):
            picture = np.full((96, 96, 3), 128, np.uint8)
            lines = []
            for name, colour in enumerate(COLOURS):
                w, h = (int(side) for side in rng.integers(20, 40, 2))
                x, y = int(rng.integers(0, 96 - w)), int(rng.integers(0, 96 - h))
                picture[y:y + h, x:x + w] = colour
                lines.append(f"{name} {(x + w / 2) / 96:.5f} {(y + h / 2) / 96:.5f} {w / 96:.5f} {h / 96:.5f}")
            Image.fromarray(picture).save(root / "images" / part / f"{n}.png")
            (root / "labels" / part / f"{n}.txt").write_text("\n".join(lines) + "\n")
    data = root / "data.yaml"
    data.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [red, blue]\n")
    return data


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """Arguments of a run that takes seconds."""
    return {"imgsz": 96, "batch": 4, "workers": 0, "device": "cpu", "plots": False, "verbose": False}


@pytest.fixture(scope="session")
def trained(rectangles: Path, small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of yolov8n-bra.yaml, trained for two epochs; cut_off.pt is as it was after the first."""
    pytest.importorskip("ultralytics")
    from ultralytics import YOLO

    import bra.yolo  # noqa: F401

    def keep_as_if_cut_off(trainer: Any) -> None:
        if trainer.epoch == 0:
            shutil.copy(trainer.last, trainer.wdir / "cut_off.pt")

    runs = tmp_path_factory.mktemp("runs")
    model = YOLO("yolov8n-bra.yaml")
    model.add_callback("on_model_save", keep_as_if_cut_off)
    model.train(data=str(rectangles), epochs=2, project=str(runs), name="first", **small)
    return runs / "first"
