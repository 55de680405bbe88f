"""The numbers about a routing, on a routing written down by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import bra
from bra import BiLevelRoutingAttention, BRASpec, LayerTrace, WindowGrid
from bra.fidelity import full_softmax, in_degree, kept_share, margin, padding_leak

LOGITS = [[3.0, 1, 0, 0], [0, 0, 0, 0], [math.log(6), math.log(2), 0, 0], [-5, 7, 6.5, 7.25]]
CHOSEN = [[0, 1], [2, 3], [0, 1], [3, 1]]


def by_hand(logits: list[list[float]] = LOGITS, chosen: list[list[int]] = CHOSEN, h: int = 4, w: int = 4) -> LayerTrace:
    """2×2 windows of 2×2 tokens with uniform attention: q and k are zero."""
    affinity, r_idx = torch.tensor([logits]), torch.tensor([chosen])
    spec = BRASpec(4, n_win=2, num_heads=2, topk=r_idx.shape[-1])
    zeros = torch.zeros(1, 2, 4, 4, 2)
    return LayerTrace("", spec, WindowGrid(h, w, 2), affinity, r_idx, affinity.gather(-1, r_idx).softmax(-1),
                      zeros, zeros, None, None, (torch.eye(2), torch.eye(2)))


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
