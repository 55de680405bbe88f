"""Every page hands over the Python and the commands of its view: each is run in a process of its own, and what it gives
is what the page shows."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sent_figures import figures, maps
from streamlit.testing.v1 import AppTest
from test_cost_page import chart
from test_models import ask, message, upload
from wild_models import KINDS

from bra.cli.main import main
from bra.experiments.compare import compare, layer_input, settings_of
from bra.experiments.sweep_table import read_table, table_of, to_parquet
from bra.grid import WindowGrid
from bra.listening import record
from bra.models.card import cards
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.yolo.transplant import write_checkpoint

pytest.importorskip("ultralytics")

ROOT = Path(__file__).parents[2]
APP = ROOT / "dashboard" / "app.py"
CFG = ROOT / "bra" / "yolo" / "cfg"


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_file(str(APP), default_timeout=120)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A visitor's folder, as a checkout is: the built-in pictures in sample_images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample_images").symlink_to(ROOT / "sample_images")
    return tmp_path


def program(app: AppTest) -> str:
    """The program that the page offers: the only block of code that begins with an import."""
    found = [block.value for block in app.code if block.language == "python"
             and block.value.startswith(("import ", "from "))]
    assert len(found) == 1
    return str(found[0])


def commands(app: AppTest) -> list[list[str]]:
    """The commands that the page offers, as words."""
    lines = [shlex.split(block.value) for block in app.code if block.value.startswith("bra ")]
    return [words[1:] for words in lines]


def ran(text: str, keep: str, folder: Path) -> Any:
    """What a program leaves under names, run in a process of its own."""
    (folder / "program.py").write_text(f"{text}\nimport torch\ntorch.save({keep}, 'kept.pt')\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return torch.load(folder / "kept.pt", weights_only=True)


# Explore --------------------------------------------------------------------------------------------------


def same_as_the_page(app: AppTest, folder: Path) -> None:
    """The program's routing is that of the stage, and its attention sums to what the map of A shows by window."""
    header, arrays = message(app, "stage")
    r_idx, r_weight, attention = ran(program(app), "[t.clone() for t in (r_idx, r_weight, attention)]", folder)
    window = next(n for n, row in enumerate(arrays["r_idx"]) if np.array_equal(row, r_idx)
                  and np.allclose(arrays["r_weight"][n], r_weight, atol=1e-5))
    assert f"[0, {window}]" in program(app)
    print(header.keys(), {k: v.shape for k, v in arrays.items()}, attention.shape, maps(figures(app)[0]).shape)


@pytest.mark.parametrize("query", [
    {}, {"model": "flowers", "layer": "stages.1.0.attn", "changed": "1", "n_win": "4", "topk": "3", "a": "3000.4000"},
    {"model": "cells", "picture": "smear", "layer": "model.19.attn", "a": "5200.6100"},
    {"model": "similarity", "n_win": "5", "topk": "6", "num_heads": "4", "a": "100.9900"}],
    ids=["BiFormer", "other windows", "YOLO", "patches"])
def test_the_program_of_explore(app: AppTest, folder: Path, query: dict[str, str]) -> None:
    ask(app, side="224", **query)
    same_as_the_page(app, folder)
