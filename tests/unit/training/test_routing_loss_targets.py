"""The routing loss and its targets: by hand, against slow versions, and that a router learns from it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bra
from bra import BiLevelRoutingAttention, BRAError
from bra.metrics.dense import dense_attention
from bra.metrics.overlap import _intersections, class_shares, label_map
from bra.recorder import Capture, recording
from bra.training import AttentionTarget, BoxTarget, LabelTarget, TeacherTarget, routing_loss
from bra.training.routing import window_means


def captured(layer: BiLevelRoutingAttention, x: torch.Tensor, gradient: bool = True) -> list[Capture]:
    with recording(gradient=gradient) as recorder:
        layer(x)
    return recorder.captures


def layer_of(n_win: int = 3, topk: int = 2, **options: object) -> BiLevelRoutingAttention:
    torch.manual_seed(0)
    return BiLevelRoutingAttention(16, n_win, 2, topk=topk, **options)  # type: ignore[arg-type]


def test_it_is_the_cross_entropy_of_each_row() -> None:
    layer, x = layer_of(), torch.rand(2, 16, 9, 12)
    target = torch.rand(2, 9, 9)
    target[0, 3] = 0                                        # nothing is known of this one
    captures = captured(layer, x)
    share = captures[0].affinity.double().softmax(-1)
    by_hand = [-(target[b, i] * share[b, i].log()).sum() for b in range(2) for i in range(9) if target[b, i].sum()]
    assert routing_loss(captures, target).item() == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)
    trace = bra.trace(layer, x)
    assert routing_loss(trace, target).item() == pytest.approx(routing_loss(captures, target).item(), rel=1e-6)
    assert routing_loss(trace.layers, target).equal(routing_loss(trace, target))
    even = [layer_of_zeros(captures[0])]
    rows = target / target.sum(-1, keepdim=True).clamp(min=1e-9)
    assert routing_loss(even, rows).item() == pytest.approx(math.log(9), rel=1e-5)


def layer_of_zeros(capture: Capture) -> Capture:
    return Capture(capture.layer, capture.spec, capture.kv_pool, capture.wo, capture.size, capture.q, capture.k,
                   capture.v, None, torch.zeros_like(capture.affinity), capture.r_weight, capture.r_idx, None, None)


def test_requests_that_fit_nothing_are_refused() -> None:
    captures = captured(layer_of(), torch.rand(1, 16, 9, 9))
    with pytest.raises(BRAError, match=r"shape \(1, 4, 4\) does not fit affinities of shape \(1, 9, 9\)"):
        routing_loss(captures, torch.ones(1, 4, 4))
    with pytest.raises(BRAError, match="no routed layer was recorded"):
        routing_loss([], torch.ones(1, 9, 9))


@pytest.mark.parametrize("options", [{}, {"diff_routing": True}, {"soft_routing": True}, {"mask_padding": True},
                                        {"kv_downsample_mode": "maxpool", "kv_downsample_ratio": 2}])
def test_gradient_flows_and_the_output_stays(options: dict[str, object]) -> None:
    layer, x = layer_of(**options), torch.rand(1, 16, 11, 12)
    plain = layer(x)
    with recording(gradient=True) as recorder:
        listened = layer(x)
    assert listened.equal(plain)
    layer.zero_grad()
    routing_loss(recorder.captures, LabelTarget(torch.randint(0, 3, (1, 44, 48)))).backward()
    weight = layer.qkv.qkv.weight.grad
    assert weight[:32].abs().max() > 0                      # q and k
    assert weight[32:].abs().max() == 0                     # not v
    assert captured(layer, x, gradient=False)[0].affinity.requires_grad is bool(options.get("diff_routing"))


def test_the_gradient_of_the_output_is_what_it_was() -> None:
    x = torch.rand(1, 16, 9, 9)
    grads = []
    for gradient in (False, True):
        layer = layer_of(soft_routing=True)
        with recording(gradient=gradient):
            layer(x).square().sum().backward()
        grads.append(layer.qkv.qkv.weight.grad)
    assert grads[0].equal(grads[1])


@pytest.mark.parametrize(("size", "pixels"), [((9, 9), (36, 36)), ((8, 11), (32, 44)), ((8, 11), (8, 11))])
def test_a_target_of_labels_is_the_squared_intersection(size: tuple[int, int], pixels: tuple[int, int]) -> None:
    layer, x = layer_of(), torch.rand(1, 16, *size)
    labels = torch.randint(-1, 4, (1, *pixels), generator=torch.Generator().manual_seed(1))
    labels[0, : pixels[0] // 3, : pixels[1] // 2] = -1
    found = LabelTarget(labels)(captured(layer, x)[0])[0].numpy()
    grid = bra.trace(layer, x).layers[""].grid
    if pixels != size:
        grid = replace(grid, stride=(pixels[0] / size[0], pixels[1] / size[1]), image=pixels)
    alike = np.nan_to_num(_intersections(class_shares(grid, labels[0].numpy()))) ** 2
    total = alike.sum(-1, keepdims=True)
    np.testing.assert_allclose(found, np.divide(alike, total, out=np.zeros_like(alike), where=total > 0), atol=1e-6)


def test_boxes_are_painted_as_the_overlap_paints_them() -> None:
    layer, x = layer_of(4), torch.rand(2, 16, 64, 64)
    draw = np.random.default_rng(0)
    boxes = np.concatenate([draw.uniform(0.2, 0.8, (7, 2)), draw.uniform(0.05, 0.6, (7, 2))], 1)
    images, classes = torch.tensor([1, 0, 1, 1, 0, 0, 1]), torch.tensor([0, 2, 1, 1, 0, 2, 2])
    target = BoxTarget(images, classes, torch.from_numpy(boxes), 2)
    painted = target.painted(64, 64, 3)
    grid = bra.trace(layer, x).layers[""].grid
    for n in range(2):
        mine = boxes[images.numpy() == n]
        corners = np.concatenate([classes[images == n].numpy()[:, None], 64 * (mine[:, :2] - mine[:, 2:] / 2),
                                  64 * (mine[:, :2] + mine[:, 2:] / 2)], 1)
        corners = np.vstack([corners, [[2, 70, 70, 80, 80]]])       # off the picture: background is class 3 in both
        assert (painted[n].int().argmax(0).numpy() == label_map(grid, corners)).all()
    labels = painted.int().argmax(1).long()
    capture = captured(layer, x)[0]
    torch.testing.assert_close(target(capture), LabelTarget(labels)(capture))
    nothing = BoxTarget(images[:0], classes[:0], torch.zeros(0, 4), 2)(capture)
    torch.testing.assert_close(nothing, torch.full_like(nothing, 1 / 16))       # all background: all alike


def test_a_teachers_target_is_the_softmax_of_centred_cosines() -> None:
    layer, x = layer_of(), torch.rand(2, 16, 9, 9)
    features = torch.rand(2, 5, 18, 18)
    found = TeacherTarget(features, 0.2)(captured(layer, x)[0])
    means = F.avg_pool2d(features, 6).flatten(2).mT.double()
    for b in range(2):
        off = means[b] - means[b].mean(0)
        for i in range(9):
            cosines = torch.stack([F.cosine_similarity(off[i], off[j], dim=0) for j in range(9)])
            torch.testing.assert_close(found[b, i].double(), (cosines / 0.2).softmax(0), atol=1e-5, rtol=1e-4)
    two = TeacherTarget((features, features), 0.2)(captured(layer, x)[0])
    torch.testing.assert_close(two, found)


def test_windows_of_padding_are_not_asked_for_and_do_not_ask() -> None:
    layer, x = layer_of(4), torch.rand(1, 16, 4, 9)         # windows of 1×3 tokens: the fourth column is padding
    padding = torch.tensor([3, 7, 11, 15])
    capture = captured(layer, x)[0]
    for target in (TeacherTarget(torch.rand(1, 5, 8, 18)), AttentionTarget(), LabelTarget(torch.ones(1, 8, 18).long())):
        found = target(capture)
        assert found[:, padding].abs().sum() == 0
        assert found[:, :, padding].abs().sum() == 0
        assert found.sum(-1).sum() == pytest.approx(12, rel=1e-5)


def test_a_coarse_map_is_interpolated_to_the_layers_own() -> None:
    means, known = window_means(torch.arange(4.0).view(1, 1, 2, 2), (8, 8), 4)
    assert known.all()
    wanted = F.interpolate(torch.arange(4.0).view(1, 1, 2, 2), (8, 8), mode="bilinear")
    torch.testing.assert_close(means[0, :, 0], F.avg_pool2d(wanted, 2).flatten())


def test_the_attention_target_is_the_mass_of_full_attention() -> None:
    layer, x = layer_of(), torch.rand(1, 16, 9, 9)
    trace = bra.trace(layer, x).layers[""]
    found = AttentionTarget()(trace)[0].double().numpy()
    np.testing.assert_allclose(found, dense_attention(trace).mass.mean(0), atol=1e-6)


def test_a_router_learns_to_bring_like_to_like() -> None:
    torch.manual_seed(0)
    layer = BiLevelRoutingAttention(16, 4, 2, topk=4)
    optimizer = torch.optim.Adam(layer.parameters(), 3e-3)
    colours = torch.randn(4, 16)

    def scene() -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 4, (4, 4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
        return (colours[labels] + 0.3 * torch.randn(4, 16, 16, 16)).movedim(-1, 1), labels

    def right() -> float:
        x, labels = scene()
        by_window = labels[:, ::4, ::4].flatten(1)
        chosen = captured(layer, x)[0].r_idx[:, :, 0]
        return (by_window.gather(1, chosen) == by_window).double().mean().item()

    before = np.mean([right() for _ in range(5)])
    for _ in range(120):
        x, labels = scene()
        optimizer.zero_grad()
        routing_loss(captured(layer, x), LabelTarget(labels)).backward()
        optimizer.step()
    after = np.mean([right() for _ in range(5)])
    assert before < 0.6
    assert after > 0.95
