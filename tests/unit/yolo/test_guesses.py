"""Files with rows that nobody here knows: rows of attention are checked and counted, and guesses are marked."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ultralytics")
from bra.cli.main import main
from bra.yolo.guesses import guessed, guessed_text
from bra.yolo.lint import lint

ROWS = """nc: 3
scales:
  n: [0.33, 0.25, 1024]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]        # 0
  - [-1, 1, BiLevelRoutingAttention, [4, 8]]   # 1
  - [-1, 1, CBAMLike, [7]]           # 2 keeps its channels
  - [-1, 1, CSPStageLike, [256, 1]]  # 3 returns 64
  - [-1, 1, BiLevelRoutingAttention, [7, 5]]   # 4: 5 heads do not divide 64
head:
  - [-1, 1, Conv, [128, 3, 2]]       # 5
  - [[5], 1, Detect, [nc]]           # 6
"""


def test_what_is_taken_for_an_unknown_row() -> None:
    guesses, text = guessed_text(ROWS)
    assert [row.index for row in guesses.rows] == [2, 3]
    assert guesses.depending == {3: (2,), 4: (2, 3), 5: (2, 3), 6: (2, 3)}
    model: Any = guesses.model
    assert model["backbone"][2][2:] == ["nn.Identity", []]
    assert model["backbone"][3][2:] == ["Conv", [256, 1, 1]]
    assert b"CBAMLike" not in text
    assert "2 CBAMLike, 3 CSPStageLike" in guesses.sentence
    assert not guessed({"backbone": model["backbone"], "head": model["head"]}).rows


def test_lint_judges_rows_of_attention_and_marks_what_hangs_on_a_guess(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(ROWS, encoding="utf-8")
    report = lint(tmp_path / "mine.yaml")
    assert report.fixed == ROWS     # nothing is mended in a file that is not understood
    assert all(finding.fix is None for finding in report.findings)
    _, error = report.errors
    assert error.row == 4
    assert "num_heads=5" in error.text
    assert "depends on a guess: that 2 CBAMLike, 3 CSPStageLike" in error.text
    assert not any("depends" in finding.text for finding in report.findings if finding.row == 1)


def test_cost_counts_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "minen.yaml").write_text(ROWS.replace("[7, 5]", "[7, 4]"), encoding="utf-8")
    assert main(["cost", str(tmp_path / "minen.yaml"), "--imgsz", "64", "--csv"]) == 0
    told = capsys.readouterr()
    rows = {row["name"] for row in csv.DictReader(io.StringIO(told.out)) if row["line"] == "row"}
    assert {"2 CBAMLike (not known, not counted)", "3 CSPStageLike (not known, not counted)",
            "4 BiLevelRoutingAttention (by a guess)", "1 BiLevelRoutingAttention"} <= rows
    assert "does not have" in told.err
    assert "by a guess" in told.out


def test_modules_of_ones_own_are_an_argument_of_the_command_line(tmp_path: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    from ultralytics.nn import tasks

    (tmp_path / "own.py").write_text("from torch import nn\nclass CBAMLike(nn.Identity): pass\n"
                                     "class CSPStageLike(nn.Conv2d):\n"
                                     "    def __init__(self, c1, c2, n):\n        super().__init__(c1, c2, n)\n",
                                     encoding="utf-8")
    (tmp_path / "minen.yaml").write_text(ROWS.replace("[7, 5]", "[7, 4]"), encoding="utf-8")
    try:
        assert main(["cost", str(tmp_path / "minen.yaml"), "--imgsz", "64", "--csv", "--modules",
                     str(tmp_path / "own.py")]) == 0
        told = capsys.readouterr()
        assert "3 CSPStageLike" in told.out
        assert "guess" not in told.out
    finally:
        for name in ("CBAMLike", "CSPStageLike"):
            if hasattr(tasks, name):
                delattr(tasks, name)
    assert main(["cost", str(tmp_path / "minen.yaml"), "--modules", str(tmp_path / "none.py")]) == 2


def test_a_guess_that_makes_no_model_is_said(tmp_path: Path) -> None:
    text = ROWS.replace("[[5], 1, Detect", "[[5, 99], 1, Detect")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    report = lint(tmp_path / "mine.yaml")
    assert any("does not build or run" in finding.text for finding in report.findings)
    assert report.fixed == text
