"""Routing quality of a card: means of the numbers that fidelity, dense and overlap give, on the photo's own boxes."""

from __future__ import annotations

import numpy as np
import pytest

from bra.errors import BRAError
from bra.metrics import dense, routing
from bra.metrics.overlap import semantic_overlap
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.training.quality import routing_quality


def halves(colour: tuple[int, int, int]) -> Photo:
    """Left half of one colour, right half grey noise."""
    rgb = np.random.default_rng(0).integers(100, 156, (64, 128, 3), np.uint8)
    rgb[:, :64] = colour
    return Photo.from_array(rgb)


BOXES = np.array([[0, 0.0, 0.0, 0.5, 1.0]])


def test_it_is_the_mean_over_pictures_of_the_measured_numbers() -> None:
    model = open_model(ModelSettings(n_win=4, topk=3))
    photos = [halves((200, 30, 30)), halves((30, 30, 200))]
    rows = routing_quality(model, [(photo, BOXES) for photo in photos], 128, lambda _: None)
    assert [(row.layer, row.n_win, row.topk) for row in rows] == [("layers.0", 4, 3), ("layers.1", 4, 3)]
    recalls, overlaps = [], []
    for photo in photos:
        trace = model.look(photo, 128).trace.layers["layers.0"]
        recalls.append(dense.recall(trace, dense.dense_attention(trace)).mean())
        pixels = np.array([[0, 0, 0, 64, 64]], float)
        overlaps.append(semantic_overlap(trace, pixels).to_dict()["routed"])
    assert rows[0].recall == pytest.approx(np.mean(recalls), abs=1e-5)
    assert rows[0].shared == pytest.approx(np.mean(
        [routing.shared_choices(model.look(photo, 128).trace.layers["layers.0"]) for photo in photos]), abs=1e-5)
    assert rows[0].recall_chance == pytest.approx(3 / 16)
    assert rows[0].overlap == pytest.approx(np.mean(overlaps), abs=1e-5)
    assert rows[0].overlap == pytest.approx(1.0, abs=1e-5)      # each half is alike, and routes to itself
    assert rows[0].overlap_chance == pytest.approx(0.5)
    assert routing.chance(trace) == 3 / 16


def test_without_boxes_there_is_no_overlap_and_without_pictures_no_quality() -> None:
    model = open_model(ModelSettings(n_win=4, topk=3))
    row = routing_quality(model, [(halves((0, 200, 0)), None)], 128, lambda _: None)[0]
    assert row.overlap is None
    assert row.recall > row.recall_chance
    with pytest.raises(BRAError, match="no picture was given"):
        routing_quality(model, [], 128, lambda _: None)
