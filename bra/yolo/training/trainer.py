"""Trains a detector through Ultralytics' own trainer such that a run that was cut off ends as one that was not.

Ultralytics resumes from half-precision averages and draws its augmentations anew, so a resumed run is another run.
Here the whole state is kept after each epoch, and every epoch draws from the run's seed and its own number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ultralytics import YOLO

from bra.errors import YoloError
from bra.training.checkpointing import load_state, read_curve, save_state, seed_epoch

STATE = "state.pt"


@dataclass(frozen=True, slots=True)
class DetectorRecipe:
    """How a detector is trained; everything else is Ultralytics' default.

    Attributes:
        model: name of a model file, with its scale, or a path.
        epochs: passes over the pictures.
        imgsz: side in pixels.
        batch: pictures per step.
        rate: AdamW's learning rate, falling to a hundredth of it along a straight line.
        close_mosaic: epochs at the end without mosaics.
        seed: of weights and augmentations.
        route: weight of the routing loss.
    """

    model: str
    epochs: int = 20
    imgsz: int = 224
    batch: int = 8
    rate: float = 2e-3
    close_mosaic: int = 4
    seed: int = 0
    route: float = 0.0


def train_detector(recipe: DetectorRecipe, data: Path, folder: Path,
                   progress: Callable[[str], None] = print) -> list[dict[str, float]]:
    """Train, or go on where a cut-off run in `folder` stopped.

    Args:
        recipe: how.
        data: Ultralytics' data file, with absolute paths.
        folder: gets Ultralytics' files and `state.pt`.
        progress: told a line per epoch.

    Returns:
        The curve: a row per epoch, as in results.csv. The checkpoint is folder/weights/last.pt.

    Raises:
        YoloError: `folder` holds a run of another recipe.
    """
    keeper = _Keeper(recipe, folder, progress)
    if keeper.finished:
        progress(f"{folder.name}: finished before")
        return read_curve(folder / "results.csv")
    torch.manual_seed(recipe.seed)
    model = YOLO(recipe.model)
    for event, callback in keeper.callbacks().items():
        model.add_callback(event, callback)
    model.train(data=str(data), epochs=recipe.epochs, imgsz=recipe.imgsz, batch=recipe.batch, nbs=recipe.batch,
                optimizer="AdamW", lr0=recipe.rate, warmup_epochs=1.0, close_mosaic=recipe.close_mosaic,
                seed=recipe.seed, project=str(folder.parent.resolve()), name=folder.name, exist_ok=True, device="cpu",
                workers=0, amp=False, cache="ram", plots=False, verbose=False, bra_route=recipe.route)
    return read_curve(folder / "results.csv")


def data_file(source: Path, folder: Path, **changes: Any) -> Path:
    """Write a copy of Ultralytics' data file `source` into `folder` whose paths do not depend on where one is.

    Args:
        source: the data file; its `path` is read as beside it.
        folder: where the copy goes.
        changes: entries that differ, such as train="images/one".
    """
    found: Mapping[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    root = (source.parent / str(found.get("path", "."))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / source.name
    copy.write_text(yaml.safe_dump({**found, "path": str(root), **changes}, sort_keys=False), encoding="utf-8")
    return copy


class _Keeper:
    """Keeps and restores the whole state of an Ultralytics trainer.

    Args:
        recipe: of the run.
        folder: of the run.
        progress: told a line per epoch.
    """

    def __init__(self, recipe: DetectorRecipe, folder: Path, progress: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.folder = folder
        self.progress = progress
        self.state = load_state(folder / STATE)
        if self.state is not None and self.state["recipe"] != asdict(recipe):
            raise YoloError(f"{folder} holds a run of another recipe ({self.state['recipe']}): give another folder, or "
                            "delete that one.")

    @property
    def finished(self) -> bool:
        """Whether every epoch is done and its checkpoint is there."""
        return (self.state is not None and self.state["epochs"] >= self.recipe.epochs
                and (self.folder / "weights" / "last.pt").is_file())

    def callbacks(self) -> dict[str, Callable[[Any], None]]:
        """By the name of Ultralytics' event."""
        return {"on_pretrain_routine_end": self.restore, "on_train_epoch_start": self.seed,
                "on_fit_epoch_end": self.keep}

    def restore(self, trainer: Any) -> None:
        """Before the first epoch: put everything back as it was."""
        state = self.state
        if state is None:
            return
        trainer.model.load_state_dict(state["model"])
        trainer.ema.ema.load_state_dict(state["average"])
        trainer.ema.updates = state["updates"]
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.best_fitness, trainer.start_epoch = state["best"], state["epochs"]
        trainer.stopper.best_fitness, trainer.stopper.best_epoch = state["stopper"]
        trainer.scheduler.last_epoch = trainer.start_epoch - 1
        trainer.csv.write_text(state["curve"], encoding="utf-8")
        if trainer.start_epoch > trainer.epochs - self.recipe.close_mosaic:
            trainer._close_dataloader_mosaic()      # older versions do so in one epoch only, which is over
        self.progress(f"{self.folder.name}: going on after epoch {state['epochs']} of {self.recipe.epochs}")

    def seed(self, trainer: Any) -> None:
        """Before each epoch: draw from its own number, whether or not the process is the one that began."""
        seed_epoch(self.recipe.seed, trainer.epoch)
        trainer.train_loader.generator.manual_seed(self.recipe.seed * 100_003 + trainer.epoch)
        trainer.train_loader.reset()    # a new iterator takes a number from the generator: every epoch has one, or none

    def keep(self, trainer: Any) -> None:
        """After each epoch."""
        if trainer.epoch >= self.recipe.epochs:
            return      # the same event, as of an epoch after the last, ends the final validation
        self.state = {
            "recipe": asdict(self.recipe), "epochs": trainer.epoch + 1, "model": trainer.model.state_dict(),
            "average": trainer.ema.ema.state_dict(), "updates": trainer.ema.updates,
            "optimizer": _plain(trainer.optimizer.state_dict()), "best": _plain(trainer.best_fitness),
            "stopper": (_plain(trainer.stopper.best_fitness), _plain(trainer.stopper.best_epoch)),
            "curve": trainer.csv.read_text(encoding="utf-8")}
        save_state(self.state, self.folder / STATE)
        left = (self.recipe.epochs - trainer.epoch - 1) * trainer.epoch_time
        self.progress(f"{self.folder.name}: epoch {trainer.epoch + 1} of {self.recipe.epochs}, mAP50 "
                      f"{trainer.metrics.get('metrics/mAP50(B)', 0):.3f}, {left / 60:.0f} min left")


def _plain(value: Any) -> Any:
    """The same without numpy's numbers, which some versions put in and `weights_only` does not read."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
