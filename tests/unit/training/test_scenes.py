"""Drawn scenes, and the three models that differ in what taught their routers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bra.attention import BiLevelRoutingAttention
from bra.metrics.overlap import semantic_overlap
from bra.metrics.routing import shared_choices
from bra.photo import Photo, encode
from bra.training.scenes import (
    CLASSES,
    ROUTERS,
    SIDE,
    Recipe,
    Router,
    accuracy,
    draw_scene,
    open_scene_net,
    scene_net,
    ship_scenes,
    train_scenes,
)


def test_a_scene_is_that_of_its_seed_and_has_known_classes() -> None:
    one, again, other = draw_scene(3), draw_scene(3), draw_scene(4)
    np.testing.assert_array_equal(one.rgb, again.rgb)
    assert (one.labels != other.labels).mean() > 0.1
    assert one.rgb.shape == (SIDE, SIDE, 3)
    assert set(np.unique(one.labels)) <= set(range(len(CLASSES)))
    assert {0, 1, 2} <= set(np.unique(one.labels))


def test_a_scene_is_the_same_at_every_size() -> None:
    small, large = draw_scene(3).labels, draw_scene(3, 4 * SIDE).labels
    assert (small == large[2::4, 2::4]).mean() > 0.99


def test_only_the_router_differs() -> None:
    states = []
    for router in ROUTERS:
        torch.manual_seed(0)
        net = scene_net(router)
        states.append(net.state_dict())
        assert {part.router.diff_routing for part in net.modules() if isinstance(part, BiLevelRoutingAttention)} == {
            router == "straight-through"}
    for state in states[1:]:
        assert all(torch.equal(states[0][name], value) for name, value in state.items())
    assert sum(tensor.numel() for tensor in scene_net("default").parameters()) == 124_166


def _mean_overlap(router: Router) -> tuple[float, float, float]:
    """Overlap of labels, that of the nearest windows, and shared choices of the last layer on 8 unseen scenes."""
    model, found = open_scene_net(router), []
    for seed in range(8):
        scene = draw_scene(seed)
        *_, layer = model.look(Photo.from_bytes(encode(scene.rgb, "PNG")), SIDE).trace.layers.values()
        overlap = semantic_overlap(layer, scene.labels).to_dict()
        found.append((overlap["routed"], overlap["nearest"], shared_choices(layer)))
    routed, nearest, shared = np.mean(np.array(found, float), 0)
    return float(routed), float(nearest), float(shared)


def test_the_shipped_three_are_what_the_chapter_says() -> None:
    measured = {router: _mean_overlap(router) for router in ROUTERS}
    assert measured["taught"][0] > measured["taught"][1] + 0.03             # above the nearest windows
    assert measured["default"][0] < measured["straight-through"][0] < measured["default"][1] - 0.1
    assert measured["taught"][2] < 0.4 < min(measured["default"][2], measured["straight-through"][2])
    rights = [accuracy(open_scene_net(router).module, 64) for router in ROUTERS]    # type: ignore[arg-type]
    assert all(round(100 * right) == 98 for right in rights)


@pytest.mark.parametrize("router", ROUTERS)
def test_a_few_steps_train_and_are_repeatable(router: Router) -> None:
    lines: list[str] = []
    first, _ = train_scenes(router, Recipe(steps=2, batch=2), lines.append)
    again, _ = train_scenes(router, Recipe(steps=2, batch=2), lines.append)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())


def test_what_is_shipped_opens_again(tmp_path: Path) -> None:
    ship_scenes(tmp_path, Recipe(steps=2, batch=2), lambda line: None)
    for router in ROUTERS:
        scene = draw_scene(0)
        trace = open_scene_net(router, tmp_path).look(Photo.from_bytes(encode(scene.rgb, "PNG")), SIDE).trace
        assert [layer.spec.n_win for layer in trace.layers.values()] == [8, 8, 8]
