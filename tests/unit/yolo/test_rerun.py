"""A look that goes on from an earlier one is that of the whole model, bit for bit; what lies upstream never runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("ultralytics")

from bra.errors import BRAError
from bra.models import rerun
from bra.models import steps as walking
from bra.models.base import Change, ModelRun
from bra.models.catalog import ModelSettings
from bra.models.rerun import run_from
from bra.opening import open_file, open_model
from bra.photo import Photo
from bra.yolo.registration import CFG

SAMPLES = Path(__file__).parents[3] / "sample_images"
BUTTONS = Photo.from_bytes((SAMPLES / "repeated_objects.jpg").read_bytes())
MODELS = {**{name: ModelSettings(name) for name in ("cells", "vehicles", "flowers", "photos")},
          **{name: ModelSettings("biformer", variant=name) for name in ("biformer_tiny", "biformer_stl")},
          **{f"{base}n-bra{place}": ModelSettings("yolo", variant=f"{base}n-bra{place}")
             for base in ("yolov8", "yolo11") for place in ("", "-p5", "-c2f", "-residual")}}
SIDE = 160


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[nn.Module]]:
    """Every module that is called inside the block."""
    called: set[nn.Module] = set()
    call = nn.Module.__call__
    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "__call__", lambda self, *a, **k: called.add(self) or call(self, *a, **k))
        yield called


def modules_of(steps: Sequence[walking.Step]) -> set[nn.Module]:
    return {module for step in steps if isinstance(step.run, nn.Module) for module in step.run.modules()}


def assert_equal(one: Any, other: Any) -> None:
    """Records and tensors alike to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, (list, tuple)):
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert_equal(value, other[name])
    else:
        assert one == other


def assert_same_look(one: ModelRun, other: ModelRun) -> None:
    assert list(one.trace.layers) == list(other.trace.layers)
    for name, layer in one.trace.layers.items():
        for part in dataclasses.fields(layer):
            assert_equal(getattr(layer, part.name), getattr(other.trace.layers[name], part.name))
    assert_equal(one.trace.out, other.trace.out)
    assert one.answer == other.answer


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_of_every_model_resumes_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(MODELS[name])
    # Its own modules run, and no copy that listeners hang on: which ran is seen by what they are.
    monkeypatch.setattr(rerun, "private", lambda module: module)
    base, kept = run_from(model, BUTTONS, SIDE)
    assert_same_look(base, model.look(BUTTONS, SIDE))
    assert kept is not None
    steps = model.steps()
    for layer in model.specs:
        change = Change(layer, 5, 9)
        with running(monkeypatch) as called:
            resumed, again = run_from(model, BUTTONS, SIDE, change, kept)
        at = walking.step_of(steps, layer)
        # Ultralytics has one activation for all rows; what later rows have too may run.
        before, after = modules_of(steps[:at]), modules_of(steps[at + 1:])
        assert not called & (before - after)
        assert {step.run for step in steps[at + 1:] if isinstance(step.run, nn.Module)} <= called
        assert_same_look(resumed, model.look(BUTTONS, SIDE, change))
        assert again is not None
        assert again.points.keys() == kept.points.keys()
        for before in list(base.trace.layers)[:list(base.trace.layers).index(layer)]:
            assert resumed.trace.layers[before] is base.trace.layers[before]


