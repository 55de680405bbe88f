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
    path = edited(tmp_path, row(15, "[5]"), row(19, "[{n_win: 4}]"), row(23, "[10]"))
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
    assert "9 Nonsense are rows whose layers Ultralytics does not have" in report.errors[0].text
    report = lint(edited(tmp_path, ("SPPF, [1024, 5]", "SPPF, [1024, 5, 1, 2, 3]")))
    assert "cannot build this model" in report.errors[0].text
    report = lint(edited(tmp_path, row(15, "[{depth: 3}]")))
    assert "names depth" in report.errors[0].text


# rows that are read two ways, and rows that are not known ---------------------------------------------------


def test_numbers_that_suit_two_classes_are_said_and_left(tmp_path: Path) -> None:
    """8 windows or 8 heads of 192, 384, … channels: both can be, so nothing is corrected."""
    path = edited(tmp_path, row(15, "[4, 8]"), row(19, "[8]"), row(23, "[5, 8]"))
    notes = {finding.row: finding for finding in lint(path).findings if "first" in finding.text}
    assert set(notes) == {15, 19}, "5 does not divide 384, so row 23 can only have the windows first"
    assert {finding.level for finding in notes.values()} == {"note"}
    assert "n_win 4, 8 heads; for a class with the heads first" in notes[15].text
    assert "n_win 8, 4 heads: if that is yours, write [-1, 1, BiLevelRoutingAttention, [8, 4]] here" in notes[15].text
    assert "it says n_win 7, 8 heads: if that is yours, write [-1, 1, BiLevelRoutingAttention, [7, 8]]" in \
        notes[19].text
    assert all(finding.fix is None for finding in notes.values())


def test_channels_before_a_number_of_two_meanings_are_not_taken_out_by_us(tmp_path: Path) -> None:
    report = lint(edited(tmp_path, row(19, "[384, 8]")))
    error, = report.errors
    assert error.fix is None
    assert "say what the 8 after it is: [{n_win: 8}], or [{num_heads: 8}]." in error.text


def test_it_is_said_whose_classes_are_meant(tmp_path: Path) -> None:
    assert lint("yolov8-bra.yaml").assumptions == lint("yolov8-bra-residual.yaml").assumptions == ()
    assert lint(edited(tmp_path)).assumptions == ("assumes the tutorial's class (8 heads, n_win 7, topk 4)",)
    mine = lint(edited(tmp_path, stem="yolov8-bra-residual"))
    assert mine.assumptions == ("BRABlock meant as the block of this package, not another's of that name",)


@pytest.mark.parametrize("args", ["[256]", "[8, 7]", "[8, 8]"])
def test_a_block_of_our_name_by_place_may_be_another_s_and_is_not_rewritten(args: str, tmp_path: Path) -> None:
    text = edited(tmp_path, stem="yolov8-bra-residual").read_text()
    assert "BRABlock, []]" in text
    path = tmp_path / "yolov8-theirs.yaml"
    path.write_text(text.replace("BRABlock, []]", f"BRABlock, {args}]"))
    report = lint(path)
    assert report.fixed == path.read_text()
    assert not [finding for finding in report.findings if finding.fix]
    path.write_text(text.replace("BRABlock, []]", "BRABlock, [{n_win: 8, num_heads: 7}]]"))
    assert lint(path).fixed != path.read_text(), "options by name are ours alone"


YOLOV5 = """
nc: 80
depth_multiple: 0.33
width_multiple: 0.50
backbone:
  - [-1, 1, efficientnet_of_theirs, []]      # 0 to 4: five maps
  - [-1, 1, SPPF, [1024, 5]]                 # 5
head:
  - [-1, 1, Conv, [512, 1, 1]]
  - [-1, 1, nn.Upsample, [None, 2, 'nearest']]
  - [[-1, 3], 1, Concat, [1]]
  - [-1, 3, C3, [512, False]]                # 9
  - [-1, 1, BiLevelRoutingAttention, []]
  - [-1, 1, Conv, [256, 1, 1]]               # 11
  - [-1, 1, nn.Upsample, [None, 2, 'nearest']]
  - [[-1, 2], 1, Concat, [1]]
  - [-1, 3, C3, [256, False]]                # 14
  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 11], 1, Concat, [1]]
  - [-1, 3, C3, [512, False]]                # 17
  - [-1, 1, Conv, [512, 3, 2]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 3, C3, [1024, False]]               # 20
  - [[14, 17, 20], 1, Detect, [nc]]
"""


def test_a_file_with_rows_that_are_not_known_is_never_rewired(tmp_path: Path) -> None:
    """Its first row yields five maps, so its numbers are right where ours count them otherwise."""
    path = tmp_path / "yolov5s-theirs.yaml"
    path.write_text(YOLOV5)
    for base in (None, "yolov5.yaml"):
        report = lint(path, base=base)
        finding, guessed = report.findings
        assert (finding.level, guessed.level) == ("error", "note")
        assert guessed.text.startswith("taken so, the file does not build or run")
        assert finding.text.startswith("0 efficientnet_of_theirs are rows whose layers Ultralytics does not have")
        assert report.fixed == YOLOV5
    path.write_text(YOLOV5.replace("efficientnet_of_theirs, []", "Conv, [64, 6, 2, 2]"))
    assert [finding for finding in lint(path).findings if "before rows were inserted" in finding.text], \
        "with layers that are known its numbers are judged"
    path.write_text(YOLOV5.replace("SPPF,", "SPPTheirs,"))
    assert "0 efficientnet_of_theirs, 1 SPPTheirs are rows" in lint(path).findings[0].text
