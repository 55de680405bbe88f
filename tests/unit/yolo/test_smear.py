"""The picture drawn for the blood cell detector: it finds there what a person sees, and only after training."""

from __future__ import annotations

from pathlib import Path

import pytest

from bra.models.base import Answer
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo

pytest.importorskip("ultralytics")
SMEAR = Path(__file__).parents[3] / "sample_images" / "smear.jpg"
W, H, FAR = 640, 480, 12  # pixels; how far a box may lie from its cell's middle
SEEN = {  # middles, read off the picture
    "RBC": ((204, 308), (153, 390), (264, 425), (282, 73), (549, 112), (593, 188), (451, 440), (316, 353)),
    "WBC": ((150, 126), (432, 300)),
}


def answer(untrained: bool) -> Answer:
    photo = Photo.from_bytes(SMEAR.read_bytes())
    return open_model(ModelSettings("cells", untrained=untrained)).look(photo, 224).answer


def middles(found: Answer, label: str) -> list[tuple[float, float]]:
    return [((box[0] + box[2]) / 2 * W, (box[1] + box[3]) / 2 * H)
            for box in (one.box for one in found.detections if one.label == label)]


def near(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return abs(a[0] - b[0]) <= FAR and abs(a[1] - b[1]) <= FAR


def test_cells_that_stand_alone_are_found_once_each_and_white_cells_only_where_they_are() -> None:
    found = answer(untrained=False)
    for label, cells in SEEN.items():
        boxes = middles(found, label)
        assert [sum(near(cell, box) for box in boxes) for cell in cells] == [1] * len(cells)
    assert len(middles(found, "WBC")) == 2


def test_the_same_layers_untrained_find_none_of_them() -> None:
    found = answer(untrained=True)
    assert not any(near(cell, box) for label, cells in SEEN.items() for cell in cells for box in middles(found, label))
