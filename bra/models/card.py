"""Model cards: what a shipped model learned from, how well it does, and whether its routing beats its controls."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

import safetensors.torch
from torch import Tensor

from bra.errors import BRAError
from bra.messages import message
from bra.metrics.query_dependence import collapsed_by
from bra.units import Signed

WEIGHTS: Final = Path(str(files("bra"))) / "weights"
Task = Literal["classify", "detect"]
Curve = tuple[Mapping[str, float], ...]
CLEARLY: Final = 0.01
"""By how much a share must be above a control to be called better: less is within what other pictures would change."""


@dataclass(frozen=True, slots=True)
class LayerQuality:
    """How well one layer routes, mean over pictures and windows; each is a share, 0 to 1, higher is better.

    Attributes:
        layer: its name.
        n_win: windows per side.
        topk: windows each window is routed to.
        recall: share of unrestricted attention that falls on the routed windows.
        recall_chance: the same of random windows.
        recall_nearest: of the nearest windows.
        recall_oracle: of the best possible windows.
        overlap: likeness of labels between a window and those it is routed to; None without labels.
        overlap_chance: with all windows.
        overlap_nearest: with the nearest windows.
        overlap_oracle: with the most alike.
        shared: share of all choices that fall on the k windows chosen most; near 1, the query hardly matters.
        query_dependence: share of the affinities' variance that depends on the query; near 0, the same.
    """

    layer: str
    n_win: int
    topk: int
    recall: float
    recall_chance: float
    recall_nearest: float
    recall_oracle: float
    overlap: float | None = None
    overlap_chance: float | None = None
    overlap_nearest: float | None = None
    overlap_oracle: float | None = None
    shared: float | None = None
    query_dependence: float | None = None

    @property
    def collapsed(self) -> bool:
        """Whether its routing hardly depends on the query; False where that was not measured."""
        if self.shared is None or self.query_dependence is None:
            return False
        return collapsed_by(self.shared, self.query_dependence, self.topk / self.n_win**2)

    @property
    def beats_recall(self) -> bool:
        """Whether it keeps clearly more of full attention than random and than the nearest windows do."""
        return self.recall > max(self.recall_chance, self.recall_nearest) + CLEARLY

    @property
    def beats_overlap(self) -> bool:
        """Whether it clearly brings like to like more than random and the nearest windows do; False without labels."""
        if self.overlap is None or self.overlap_chance is None or self.overlap_nearest is None:
            return False
        return self.overlap > max(self.overlap_chance, self.overlap_nearest) + CLEARLY


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything that is known about shipped weights.

    Attributes:
        name: of the files.
        title: for people.
        task: what it does.
        data: what it learned from, and what it was judged on.
        licence: of the data.
        command: what makes it again.
        made_with: versions and date.
        recipe: settings of the shipped run.
        classes: what it can tell apart.
        side: pixels a side that it learned at.
        rows: content of its YOLO model file; None for a classifier.
        shipped: name of the run whose weights are shipped.
        scores: values of each metric by variant, one per seed.
        curves: a row per epoch, by run.
        quality: routing of the shipped weights and of random ones, "trained" and "untrained"; where they were measured,
            of the weights of other seeds, by run, and of the shipped ones on other pictures, by the data's name.
        judged: pictures that quality was measured on.
        limits: what it is not good for, a sentence each.
    """

    name: str
    title: str
    task: Task
    data: str
    licence: str
    command: str
    made_with: Mapping[str, str]
    recipe: Mapping[str, Any]
    classes: tuple[str, ...]
    side: int
    rows: Mapping[str, Any] | None
    shipped: str
    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    curves: Mapping[str, Curve]
    quality: Mapping[str, tuple[LayerQuality, ...]]
    judged: int
    limits: tuple[str, ...]

    @property
    def verdict(self) -> tuple[str, ...]:
        """Whether training made routing better than its controls, in sentences that its numbers make."""
        trained, untrained = self.quality["trained"], self.quality["untrained"]

        def counts(better: Callable[[LayerQuality], bool]) -> str:
            return message("trained {better} of {all}, untrained {better_untrained} of {all_untrained}.",
                           better=sum(map(better, trained)), all=len(trained),
                           better_untrained=sum(map(better, untrained)), all_untrained=len(untrained))

        found = [message("Layers that keep clearly more of full attention than random windows and than the nearest "
                         "ones: {counts}", counts=counts(operator.attrgetter("beats_recall")))]
        if any(row.overlap is not None for row in trained):
            found.append(message("Layers that bring like to like clearly more than random windows and than the nearest "
                                 "ones: {counts}", counts=counts(operator.attrgetter("beats_overlap"))))
        shares = [row.shared for row in trained if row.shared is not None]
        if shares:
            low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
            between = low if low == high else message("{low} to {high}", low=low, high=high)
            found.append(message("Of all choices of a trained layer, {share} fall on the same topk windows: near 100 "
                                 "%, where it looks hardly depends on where one asks.", share=between))
        if any(row.query_dependence is not None for row in trained):
            found.append(message("Layers whose routing collapsed, so that it hardly matters where one points: {counts}",
                                 counts=counts(operator.attrgetter("collapsed"))))
        return tuple(found)

    @property
    def clearest_layer(self) -> str:
        """The layer to look at first: of those that did not collapse and whose overlap is above that of the nearest
        windows on all pictures that the shipped weights were judged on, the one that is above it most, in the mean.

        "" where there is none, or nothing was measured with labels.
        """
        judged = [rows for kind, rows in self.quality.items() if kind != "untrained" and kind not in self.curves]
        margins: dict[str, list[float]] = {}
        for rows in judged:
            for row in rows:
                measured = row.overlap is not None and row.overlap_nearest is not None
                above = (row.overlap or 0.0) - (row.overlap_nearest or 0.0) if measured else -1.0
                margins.setdefault(row.layer, []).append(-1.0 if row.collapsed else above)
        found = {layer: sum(above) / len(above) for layer, above in margins.items() if min(above) > 0}
        return max(found, key=found.__getitem__, default="")

    @property
    def comparison(self) -> tuple[str, ...]:
        """The shipped variant against every other, seed by seed, by its first metric: a sentence each."""
        variants = list(self.scores)
        found = []
        for other in variants[1:]:
            metric = next(iter(self.scores[other]))
            ours, theirs = self.scores[variants[0]][metric], self.scores[other][metric]
            gains = [one - two for one, two in zip(ours, theirs, strict=True)]
            above = sum(gain > 0 for gain in gains)
            found.append(message("{metric}: “{ours}” less “{theirs}” is {gain:+.3f} on average, above 0 with {above} "
                                 "of {seeds} seeds.", metric=metric, ours=variants[0], theirs=other, above=above,
                                 seeds=len(gains), gain=Signed(sum(gains) / len(gains))))
        return tuple(found)

    def to_json(self) -> str:
        """The card as the text of its file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Inverse of `to_json`."""
        given = json.loads(text)
        known = {field.name: given[field.name] for field in fields(cls)}
        return cls(**{
            **known, "classes": tuple(given["classes"]), "limits": tuple(given["limits"]),
            "scores": {variant: {metric: tuple(values) for metric, values in by_metric.items()}
                       for variant, by_metric in given["scores"].items()},
            "curves": {run: tuple(rows) for run, rows in given["curves"].items()},
            "quality": {kind: tuple(LayerQuality(**row) for row in rows) for kind, rows in given["quality"].items()}})


def cards(folder: Path = WEIGHTS) -> dict[str, ModelCard]:
    """Every shipped model's card, by name."""
    found = (ModelCard.from_json(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return {card.name: card for card in found}


def shipped(name: str, folder: Path = WEIGHTS) -> tuple[ModelCard, dict[str, Tensor]]:
    """A shipped model's card and its weights as float32.

    Raises:
        BRAError: there is no such model.
    """
    card, weights = folder / f"{name}.json", folder / f"{name}.safetensors"
    if not (card.is_file() and weights.is_file()):
        raise BRAError(message("no weights named {name} come with this version: install it again.", name=name))
    tensors: dict[str, Tensor] = safetensors.torch.load_file(weights)
    return ModelCard.from_json(card.read_text(encoding="utf-8")), {key: t.float() if t.is_floating_point() else t
                                                                   for key, t in tensors.items()}


def ship(card: ModelCard, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write a card and its weights, floating-point numbers in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
            for name, tensor in tensors.items()}
    (folder / f"{card.name}.safetensors").write_bytes(safetensors.torch.save(half))
    (folder / f"{card.name}.json").write_text(card.to_json(), encoding="utf-8")
