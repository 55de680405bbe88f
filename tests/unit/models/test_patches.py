"""The patch model: colours as CIE defines them, and a routing that follows what the picture shows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import bra
from bra import BRASpec
from bra.errors import SpecError
from bra.models.patches import (
    SHARPNESS,
    PatchEmbedding,
    PatchModel,
    PatchSpec,
    edge_directions,
    patch_features,
    patch_places,
    rgb_to_lab,
)

SPEC = PatchSpec(BRASpec(64, n_win=4, topk=4))


def plain(*rgb: float, h: int = 32, w: int = 32) -> Tensor:
    return torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, h, w).contiguous()


def halves(h: int = 64, w: int = 64) -> Tensor:
    """Left black, right white."""
    x = torch.zeros(1, 3, h, w)
    x[..., w // 2:] = 1
    return x


@pytest.mark.parametrize(("rgb", "lab"), [
    ((1, 1, 1), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((1, 0, 0), (53.24, 80.09, 67.20)),
    ((0, 1, 0), (87.73, -86.18, 83.18)), ((0, 0, 1), (32.30, 79.19, -107.86)), ((0.5, 0.5, 0.5), (53.39, 0, 0))])
def test_lab_of_colours_one_can_look_up(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    assert rgb_to_lab(plain(*rgb))[0, :, 0, 0].tolist() == pytest.approx(lab, abs=0.01)


def test_edges_fall_into_the_bin_of_their_direction() -> None:
    upright = halves()[:, :1]                                        # brightness changes from left to right: angle 0
    for light, direction in ((upright, 0), (upright.mT, 4)):
        found = edge_directions(light)[0].sum((1, 2))
        assert found[direction] == pytest.approx(64 * 2 * 0.5)        # two columns of 64 pixels with slope 1/2
        assert found.sum() == pytest.approx(64)
    falling = edge_directions(1 - upright)
    torch.testing.assert_close(falling, edge_directions(upright))    # an edge has no sign


def test_directions_turn_with_the_picture() -> None:
    light = torch.rand(1, 1, 24, 24) * 100
    upright, turned = edge_directions(light), edge_directions(light.mT)      # angle a becomes 90° - a
    for direction in range(8):
        torch.testing.assert_close(turned[:, direction].mT, upright[:, (4 - direction) % 8], atol=1e-3, rtol=1e-3)


def test_features_are_standardised_over_the_image() -> None:
    features = patch_features(torch.rand(1, 3, 64, 80), 8)
    assert features.shape == (1, 14, 8, 10)
    torch.testing.assert_close(features.mean((2, 3)), torch.zeros(1, 14), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.square().mean((2, 3)), torch.ones(1, 14), atol=1e-3, rtol=0)


@pytest.mark.parametrize("rgb", [(0.0, 0, 0), (1.0, 1, 1), (0.2, 0.5, 0.9)])
@pytest.mark.parametrize("projection", ["similarity", "random"])
def test_a_plain_picture_is_no_trouble(rgb: tuple[float, ...], projection: Any) -> None:
    assert patch_features(plain(*rgb), 8).abs().max() < 0.05         # nothing varies: nothing is blown up
    traced = bra.trace(PatchModel(replace(SPEC, projection=projection)), plain(*rgb))
    assert traced.out.isfinite().all()
    for lt in traced.layers.values():
        assert lt.affinity.isfinite().all()
        assert lt.attention_map(0).isfinite().all()


def test_the_last_patch_is_described_by_what_is_there() -> None:
    x = plain(0.2, 0.5, 0.9, h=19, w=21)
    assert patch_features(x, 8).shape == (1, 14, 3, 3)
    assert patch_features(x, 8).abs().max() < 0.05                   # no dark rim from beyond the edge
    assert PatchModel(SPEC)(x).shape == (1, 64, 3, 3)


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32, 64])
def test_any_size_gives_a_token_per_started_stride(stride: int) -> None:
    for h, w in ((16, 16), (65, 31), (130, 64)):
        y = PatchModel(replace(SPEC, stride=stride))(torch.rand(2, 3, h, w))
        assert y.shape == (2, 64, -(-h // stride), -(-w // stride))
        assert y.isfinite().all()


def test_places_have_spread_one_along_the_longer_side() -> None:
    rows, cols = patch_places(torch.zeros(1, 1, 20, 40))[0]
    assert cols.square().mean().sqrt() == pytest.approx(1, abs=0.01)
    assert rows.square().mean().sqrt() == pytest.approx(0.5, abs=0.01)
    assert (rows[0, 0], cols[0, 0]) == pytest.approx((-9.5 / (40 / 12**0.5), -19.5 / (40 / 12**0.5)))


def test_equal_patches_have_similarity_one_and_others_that_of_a_gaussian() -> None:
    x = torch.rand(1, 3, 48, 48)
    tokens = PatchEmbedding(4096, 8, 0.0, seed=1)(x)[0].flatten(1)                 # (4096, 36)
    weights = torch.tensor([1.0] * 3 + [0.6] * 3 + [0.35] * 8)
    look = patch_features(x, 8)[0].flatten(1) * weights[:, None]
    distance = torch.cdist(look.T, look.T)
    torch.testing.assert_close(tokens.T @ tokens, torch.exp(-distance.square() / 2), atol=0.08, rtol=0)
    torch.testing.assert_close(tokens.square().sum(0), torch.ones(36))


def test_logits_are_the_mean_similarity_of_two_windows() -> None:
    model, x = PatchModel(SPEC), torch.rand(1, 3, 128, 128)
    tokens = model.embed(x)[0].unflatten(1, (4, 4)).unflatten(3, (4, 4)).transpose(2, 3).flatten(3).flatten(1, 2)
    similarity = torch.einsum("cit,cju->ij", tokens, tokens) / 16**2               # mean over 16·16 pairs
    lt = bra.trace(model, x).layers["layers.0"]
    torch.testing.assert_close(lt.affinity[0], SHARPNESS * similarity, atol=1e-4, rtol=1e-4)
    assert lt.affinity.max() <= SHARPNESS + 1e-3


@pytest.mark.parametrize("turned", [False, True])
def test_a_picture_in_two_halves_is_routed_within_its_halves(turned: bool) -> None:
    x = halves(128, 128)
    traced = bra.trace(PatchModel(replace(SPEC, attention=BRASpec(64, n_win=4, topk=8), position=0.0)),
                       x.mT if turned else x)
    index = torch.arange(16)
    half = (index // 4 if turned else index % 4) >= 2
    for lt in traced.layers.values():
        assert torch.equal(half[lt.r_idx[0]], half[:, None].expand(16, 8))


def test_position_prefers_the_near_among_the_alike() -> None:
    x = torch.rand(1, 3, 1, 1).expand(1, 3, 128, 128)
    lt = bra.trace(PatchModel(SPEC), x).layers["layers.0"]
    assert lt.r_idx[0, 0, 0] == 0
    assert set(lt.r_idx[0, 0].tolist()) == {0, 1, 4, 5}              # the corner of 4×4 windows


@pytest.mark.parametrize("projection", ["similarity", "random"])
def test_the_same_seed_is_the_same_model_everywhere(projection: Any) -> None:
    spec, x = replace(SPEC, projection=projection), torch.rand(1, 3, 40, 56)
    expected = PatchModel(spec)(x)

    def build_and_run(n: int) -> Tensor:
        torch.manual_seed(n)
        return PatchModel(spec)(x)

    for n in range(4):
        torch.testing.assert_close(build_and_run(n), expected, rtol=0, atol=0)
    assert (PatchModel(replace(spec, seed=1))(x) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("projection", ["similarity", "random"])
def test_models_built_at_once_in_threads_are_the_same(projection: Any) -> None:
    spec = replace(SPEC, projection=projection)
    expected = PatchModel(spec).state_dict()
    with ThreadPoolExecutor(8) as pool:
        for model in pool.map(lambda _: PatchModel(spec), range(64)):
            assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_random_weights_are_spread_as_pytorch_spreads_them() -> None:
    model = PatchModel(replace(SPEC, projection="random"))
    fresh = bra.BiLevelRoutingAttention.from_spec(SPEC.attention)
    for name in ("qkv.qkv.weight", "wo.weight", "lepe.weight"):
        value, usual = model.layers[0].get_parameter(name), fresh.get_parameter(name).detach()
        assert value.std() == pytest.approx(float(usual.std()), rel=0.1), name
        assert value.abs().max() <= usual[0].numel() ** -0.5
        assert value.mean() == pytest.approx(0, abs=0.02)
    assert not torch.equal(model.layers[0].wo.weight, model.layers[1].wo.weight)


def test_building_draws_nothing_from_the_shared_generator() -> None:
    before = torch.get_rng_state()
    PatchModel(replace(SPEC, projection="random"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_is_ready_to_look_at() -> None:
    model = PatchModel(SPEC)
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert list(bra.trace(model, torch.rand(1, 3, 40, 40)).layers) == ["layers.0", "layers.1"]


@pytest.mark.parametrize(("wrong", "message"), [
    ({"stride": 1}, "stride=1 .* 2 to 64 .*use 8"), ({"stride": 65}, "stride=65"), ({"depth": 0}, "depth=0 .*1 to 4"),
    ({"depth": 5}, "depth=5"), ({"attention": BRASpec(63, num_heads=1)}, "dim=63 .*even"),
    ({"attention": BRASpec(64, qk_dim=32)}, "qk_dim=32 .*leave qk_dim out")])
def test_impossible_settings_are_refused_with_the_cure(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        replace(SPEC, **wrong)
