"""Geometry: each mapping and its way back, on any grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bra import WindowGrid, functional
from bra.errors import BRAError, GridError

sizes = st.integers(1, 24)
steps = st.sampled_from([0.5, 1.0, 3.0, 8.0, 7.25])
grids = st.builds(WindowGrid, sizes, sizes, st.integers(1, 9), st.tuples(steps, steps),
                  st.tuples(st.integers(-9, 9), st.integers(-9, 9)))


@given(grids, st.data())
def test_token_and_window_lead_to_one_another(grid: WindowGrid, data: st.DataObject) -> None:
    row, col = data.draw(st.integers(0, grid.H - 1)), data.draw(st.integers(0, grid.W - 1))
    window, token = grid.window_of_token(row, col)
    assert 0 <= window < grid.n_windows
    assert 0 <= token < grid.n_tokens
    assert grid.token_of_window(window, token) == (row, col)


@given(grids)
def test_every_window_and_token_is_met_once(grid: WindowGrid) -> None:
    met = {grid.token_of_window(i, t) for i in range(grid.n_windows) for t in range(grid.n_tokens)}
    assert met == {(row, col) for row in range(grid.H) for col in range(grid.W)}


@given(grids, st.integers(0, 2))
def test_pad_and_crop_lead_to_one_another(grid: WindowGrid, lead: int) -> None:
    tokens = np.random.default_rng(0).uniform(1, 2, (2,) * lead + (grid.h, grid.w))
    padded = grid.pad(tokens)
    assert padded.shape[-2:] == (grid.H, grid.W)
    assert padded.sum() == pytest.approx(tokens.sum())
    np.testing.assert_array_equal(grid.crop(padded), tokens)


@given(grids, st.integers(0, 2))
def test_to_windows_and_to_map_lead_to_one_another(grid: WindowGrid, lead: int) -> None:
    tokens = np.arange(2**lead * grid.H * grid.W).reshape((2,) * lead + (grid.H, grid.W))
    np.testing.assert_array_equal(grid.to_map(grid.to_windows(tokens)), tokens)


@given(grids)
def test_to_windows_numbers_tokens_as_window_of_token_does(grid: WindowGrid) -> None:
    windows = grid.to_windows(np.arange(grid.H * grid.W).reshape(grid.H, grid.W))
    for window in range(grid.n_windows):
        for token in range(grid.n_tokens):
            assert divmod(windows[window, token], grid.W) == grid.token_of_window(window, token)


@given(grids)
def test_to_windows_cuts_as_the_attention_does(grid: WindowGrid) -> None:
    tokens = np.arange(grid.H * grid.W).reshape(grid.H, grid.W)
    cut = functional.partition(torch.from_numpy(tokens)[None, ..., None], grid.n_win)
    np.testing.assert_array_equal(grid.to_windows(tokens), cut.flatten(2)[0].numpy())
    np.testing.assert_array_equal(grid.to_map(grid.to_windows(tokens)),
                                  functional.unpartition(cut, grid.n_win)[0, ..., 0].numpy())


@given(grids, st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_pixel_lies_in_the_boxes_of_its_token_and_window(grid: WindowGrid, down: float, across: float) -> None:
    top, left, bottom, right = grid.box()
    y, x = top + down * (bottom - top), left + across * (right - left)
    if y >= bottom or x >= right:     # rounding carried the pixel over the edge
        return
    row, col = grid.token_of_pixel(y, x)
    window, token = grid.window_of_pixel(y, x)
    assert grid.token_of_window(window, token) == (row, col)
    for y0, x0, y1, x1 in (grid.box_of_token(row, col), grid.box_of_window(window)):
        assert y0 <= y < y1
        assert x0 <= x < x1


@given(grids)
def test_boxes_of_windows_tile_the_box_of_the_map(grid: WindowGrid) -> None:
    boxes = [grid.box_of_window(i) for i in range(grid.n_windows)]
    top, left, bottom, right = grid.box()
    assert boxes[0][:2] == (top, left)
    assert boxes[-1][2:] == (bottom, right)
    area = sum((y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in boxes)
    assert area == pytest.approx((bottom - top) * (right - left))


@given(grids)
def test_the_padding_is_what_the_map_does_not_fill(grid: WindowGrid) -> None:
    assert grid.H % grid.n_win == grid.W % grid.n_win == 0
    assert 0 <= grid.pad_b < grid.n_win
    assert 0 <= grid.pad_r < grid.n_win
    assert int(grid.real_tokens.sum()) == grid.h * grid.w
    assert grid.padding_share == pytest.approx(1 - grid.real_tokens.mean())
    np.testing.assert_array_equal(grid.padding_windows, grid.real_tokens.sum(-1) == 0)


def test_a_grid_one_can_count() -> None:
    grid = WindowGrid(20, 20, 8)                      # 24×24 tokens, windows of 3×3
    assert (grid.H, grid.W, grid.window_h, grid.n_tokens, grid.n_windows) == (24, 24, 3, 9, 64)
    assert int(grid.padding_windows.sum()) == 15      # the last row and column of 8 windows
    assert grid.padding_share == pytest.approx(1 - 400 / 576)
    assert grid.window_of_token(4, 3) == (8 + 1, 3)   # second row of windows, second window, its second row
    assert WindowGrid(9, 9, 3, stride=(8, 4), origin=(2, 1)).box_of_token(1, 2) == (10, 9, 18, 13)


@pytest.mark.parametrize(("image", "tokens", "stride"), [
    ((640, 480), (80, 60), (8, 8)), ((640, 640), (20, 20), (32, 32)),
    ((637, 633), (80, 80), (8, 8)),                   # 637 = 79·8 + 5: the last token reaches over the edge
    ((300, 448), (10, 14), (32, 32)),                 # 300 alone could be 10·30; the other side says 32
    ((300, 300), (10, 10), (32, 32)),                 # a power of two is likelier than 30
    ((16, 448), (1, 28), (16, 16)), ((224, 224), (16, 16), (14, 14)), ((7, 9), (7, 9), (1, 1)),
    ((100, 100), (3, 3), (34, 34)),
    ((640, 640), (80, 40), (8, 16)), ((7, 7), (14, 14), (0.5, 0.5)), ((9, 9), (7, 7), (9 / 7, 9 / 7))])
def test_the_stride_of_a_map_over_an_image(image: tuple[int, int], tokens: tuple[int, int],
                                           stride: tuple[float, float]) -> None:
    grid = WindowGrid.over_image(*image, *tokens, n_win=1)
    assert grid.stride == pytest.approx(stride)
    assert grid.image == image


@given(st.sampled_from([4, 8, 16, 32]), st.sampled_from([320, 448, 640]), st.integers(64, 640))
def test_the_stride_of_a_photograph_is_found(stride: int, longer: int, shorter: int) -> None:
    tokens = [-(-side // stride) for side in (min(shorter, longer), longer)]
    assert WindowGrid.over_image(min(shorter, longer), longer, *tokens, n_win=7).stride == (stride, stride)


@given(st.integers(1, 2000), st.integers(1, 64))
def test_a_map_over_an_image_covers_it(pixels: int, stride: int) -> None:
    tokens = -(-pixels // stride)                     # as many tokens as a stride of whole pixels gives
    grid = WindowGrid.over_image(pixels, pixels, tokens, tokens, n_win=1)
    assert tokens - 1 < pixels / grid.stride[0] <= tokens + 1e-9
    assert grid.token_of_pixel(pixels - 1, 0) == (tokens - 1, 0)


def test_the_image_ends_where_the_padding_starts() -> None:
    grid = WindowGrid.over_image(640, 640, 80, 80, n_win=7)
    assert grid.box() == (0, 0, 84 * 8, 84 * 8)
    assert grid.box_of_window(48) == (6 * 96, 6 * 96, 672, 672)


@pytest.mark.parametrize("sizes", [(0, 5, 1), (5, 0, 1), (5, 5, 0), (-1, 5, 1)])
def test_a_grid_without_tokens_or_windows_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(GridError, match="each number must be 1 or more"):
        WindowGrid(*sizes)
    with pytest.raises(BRAError, match="stride"):
        WindowGrid(4, 4, 2, stride=(0.0, 1.0))


def test_what_is_outside_is_refused() -> None:
    grid = WindowGrid(4, 5, 2, stride=(8, 8))         # 4×6 tokens with padding
    assert grid.token_of_pixel(31.9, 47.9) == (3, 5)
    for ask, message in (
            (lambda: grid.window_of_token(4, 0), r"token \(4, 0\) is outside the padded map of 4×6"),
            (lambda: grid.window_of_token(0, -1), "outside"),
            (lambda: grid.token_of_window(4, 0), "window 4 does not exist: 2×2 windows are numbered 0 to 3"),
            (lambda: grid.token_of_window(-1, 0), "window -1"),
            (lambda: grid.token_of_window(0, 6), "token 6 .* choose 0 to 5"),
            (lambda: grid.box_of_window(9), "window 9"),
            (lambda: grid.box_of_token(0, 6), "outside"),
            (lambda: grid.token_of_pixel(32, 0), "pixel"),
            (lambda: grid.token_of_pixel(0, -0.1), "pixel")):
        with pytest.raises(GridError, match=message):
            ask()
