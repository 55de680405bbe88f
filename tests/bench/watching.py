"""What watching costs of an epoch: Ultralytics on data of coco8's size (4 pictures to learn from, 4 to validate on).

    python tests/bench/watching.py [model] [imgsz]

Prints the median share of an epoch (its batches, its validation and its checkpoints) that watching takes.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_VERBOSE": "false"}

import numpy as np
from PIL import Image
from ratios import note
from ultralytics import YOLO

import bra.yolo
from bra.yolo.training.watching import EpochWatch

EPOCHS = 8


def coco8_like(root: Path) -> Path:
    """A data.yaml of 4 + 4 pictures of 640×480 with six boxes each, of 80 classes."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir(parents=True)
        for n in range(4):
            coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((640, 480)).save(root / "images" / part / f"{n}.jpg")
            boxes = [f"{rng.integers(80)} {rng.uniform(0.3, 0.7):.3f} {rng.uniform(0.3, 0.7):.3f} 0.3 0.4"
                     for _ in range(6)]
            (root / "labels" / part / f"{n}.txt").write_text("\n".join(boxes) + "\n")
    data = root / "data.yaml"
    data.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: {[f'c{n}' for n in range(80)]}\n")
    return data


def share_of_epoch(model: str, imgsz: int, epochs: int = EPOCHS) -> float:
    """Median over the epochs, the first left out, of the seconds of watching over those of the rest of the epoch."""
    spent: list[float] = []
    began: list[float] = []
    validated = EpochWatch.validated

    def timed(self: EpochWatch, trainer: Any) -> None:
        start = time.perf_counter()
        validated(self, trainer)
        spent.append(time.perf_counter() - start)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(EpochWatch, "validated", timed):
        data = coco8_like(Path(folder) / "data")
        yolo = YOLO(model)
        bra.yolo.watch(yolo, data.parent / "images" / "val" / "0.jpg")
        yolo.add_callback("on_train_epoch_start", lambda _: began.append(time.perf_counter()))
        yolo.train(data=str(data), epochs=epochs, imgsz=imgsz, workers=0, plots=False, verbose=False, project=folder,
                   name="run")
    shares = [watching / (whole - watching) for watching, whole in
              zip(spent, np.diff(began).tolist(), strict=False)]
    return statistics.median(shares[1:])


if __name__ == "__main__":
    name, side = (sys.argv[1:] + ["yolov8n-bra.yaml", "320"][len(sys.argv) - 1:])[:2]
    share = share_of_epoch(name, int(side))
    note(f"watching: an epoch of {name} at {side} px against one that is watched", 1 / (1 + share))
    print(f"{name} at {side} px: watching takes {100 * share:.1f} % of an epoch")
