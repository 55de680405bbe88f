"""A person's own blocks in rows: known when their file is imported by name, and never otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics")
from ultralytics.nn import tasks

import bra
import bra.yolo
from bra.errors import BRAError, YoloError
from bra.opening import open_file
from bra.yolo.plugins import OwnBlock, import_modules

BLOCKS = Path(__file__).with_name("my_blocks.py")
ROWS = b"""nc: 3
scales:
  n: [0.33, 0.25, 1024]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Widens, [128, 5]]
  - [-1, 1, Squeezes, []]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 1, Plain, []]
  - [-1, 1, BiLevelRoutingAttention, [4, 8]]
  - [-1, 1, Squeezes, [8]]
head:
  - [[-1], 1, Detect, [nc]]
"""


@pytest.fixture
def blocks() -> Iterator[tuple[str, ...]]:
    names = import_modules(BLOCKS)
    yield names
    for name in names:
        delattr(tasks, name)


def test_without_the_file_they_are_refused() -> None:
    with pytest.raises(BRAError, match="Widens"):
        open_file(ROWS, "mine.yaml")


def test_with_it_they_build_at_the_models_width(blocks: tuple[str, ...]) -> None:
    assert blocks == ("Widens", "Squeezes", "Plain")
    rows: Any = open_file(ROWS, "minen.yaml").module.model  # type: ignore[union-attr]
    kinds = [type(row).__name__ for row in rows]
    assert kinds[1:7] == ["Widens", "Squeezes", "Conv", "Plain", "BiLevelRoutingAttention", "Squeezes"]
    assert (rows[1].conv.in_channels, rows[1].conv.out_channels, rows[1].conv.kernel_size) == (16, 32, (5, 5))
    assert rows[2].down.out_channels == 8       # 32 channels, reduction 4: the class's own default
    assert rows[5].dim == 64
    assert rows[6].down.out_channels == 8       # 64 channels, reduction 8: as the row says


def test_they_trace_and_cost(blocks: tuple[str, ...]) -> None:
    model = open_file(ROWS, "minen.yaml")
    (lt,) = bra.trace(model.module, torch.rand(1, 3, 128, 128)).layers.values()
    assert (lt.spec.n_win, lt.spec.dim) == (4, 64)
    rows = {row.name: row for row in bra.cost(model.module, 128).rows}
    assert rows["1 Widens"].macs == 64 * 64 * 16 * 32 * 25


def test_a_block_that_does_not_fit_is_said(blocks: tuple[str, ...]) -> None:
    with pytest.raises(BRAError, match="Squeezes cannot be made"):
        open_file(ROWS.replace(b"Squeezes, [8]", b"Squeezes, [8, 9, 10]"), "mine.yaml")


@pytest.mark.parametrize(("text", "words"), [
    ("x = 1", "defines no class"), ("1 / 0", "does not run"), ("import torch\nclass Conv(torch.nn.Module): pass",
                                                               "names that Ultralytics")])
def test_files_that_are_no_use_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "blocks.py").write_text(text, encoding="utf-8")
    with pytest.raises(YoloError, match=words):
        import_modules(tmp_path / "blocks.py")
    assert not isinstance(tasks.Conv, OwnBlock)
    with pytest.raises(YoloError, match="no Python file"):
        import_modules(tmp_path / "other.txt")
