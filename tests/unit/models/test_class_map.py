"""The class heat map is the positive part of gradient times map, and nothing is left on the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bra.errors import BRAError
from bra.models.base import OpenModel
from bra.models.catalog import ModelSettings
from bra.models.class_map import _heat, class_map
from bra.opening import open_model
from bra.photo import Photo

SMEAR = Path(__file__).parents[3] / "sample_images" / "smear.jpg"


def test_a_map_that_can_be_worked_by_hand() -> None:
    # The score is 2·(sum of channel 0) − 3·(sum of channel 1): only channel 0 speaks for it, and only where it is
    # above 0. Over 2×2 places its values 1, 4, −2, 0 give 2, 8, 0, 0, over the largest: 0.25, 1, 0, 0.
    a = torch.tensor([[[[1.0, 4.0], [-2.0, 0.0]], [[9.0, 9.0], [9.0, 9.0]]]], requires_grad=True)
    score = 2 * a[0, 0].sum() - 3 * a[0, 1].sum()
    heat, kept = _heat(score[None], [a], torch.Size((2, 2)), 0.5, 4)
    assert heat.tolist() == [[0.25, 1.0], [0.0, 0.0]]
    assert kept == [float(score)]


def test_every_prediction_and_level_is_laid_over_by_its_own_largest() -> None:
    one, two = (torch.zeros(1, 1, 2, 2).requires_grad_(True) for _ in range(2))
    with torch.no_grad():
        one[0, 0, 0, 0], two[0, 0, 1, 1] = 100.0, 0.001
    scores = torch.stack([one.sum() / 200, two.sum() * 300, 0 * one.sum() + 0.1])
    heat, kept = _heat(scores, [one, two], torch.Size((2, 2)), 0.25, 4)
    assert kept == pytest.approx([0.5, 0.3])        # the third is below 0.25
    assert heat.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def slow(model: OpenModel, x: Tensor) -> Tensor:
    """LayerCAM of a classifier's first class over its last map, by automatic differentiation of the whole model."""
    net: Any = model.module
    kept: list[Tensor] = []
    handle = net.norm.register_forward_hook(lambda _m, _i, out: kept.append(out.requires_grad_(True)) or kept[0])
    with torch.enable_grad():
        out = net(x)
        (gradient,) = torch.autograd.grad(out[0].max(), kept)
    handle.remove()
    return (gradient.clamp(min=0) * kept[0]).sum(1).clamp(min=0)[0].detach()


def test_a_trained_classifiers_map_is_that_of_the_whole_model() -> None:
    model = open_model(ModelSettings("flowers"))
    rgb = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    photo = Photo.from_array(rgb)
    found = class_map(model, photo, 128)
    expected = slow(model, model.prepare(photo, 128).x)
    assert found.level_sizes == (tuple(expected.shape),)
    assert found.heat.shape == (96, 128)
    large = torch.nn.functional.interpolate(expected[None, None], (96, 128), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(found.heat, (large / large.max()).numpy(), atol=1e-5)


def test_a_trained_detectors_map_is_warm_where_it_finds() -> None:
    pytest.importorskip("ultralytics")
    model = open_model(ModelSettings("cells"))
    photo = Photo.from_bytes(SMEAR.read_bytes())
    side = 224
    run = model.look(photo, side)
    head: Any = model.module.model[-1]      # type: ignore[union-attr,index]
    before = {name: id(value) for name, value in vars(head).items()}
    found = class_map(model, photo, side)
    assert {name: id(value) for name, value in vars(head).items()} == before
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert found.scores[0] == pytest.approx(max(one.score for one in run.answer.detections), abs=1e-4)
    assert len(found.scores) == 16
    assert found.heat.min() >= 0
    assert found.heat.max() == pytest.approx(1, abs=1e-3)
    inside = np.zeros(found.heat.shape, bool)
    h, w = inside.shape
    for one in run.answer.detections:
        left, top, right, bottom = one.box
        inside[int(top * h):int(bottom * h) + 1, int(left * w):int(right * w) + 1] = True
    assert inside.any()
    assert not inside.all()
    assert found.heat[inside].mean() > found.heat[~inside].mean()


def test_a_model_that_answers_nothing_is_refused() -> None:
    photo = Photo.from_array(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(BRAError, match="told apart into steps"):
        class_map(open_model(ModelSettings()), photo, 64)
