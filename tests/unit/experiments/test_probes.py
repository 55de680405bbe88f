"""Areas that two routings share, and what survives a changed picture, on cases one can draw on paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bra import BiLevelRoutingAttention, trace
from bra.errors import BRAError, GridError
from bra.experiments.probes import PROBES, probe
from bra.grid import WindowGrid
from bra.metrics.agreement import NOWHERE, even_places, shared, windows_at
from bra.models.catalog import ModelSettings
from bra.models.full_attention import FullAttention
from bra.opening import open_model
from bra.photo import Photo
from bra.tracing import LayerTrace


def routed(n_win: int, side: int, r_idx: list[list[int]]) -> LayerTrace:
    """A layer on an image of side·side pixels, 4 pixels a token, with the given routing."""
    layer = BiLevelRoutingAttention(4, n_win, 1, topk=len(r_idx[0]))
    lt = trace(layer, torch.rand(1, 4, side // 4, side // 4)).layers[""]
    return replace(lt, r_idx=torch.tensor(r_idx)[None],
                   grid=WindowGrid.over_image(side, side, side // 4, side // 4, n_win))


def test_windows_at_places_by_hand() -> None:
    grid = WindowGrid.over_image(40, 80, 5, 10, 2)          # 8 px a token, padded to 6×10: windows of 3×5 tokens
    places = np.array([[0.01, 0.01], [0.99, 0.01], [0.01, 0.55], [0.01, 0.65], [0.99, 0.99], [1.01, 0.5], [-0.01, 0]])
    assert windows_at(grid, places).tolist() == [0, 1, 0, 2, 3, NOWHERE, NOWHERE]   # row 3 of tokens begins at 24/40
    letterboxed = replace(grid, origin=(-16.0, 0.0))        # two rows of tokens lie above the picture
    assert windows_at(letterboxed, places[:4]).tolist() == [0, 1, 2, 2]
    with pytest.raises(GridError, match="no picture"):
        windows_at(replace(grid, image=None), places)


def test_shared_areas_of_different_grids_by_hand() -> None:
    # A: 2×2, each window reads itself. B: 4×4, each window reads itself and window 0.
    a, b = routed(2, 32, [[0], [1], [2], [3]]), routed(4, 32, [[n, 0 if n else 15] for n in range(16)])
    places = even_places(16, 16)
    found = shared(a, windows_at(a.grid, places), b, windows_at(b.grid, places))
    first, last = 0, 16 * 16 - 1
    # Top left: A a quarter; B two of 16, of which 15 is outside of A's.
    assert (found.both[first], found.only_a[first], found.only_b[first]) == (1 / 16, 3 / 16, 1 / 16)
    assert found.union_share[first] == 1 / 5
    # Bottom right: B reads 15, inside of A's quarter, and 0, outside.
    assert (found.both[last], found.only_a[last], found.only_b[last]) == (1 / 16, 3 / 16, 1 / 16)
    assert found.survived[last] == 1 / 4
    # Row 1, column 1 of B's windows: 5 and 0 lie both in A's quarter.
    inner = 16 * 4 + 4
    assert (found.both[inner], found.only_a[inner], found.only_b[inner]) == (2 / 16, 2 / 16, 0)


def test_what_b_did_not_see_does_not_count() -> None:
    a = routed(2, 32, [[0, 1], [1, 0], [2, 3], [3, 2]])
    places = even_places(8, 8)
    at = windows_at(a.grid, places)
    seen = np.where(places[:, 0] < 0.5, at, NOWHERE)            # the right half is gone
    found = shared(a, at, a, seen)
    assert np.isnan(found.survived[places[:, 0] > 0.5]).all()
    assert (found.both[places[:, 0] < 0.5] == 0.5).all()        # of the left half, one of two windows
    assert (found.survived[places[:, 0] < 0.5] == 1).all()


@pytest.mark.parametrize("name", list(PROBES))
def test_a_probe_moves_places_as_it_moves_pixels(name: str) -> None:
    """A picture of its own coordinates: the colour at the moved place must be that of the place."""
    y, x = np.mgrid[0:200, 0:240]
    rgb = np.stack([x, y, x * 0 + 100], -1).astype(np.uint8)
    one = PROBES[name]
    changed, places = one.change(rgb), even_places(40, 40)
    at = one.moved(places)
    inside = ((at >= 0) & (at < 1)).all(-1)
    assert inside.mean() > 0.5
    size = np.array(changed.shape[1::-1])
    col, row = (at[inside] * size).astype(int).T
    colour = changed[row, col, :2] / (0.6 if name == "brightness" else 1)
    np.testing.assert_allclose(colour, places[inside] * (240, 200), atol=2)


def twins() -> Photo:
    """4×4 patches of 32 px in eight colours, each twice."""
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 255, (8, 3), dtype=np.uint8)
    patches = colours[rng.permutation(np.repeat(np.arange(8), 2))].reshape(4, 4, 3)
    return Photo.from_array(patches.repeat(32, 0).repeat(32, 1))


class ByColour(torch.nn.Module):
    """Patches of 8 px as Fourier features of their colour: the product of two is largest for equal ones."""

    def __init__(self, topk: int) -> None:
        super().__init__()
        self.directions = 6 * torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
        self.attn = BiLevelRoutingAttention(64, 4, 1, topk=topk, param_attention="none", side_dwconv=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        phase = torch.nn.functional.avg_pool2d(x, 8).permute(0, 2, 3, 1) @ self.directions
        return self.attn(torch.cat([phase.cos(), phase.sin()], -1).permute(0, 3, 1, 2))


def test_a_router_by_colour_follows_colours_wherever_they_go() -> None:
    model = replace(open_model(ModelSettings()), module=ByColour(2).eval())
    rows = {row.probe: row for row in probe(model, twins(), 128)}
    for name in ("brightness", "flip", "swap"):                 # whole windows go to whole windows
        assert rows[name].survived == pytest.approx(1), name
        assert rows[name].chance == 2 / 16
    assert rows["brightness"].stayed == rows["brightness"].nearest == pytest.approx(1)
    for name in ("flip", "swap"):       # half of a pair is the window itself, which stays; a few twins swap places
        assert 0.5 <= rows[name].stayed < 0.75


def test_unknown_probes_and_models_without_routing_are_refused() -> None:
    model = open_model(ModelSettings())
    with pytest.raises(BRAError, match=r"'turn' is not known: choose of brightness, flip"):
        probe(model, twins(), 96, ("turn",))
    full = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, 8), FullAttention(8, 2)).eval()
    with pytest.raises(BRAError, match="no routed layer"):
        probe(replace(model, module=full), twins(), 96)
