"""`bra train`, `bra predict`, `bra lint`, `bra transplant`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ultralytics")
from ultralytics import YOLO

import bra.yolo
from bra.cli.main import main
from bra.yolo.transplant import write_checkpoint


def test_train_and_predict_are_those_of_ultralytics(rectangles: Path, tmp_path: Path) -> None:
    status = main(["train", "model=yolov8n-bra-p5.yaml", f"data={rectangles}", "imgsz=96", "epochs=1", "batch=4",
                   "workers=0", "device=cpu", "plots=False", f"project={tmp_path}", "name=run"])
    best = tmp_path / "run" / "weights" / "best.pt"
    assert status == 0
    assert best.is_file()
    Image.fromarray(np.full((64, 80, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    assert main(["predict", f"model={best}", f"source={tmp_path / 'grey.png'}", "imgsz=96", "device=cpu",
                 f"project={tmp_path}", "name=seen"]) == 0
    assert list((tmp_path / "seen").glob("grey.*"))
    assert sys.argv[0] != "yolo"


def test_lint_prints_corrects_and_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "yolov8-mine.yaml"
    path.write_text((bra.yolo.CFG / "yolov8-bra.yaml").read_text().replace("[16, 20, 24]", "[15, 18, 21]"))
    assert main(["lint", str(path)]) == 1
    assert "can be corrected with --fix" in capsys.readouterr().out
    assert main(["lint", str(path), "--fix"]) == 0
    printed = capsys.readouterr().out
    assert "1 corrected" in printed
    assert "corrected: row 25 " in printed
    assert "error" not in printed
    assert main(["lint", str(path), "--imgsz", "448"]) == 0
    assert main(["lint", "yolov8n-bra.yaml", "--fix"]) == 0
    assert main(["lint", str(tmp_path / "none.yaml")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_transplant_prints_what_it_carried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = YOLO("yolov8n.yaml").model
    write_checkpoint(base, tmp_path / "yolov8n.pt")
    count = len(base.state_dict())
    assert main(["transplant", str(tmp_path / "yolov8n.pt"), "yolov8n-bra.yaml", "-o", str(tmp_path / "i.pt")]) == 0
    printed = capsys.readouterr().out
    assert f"carried {count} of {count + 18} tensors; 18 start fresh, 0 of the source are unused" in printed
    assert "fresh: layer 15 (6), layer 19 (6), layer 23 (6)" in printed
    assert (tmp_path / "i.pt").is_file()


def test_the_package_alone_never_imports_ultralytics() -> None:
    code = "import sys, bra, bra.cli.main, bra.models.catalog; sys.exit('ultralytics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0


def test_without_ultralytics_the_cure_is_named(monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name == "bra.yolo" or name.startswith("bra.yolo.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("bra.yolo")
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    assert main(["lint", "yolov8n-bra.yaml"]) == 2
    assert "pip install" in capsys.readouterr().err
