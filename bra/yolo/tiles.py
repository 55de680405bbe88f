"""Cuts large pictures and their YOLO boxes into square tiles, so that small objects keep their size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bra.errors import YoloError
from bra.photo import Photo, PhotoLimits, encode

Box = tuple[int, float, float, float, float]
"""class, left, top, right, bottom in pixels."""
SEEN: Final = 0.5
"""Share of a box's area that must lie on a tile for the box to be kept there."""


def cut(pictures: Sequence[Path], labels: Path, out: Path, side: int, step: int) -> int:
    """Write tiles and their labels to out/images and out/labels.

    Args:
        pictures: files.
        labels: folder of their label files, `class x y w h` per line in shares of the picture.
        out: where to; what is there already is kept, so repeating it changes nothing.
        side: of a tile, in pixels.
        step: from one tile to the next, in pixels; the last one ends at the picture's edge.

    Returns:
        How many tiles there are.

    Raises:
        YoloError: a picture is smaller than a tile.
    """
    count = 0
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for path in pictures:
        # Reduced to the usual longest side, small objects would be gone.
        rgb = Photo.from_bytes(path.read_bytes(), PhotoLimits(max_side=16_384)).rgb
        if min(rgb.shape[:2]) < side:
            raise YoloError(f"{path.name} has {rgb.shape[1]}×{rgb.shape[0]} pixels: give tiles of at most "
                            f"{min(rgb.shape[:2])}.")
        boxes = read_boxes(labels / f"{path.stem}.txt", rgb.shape[1], rgb.shape[0])
        for top, left in corners(rgb, side, step):
            stem = f"{path.stem}_{top}_{left}"
            tile = rgb[top:top + side, left:left + side]
            (out / "images" / f"{stem}.png").write_bytes(encode(tile, "PNG"))
            lines = [f"{name} {(x0 + x1) / 2 / side:.6f} {(y0 + y1) / 2 / side:.6f} {(x1 - x0) / side:.6f} "
                     f"{(y1 - y0) / side:.6f}" for name, x0, y0, x1, y1 in on_tile(boxes, top, left, side)]
            (out / "labels" / f"{stem}.txt").write_text("\n".join(lines), encoding="utf-8")
            count += 1
    return count


def corners(rgb: NDArray[np.uint8], side: int, step: int) -> Iterator[tuple[int, int]]:
    """(top, left) of every tile of a picture (H, W, 3)."""
    def starts(length: int) -> list[int]:
        return sorted({*range(0, length - side, step), length - side})

    for top in starts(rgb.shape[0]):
        for left in starts(rgb.shape[1]):
            yield top, left


def on_tile(boxes: Sequence[Box], top: int, left: int, side: int) -> list[Box]:
    """Boxes of a picture, in pixels of one of its tiles and cut off at its edge; those mostly outside are left out."""
    found = []
    for name, x0, y0, x1, y1 in boxes:
        a, b = max(x0 - left, 0.0), max(y0 - top, 0.0)
        c, d = min(x1 - left, float(side)), min(y1 - top, float(side))
        if c > a and d > b and (c - a) * (d - b) >= SEEN * (x1 - x0) * (y1 - y0):
            found.append((name, a, b, c, d))
    return found


def read_boxes(path: Path, width: int, height: int) -> list[Box]:
    """A YOLO label file in pixels; none where there is no file."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            name, x, y, w, h = line.split()[:5]
            cx, cy, bw, bh = float(x) * width, float(y) * height, float(w) * width, float(h) * height
            found.append((int(name), cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2))
    return found
