"""What `bra lint` says about a model file, and what it writes instead."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ultralytics")
from ultralytics import YOLO

import bra.yolo
from bra.errors import YoloError
from bra.yolo.edit import read_yaml, through, with_rows_replaced, written
from bra.yolo.lint import Report, lint
from bra.yolo.rows import rows_of

FILES = sorted(path.name for path in bra.yolo.CFG.glob("*.yaml"))


def edited(folder: Path, *changes: tuple[str, str], stem: str = "yolov8-bra", name: str = "yolov8-mine") -> Path:
    text = (bra.yolo.CFG / f"{stem}.yaml").read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def levels(report: Report) -> list[tuple[str, int]]:
    return [(finding.level, finding.row) for finding in report.findings]


def row(n: int, args: str) -> tuple[str, str]:
    """Another row n of yolov8-bra.yaml: 15, 19 and 23 are attention."""
    empty = f"  - [-1, 1, BiLevelRoutingAttention, []]            # {n}"
    return empty, f"  - [-1, 1, BiLevelRoutingAttention, {args}]  # {n}"


@pytest.mark.parametrize("name", FILES)
def test_shipped_files_are_in_order(name: str) -> None:
    """At 640 the default 7 windows per side pad each level a little (80→84, 40→42, 20→21): notes, and nothing else."""
    report = lint(name)
    assert {finding.level for finding in report.findings} == {"note"}
    assert all("9.3%" in finding.text for finding in report.findings)
    assert report.fixed == (bra.yolo.CFG / name).read_text()
    assert not lint(name, imgsz=448).findings or "p5" not in name


@pytest.mark.parametrize(("args", "corrected", "words"), [
    ("[256]", "[]", ("n_win=256", "1 to 64")),
    ("[8, 7]", "[7, 8]", ("num_heads=7", "write [7, 8]")),
    ("[5, 5]", "[5, 4]", ("num_heads=5", "must divide dim")),
    ("[5, {topk: 70}]", "[{n_win: 5, topk: 25}]", ("topk=70", "n_win² = 25")),
    ("[{n_win: 128}]", "[]", ("n_win=128", "1 to 64")),
])
def test_impossible_settings(args: str, corrected: str, words: tuple[str, ...], tmp_path: Path) -> None:
    path = edited(tmp_path, row(19, args))
    report = lint(path)
    error, = report.errors
    assert error.row == 19
    assert all(word in error.text for word in words)
    path.write_text(report.fixed)
    assert f"  - [-1, 1, BiLevelRoutingAttention, {corrected}]  # 19" in report.fixed
    assert not lint(path).errors
    YOLO(path)


def test_heads_must_fit_every_scale_that_the_file_is_for(tmp_path: Path) -> None:
    """At row 19 there are 192, 384, 576, 768, 960 channels: 12 divides all, 24 too, 128 only two of them."""
    assert not lint(edited(tmp_path, row(19, "[7, 12]"))).errors
    error, = lint(edited(tmp_path, row(19, "[7, 128]"))).errors
    assert "dim=192" in error.text
    assert error.fix is not None
    assert error.fix.args == [7, 32]


def test_numbers_from_before_the_insertion(tmp_path: Path) -> None:
    path = edited(tmp_path, ("[16, 20, 24]", "[15, 18, 21]"))
    finding, = lint(path).errors
    assert "15 (BiLevelRoutingAttention), 18 (Concat), 21 (Conv)" in finding.text
    assert "write [[16, 20, 24], 1, Detect, [nc]]" in finding.text
    assert lint(path).fixed == (bra.yolo.CFG / "yolov8-bra.yaml").read_text()


def test_an_insertion_in_the_backbone_moves_every_number(tmp_path: Path) -> None:
    changes = [("[-1, 7]", "[-1, 6]"), ("[-1, 13]", "[-1, 12]"), ("[-1, 10]", "[-1, 9]"),
               ("[[16, 19, 22]", "[[15, 18, 21]")]
    path = edited(tmp_path, *changes, stem="yolov8-bra-p3")
    report = lint(path)
    assert [finding.row for finding in report.errors] == [12, 18, 21, 23]
    path.write_text(report.fixed)
    assert not lint(path).errors
    rows = rows_of(read_yaml(report.fixed))
    assert rows == rows_of(read_yaml((bra.yolo.CFG / "yolov8-bra-p3.yaml").read_text()))


def test_reading_the_attention_or_what_it_reads_are_both_right(tmp_path: Path) -> None:
    path = edited(tmp_path, ("[[-1, 5], 1, Concat", "[[-1, 4], 1, Concat"), stem="yolov8-bra-p3")
    assert not lint(path).errors
    assert through(rows_of(read_yaml(path.read_text())), 5) == 4


@pytest.mark.parametrize("name", ["mine", "yolov8-mine"])
def test_the_base_is_found_by_name_or_by_rows(name: str, tmp_path: Path) -> None:
    path = edited(tmp_path, ("[16, 20, 24]", "[15, 18, 21]"), name=name)
    assert len(lint(path).errors) == len(lint(path, base="yolov8.yaml").errors) == 1
    with pytest.raises(YoloError, match="--base nothing does not exist"):
        lint(path, base="nothing")


def test_windows_of_padding_only(tmp_path: Path) -> None:
    """20×20 in 8×8 windows is padded to 24×24: the last window row and column, 15 of 64, lie outside."""
    path = edited(tmp_path, row(23, "[8]"))
    report = lint(path)
    assert ("warning", 23) in levels(report)
    warning = next(finding for finding in report.findings if finding.level == "warning")
    assert "padded to 24×24" in warning.text
    assert "15 of 64 windows hold nothing else" in warning.text
    assert warning.fix is not None
    assert warning.fix.args == [10]
    path.write_text(report.fixed)
    assert ("warning", 23) not in levels(lint(path))


def test_no_padding_no_words(tmp_path: Path) -> None:
    path = edited(tmp_path, row(15, "[5]"), row(19, "[4]"), row(23, "[10]"))
    assert lint(path).findings == ()
    assert lint(path, imgsz=320).findings == ()


def test_a_fix_keeps_comments_and_block_style() -> None:
    text = ("# mine\nbackbone:\n  - [-1, 1, Conv, [8, 3]]  # first\n"
            "  -\n    - -1\n    - 1\n    - BRABlock\n    - []\n\n  # between\nhead: [[[0], 1, Detect, [nc]]]\n")
    rows = rows_of(read_yaml(text))
    fixed = with_rows_replaced(text, {1: rows[0], 2: rows[0]})
    assert written(rows[0]) == "[-1, 1, Conv, [8, 3]]"
    assert [again.args for again in rows_of(read_yaml(fixed))] == [[8, 3]] * 3
    assert "# first" in fixed
    assert "# between" in fixed


@pytest.mark.parametrize(("text", "words"), [
    ("a: [", "not YAML"), ("- 1\n", "holds a mapping"), ("backbone: []\n", "'head:'"),
    ("a: !!python/object/apply:os.system ['true']\n", "not YAML")])
def test_what_is_no_model(text: str, words: str) -> None:
    with pytest.raises(YoloError, match=words):
        rows_of(read_yaml(text))


def test_what_is_not_there_and_what_does_not_build(tmp_path: Path) -> None:
    with pytest.raises(YoloError, match="does not exist"):
        lint(tmp_path / "none.yaml")
    with pytest.raises(YoloError, match="imgsz=0"):
        lint("yolov8n-bra.yaml", imgsz=0)
    report = lint(edited(tmp_path, ("1, SPPF,", "1, Nonsense,")))
    assert "cannot build this model" in report.errors[0].text
    report = lint(edited(tmp_path, row(15, "[{depth: 3}]")))
    assert "names depth" in report.errors[0].text
