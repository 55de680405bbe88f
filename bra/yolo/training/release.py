"""From finished runs of a detector's demonstration to weights and a model card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import ultralytics
import yaml
from torch import Tensor
from ultralytics.nn import tasks

from bra.errors import YoloError
from bra.metrics.overlap import Boxes
from bra.models.card import Curve, LayerQuality, ModelCard, ship
from bra.photo import Photo
from bra.training.checkpointing import load_state, parse_curve
from bra.training.quality import routing_quality
from bra.yolo.adapter import built, opened
from bra.yolo.rows import has_ours
from bra.yolo.training.demos import DEMOS, Demo, read_boxes, run_name
from bra.yolo.training.trainer import STATE

JUDGED: Final = 40
"""Pictures of the validation part that routing is judged on, evenly spread."""
METRICS: Final = {"mAP50": "metrics/mAP50(B)", "mAP50-95": "metrics/mAP50-95(B)"}
LOSSES: Final = ("train/box_loss", "train/cls_loss", "train/dfl_loss")
WORDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "bccd": {
        "name": "cells", "title": "Blood cells: YOLOv8n with residual BRA in the neck, its routers taught by the boxes",
        "data": "BCCD: {train} micrographs to learn from and {val} to judge by, boxes of red cells, white cells and "
                "platelets. Scores are those of the last epoch on the {val}; no epoch was chosen by them.",
        "licence": "MIT, “BCCD Dataset” (github Shenggan/BCCD_Dataset). The pictures are not part of this package.",
        "limits": (
            "One laboratory's stain, microscope and magnification: on other smears it will fail in ways it cannot see.",
            "Nothing here is for diagnosis.",
            "Trained from random weights for a few hundred steps, so that variants can be compared; more training "
            "would raise every score.",
            "At 224 px a red cell is about as large as a window of the finest map: routing between cells is coarse.")},
    "aerial": {
        "name": "vehicles",
        "title": "Vehicles from the air: a small YOLOv8 with residual BRA at P3, its router taught by the boxes",
        "data": "KIT AIS, cut into tiles of 320 px: {train} tiles of one flight to learn from, {val} of another to "
                "judge by; nearly every box is a car.",
        "licence": "CC-BY 3.0, “KIT AIS Data Set”, re-encoded as JPEG. The pictures are not part of this package.",
        "limits": (
            "Two flights in all, so its scores are those of one change of place and light, not of the world.",
            "It has seen cars of about 25 px and hardly anything else: other vehicles are found by chance.",
            "A scale below n, made to be trained on two cores.")},
}


def ship_demo(demo: Demo, out: Path, seeds: Sequence[int], progress: Callable[[str], None] = print) -> ModelCard:
    """Measure the routing of every run, and write weights and card of the first variant to out/shipped: those of its
    middle run by mAP50, of an even number the lower one.

    Args:
        demo: whose runs.
        out: folder of the runs; all must be finished.
        seeds: that were run.
        progress: told a line at a time.

    Raises:
        YoloError: a run is not finished.
    """
    data = yaml.safe_load((out / demo.file).read_text(encoding="utf-8"))
    names = tuple(str(name) for name in data["names"].values())
    curves = {run_name(variant, seed): _curve(out / run_name(variant, seed))
              for seed in seeds for variant in demo.variants}
    by_score = sorted((run_name(next(iter(demo.variants)), seed) for seed in seeds),
                      key=lambda run: curves[run][-1]["mAP50"])
    middle = by_score[(len(by_score) - 1) // 2]
    recipe, rows, tensors = _trained(out / middle, names)
    side = int(recipe["imgsz"])
    pictures = _pictures(Path(data["path"]) / data["val"])
    chosen = pictures[::max(1, len(pictures) // JUDGED)]

    def judged(kind: str, content: dict[str, Any], weights: Mapping[str, Tensor] | None) -> tuple[LayerQuality, ...]:
        model = opened(built(content, weights), kind, kind, names)
        return routing_quality(model, _labelled(chosen), side, progress)

    quality = {"trained": judged("trained", rows, tensors), "untrained": judged("untrained", rows, None)}
    for run in [run for run in curves if run != middle]:
        _, content, weights = _trained(out / run, names)
        if has_ours(content):
            quality[run] = judged(run, content, weights)
    words = WORDS[demo.name]
    count = {"train": len(_pictures(Path(data["path"]) / data["train"])), "val": len(pictures)}
    made = replace(demo.recipe, **{**recipe, "model": Path(recipe["model"]).name})
    card = ModelCard(
        words["name"], words["title"], "detect", words["data"].format(**count), words["licence"],
        f"bra train-demo {demo.name} FOLDER --seeds {' '.join(map(str, seeds))} --epochs {made.epochs}",
        {"date": datetime.now(timezone.utc).date().isoformat(), "torch": torch.__version__,
         "ultralytics": ultralytics.__version__},
        asdict(made), names, side, rows, middle, _scores(demo, seeds, curves), curves, quality, len(chosen),
        words["limits"])
    ship(card, tensors, out / "shipped")
    progress(f"{out / 'shipped'}: {card.name}.safetensors and its card")
    return card


def _scores(demo: Demo, seeds: Sequence[int], curves: Mapping[str, Curve]) -> dict[str, dict[str, tuple[float, ...]]]:
    return {variant: {metric: tuple(curves[run_name(variant, seed)][-1][metric] for seed in seeds)
                      for metric in METRICS} for variant in demo.variants}


def _curve(folder: Path) -> Curve:
    state = load_state(folder / STATE)
    if state is None or state["epochs"] < state["recipe"]["epochs"]:
        raise YoloError(f"{folder} is not finished: run train-demo again, it goes on where it stopped.")
    epochs = parse_curve(state["curve"])[:state["recipe"]["epochs"]]        # what follows is the final validation
    return tuple({"epoch": row["epoch"], "loss": round(sum(row[name] for name in LOSSES), 5),
                  **{metric: row[column] for metric, column in METRICS.items()}} for row in epochs)


def _trained(folder: Path, names: Sequence[str]) -> tuple[Mapping[str, Any], dict[str, Any], Mapping[str, Tensor]]:
    """Recipe, content of the model file, and weights of a finished run."""
    state = load_state(folder / STATE)
    assert state is not None
    return state["recipe"], _rows(state["recipe"]["model"], names), state["average"]


def _rows(model: str, names: Sequence[str]) -> dict[str, Any]:
    """The model file's content as it was trained: with its classes, and at its one scale."""
    content: dict[str, Any] = dict(tasks.yaml_model_load(model))
    content.pop("yaml_file", None)
    scale = content.get("scale") or next(iter(content["scales"]))
    return {**content, "nc": len(names), "scales": {scale: content["scales"][scale]}, "scale": scale}


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def _labelled(pictures: Sequence[Path]) -> Iterator[tuple[Photo, Boxes]]:
    for path in pictures:
        label = path.parents[1] / "labels" / f"{path.stem}.txt" if path.parent.name == "images" else \
            Path(str(path.parent).replace("images", "labels")) / f"{path.stem}.txt"
        yield Photo.from_bytes(path.read_bytes()), np.array(read_boxes(label, 1, 1), np.float64).reshape(-1, 5)


def demo_named(name: str) -> Demo:
    """A demonstration; raises YoloError for an unknown one."""
    if name not in DEMOS:
        raise YoloError(f"{name} is no demonstration: choose one of {', '.join(DEMOS)}.")
    return DEMOS[name]