def test_a_changed_look_keeps_what_lies_before_its_change(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(MODELS["cells"])
    first, *_, last = model.specs
    _, kept = run_from(model, BUTTONS, SIDE, Change(last, 5, 9))
    assert kept is not None
    for layer, n_win, topk in ((last, 7, 2), (first, 4, 3), (last, 6, 1)):
        change = Change(layer, n_win, topk)
        with running(monkeypatch) as called:
            resumed, kept = run_from(model, BUTTONS, SIDE, change, kept)
        assert model.steps()[0].run not in called
        assert_same_look(resumed, model.look(BUTTONS, SIDE, change))
    # The other way round: what a change far up made is not taken for what the model does.
    _, kept = run_from(model, BUTTONS, SIDE, Change(first, 4, 3))
    assert kept is not None
    assert not kept.layers
    resumed, _ = run_from(model, BUTTONS, SIDE, Change(last, 5, 9), kept)
    assert_same_look(resumed, model.look(BUTTONS, SIDE, Change(last, 5, 9)))
    resumed, _ = run_from(model, BUTTONS, SIDE, None, kept)
    assert_same_look(resumed, model.look(BUTTONS, SIDE))


def test_another_photo_side_or_model_is_looked_at_whole() -> None:
    model, other = open_model(MODELS["cells"]), open_model(ModelSettings("cells", untrained=True))
    change = Change(next(iter(model.specs)), 5, 9)
    cat = Photo.from_bytes((SAMPLES / "animal.jpg").read_bytes())
    _, kept = run_from(model, BUTTONS, SIDE)
    for which, photo, side in ((model, cat, SIDE), (model, BUTTONS, 192), (other, BUTTONS, SIDE)):
        assert_same_look(run_from(which, photo, side, change, kept)[0], which.look(photo, side, change))


def test_points_stay_within_their_bytes_and_the_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(MODELS["yolov8n-bra"])
    _, kept = run_from(model, BUTTONS, SIDE)
    assert kept is not None
    assert len(kept.points) == 3
    alone = {at: walking.tensor_bytes(point.values()) for at, point in kept.points.items()}
    together = walking.tensor_bytes(tensor for point in kept.points.values() for tensor in point.values())
    assert together < sum(alone.values())           # what did not change in between is kept once
    last = max(alone)
    monkeypatch.setattr(walking, "POINT_BYTES", alone[last])
    _, less = run_from(model, BUTTONS, SIDE)
    assert less is not None
    assert list(less.points) == [last]
    first = Change(next(iter(model.specs)), 5, 9)
    assert_same_look(run_from(model, BUTTONS, SIDE, first, less)[0], model.look(BUTTONS, SIDE, first))


def test_a_row_that_changes_what_it_is_given_does_not_change_what_is_kept() -> None:
    class Doubling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    steps = walking.chain([("a", Doubling()), ("b", Doubling()), ("c", nn.Identity())])
    whole = walking.run_steps(steps, {walking.INPUT: torch.ones(3)}, keep=(1, 2))
    assert whole.out.tolist() == [4.0] * 3
    for start in (1, 2, 1):
        assert walking.run_steps(steps, whole.points[start], start).out.tolist() == [4.0] * 3
    assert whole.points[1][0].tolist() == [2.0] * 3


def test_the_models_weights_and_settings_are_left_alone() -> None:
    model = open_model(MODELS["cells"])
    state = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    specs = dict(model.specs)
    _, kept = run_from(model, BUTTONS, SIDE)
    for layer in specs:
        run_from(model, BUTTONS, SIDE, Change(layer, 4, 2), kept)
    assert dict(model.specs) == specs
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.module.state_dict().items())


def test_an_impossible_change_is_refused_as_by_a_whole_look() -> None:
    model = open_model(MODELS["cells"])
    _, kept = run_from(model, BUTTONS, SIDE)
    for change in (Change("model.2", 5, 9), Change("model.19.attn", 5, 99), Change("", 5, 9)):
        with pytest.raises(BRAError) as whole:
            model.look(BUTTONS, SIDE, change)
        with pytest.raises(BRAError) as resumed:
            run_from(model, BUTTONS, SIDE, change, kept)
        assert str(resumed.value) == str(whole.value)


def test_a_model_without_steps_is_looked_at_whole_and_keeps_nothing() -> None:
    patches = open_model(ModelSettings("similarity"))
    look, kept = run_from(patches, BUTTONS, SIDE)
    assert kept is None
    assert_same_look(look, patches.look(BUTTONS, SIDE))
    module = open_model(MODELS["cells"]).module
    odd = type("Odd", (type(module),), {"_predict_once": lambda self, x, *a, **k: type(module)._predict_once(self, x)})
    module.__class__ = odd
    model = dataclasses.replace(open_model(MODELS["cells"]), module=module)
    assert model.steps() == ()


def test_a_file_of_ones_own_resumes_too() -> None:
    model = open_file((CFG / "yolo11-bra.yaml").read_bytes(), "yolo11n-mine.yaml")
    layer = list(model.specs)[-1]
    _, kept = run_from(model, BUTTONS, SIDE)
    assert kept is not None
    change = Change(layer, 5, 9)
    assert_same_look(run_from(model, BUTTONS, SIDE, change, kept)[0], model.look(BUTTONS, SIDE, change))
