"""Pictures of a folder and the labels of another, to judge routing by: masks of class numbers, or YOLO boxes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from bra.errors import BRAError
from bra.metrics.overlap import Boxes, LabelMap
from bra.photo import Photo
from bra.training.dataset import ENDINGS

MAX_PIXELS: Final = 40_000_000
"""Of a mask."""


def labelled_files(folder: Path, labels: Path | None) -> list[tuple[Path, Path | None]]:
    """Pictures of a folder with the file of their labels, by name; those without one are left out.

    Raises:
        BRAError: there is no picture, or none has labels.
    """
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not pictures:
        raise BRAError(f"{folder} holds no pictures: give a folder with {', '.join(ENDINGS)} files.")
    if labels is None:
        return [(path, None) for path in pictures]
    found: list[tuple[Path, Path | None]] = []
    for path in pictures:
        if (file := labels_named(labels, path.stem)) is not None:
            found.append((path, file))
    if not found:
        raise BRAError(f"{labels} holds no labels of these pictures: for {pictures[0].name} it would be "
                       f"{pictures[0].stem}.png or {pictures[0].stem}.txt.")
    return found


def labels_named(folder: Path, stem: str) -> Path | None:
    """The mask or the boxes of a picture with that stem, if there are any."""
    return next((file for ending in (".png", ".txt") if (file := folder / f"{stem}{ending}").is_file()), None)


def evenly(files: Sequence[tuple[Path, Path | None]], limit: int) -> list[tuple[Path, Path | None]]:
    """At most `limit` of them, evenly spread."""
    n = min(limit, len(files))
    return [files[at * len(files) // n] for at in range(n)]


def read_labels(path: Path) -> Boxes | LabelMap:
    """A PNG of class numbers as (H, W) int64, or a YOLO file as boxes (n, 5) in shares of the picture.

    Raises:
        BRAError: the file is neither.
    """
    return _mask(path) if path.suffix == ".png" else _boxes(path)


def _mask(path: Path) -> LabelMap:
    try:
        image = PngImageFile(io.BytesIO(path.read_bytes()))
        if image.width * image.height > MAX_PIXELS:
            raise BRAError(f"{path.name} has more than {MAX_PIXELS:,} pixels: save a smaller mask.")
        numbers = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise BRAError(f"{path.name} is no PNG that can be read: save the mask again.") from error
    if numbers.ndim != 2:
        raise BRAError(f"{path.name} has colours: each pixel of a mask is the number of its class; save it with one "
                       "channel, or a palette.")
    return np.asarray(numbers, np.int64)


def _boxes(path: Path) -> Boxes:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            name, x, y, w, h = map(float, line.split()[:5]) if line.strip() else (0.0,) * 5
        except ValueError:
            raise BRAError(f"{path.name}: {line[:60]!r} is no box: write class, centre x, centre y, width and height "
                           "as shares of the picture.") from None
        if line.strip():
            rows.append((name, x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return np.array(rows, np.float64).reshape(-1, 5)


def read_labelled(files: Sequence[tuple[Path, Path | None]]) -> Iterator[tuple[Photo, Boxes | LabelMap | None]]:
    """Each picture with its labels, one at a time."""
    for picture, labels in files:
        yield Photo.from_bytes(picture.read_bytes()), None if labels is None else read_labels(labels)
