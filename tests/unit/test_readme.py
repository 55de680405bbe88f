"""Every snippet of the README and of the texts it links to runs as it is printed, where `best.pt` and `yolov8n.pt` are
as a visitor has them."""

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
TEXTS = ("README.md", *(f"dashboard/text/en/{name}.md" for name in ("python", "own_model", "training")))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [block for name in TEXTS for block in FENCE.findall((ROOT / name).read_text(encoding="utf-8"))]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [*dict.fromkeys(re.sub(r"\s+", " ", line.partition("#")[0]).strip() for _, text in BLOCKS
                         for line in text.splitlines() if line.startswith("bra "))]
HOURS = ("bra train ",)
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
        exec(compile(text, "a text", "exec"), names)
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
        "inspect", "cost", "compare", "sweep", "probe", "quality", "lint", "transplant", "train", "predict"}


@pytest.mark.parametrize("name", ["python", "own_model", "training"])
def test_the_code_is_the_same_in_both_languages(name: str) -> None:
    en, zh = (FENCE.findall((ROOT / f"dashboard/text/{language}/{name}.md").read_text(encoding="utf-8"))
              for language in ("en", "zh"))
    assert en == zh


@pytest.mark.parametrize("text", [*TEXTS, "dashboard/SERVING.md", "tests/bench/README.md", "bra/training/README.md"])
def test_what_is_linked_or_named_is_there(text: str) -> None:
    words = (ROOT / text).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", words) if "://" not in link]
    assert all(((ROOT / text).parent / link).exists() for link in links), links
    anchors = {re.sub(r"[^\w -]", "", line.strip("# ").lower()).replace(" ", "-")
               for line in words.splitlines() if line.startswith("#")}
    assert {*re.findall(r"\]\(#([^)]+)\)", words)} <= anchors


def test_the_pictures_of_the_readme_are_there() -> None:
    named = {*re.findall(r"sample_images/(\w+\.\w+)", "\n".join(text for _, text in BLOCKS))}
    assert named == {*CHOSEN}
    assert all((ROOT / "sample_images" / name).is_file() for name in named)
