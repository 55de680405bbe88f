"""Do layers choose alike: by hand on two windows a side, and against places that lie evenly on the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bra
from bra import BiLevelRoutingAttention, LayerTrace
from bra.errors import GridError
from bra.grid import WindowGrid
from bra.metrics.agreement import even_places, random_union_share, shared, windows_at
from bra.metrics.between_layers import consecutive, overlap, overlaps, routed_layers, shared_areas, transferred
from bra.metrics.summary import report


def traced(n_win: int, topk: int, h: int = 12, w: int = 12, **options: Any) -> LayerTrace:
    m = BiLevelRoutingAttention(8, n_win, 2, topk=topk, **options).eval()
    return bra.trace(m, torch.rand(1, 8, h, w)).layers[""]


def routed_to(lt: LayerTrace, windows: list[list[int]]) -> LayerTrace:
    return replace(lt, r_idx=torch.tensor(windows)[None])


def test_areas_by_hand() -> None:
    two, three = WindowGrid(12, 12, 2, image=(12, 12)), WindowGrid(12, 12, 3, image=(12, 12))
    areas = shared_areas(two, three)            # windows of 6×6 and of 4×4 pixels
    assert areas[0].tolist() == [16, 8, 0, 8, 4, 0, 0, 0, 0]
    assert areas.sum() == 144
    padded = WindowGrid(10, 10, 3, image=(10, 10))      # 4, 4 and 2 of 4
    assert shared_areas(padded, padded).sum(1).tolist() == [16, 16, 8, 16, 16, 8, 8, 8, 4]
    letterboxed = WindowGrid(12, 12, 2, origin=(-2.0, 0.0), image=(8, 12))      # two rows of pixels above, two below
    assert shared_areas(letterboxed, WindowGrid(8, 12, 1, image=(8, 12))).tolist() == [[24]] * 4


def test_overlap_by_hand() -> None:
    a, b = routed_to(traced(2, 1), [[0], [1], [2], [3]]), routed_to(traced(2, 1), [[0], [0], [2], [2]])
    # Half of the picture is routed to the same window, the other half to another.
    assert overlap(a, b) == pytest.approx((0.5, 1 / 16 / (2 / 4 - 1 / 16)))
    wide = routed_to(traced(2, 2), [[0, 1], [1, 0], [2, 3], [3, 2]])
    assert overlap(a, wide)[0] == pytest.approx(0.5)            # a half of what the other sees, everywhere
    assert overlap(a, a)[0] == pytest.approx(1)


@pytest.mark.parametrize("sizes", [(3, 2, 13, 10), (4, 3, 13, 10), (7, 4, 28, 21)])
def test_overlap_is_that_of_places_all_over_the_picture(sizes: tuple[int, int, int, int]) -> None:
    n_win, topk, h, w = sizes
    a, b = traced(n_win, topk, h, w), traced(5, 6, 15, 15)
    a, b = (replace(lt, grid=WindowGrid.over_image(60, 60, lt.grid.h, lt.grid.w, lt.grid.n_win)) for lt in (a, b))
    places = even_places(240, 240)
    areas = shared(a, windows_at(a.grid, places), b, windows_at(b.grid, places))
    found, by_chance = overlap(a, b)
    assert found == pytest.approx(np.nanmean(areas.union_share), abs=0.01)
    in_a, in_b = areas.both + areas.only_a, areas.both + areas.only_b
    assert by_chance == pytest.approx(np.nanmean(random_union_share(in_a, in_b)), abs=0.01)


def test_a_choice_is_carried_to_the_same_places() -> None:
    a, b = routed_to(traced(2, 1), [[3], [0], [0], [0]]), traced(4, 4)
    found = transferred(a, b)
    assert sorted(found[0].tolist()) == [10, 11, 14, 15]        # the lower right quarter of 4×4
    assert sorted(found[3].tolist()) == [0, 1, 4, 5]
    same = routed_to(traced(3, 2), [[n, (n + 4) % 9] for n in range(9)])
    assert [set(row) for row in transferred(same, traced(3, 2)).tolist()] == [{n, (n + 4) % 9} for n in range(9)]
    # Of more windows than the other layer was routed to, the nearest ones fill up.
    assert transferred(routed_to(traced(3, 1), [[8]] * 9), traced(3, 3))[0].tolist() == [8, 0, 1]


def test_consecutive_layers_of_a_model() -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (BiLevelRoutingAttention(8, n, 2, topk=2) for n in (3, 4))
            self.all = BiLevelRoutingAttention(8, 2, 2, topk=4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.all(self.a(x)))

    layers = bra.trace(Three().eval(), torch.rand(2, 8, 12, 12)).layers
    assert [lt.name for lt in routed_layers(layers)] == ["a", "b"]          # what drops nothing is left out
    (pair,) = consecutive(layers, image=1)
    assert (pair.before, pair.layer) == ("a", "b")
    assert (pair.overlap, pair.chance) == overlap(layers["a"], layers["b"], 1)
    assert pair.recall == pytest.approx(report(layers["b"], 1).recall)
    taken = transferred(layers["a"], layers["b"], 1)
    as_if = replace(layers["b"], r_idx=torch.from_numpy(np.stack([taken, taken])))
    assert pair.carried == pytest.approx(report(as_if, 1).recall)
    assert pair.lost == pair.recall - pair.carried
    matrix = overlaps(routed_layers(layers), 1)
    assert matrix.tolist() == [[1, pair.overlap], [pair.overlap, 1]]


def test_who_is_routed_to_padding_alone_has_no_overlap() -> None:
    grid = WindowGrid(4, 4, 3, image=(4, 4))                     # the last row and column of 3×3 windows are padding
    a, b = (replace(routed_to(traced(3, 1), [[n] for n in windows]), grid=grid) for windows in
            ([8] * 9, [0, 0, 0, 8, 8, 8, 8, 8, 8]))
    assert np.isnan(overlap(a, a)).all()
    assert overlap(b, b)[0] == 1                                 # from the upper half
    assert overlap(a, b)[0] == 0
    assert overlaps([a, a])[0].tolist() == pytest.approx([1, np.nan], nan_ok=True)


def test_layers_of_different_pictures_are_not_compared() -> None:
    a, b = traced(2, 1), traced(2, 1, 16, 16)
    with pytest.raises(GridError, match="different pictures"):
        overlap(a, b)
    assert np.isnan(overlaps([a, b])[0, 1])


def test_masked_padding_takes_over_no_choice() -> None:
    b = traced(5, 3, 16, 16, mask_padding=True)
    b = replace(b, grid=WindowGrid.over_image(16, 16, 16, 16, 5))
    a = replace(traced(2, 1, 16, 16), grid=WindowGrid.over_image(16, 16, 16, 16, 2))
    mapped = ~b.grid.padding_windows
    assert mapped[transferred(a, b)[mapped]].all()
