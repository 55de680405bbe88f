"""A routing drawn as pixels: a picture with the windows that one or two queries are routed to; without a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bra.colours import ROLES
from bra.grid import WindowGrid
from bra.tracing import LayerTrace

DIMMED: Final = 0.4
"""Brightness of what no query is routed to."""
STRIP: Final = 22
"""Pixels below the picture, for its words."""


def routing_picture(rgb: NDArray[np.uint8], trace: LayerTrace, queries: Mapping[str, int], words: str = "",
                    side: int = 480) -> NDArray[np.uint8]:
    """The picture, dimmed where no query is routed to; routed windows framed in the query's colour, the query twice.

    Args:
        rgb: (H, W, 3) uint8.
        trace: the layer; the first image counts.
        queries: window of each role, of "a" and "b".
        words: of a line below the picture; letters beyond ASCII become "?".
        side: of the longer side of the picture in pixels.

    Returns:
        (h + 22, w, 3) uint8; without words (h, w, 3).
    """
    scale = side / max(rgb.shape[:2])
    height, width = (max(1, round(length * scale)) for length in rgb.shape[:2])
    bright = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))
    routed = {role: trace.r_idx[0, window].tolist() for role, window in queries.items()}
    made = (bright * DIMMED).astype(np.uint8)
    for window in {window for chosen in routed.values() for window in chosen}:
        left, top, right, bottom = window_box(trace.grid, window, rgb.shape[:2], (height, width))
        made[top:bottom + 1, left:right + 1] = bright[top:bottom + 1, left:right + 1]
    image = Image.new("RGB", (width, height + (STRIP if words else 0)))
    image.paste(Image.fromarray(made))
    draw = ImageDraw.Draw(image)
    for inset, role in enumerate(routed):           # both are seen where both are routed to the same window
        for window in routed[role]:
            left, top, right, bottom = window_box(trace.grid, window, rgb.shape[:2], (height, width), 2 * inset)
            draw.rectangle((left, top, right, bottom), outline=ROLES[role], width=2)
    for role, window in queries.items():
        left, top, right, bottom = window_box(trace.grid, window, rgb.shape[:2], (height, width), 5)
        draw.rectangle((left, top, right, bottom), outline="white", width=1)
        draw.text(((left + right) / 2, (top + bottom) / 2), role.upper(), "white", ImageFont.load_default(14),
                  anchor="mm", stroke_width=2, stroke_fill=ROLES[role])
    if words:
        plain = words.encode("ascii", "replace").decode()
        draw.text((6, height + STRIP / 2), plain, "white", ImageFont.load_default(13), anchor="lm")
    return np.asarray(image)


def window_box(grid: WindowGrid, window: int, picture: tuple[int, ...], drawn: tuple[int, int],
               inset: int = 0) -> tuple[int, int, int, int]:
    """Left, top, right, bottom pixel of a window on the drawn picture, all four within it.

    Args:
        grid: of the layer.
        window: its number.
        picture: (height, width) that the grid counts in, where it knows none of its own.
        drawn: (height, width) of what is drawn on.
        inset: pixels that the box is smaller by, at each side, as far as there is room.
    """
    high, wide = grid.image or picture
    top, left, bottom, right = grid.box_of_window(window)
    edges = []
    for low, up, of, pixels in ((left, right, wide, drawn[1]), (top, bottom, high, drawn[0])):
        first = min(max(round(low / of * pixels), 0), pixels - 1)
        last = min(max(round(up / of * pixels) - 1, first), pixels - 1)
        room = min(inset, (last - first) // 2)
        edges.append((first + room, last - room))
    (first_x, last_x), (first_y, last_y) = edges
    return first_x, first_y, last_x, last_y
