"""The drawn routing: bright and framed where a query is routed to, dim elsewhere, by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import bra
from bra.grid import WindowGrid
from bra.training.routing_picture import DIMMED, STRIP, routing_picture, window_box


def test_routed_windows_are_bright_and_framed_in_their_colour() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), bra.BiLevelRoutingAttention(16, n_win=4, num_heads=2, topk=2))
    trace = bra.trace(model.eval(), torch.rand(1, 3, 128, 128)).layers["1"]
    white = np.full((128, 128, 3), 200, np.uint8)
    drawn = routing_picture(white, trace, {"a": 0, "b": 15}, side=256)
    assert drawn.shape == (256, 256, 3)
    by_role = {role: set(trace.r_idx[0, window].tolist()) for role, window in (("a", 0), ("b", 15))}
    for window in range(16):
        top, left = (64 * n for n in divmod(window, 4))
        inside = drawn[top + 10:top + 14, left + 10:left + 14]
        routed = window in by_role["a"] | by_role["b"]
        assert (inside == (200 if routed else int(200 * DIMMED))).all()
        if window in by_role["a"]:
            assert drawn[top, left + 20].tolist() == [0xE6, 0x9F, 0x00]
        elif window in by_role["b"]:
            assert drawn[top + 2, left + 20].tolist() == [0x56, 0xB4, 0xE9]
    assert routing_picture(white, trace, {"a": 0}, "7 / 9 · 层", 256).shape == (256 + STRIP, 256, 3)


def test_a_window_beyond_the_picture_stays_on_it() -> None:
    grid = WindowGrid.over_image(96, 128, 12, 16, 5)            # windows of 3×4 tokens, 24×32 px; the last are padding
    assert window_box(grid, 0, (96, 128), (192, 256)) == (0, 0, 63, 47)
    assert window_box(grid, 24, (96, 128), (192, 256)) == (255, 191, 255, 191)
    assert window_box(grid, 0, (96, 128), (192, 256), 5) == (5, 5, 58, 42)
