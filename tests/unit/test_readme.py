"""Every snippet of the README runs as it is printed, where `best.pt` and `yolov8n.pt` are as a visitor has them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bra.cli.main import main
from bra.opening import open_file

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [line for _, text in BLOCKS for line in text.splitlines() if line.startswith("bra ")]
HOURS = ("bra train ", "bra train-demo ")
"""Commands that train for hours on data that is not here; their arguments are tested where they are read."""
CHOSEN = ("animal.jpg", "smear.jpg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with two of its pictures, and what a visitor has: weights, a picture, pictures with label maps, and
    `bra_record.py` beside the script."""
    pytest.importorskip("ultralytics")
    from ultralytics import YOLO

    import bra.yolo  # noqa: F401
    from bra.yolo.transplant import write_checkpoint
    made = tmp_path_factory.mktemp("checkout")
    (made / "sample_images").mkdir()
    for name in CHOSEN:
        shutil.copy(ROOT / "sample_images" / name, made / "sample_images")
    shutil.copy(ROOT / "bra" / "bra_record.py", made)
    shutil.copy(ROOT / "sample_images" / CHOSEN[0], made / "photo.jpg")
    (made / "photos").mkdir()
    (made / "masks").mkdir()
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 3:7] = 1
    for name in CHOSEN:
        shutil.copy(ROOT / "sample_images" / name, made / "photos")
        with Image.open(ROOT / "sample_images" / name) as picture:
            Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST).save(
                made / "masks" / f"{Path(name).stem}.png")
    write_checkpoint(YOLO("yolov8n-bra-p5.yaml").model, made / "best.pt")
    write_checkpoint(YOLO("yolov8n.yaml").model, made / "yolov8n.pt")
    return made


def test_the_snippets_of_python_run_one_after_the_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    assert len(PYTHON) >= 6
    names: dict[str, Any] = {}
    for text in PYTHON:
        exec(compile(text, "README.md", "exec"), names)
    assert (folder / "view.html").is_file()
    assert Path(names["record"].__code__.co_filename).parent == folder      # the copied file, not the package
    assert [*names["bra"].load(folder / "run.bra").layers] == [*open_file((folder / "best.pt").read_bytes(),
                                                                          "best.pt").specs]
    assert names["semantic_overlap"](names["trace"], names["boxes"]).to_dict()


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith(HOURS)])
def test_a_command_runs_as_printed(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert main(shlex.split(line, comments=True)[1:]) == 0


def test_the_commands_of_the_readme_are_found() -> None:
    assert len(COMMANDS) >= 13
    assert {shlex.split(line, comments=True)[1] for line in COMMANDS} == {
        "inspect", "cost", "compare", "sweep", "probe", "quality", "lint", "transplant", "train", "predict",
        "train-demo"}


def test_the_pictures_of_the_readme_are_there() -> None:
    named = {*re.findall(r"sample_images/(\w+\.\w+)", "\n".join(text for _, text in BLOCKS))}
    assert named == {*CHOSEN}
    assert all((ROOT / "sample_images" / name).is_file() for name in named)
