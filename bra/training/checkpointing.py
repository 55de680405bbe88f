"""What a training keeps on disk so that it can be cut off at any moment, and what a run is told to do."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a state such that `path` always holds a whole one, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(dict(state), part)
    part.replace(path)


def load_state(path: Path) -> dict[str, Any] | None:
    """The state that `save_state` wrote, or None before the first."""
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state


def seed_epoch(seed: int, epoch: int) -> None:
    """Set every generator from the run's seed and the epoch, so that a resumed epoch draws what it would have drawn."""
    both = 100_003 * seed + epoch
    random.seed(both)
    np.random.seed(both)  # noqa: NPY002  the global state is what augmentations of third parties draw from
    torch.manual_seed(both)


def write_curve(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """One line per epoch under a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_curve(path: Path) -> list[dict[str, float]]:
    """Inverse of `write_curve`; spaces around names and numbers do not count."""
    return parse_curve(path.read_text(encoding="utf-8"))


def parse_curve(text: str) -> list[dict[str, float]]:
    """The rows of a curve's file from its text."""
    return [{name.strip(): float(value) for name, value in row.items()} for row in csv.DictReader(text.splitlines())]
