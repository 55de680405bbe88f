"""The numbers about a routing, on a routing written down by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import bra
from bra import BiLevelRoutingAttention, BRASpec, LayerTrace, WindowGrid
from bra.metrics.routing import (
    chance,
    chosen_padding,
    full_softmax,
    hubs,
    in_degree,
    in_degree_skew,
    kept_share,
    margin,
    mean_distance,
    nearest_windows,
    never_chosen,
    padding_leak,
    routing_entropy,
    self_routed,
    shared_choices,
    window_distances,
)

LOGITS = [[3.0, 1, 0, 0], [0, 0, 0, 0], [math.log(6), math.log(2), 0, 0], [-5, 7, 6.5, 7.25]]
CHOSEN = [[0, 1], [2, 3], [0, 1], [3, 1]]


def by_hand(logits: list[list[float]] = LOGITS, chosen: list[list[int]] = CHOSEN, h: int = 4, w: int = 4) -> LayerTrace:
    """2×2 windows of 2×2 tokens with uniform attention: q and k are zero."""
    affinity, r_idx, grid = torch.tensor([logits]), torch.tensor([chosen]), WindowGrid(h, w, 2)
    spec = BRASpec(4, n_win=2, num_heads=2, topk=r_idx.shape[-1])
    zeros = torch.zeros(1, 2, 4, 4, 2)
    return LayerTrace("", spec, grid, affinity, r_idx, affinity.gather(-1, r_idx).softmax(-1), q=zeros, k=zeros,
                      v=zeros, lepe=None, wo=None, factor=None, real_keys=None, support=(torch.eye(2), torch.eye(2)))


def chosen_on(chosen: list[list[int]], n_win: int, h: int, w: int, stride: tuple[float, float] = (1, 1),
              masked: bool = False) -> LayerTrace:
    """A layer of which nothing matters but who chose whom."""
    r_idx, grid, none = torch.tensor([chosen]), WindowGrid(h, w, n_win, stride), torch.zeros(0)
    spec = BRASpec(4, n_win=n_win, num_heads=2, topk=r_idx.shape[-1], mask_padding=masked)
    return LayerTrace("", spec, grid, torch.zeros(1, n_win**2, n_win**2), r_idx, none, none, none, none, None, None,
                      None, torch.from_numpy(grid.real_tokens) if masked else None, (none, none))


def test_full_softmax_counts_the_rejected_windows_too() -> None:
    np.testing.assert_allclose(full_softmax(by_hand())[2], [0.6, 0.2, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(full_softmax(by_hand()).sum(-1), 1)


def test_kept_share_is_what_r_weight_hides() -> None:
    trace = by_hand()
    share = kept_share(trace)
    assert share[1] == pytest.approx(2 / 4)            # all alike: chance
    assert share[2] == pytest.approx(0.8)
    torch.testing.assert_close(trace.r_weight.sum(-1), torch.ones(1, 4))


def test_margin_is_the_step_from_the_last_chosen_to_the_first_rejected() -> None:
    np.testing.assert_allclose(margin(by_hand()), [1, 0, math.log(2), 0.5], atol=1e-6)


def test_margin_without_rejected_windows_is_nan_and_before_masked_ones_infinite() -> None:
    everything = by_hand(chosen=[[0, 1, 2, 3]] * 4)
    assert np.isnan(margin(everything)).all()
    np.testing.assert_allclose(kept_share(everything), 1)
    masked = by_hand(logits=[[1.0, 2, -math.inf, -math.inf]] * 4, chosen=[[1, 0]] * 4)
    assert np.isposinf(margin(masked)).all()
    np.testing.assert_allclose(kept_share(masked), 1)


@pytest.mark.filterwarnings("error")
def test_margin_is_nan_when_masked_padding_was_chosen_and_rejected() -> None:
    none_left = by_hand(logits=[[1.0, -math.inf, -math.inf, -math.inf]] * 4, chosen=[[0, 1]] * 4)
    assert np.isnan(margin(none_left)).all()


def test_in_degree_counts_who_is_read() -> None:
    assert in_degree(by_hand()).tolist() == [2, 3, 1, 2]
    lt = bra.trace(BiLevelRoutingAttention(16, n_win=5, topk=3, num_heads=2), torch.rand(2, 16, 10, 10)).layers[""]
    for image in (0, 1):
        assert in_degree(lt, image).shape == (25,)
        assert in_degree(lt, image).sum() == 25 * 3


def test_padding_leak_of_uniform_attention_is_the_share_of_padded_tokens() -> None:
    # 3×4 tokens padded to 4×4: in windows 2 and 3 half of the tokens are padding.
    trace = by_hand(h=3, w=4, chosen=[[0, 1], [2, 3], [0, 2], [3, 1]])
    assert [padding_leak(trace, window) for window in range(4)] == pytest.approx([0, 0.5, 0.25, 0.25])


def test_masked_padding_does_not_leak() -> None:
    x = torch.randn(1, 16, 5, 5)
    for masked in (False, True):
        lt = bra.trace(BiLevelRoutingAttention(16, n_win=3, num_heads=2, mask_padding=masked), x).layers[""]
        leak = [padding_leak(lt, window) for window in range(9)]
        assert max(leak) == pytest.approx(0, abs=1e-6) if masked else max(leak) > 0.05


def test_entropy_is_1_when_all_windows_are_alike_and_counts_only_those_that_may_be_chosen() -> None:
    entropy = routing_entropy(by_hand())
    assert entropy[1] == pytest.approx(1)
    by_hand_too = -(0.6 * math.log(0.6) + 0.2 * math.log(0.2) + 2 * 0.1 * math.log(0.1)) / math.log(4)
    assert entropy[2] == pytest.approx(by_hand_too)
    masked = chosen_on([[0]] * 9, 3, 4, 3, masked=True)                   # windows of 2×1; the third row is padding
    masked.affinity[0, :, 6:] = -math.inf
    np.testing.assert_allclose(routing_entropy(masked), 1)


def test_chance_counts_the_windows_that_may_be_chosen() -> None:
    assert chance(chosen_on([[0, 1]] * 9, 3, 9, 9)) == pytest.approx(2 / 9)
    assert chance(chosen_on([[0, 1]] * 9, 3, 4, 3)) == pytest.approx(2 / 9)              # padding may be chosen
    assert chance(chosen_on([[0, 1]] * 9, 3, 4, 3, masked=True)) == pytest.approx(2 / 6)
    assert chance(chosen_on([[*range(8)]] * 9, 3, 4, 3, masked=True)) == 1


def test_nearest_windows_begin_with_the_window_itself_and_break_ties_by_index() -> None:
    square = nearest_windows(chosen_on([[0, 1, 2]] * 9, 3, 9, 9))
    assert square[[0, 4, 8]].tolist() == [[0, 1, 3], [4, 1, 3], [8, 5, 7]]
    wide = nearest_windows(chosen_on([[0, 1, 2]] * 9, 3, 3, 9))                          # windows of 1×3 tokens
    assert wide[[0, 4, 8]].tolist() == [[0, 3, 6], [4, 1, 7], [8, 5, 2]]
    tall = nearest_windows(chosen_on([[0, 1, 2]] * 9, 3, 3, 9, stride=(8, 2)))           # of 8×6 pixels
    assert tall[4].tolist() == [4, 3, 5]
    masked = nearest_windows(chosen_on([[0, 1, 2]] * 9, 3, 4, 3, masked=True))           # of 2×1 tokens; 6, 7, 8 empty
    assert masked[[3, 4]].tolist() == [[3, 4, 0], [4, 3, 5]]
    assert masked[8].tolist() == [5, 4, 3]                                               # at 2, √5 and √8 tokens
    assert nearest_windows(chosen_on([[0, 1, 2]] * 9, 3, 4, 3))[4].tolist() == [4, 3, 5]


def test_distances_are_pixels_between_centres() -> None:
    trace = chosen_on([[0, 8]] * 9, 3, 9, 6, stride=(4, 8))                              # windows of 3×2: 12×16 px
    assert window_distances(trace)[0, [0, 1, 3, 4]] == pytest.approx([0, 16, 12, 20])
    assert mean_distance(trace)[[0, 4, 8]] == pytest.approx([20, 20, 20])
    assert mean_distance(trace, windows=nearest_windows(trace))[[0, 4]] == pytest.approx([6, 6])


def test_self_routing_hubs_and_windows_that_nobody_reads() -> None:
    trace = chosen_on([[0, 4], [4, 0], [4, 2], [4, 1], [4, 0], [4, 5], [4, 0], [4, 1], [4, 2]], 3, 9, 9)
    assert self_routed(trace).tolist() == [True, False, True, False, True, True, False, False, False]
    degree = [4, 2, 2, 0, 9, 1, 0, 0, 0]
    assert in_degree(trace).tolist() == degree
    assert np.flatnonzero(never_chosen(trace)).tolist() == [3, 6, 7, 8]
    assert shared_choices(trace) == pytest.approx((9 + 4) / 18)
    # Mean 2, variance (4 + 0 + 0 + 4 + 49 + 1 + 4 + 4 + 4) / 9 = 70/9: above 2 + 2·2.79 is only the 9.
    assert np.flatnonzero(hubs(trace)).tolist() == [4]
    assert in_degree_skew(trace) == pytest.approx((8 + 0 + 0 - 8 + 343 - 1 - 8 - 8 - 8) / 9 / (70 / 9) ** 1.5)


def test_an_even_routing_has_no_hubs_and_no_skew() -> None:
    even = chosen_on([[n, (n + 1) % 9] for n in range(9)], 3, 9, 9)
    assert not hubs(even).any()
    assert in_degree_skew(even) == 0
    assert shared_choices(even) == pytest.approx(2 / 9)
    assert shared_choices(chosen_on([[3, 5]] * 9, 3, 9, 9)) == 1
    assert not never_chosen(even).any()


def test_chosen_windows_that_are_padding_by_hand() -> None:
    # 4×3 tokens in windows of 2×1: windows 6, 7, 8 are padding. Choices there: 2, 1, 0, 0, 1 and 2.
    trace = chosen_on([[6, 7], [0, 8], [1, 2], [3, 4], [6, 5], [7, 8], [6, 7], [6, 7], [6, 7]], 3, 4, 3)
    assert chosen_padding(trace) == pytest.approx((2 + 1 + 0 + 0 + 1 + 2) / 6)
    assert chosen_padding(chosen_on([[3, 5]] * 9, 3, 9, 9)) == 0


def test_what_padding_chooses_and_that_nobody_reads_it_is_not_counted() -> None:
    # 4×3 tokens in windows of 2×1: windows 6, 7, 8 are padding, and choose 2. Nobody on the map does.
    trace = chosen_on([[0], [1], [3], [3], [4], [5], [2], [2], [2]], 3, 4, 3)
    assert np.flatnonzero(never_chosen(trace)).tolist() == [2]
    assert in_degree(trace)[2] == 3
    assert in_degree_skew(trace) == pytest.approx((0 + 0 - 1 + 1 + 0 + 0) / 6)           # degrees 1 1 0 2 1 1


def test_hubs_stand_out_from_windows_on_the_map_only() -> None:
    # Degrees 0 0 3 1 1 1 have mean 1 and deviation 1; with the three 0 of the padding, 3 would stand out.
    assert not hubs(chosen_on([[2], [2], [2], [3], [4], [5], [2], [2], [2]], 3, 4, 3)).any()
    assert np.flatnonzero(hubs(chosen_on([[2], [2], [2], [2], [4], [5], [6], [7], [8]], 3, 4, 3))).tolist() == [2]
