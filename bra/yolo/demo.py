"""The detectors of this package: what each is trained on, its variants, and the runs that compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml
from ultralytics.nn import tasks

from bra.errors import YoloError
from bra.yolo.registration import CFG
from bra.yolo.rows import rows_of, with_rows
from bra.yolo.tiles import cut
from bra.yolo.training import DetectorRecipe, data_file, train_detector

PICO: Final = [0.33, 0.125, 1024]
"""Depth, width and most channels of a scale below n: an eighth of the full width."""
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
    """

    name: str
    file: str
    recipe: DetectorRecipe
    variants: Mapping[str, str]


DEMOS: Final = {demo.name: demo for demo in (
    Demo("bccd", "bccd.yaml", DetectorRecipe("", epochs=20, imgsz=224),
         {"residual": "yolov8n-bra-residual.yaml", "none": "yolov8n.yaml", "plain": "yolov8n-bra.yaml"}),
    Demo("aerial", "aerial.yaml", DetectorRecipe("", epochs=12, imgsz=TILE, close_mosaic=3),
         {"residual-p3": "pico-bra-p3.yaml", "none": "pico.yaml"}),
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
            recipe = replace(demo.recipe, model=_model(model, out), seed=seed, epochs=epochs or demo.recipe.epochs,
                             imgsz=imgsz or demo.recipe.imgsz)
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
