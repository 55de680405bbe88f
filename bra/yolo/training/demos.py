"""The detectors of this package: what each is trained on, its variants, and the runs that compare them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray
from ultralytics.nn import tasks

from bra.errors import YoloError
from bra.photo import Photo, PhotoLimits, encode
from bra.yolo.registration import CFG
from bra.yolo.rows import rows_of, with_rows
from bra.yolo.training.trainer import DetectorRecipe, data_file, train_detector

PICO: Final = [0.33, 0.125, 1024]
"""Depth, width and most channels of a scale below n: an eighth of the full width."""
ROUTE: Final = 0.2
"""Weight of the routing loss in the variants that are taught."""
TILE: Final = 320
STEP: Final = 240


@dataclass(frozen=True, slots=True)
class Demo:
    """A comparison of detectors.

    Attributes:
        name: on the command line.
        file: its data file, in the folder of the data.
        recipe: of every run, but for model and seed.
        variants: model of each variant, by the variant's name; the first is the one that is shipped.
        route: weight of the routing loss, by the variant's name; 0 for a variant that is not here.
    """

    name: str
    file: str
    recipe: DetectorRecipe
    variants: Mapping[str, str]
    route: Mapping[str, float] = field(default_factory=dict)


DEMOS: Final = {demo.name: demo for demo in (
    Demo("bccd", "bccd.yaml", DetectorRecipe("", epochs=20, imgsz=224),
         {"residual-taught": "yolov8n-bra-residual.yaml", "residual": "yolov8n-bra-residual.yaml",
          "none": "yolov8n.yaml", "plain-taught": "yolov8n-bra.yaml", "plain": "yolov8n-bra.yaml"},
         {"residual-taught": ROUTE, "plain-taught": ROUTE}),
    Demo("aerial", "aerial.yaml", DetectorRecipe("", epochs=12, imgsz=TILE, close_mosaic=3),
         {"residual-p3-taught": "pico-bra-p3.yaml", "residual-p3": "pico-bra-p3.yaml", "none": "pico.yaml"},
         {"residual-p3-taught": ROUTE}),
)}


def run_name(variant: str, seed: int) -> str:
    """Folder of one run."""
    return f"{variant}-seed{seed}"


def train_demo(demo: Demo, source: Path, out: Path, seeds: Sequence[int], epochs: int | None = None,
               imgsz: int | None = None, progress: Callable[[str], None] = print) -> dict[str, list[dict[str, float]]]:
    """Train every variant with every seed, all variants of a seed before the next; finished runs are not repeated.

    Args:
        demo: what.
        source: folder of the data.
        out: gets a folder per run.
        seeds: of the runs.
        epochs: instead of the recipe's.
        imgsz: instead of the recipe's.
        progress: told a line per epoch.

    Returns:
        The curve of each run, by its name.

    Raises:
        YoloError: the data are not there, or `out` holds runs of another recipe.
    """
    if not (source / demo.file).is_file():
        raise YoloError(f"{source} holds no {demo.file}: give the folder of that data set.")
    data = _tiled(source, out, progress) if demo.name == "aerial" else data_file(source / demo.file, out)
    curves = {}
    for seed in seeds:
        for variant, model in demo.variants.items():
            recipe = replace(demo.recipe, model=_model(model, out), seed=seed, route=demo.route.get(variant, 0.0),
                             epochs=demo.recipe.epochs if epochs is None else epochs,
                             imgsz=demo.recipe.imgsz if imgsz is None else imgsz)
            name = run_name(variant, seed)
            curves[name] = train_detector(recipe, data, out / name, progress)
    return curves


def _model(name: str, out: Path) -> str:
    """A model file's name, or for the pico scale the path of one that is written here."""
    if not name.startswith("pico"):
        return name
    base = CFG / "yolov8-bra-p3.yaml" if "bra" in name else Path(tasks.check_yaml("yolov8.yaml"))
    content: dict[str, Any] = yaml.safe_load(base.read_text(encoding="utf-8"))
    rows = [replace(row, name="BRABlock") if row.name == "BiLevelRoutingAttention" else row for row in rows_of(content)]
    content = {**with_rows(content, rows), "scales": {"p": PICO}, "scale": "p"}
    path = out / f"yolov8-{name}"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return str(path)


def _tiled(source: Path, out: Path, progress: Callable[[str], None]) -> Path:
    """Tiles of one flight to learn from and of the other to judge by: frames of one flight show the same cars."""
    pictures = sorted((source / "images" / "train").glob("*.jpg"))
    flights = {"train": [path for path in pictures if int(path.stem[3:]) > 100],
               "val": [path for path in pictures if int(path.stem[3:]) <= 100]}
    if not all(flights.values()):
        raise YoloError(f"{source} holds {len(pictures)} pictures of one flight only: give both, MOS74… and MOS155….")
    for part, paths in flights.items():
        tiles = out / "tiles" / part
        if not tiles.is_dir():
            count = cut(paths, source / "labels" / "train", tiles, TILE, STEP)
            progress(f"{part}: {count} tiles of {len(paths)} pictures")
    copy = data_file(source / "aerial.yaml", out, train="train/images", val="val/images")
    content = yaml.safe_load(copy.read_text(encoding="utf-8"))
    copy.write_text(yaml.safe_dump({**content, "path": str((out / "tiles").resolve())}, sort_keys=False),
                    encoding="utf-8")
    return copy


# Cuts large pictures and their YOLO boxes into square tiles, so that small objects keep their size. -----------------

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
