"""Maps of a layer beside the photograph they were made of, as SVG text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bra.colours import ROLES
from bra.grid import WindowGrid
from bra.photo import encode
from dashboard.figures.number_grid import number

CIVIDIS: Final = ((0, 34, 78), (18, 53, 112), (59, 73, 108), (87, 93, 109), (112, 113, 115), (138, 134, 120),
                  (165, 156, 116), (195, 179, 105), (254, 232, 56))
"""At nine places of the scale; monotone in lightness and safe for colour-blind eyes, as in the viewer."""
NOTHING: Final = (112, 117, 125)
WIDE: Final = 400
"""Width of a picture in units of its drawing; `shown` says how large it is shown, as a share of that."""


def photo_figure(title: str, webp: bytes, grid: WindowGrid, windows: bool = False, query: int | None = None,
                 routed: Sequence[int] = (), token: tuple[int, int] | None = None, shown: float = 1) -> str:
    """The photograph, with the window grid, a query window and those it was routed to."""
    return _figure(title, _image(webp, "webp", *_whole(grid)), grid, windows, query, routed, token, shown)


def map_figure(title: str, values: NDArray[Any], grid: WindowGrid, span: tuple[float, float], windows: bool = False,
               token: tuple[int, int] | None = None, shown: float = 1) -> str:
    """A map (h, w) in one colour scale from `span`'s first to its last number; grey where it is NaN.

    Its caption says the scale's ends.
    """
    low, high = span
    top, left = grid.origin
    image = _image(encode(heat(values, low, high), "PNG"), "png", left, top, grid.w * grid.stride[1],
                   grid.h * grid.stride[0])
    ends = f'<span class="wx-scale">{number(low)} <i></i> {number(high)}</span>'
    return _figure(f"{title} {ends}", image, grid, windows, None, (), token, shown)


def heat(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """(h, w) -> (h, w, 3) uint8 in Cividis; NaN in grey."""
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    stops = np.linspace(0, 1, len(CIVIDIS))
    table = np.array(CIVIDIS)
    colours = np.stack([np.interp(np.nan_to_num(share), stops, table[:, channel]) for channel in range(3)], -1)
    colours[np.isnan(values)] = NOTHING
    painted: NDArray[np.uint8] = np.rint(colours).astype(np.uint8)
    return painted


def span_of(*maps: NDArray[Any]) -> tuple[float, float]:
    """The smallest and the largest number of all the maps: one scale for them."""
    return float(min(np.nanmin(of) for of in maps)), float(max(np.nanmax(of) for of in maps))


def strip_figure(title: str, webp: bytes, grid: WindowGrid, chosen: Sequence[int]) -> str:
    """The chosen windows cut out of the photograph and laid side by side, best first."""
    boxes = [grid.box_of_window(window) for window in chosen]
    tall, wide = boxes[0][2] - boxes[0][0], boxes[0][3] - boxes[0][1]
    columns = min(len(boxes), 8)
    scale = WIDE / (columns * wide)
    parts = []
    for rank, ((top, left, _, _), window) in enumerate(zip(boxes, chosen, strict=True)):
        x, y = rank % columns * WIDE / columns, rank // columns * (tall * scale + 20) + 18
        size = f'x="{x:.1f}" y="{y:.1f}" width="{WIDE / columns - 3:.1f}" height="{tall * scale:.1f}"'
        parts.append(f'<text class="wx-head" x="{x:.1f}" y="{y - 9:.1f}">{rank + 1}: w{window}</text>'
                     f'<rect class="wx-off" {size}/><svg {size} viewBox="{left} {top} {wide} {tall}" '
                     f'preserveAspectRatio="none">{_image(webp, "webp", *_whole(grid))}</svg>')
    height = -(-len(boxes) // columns) * (tall * scale + 20) + 4
    return _svg(title, parts, WIDE, height)


def _figure(title: str, image: str, grid: WindowGrid, windows: bool, query: int | None, routed: Sequence[int],
            token: tuple[int, int] | None, shown: float) -> str:
    top, left, bottom, right = grid.box()
    scale = WIDE / (right - left)
    parts = [f'<rect class="wx-off" x="0" y="0" width="{WIDE}" height="{(bottom - top) * scale:.1f}"/>',
             f'<g transform="scale({scale:.5f}) translate({-left} {-top})">{image}</g>']

    def box(edges: tuple[float, float, float, float], colour: str, width: float) -> str:
        (y0, x0, y1, x1) = ((edge - start) * scale for edge, start in zip(edges, (top, left, top, left), strict=True))
        place = f'x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" fill="none"'
        return (f'<rect {place} stroke="#111" stroke-width="{width + 2}"/>'
                f'<rect {place} stroke="{colour}" stroke-width="{width}"/>')

    if windows:
        parts += [box(grid.box_of_window(window), "#fff", .6) for window in range(grid.n_windows)]
    for rank, window in enumerate(routed):
        y, x = grid.box_of_window(window)[:2]
        parts.append(box(grid.box_of_window(window), ROLES["b"], 2))
        x, y = (x - left) * scale + 3, (y - top) * scale + 3
        parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{10 + 8 * len(str(rank + 1))}" height="16" fill="#111"/>'
                     f'<text x="{x + 5:.1f}" y="{y + 9:.1f}" style="fill:#fff;font-size:13px">{rank + 1}</text>')
    if query is not None:
        parts.append(box(grid.box_of_window(query), ROLES["a"], 3))
    if token is not None:
        parts.append(box(grid.box_of_token(*token), "#fff", 2))
    return _svg(title, parts, WIDE, (bottom - top) * scale, shown)


def _whole(grid: WindowGrid) -> tuple[float, float, float, float]:
    height, width = grid.image or (grid.h, grid.w)
    return 0, 0, width, height


def _image(data: bytes, kind: str, x: float, y: float, wide: float, tall: float) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    sharp = ' style="image-rendering:pixelated"' if kind == "png" else ""
    return f'<image href="{source}" x="{x}" y="{y}" width="{wide}" height="{tall}" preserveAspectRatio="none"{sharp}/>'


def _svg(title: str, parts: Sequence[str], wide: float, tall: float, shown: float = 1) -> str:
    return (f'<figure class="wx-figure wx-photo"><figcaption>{title}</figcaption><svg viewBox="0 0 {wide} {tall:.1f}" '
            f'style="--w:{wide * shown:g}" role="img">{"".join(parts)}</svg></figure>')
