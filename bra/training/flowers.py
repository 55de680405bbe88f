"""The classifier of this package: a small BiFormer on photographs of flowers, from a folder to weights and a card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import torch

from bra.errors import BRAError
from bra.models.adapters import OpenClassifier
from bra.models.biformer import BiFormer, biformer_nano
from bra.models.card import ModelCard, ship
from bra.models.init import untrained
from bra.photo import Photo
from bra.training.checkpointing import read_curve
from bra.training.classifier import Recipe, train_classifier
from bra.training.dataset import read_folder
from bra.training.quality import routing_quality

NAME: Final = "flowers"
DROP_PATH: Final = 0.05
JUDGED: Final = 40
"""Held-out pictures that routing is judged on, evenly spread over the classes."""
DATA: Final = ("TensorFlow flower photos: {seen:,} photographs of {classes} kinds of flowers to learn from, {unseen} "
               "held out by a hash of the file's name and never used for any choice.")
LICENCE: Final = "CC-BY 2.0, TensorFlow flower photos. The photographs are not part of this package."
LIMITS: Final = (
    "It knows five kinds of flowers and names one of them whatever it is shown.",
    "It was trained from random weights on a few thousand photographs: its features are those of flowers and gardens.",
    "It learned at 160 px with 5×5 windows; at other sizes and windows its routing is an extrapolation.",
    "Photographs from one collection: accuracy on others will be lower.")


def train_flowers(source: Path, out: Path, seeds: Sequence[int], recipe: Recipe | None = None,
                  progress: Callable[[str], None] = print) -> ModelCard:
    """Train with every seed, measure, and write weights and card of the first seed to out/shipped.

    Args:
        source: folder with one folder of photographs per class.
        out: gets a folder per run; finished and cut-off runs in it are gone on with.
        seeds: of the runs.
        recipe: of every run, but for its seed.
        progress: told a line at a time.

    Raises:
        BRAError: the pictures are not there, or there are too few.
    """
    recipe = recipe or Recipe()
    if not seeds:
        raise BRAError("no seed was given: give at least one, such as 0.")
    photographs = read_folder(source, recipe.side, progress)
    models: list[BiFormer] = []
    for seed in seeds:
        progress(f"seed {seed}")
        model = train_classifier(_nano, photographs, replace(recipe, seed=seed), out / f"seed{seed}", progress)
        assert isinstance(model, BiFormer)
        models.append(model)
    curves = {f"seed{seed}": tuple(read_curve(out / f"seed{seed}" / "curve.csv")) for seed in seeds}
    seen, unseen = photographs
    step = max(1, len(unseen.names) // JUDGED)
    chosen = [source / name for name in unseen.names[::step]]
    quality = {}
    for kind in ("trained", "untrained"):
        judged = models[0] if kind == "trained" else untrained(models[0])
        opened = OpenClassifier(judged, kind, kind, seen.classes)
        pictures = ((Photo.from_bytes(path.read_bytes()), None) for path in chosen)
        quality[kind] = routing_quality(opened, pictures, recipe.side, progress)
    card = ModelCard(
        NAME, "Flowers: a small BiFormer", "classify",
        DATA.format(seen=len(seen.names), unseen=len(unseen.names), classes=len(seen.classes)), LICENCE,
        f"bra train-demo flowers FOLDER --seeds {' '.join(map(str, seeds))} --epochs {recipe.epochs}",
        {"date": datetime.now(timezone.utc).date().isoformat(), "torch": torch.__version__},
        {**asdict(replace(recipe, seed=seeds[0])), "model": "biformer_nano", "drop_path": DROP_PATH}, seen.classes,
        recipe.side, None, f"seed{seeds[0]}",
        {"biformer_nano": {metric: tuple(rows[-1][metric] for rows in curves.values())
                           for metric in ("accuracy", "cross_entropy")}},
        curves, quality, len(chosen), LIMITS)
    ship(card, models[0].state_dict(), out / "shipped")
    progress(f"{out / 'shipped'}: {NAME}.safetensors and its card")
    return card


def _nano(classes: int) -> BiFormer:
    return biformer_nano(classes, DROP_PATH)
