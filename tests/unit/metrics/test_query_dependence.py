"""How much of a routing depends on the query, on affinities that can be worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bra import BRASpec, LayerTrace, WindowGrid
from bra.metrics.query_dependence import (
    choices_without_hubs,
    collapsed,
    collapsed_by,
    query_dependence,
    query_dependence_of,
    without_hubs,
)


def layer_of(affinity: torch.Tensor, topk: int, h: int = 8, w: int = 8, masked: bool = False) -> LayerTrace:
    n_win, none = math.isqrt(affinity.shape[-1]), torch.zeros(0)
    grid = WindowGrid(h, w, n_win)
    spec = BRASpec(4, n_win=n_win, num_heads=2, topk=topk, mask_padding=masked)
    r_idx = affinity.topk(topk, -1).indices
    return LayerTrace("", spec, grid, affinity[None], r_idx[None], none, none, none, none, None, None, None,
                      torch.from_numpy(grid.real_tokens) if masked else None, (none, none))


def test_the_two_effects_of_a_small_matrix() -> None:
    # Rows 10 + (1, -1) and 20 + (3, -3): after row means (1, -1), (3, -3); column means (2, -2).
    # All: 1 + 1 + 9 + 9 = 20; columns: 2 · (4 + 4) = 16; so 1 − 16/20.
    assert query_dependence_of(np.array([[11.0, 9], [23, 17]])) == pytest.approx(0.2)
    assert query_dependence_of(np.array([[1.0, 5, 2]] * 3)) == pytest.approx(0.0)
    assert query_dependence_of(np.eye(4)) == pytest.approx(1.0)
    assert math.isnan(query_dependence_of(np.full((3, 3), 7.0)))


def test_it_agrees_with_the_sums_of_squares_of_a_two_way_table() -> None:
    a = np.random.default_rng(0).normal(size=(9, 9)) + 3 * np.random.default_rng(1).normal(size=9)
    rows, columns = a.mean(1), a.mean(0)
    column_effect = sum(9 * (c - a.mean()) ** 2 for c in columns)
    rest = sum((a[i, j] - rows[i] - columns[j] + a.mean()) ** 2 for i in range(9) for j in range(9))
    assert query_dependence_of(a) == pytest.approx(rest / (rest + column_effect))
    assert 0.05 < query_dependence_of(a) < 0.5


@pytest.mark.parametrize("scale", [1e-3, 40.0])
def test_neither_scale_nor_row_offsets_change_it(scale: float) -> None:
    a = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).double()
    moved = scale * a + torch.arange(16.0)[:, None]
    assert query_dependence(layer_of(moved, 2)) == pytest.approx(query_dependence(layer_of(a, 2)))


def test_padding_neither_asks_nor_answers_where_it_is_masked() -> None:
    a = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).double()
    # 16 windows of 1×2 tokens on a map of 4×6: columns 0 to 2 of windows are on it.
    on_map = [r * 4 + c for r in range(4) for c in range(3)]
    trace = layer_of(torch.where(torch.isin(torch.arange(16), torch.tensor(on_map)), a, -math.inf), 2, 4, 6, True)
    assert query_dependence(trace) == pytest.approx(query_dependence_of(a.numpy()[np.ix_(on_map, on_map)]))
    assert np.isneginf(without_hubs(trace)[:, 3]).all()


def test_without_its_hub_each_window_chooses_itself() -> None:
    affinity = torch.eye(16).double()
    affinity[:, 5] += 10
    trace = layer_of(affinity, 1)
    assert trace.r_idx[0, :, 0].tolist() == [5] * 16
    assert choices_without_hubs(trace)[:, 0].tolist() == list(range(16))
    np.testing.assert_allclose(without_hubs(trace), np.eye(16) - 1 / 16, atol=1e-12)


def test_a_collapsed_layer_is_told_from_one_that_answers() -> None:
    hub = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).double()
    hub[:, :4] += 20 + torch.arange(4.0)
    hub[:, 4:24] += 10
    assert collapsed(layer_of(hub, 4))
    assert not collapsed(layer_of(torch.eye(64).double(), 4))
    assert collapsed(layer_of(hub, 24))
    assert not collapsed(layer_of(hub, 64))                 # all windows are chosen: nothing could be routed otherwise
    assert not collapsed_by(0.6, 0.1, 0.4)                  # a third of the way from even to the same for all
    assert collapsed_by(0.75, 0.1, 0.4)
    assert not collapsed_by(0.75, 0.5, 0.4)


def test_where_all_windows_are_wanted_equally_shared_choices_decide() -> None:
    assert collapsed_by(0.9, math.nan, 0.1)
    assert not collapsed_by(0.2, math.nan, 0.1)
    assert not collapsed_by(0.9, 0.4, 0.1)
