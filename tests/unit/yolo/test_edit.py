"""A model file with its BRA rows changed, taken out and put elsewhere builds what it says."""

from __future__ import annotations

import pytest
import yaml

pytest.importorskip("ultralytics")
from ultralytics.nn import tasks

import bra
import bra.yolo
from bra.errors import YoloError
from bra.profiling.advice import positions
from bra.yolo.build import build_checked
from bra.yolo.edit import as_text, with_bra_row_after, with_row_settings, without_rows
from bra.yolo.rows import options_of, rows_of
from bra.yolo.validate import check_model


def text_of(stem: str) -> str:
    return (bra.yolo.CFG / f"{stem}.yaml").read_text()


def rows(content: str | dict) -> list[list]:
    model = yaml.safe_load(content) if isinstance(content, str) else content
    return [[row.source, row.repeats, row.name, row.args] for row in rows_of(model)]


@pytest.mark.parametrize("stem",
                            [path.stem for path in bra.yolo.CFG.glob("*.yaml") if path.stem != "yolo11-bra-c2f"])
def test_without_its_rows_a_shipped_model_is_ultralytics_own(stem: str) -> None:
    base = tasks.yaml_model_load(f"{stem.partition('-')[0]}n.yaml")
    assert rows(without_rows(yaml.safe_load(text_of(stem)))) == rows(base)


@pytest.mark.parametrize(("stem", "after"), [("yolov8-bra-p3", 4), ("yolov8-bra-p5", 9), ("yolo11-bra-p3", 4)])
def test_one_row_put_there_is_the_file_that_ships(stem: str, after: int) -> None:
    """From the model with three rows in its neck to that with one in its backbone."""
    made = with_bra_row_after(text_of(f"{stem.partition('-')[0]}-bra"), after)
    assert rows(made) == rows(text_of(stem))
    assert yaml.safe_load(made)["scales"] == yaml.safe_load(text_of(stem))["scales"]
    assert len(check_model(made)["backbone"]) == len(yaml.safe_load(text_of(stem))["backbone"])


@pytest.mark.parametrize("after", [0, 4, 9, 11, 14, 21])
def test_a_placed_row_costs_what_its_position_says(after: int) -> None:
    model = yaml.safe_load(text_of("yolov8-bra")) | {"scale": "n"}
    plain = bra.cost(build_checked(without_rows(model)), 160)
    place = {one.after.partition(" ")[0]: one for one in positions(plain, n_win=5, topk=2)}[str(after)]
    made = bra.cost(build_checked(yaml.safe_load(with_bra_row_after(model, after, n_win=5, topk=2))), 160)
    assert place.layer is not None
    assert made.rows[after + 1].name == f"{after + 1} BiLevelRoutingAttention"
    assert made.total.params - plain.total.params == place.layer.params
    assert made.total.macs - plain.total.macs == place.layer.macs


def test_only_the_rows_asked_for_are_changed() -> None:
    made = rows_of(yaml.safe_load(with_row_settings(text_of("yolov8-bra"), [19], n_win=5, topk=3)))
    assert {row.index: options_of(row) for row in made if row.name == "BiLevelRoutingAttention"} == {
        15: {}, 19: {"n_win": 5, "topk": 3}, 23: {}}


def test_text_and_content_are_one() -> None:
    content = yaml.safe_load(text_of("yolo11-bra-c2f"))
    assert yaml.safe_load(as_text(content)) == content


@pytest.mark.parametrize("after", [-1, 22, 99])
def test_there_is_no_place_after_the_last_row(after: int) -> None:
    with pytest.raises(YoloError, match="0 to 21"):
        with_bra_row_after(text_of("yolov8-bra"), after)


def test_a_model_that_begins_with_attention_cannot_be_without_it() -> None:
    with pytest.raises(YoloError, match="reads the image"):
        without_rows({"backbone": [[-1, 1, "BRABlock", []], [-1, 1, "Conv", [8]]], "head": [[-1, 1, "Detect", ["nc"]]]})
