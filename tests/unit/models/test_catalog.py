"""Whatever the app lets one choose can be built and looked into, or is refused with a cure."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
import torch

from bra import BRASpec
from bra.errors import BRAError, GridError
from bra.models.catalog import CATALOG, DIM, ModelSettings, build, grid_on
from bra.opening import look, open_model
from bra.photo import Photo

POOLS = ("identity", "maxpool", "avgpool", "ada_maxpool", "ada_avgpool", "fracpool", "conv")
HEADS = (1, 2, 4, 8, 16)


def photo(height: int, width: int) -> Photo:
    return Photo.from_array(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


PATCHES = [key for key, entry in CATALOG.items() if entry.is_built_from_settings]


@pytest.mark.parametrize("model", CATALOG)
def test_an_entry_says_what_it_is(model: str) -> None:
    entry = CATALOG[model]
    assert entry.key == model
    assert entry.label
    assert entry.about.endswith(".")
    assert entry.card or "not learned" in entry.provenance or "untrained" in entry.provenance


@pytest.mark.parametrize(("model", "told"), [
    ("similarity", "is_built_from_settings"), ("untrained", "is_built_from_settings"), ("flowers", "is_biformer"),
    ("biformer", "is_biformer"), ("cells", "needs_ultralytics"), ("yolo", "needs_ultralytics"), ("own", "needs_file")])
def test_an_entry_says_what_its_models_can_do(model: str, told: str) -> None:
    names = ("is_built_from_settings", "is_biformer", "needs_ultralytics", "needs_file")
    assert [name for name in names if getattr(CATALOG[model], name)] == [told]


@pytest.mark.parametrize("model", PATCHES)
def test_layers_are_told_in_the_order_in_which_they_run(model: str) -> None:
    opened = open_model(ModelSettings(model))
    assert tuple(opened.look(photo(64, 48), 64).trace.layers) == tuple(opened.specs) == ("layers.0", "layers.1")


@pytest.mark.parametrize("num_heads", HEADS)
def test_every_number_of_windows_suits_every_number_of_heads(num_heads: int) -> None:
    for n_win in range(2, 17):
        for topk in range(1, n_win**2 + 1):
            assert BRASpec(DIM, n_win, num_heads, topk=topk).n_windows == n_win**2


@pytest.mark.parametrize("model", PATCHES)
@pytest.mark.parametrize("mode", POOLS)
@pytest.mark.parametrize("n_win", [2, 3, 7, 8, 16])
def test_every_pooling_is_finite_or_refused_with_a_cure(model: str, mode: str, n_win: int) -> None:
    picture = photo(120, 88)
    for ratio, topk, masked in ((2, 1, False), (2, n_win**2, True), (4, 4, True)):
        settings = ModelSettings(model, n_win, topk, HEADS[n_win % 5], 8, mode, ratio, masked, side=120)
        grid = grid_on(settings, picture)
        if mode in ("maxpool", "avgpool", "conv") and min(grid.window_h, grid.window_w) < ratio:
            with pytest.raises(GridError, match="lower n_win or kv_downsample_ratio"):
                look(settings, picture)
            continue
        traced = look(settings, picture).trace
        assert traced.out.isfinite().all()
        for lt in traced.layers.values():
            torch.testing.assert_close(lt.attention_map(0).sum((1, 2)), torch.ones(settings.num_heads))


@pytest.mark.parametrize(("height", "width"), [(448, 448), (300, 451), (96, 700), (451, 123), (17, 16)])
@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_the_grid_foretold_is_the_grid_traced(height: int, width: int, stride: int) -> None:
    settings, picture = ModelSettings(stride=stride, side=320, n_win=5), photo(height, width)
    grid = grid_on(settings, picture)
    assert {lt.grid for lt in look(settings, picture).trace.layers.values()} == {grid}
    if min(height, width) > 2 * stride:
        assert grid.stride == (stride, stride)
        assert 0 <= grid.h * stride - picture.resized(320).shape[0] < stride


def test_settings_reach_the_layers() -> None:
    settings = ModelSettings("untrained", 5, 3, 4, 16, "avgpool", 3, True)
    for layer in build(settings).layers:
        spec = layer.spec
        assert (spec.n_win, spec.topk, spec.num_heads, spec.kv_downsample_mode) == (5, 3, 4, "avgpool")
        assert (spec.kv_downsample_ratio, spec.kv_per_win, spec.mask_padding) == (3, 3, True)


def test_equal_settings_share_a_cache_key_and_build_equal_models() -> None:
    assert hash(ModelSettings("untrained")) == hash(ModelSettings("untrained"))
    one, two = (build(ModelSettings("untrained")).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(BRAError, match="model='gpt' is not known: choose one of photos, flowers, cells, vehicles, "):
        open_model(ModelSettings("gpt"))
    with pytest.raises(BRAError, match="yolo does not come as 'yolov9n-bra'"):
        open_model(ModelSettings("yolo", variant="yolov9n-bra"))
    with pytest.raises(BRAError, match="needs its file"):
        open_model(ModelSettings("own"))
    with pytest.raises(BRAError, match="topk=17"):
        build(ModelSettings(n_win=4, topk=17))


@pytest.mark.parametrize(("error", "words"), [
    (ModuleNotFoundError("No module named 'ultralytics'", name="ultralytics"), "ultralytics is not installed"),
    (ImportError("libGL.so.1: cannot open shared object file"), "does not find libGL")])
def test_without_ultralytics_a_yolo_model_is_refused_with_the_cure(
        monkeypatch: pytest.MonkeyPatch, error: ImportError, words: str) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "bra.yolo":
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(BRAError, match=words):
        open_model(ModelSettings("cells"))
