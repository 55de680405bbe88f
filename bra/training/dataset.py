"""Labelled photographs in class folders, read once into memory, and the two ways they are looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import center_crop, resize

from bra.errors import BRAError
from bra.models.biformer import normalized
from bra.photo import Photo

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
HELD_OUT = 10
"""Per cent of the pictures that are held out."""
MARGIN = 1.14
"""Shorter side that is kept in memory and, for judging, cropped from, over the side that the model reads."""


@dataclass(frozen=True, slots=True, eq=False)
class Photographs:
    """Labelled pictures.

    Attributes:
        classes: names, in order of their number.
        names: class/file of each picture.
        pictures: (3, h, w) uint8 each, the shorter side MARGIN times what the model reads.
        labels: (n,) int64.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    pictures: tuple[Tensor, ...]
    labels: Tensor

    def judged(self, side: int) -> Tensor:
        """(n, 3, side, side) float32 as the model wants it: the middle of every picture."""
        return torch.cat([normalized(center_crop(picture, [side, side])[None].float() / 255)
                          for picture in self.pictures])


def read_folder(folder: Path, side: int, progress: Callable[[str], None] = print) -> tuple[Photographs, Photographs]:
    """(training, held out) pictures of a folder with one folder per class.

    A picture is held out by a hash of its name, so the split is the same everywhere and survives new pictures.

    Raises:
        BRAError: fewer than two classes with pictures, or nothing on one side of the split.
    """
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in ENDINGS)
    classes = tuple(sorted({path.parent.name for path in files}))
    if len(classes) < 2:
        raise BRAError(f"{folder} holds {len(classes)} folders with pictures: give a folder with one folder per class, "
                       "two at least.")
    shorter = round(MARGIN * side)
    sides: tuple[list[tuple[str, Tensor]], list[tuple[str, Tensor]]] = ([], [])
    for at, path in enumerate(files):
        if at % 500 == 0:
            progress(f"reading {at} of {len(files)} pictures")
        name = f"{path.parent.name}/{path.name}"
        rgb = torch.tensor(Photo.from_bytes(path.read_bytes()).rgb).permute(2, 0, 1).contiguous()
        sides[held_out(name)].append((name, resize(rgb, [shorter], antialias=True)))
    if not all(sides):
        raise BRAError(f"{folder} holds {len(files)} pictures, too few to hold some out: give some dozens per class.")
    return _collected(sides[0], classes), _collected(sides[1], classes)


def held_out(name: str) -> bool:
    """Whether the picture class/file is kept for judging."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100 < HELD_OUT


def _collected(found: Sequence[tuple[str, Tensor]], classes: tuple[str, ...]) -> Photographs:
    labels = torch.tensor([classes.index(name.split("/")[0]) for name, _ in found])
    return Photographs(classes, tuple(name for name, _ in found), tuple(picture for _, picture in found), labels)


class Augment:
    """Random crops, flips and colours, drawn from torch's own generator.

    Args:
        side: of what comes out, in pixels.
    """

    def __init__(self, side: int) -> None:
        self.steps = v2.Compose([
            v2.RandomResizedCrop(side, scale=(0.4, 1.0), antialias=True), v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.3, 0.3, 0.3, 0.03)])

    def __call__(self, pictures: Sequence[Tensor]) -> Tensor:
        """uint8 (3, h, w) each -> (b, 3, side, side) float32 as the model wants it."""
        return normalized(torch.stack([self.steps(picture) for picture in pictures]).float() / 255)
