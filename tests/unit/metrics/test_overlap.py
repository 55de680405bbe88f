"""Semantic overlap on labels small enough to count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import bra
from bra import BiLevelRoutingAttention, BRAError, BRASpec, LayerTrace, WindowGrid
from bra.metrics.overlap import class_shares, label_map, semantic_overlap


def chosen_on(chosen: list[list[int]], grid: WindowGrid, masked: bool = False) -> LayerTrace:
    """A layer of which nothing matters but who chose whom."""
    r_idx, none = torch.tensor([chosen]), torch.zeros(0)
    spec = BRASpec(4, n_win=grid.n_win, num_heads=2, topk=r_idx.shape[-1], mask_padding=masked)
    return LayerTrace("", spec, grid, none, r_idx, none, none, none, none, None, None, None,
                      torch.from_numpy(grid.real_tokens) if masked else None, (none, none))


# 4×4 tokens in 2×2 windows. Sky above, 7 = a dog in half of window 3 and a quarter of window 2.
TOKENS = [[0, 0, 0, 0],
          [0, 0, 0, 0],
          [1, 1, 7, 7],
          [1, 7, 1, 1]]


def test_shares_of_classes_in_windows() -> None:
    shares = class_shares(WindowGrid(4, 4, 2), np.array(TOKENS))
    np.testing.assert_allclose(shares, [[1, 0, 0], [1, 0, 0], [0, 0.75, 0.25], [0, 0.5, 0.5]])


def test_overlap_is_the_intersection_with_the_windows_chosen() -> None:
    # Windows 0 and 1 are the same; 2 and 3 share 0.5 of class 1 and 0.25 of class 7.
    trace = chosen_on([[0, 1], [2, 1], [3, 0], [2, 3]], WindowGrid(4, 4, 2))
    found = semantic_overlap(trace, TOKENS)
    np.testing.assert_allclose(found.routed, [1, 0.5, 0.375, 0.875])
    np.testing.assert_allclose(found.chance, [0.5, 0.5, 1.75 / 4, 1.75 / 4])
    np.testing.assert_allclose(found.nearest, [1, 1, 0.5, 0.5])            # itself, then 1, 0, 0 (before 3) and 1
    np.testing.assert_allclose(found.oracle, [1, 1, 0.875, 0.875])
    assert found.to_dict() == pytest.approx({
        "routed": 2.75 / 4, "chance": 1.875 / 4, "nearest": 0.75, "oracle": 0.9375, "windows": 4})


@pytest.mark.parametrize("stride", [3, 8])
def test_a_map_of_pixels_gives_what_its_tokens_give(stride: int) -> None:
    grid = WindowGrid(4, 4, 2, (stride, stride), image=(4 * stride, 4 * stride))
    trace = chosen_on([[0, 1], [2, 1], [3, 0], [2, 3]], grid)
    pixels = np.kron(np.array(TOKENS), np.ones((stride, stride), int))
    assert semantic_overlap(trace, pixels).to_dict() == semantic_overlap(trace, TOKENS).to_dict()


def test_pixels_are_where_the_grid_lies_and_those_outside_are_left_out() -> None:
    # 2×2 tokens of 4 pixels from (2, 2) of an image of 12×10; the last rows lie below the map.
    grid = WindowGrid(2, 2, 2, (4, 4), (2, 2), (12, 10))
    pixels = np.full((12, 10), 9)
    pixels[2:10, 2:10] = np.kron(np.array([[1, 2], [3, 4]]), np.ones((4, 4), int))
    pixels[5, 5] = 2                                                      # the last pixel of the first token
    shares = class_shares(grid, pixels)
    np.testing.assert_allclose(shares, [[15 / 16, 1 / 16, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_what_is_ignored_is_in_no_histogram_and_windows_without_labels_in_no_mean() -> None:
    labels = np.array(TOKENS)
    labels[:2, 2:] = -1                                                   # all of window 1
    labels[3, 0] = -1                                                     # window 2: now 1 1 7
    found = semantic_overlap(chosen_on([[0, 1], [2, 1], [1, 3], [1, 1]], WindowGrid(4, 4, 2)), labels)
    both = 0.5 + 1 / 3                                                    # windows 2 and 3
    np.testing.assert_allclose(found.routed, [1, math.nan, both, math.nan])
    np.testing.assert_allclose(found.chance, [1 / 3, math.nan, (1 + both) / 3, (1 + both) / 3])
    np.testing.assert_allclose(found.nearest, [0.5, math.nan, 0.5, (1 + both) / 2])      # 3: itself, then 2, not 1
    np.testing.assert_allclose(found.oracle, [0.5, math.nan, (1 + both) / 2, (1 + both) / 2])
    means = found.to_dict()
    assert means["windows"] == 2                                          # 0 and 2 have all four
    assert means["routed"] == pytest.approx((1 + both) / 2)


@pytest.mark.filterwarnings("error")
def test_without_any_label_there_is_no_number() -> None:
    found = semantic_overlap(chosen_on([[0, 1]] * 4, WindowGrid(4, 4, 2)), np.full((4, 4), -1))
    assert found.to_dict() == {"routed": None, "chance": None, "nearest": None, "oracle": None, "windows": 0}


def test_a_pixel_belongs_to_the_token_under_its_centre() -> None:
    # Tokens of 1.6 pixels: centres 0.5 and 1.5 are in the first, 2.5 in the second, 3.5 and 4.5 in the third.
    shares = class_shares(WindowGrid(3, 3, 3, (1.6, 1.6), image=(5, 5)), np.arange(25).reshape(5, 5))
    assert [np.flatnonzero(row).tolist() for row in shares[:3]] == [[0, 1, 5, 6], [2, 7], [3, 4, 8, 9]]


def test_equally_near_windows_are_taken_by_index() -> None:
    classes = np.random.default_rng(0).integers(0, 2, (7, 7))
    found = semantic_overlap(chosen_on([[0, 1, 2]] * 49, WindowGrid(7, 7, 7)), classes)
    flat = classes.flatten()
    for one in range(49):
        near = sorted(range(49), key=lambda w, one=one: ((w // 7 - one // 7) ** 2 + (w % 7 - one % 7) ** 2, w))[:3]
        assert found.nearest[one] == pytest.approx((flat[near] == flat[one]).mean())


def test_padding_is_no_candidate_of_the_controls() -> None:
    grid = WindowGrid(4, 3, 3)                                            # windows of 2×1; the third row is padding
    labels = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 1], [0, 1, 1]])
    for masked in (False, True):
        found = semantic_overlap(chosen_on([[0]] * 9, grid, masked), labels)
        np.testing.assert_allclose(found.oracle, [1] * 6 + [math.nan] * 3)
        np.testing.assert_allclose(found.chance, [2 / 6, 3 / 6, 1 / 6, 2 / 6, 3 / 6, 3 / 6] + [math.nan] * 3)


def test_boxes_are_painted_the_smallest_on_top() -> None:
    grid = WindowGrid(2, 2, 2, (4, 4), image=(8, 8))
    boxes = np.array([[3, 1.0, 1.0, 2.0, 2.0], [0, 0, 0, 4, 8], [1, 3.4, 5.6, 99, 99]])    # on, under, over the edge
    expected = np.full((8, 8), 4)                                         # the background is a class above all others
    expected[:, :4] = 0
    expected[6:, 3:] = 1                                                  # from the pixel whose centre is inside
    expected[1, 1] = 3
    np.testing.assert_array_equal(label_map(grid, boxes), expected)
    expected[expected == 4] = -1
    np.testing.assert_array_equal(label_map(grid, boxes, background=False), expected)
    assert (label_map(grid, np.zeros((0, 5))) == 1).all()


def test_boxes_with_and_without_background() -> None:
    grid = WindowGrid(2, 2, 2, (4, 4), image=(8, 8))
    trace = chosen_on([[1], [0], [3], [2]], grid)
    boxes = [[0, 0.0, 0.0, 4.0, 2.0], [0, 4.0, 0.0, 8.0, 4.0]]            # half of window 0, all of window 1
    np.testing.assert_allclose(semantic_overlap(trace, boxes).routed, [0.5, 0.5, 1, 1])
    without = semantic_overlap(trace, boxes, background=False)
    np.testing.assert_allclose(without.routed, [1, 1, math.nan, math.nan])


@pytest.mark.parametrize(("labels", "words"), [
    (np.zeros((3, 3), int), r"\(3, 3\).* 8×8 pixels or 2×2 tokens"),
    (np.zeros((8, 8)), "float64 .*whole numbers"),
    (np.zeros(5), r"boxes \(n, 5\)"),
    ([[0, 4, 0, 1, 1]], "x0 ≤ x1"), ([[0, 0, 4, 1, 1]], "y0 ≤ y1"), ([[0.5, 0, 0, 1, 1]], "whole class"),
    ([[-1, 0, 0, 1, 1]], "whole class from 0"), ([[0, 0, math.nan, 1, 1]], "in pixels"),
    ([["cat", "0", "0", "1", "1"]], "boxes")])
def test_labels_that_fit_nothing_are_refused(labels: Any, words: str) -> None:
    grid = WindowGrid(2, 2, 2, (4, 4), image=(8, 8))
    with pytest.raises(BRAError, match=words):
        semantic_overlap(chosen_on([[0]] * 4, grid), labels)


def test_routing_by_class_beats_its_neighbours_and_random_choice_is_at_chance() -> None:
    # Four classes strewn over 8×8 windows; q = k = v = x is the class itself, so likeness is all the router sees.
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, (8, 8))
    x = torch.eye(4)[torch.from_numpy(classes)].permute(2, 0, 1)[None].repeat_interleave(2, -1).repeat_interleave(2, -2)
    m = BiLevelRoutingAttention(4, n_win=8, num_heads=1, topk=4, param_attention="none", side_dwconv=0)
    lt = bra.trace(m, x).layers[""]
    found = semantic_overlap(lt, np.kron(classes, np.ones((2, 2), int))).to_dict()
    assert found["routed"] == found["oracle"] == 1
    assert found["nearest"] is not None
    assert found["nearest"] < 0.6
    share = np.bincount(classes.flatten()) / 64
    assert found["chance"] == pytest.approx((share**2).sum())
