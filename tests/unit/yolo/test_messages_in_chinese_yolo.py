"""What is said of YOLO models, in Chinese: findings, refusals of checkpoints and names, and the printed figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ultralytics")

from chinese import CHINESE, in_chinese
from model_files import TINY, half, tiny
from torch_files import saved

from bra.errors import YoloError
from bra.readers.checkpoint import read_checkpoint
from bra.yolo import registration
from bra.yolo.adapter import built, open_named, open_text
from bra.yolo.build import build_checked, open_checkpoint
from bra.yolo.edit import read_yaml, with_bra_row_after, without_rows
from bra.yolo.lint import lint
from bra.yolo.rows import Row, spec_of
from bra.yolo.transplant import transplant
from bra.yolo.ultralytics_flops import UltralyticsFlops, network_of

pytestmark = pytest.mark.usefixtures("no_network")


def reopened(change: Callable[[Any], None], **facts: Any) -> None:
    """Open the tiny model's own checkpoint after something in it was changed."""
    module = build_checked(tiny())
    change(module)
    open_checkpoint(read_checkpoint(saved(half(module))), **facts)


def drop(module: Any) -> None:
    del module.model[0].bn.running_mean


def grow(module: Any) -> None:
    module.model[0].bn.more = module.model[0].bn.weight


def spoil(module: Any) -> None:
    module.model[0].conv.weight.data[0] = float("inf")


def rewrite(module: Any) -> None:
    module.yaml["head"][1][3] = [32, True]


def swap(module: Any) -> None:
    module.yaml["head"][1][2] = "C3"


REFUSALS: dict[str, Callable[[], object]] = {
    "tensors alone": lambda: open_checkpoint(read_checkpoint(saved(build_checked(tiny()).state_dict()))),
    "one too few": lambda: reopened(drop), "one too many": lambda: reopened(grow),
    "not finite": lambda: reopened(spoil), "another shape": lambda: reopened(rewrite),
    "another layer": lambda: reopened(swap),
    "no name": lambda: open_named("nothing", "a", "b"), "no network": lambda: network_of("nothing.yaml"),
    "no file": lambda: lint("nothing.yaml"), "no size": lambda: lint("yolov8n-bra.yaml", 0),
    "no model file": lambda: lint("table.csv"), "no weights": lambda: transplant("photo.jpg", "yolov8n.yaml", "o.pt"),
    "no base": lambda: lint("yolov8n-bra.yaml", base="nothing.yaml"),
    "no YAML": lambda: read_yaml("a: ["), "no mapping": lambda: read_yaml("- 1"),
    "no place": lambda: with_bra_row_after(tiny(), 99), "no first row": lambda: without_rows(
        tiny(backbone=[[-1, 1, "BiLevelRoutingAttention", [1, 1]], *tiny()["backbone"]])),
    "no setting": lambda: spec_of(Row(3, -1, 1, "BiLevelRoutingAttention", [7, 7]), 64),
    "no plain value": lambda: spec_of(Row(3, -1, 1, "BiLevelRoutingAttention", [[7]]), 64),
    "edited": registration._check_unedited,
    "other weights": lambda: built(tiny(), {"nothing": build_checked(tiny()).model[0].conv.weight}),
    "long text": lambda: open_text(TINY.encode() + b"#" * 70_000, "a.yaml"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_told_in_chinese(name: str) -> None:
    with pytest.raises(YoloError) as caught:
        REFUSALS[name]()
    in_chinese(caught.value.args[0])


def test_a_setting_is_explained_in_chinese_behind_its_row() -> None:
    with pytest.raises(YoloError) as caught:
        spec_of(Row(3, -1, 1, "BiLevelRoutingAttention", [256]), 64)
    translate = in_chinese(caught.value.args[0])
    assert translate.startswith("第 3 行 [-1, 1, BiLevelRoutingAttention, [256]]：n_win=256 不可行：")
    assert "每边应为 1 到 64 个窗口；" in translate


@pytest.mark.parametrize("change", [
    ("[4, 2]", "[256]"), ("[4, 2]", "[7, 2]"), ("[4, 2]", "[3, 2]"), ("[1, 3]", "[1, 2]"), ("[4, 2]", "[4, 7]"),
    ("C2f, [64, True]", "C2f, [64, True, 1, 2, 3, 4, 5]")])
def test_findings_are_told_in_chinese(change: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "model.yaml"
    file.write_text(TINY.replace(*change))
    for finding in lint(file).findings:
        assert in_chinese(finding.text) != finding.text


def test_a_moved_number_is_told_in_chinese(tmp_path: Path) -> None:
    text = (registration.CFG / "yolov8-bra.yaml").read_text()
    file = tmp_path / "yolov8.yaml"
    file.write_text(text.replace("[[16, 20, 24], 1, Detect", "[[15, 18, 21], 1, Detect"))
    found = [finding for finding in lint(file).findings if finding.level == "error"]
    assert found
    for finding in found:
        assert "插入行之前的编号" in in_chinese(finding.text)


@pytest.mark.parametrize(("figures", "words"), [
    ((0, 0, 8.0), "未能运行"), ((8.7, 8.7, 8.0), "没有影响"), ((8.7, 8.5, 8.0), "外推")])
def test_the_printed_figure_is_explained_in_chinese(figures: tuple[float, float, float], words: str) -> None:
    found = UltralyticsFlops(*figures)
    assert words in in_chinese(found.sentence)
    assert str(found) == found.sentence


def test_what_a_model_is_called_is_told_in_chinese() -> None:
    made = open_text(TINY.encode(), "tiny.yaml")
    assert CHINESE.translate(made.provenance) == "未训练，随机权重"
