"""What if a layer had looked elsewhere? One layer's routing replaced on one picture, and what becomes of the answer.

    found = look_elsewhere(model, photo, 320, Reroute("stages.2.2.attn", "nearest"))
    for row in found.rows:
        print(row.label, row.before, row.after)

All weights stay, and what lies before the layer gives what it gave. The layers after it learned to follow its own
choice: a change says what this answer hangs on, on this picture, and not which routing is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from bra import functional as BF
from bra.errors import BRAError
from bra.messages import message, spaced
from bra.metrics.routing import Ints, choosable, nearest_windows, on_map, picked, random_windows
from bra.metrics.rules import RULES
from bra.models.base import Answer, Change, Detection, OpenModel, no_rerun
from bra.models.rerun import run_from
from bra.photo import Photo
from bra.tracing import LayerTrace

REROUTES: Final[Mapping[str, str]] = MappingProxyType({
    "bra": message("as routed"), "nearest": RULES["nearest"].name, "chance": RULES["chance"].name,
    "all": message("all windows")})
"""What a layer can be routed by, by key, and its name for people; keys as in `rules.RULES`, and "all"."""
LEAST_OVERLAP: Final = 0.5
"""Intersection over union from which boxes of one class, before and after, are the same; as usual in PASCAL VOC."""
FATES: Final[Mapping[str, str]] = MappingProxyType({
    "kept": message("stays"), "lost": message("lost"), "new": message("new")})
"""What becomes of a box or class, by key."""


# which windows --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Swap:
    """One routed window of one query replaced; all by number.

    Attributes:
        query: the window that asks.
        old: the one of its routed windows that goes.
        new: the window that takes its place.
    """

    query: int
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Reroute:
    """Where one layer is to look instead.

    Attributes:
        layer: its name.
        rule: a key of REROUTES: "bra" for its own choice, the "nearest" windows, windows by "chance", or "all".
        swaps: replacements in what the rule chose, one after the other.
        seed: of "chance".
    """

    layer: str
    rule: str = "bra"
    swaps: tuple[Swap, ...] = ()
    seed: int = 0


def windows_of(reroute: Reroute, trace: LayerTrace, image: int = 0) -> Ints:
    """(p2, k): the windows that a layer is to be routed to; k = p2 for "all".

    Args:
        reroute: where it is to look.
        trace: the layer with its own choice, on the picture.
        image: which image of the batch.

    Raises:
        BRAError: there is no such rule, or a swap cannot be.
    """
    if reroute.rule not in REROUTES:
        raise BRAError(message("rule {name!r} is not known: choose of {names}.", name=reroute.rule,
                               names=", ".join(REROUTES)))
    if reroute.rule == "nearest":
        windows = nearest_windows(trace)
    elif reroute.rule == "chance":
        windows = random_windows(trace, reroute.seed)
    elif reroute.rule == "all":
        windows = BF.route(trace.affinity[image], trace.grid.n_windows)[1].numpy()
    else:
        windows = trace.r_idx[image].numpy()
    for swap in reroute.swaps:
        windows = swapped(windows, swap, trace)
    return windows


def swapped(windows: Ints, swap: Swap, trace: LayerTrace) -> Ints:
    """(p2, k) -> (p2, k) with one window of one query replaced, in its place.

    Raises:
        BRAError: the query has no such window, or cannot get the other one.
    """
    for window in (swap.query, swap.new):
        trace.grid.check_window(window)
    row = windows[swap.query].tolist()
    if swap.old not in row:
        raise BRAError(message("window {query} is not routed to window {old}: choose one of {row}.", query=swap.query,
                               old=swap.old, row=", ".join(map(str, row))))
    if swap.new in row:
        raise BRAError(message("window {query} is routed to window {new} already: choose another one for it.",
                               query=swap.query, new=swap.new))
    if not choosable(trace)[swap.new]:
        raise BRAError(message("window {new} holds padding only, which this layer leaves out: choose one on the "
                               "picture.", new=swap.new))
    changed = windows.copy()
    changed[swap.query, row.index(swap.old)] = swap.new
    return changed


# what becomes of the answer -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One box or class, before and after.

    Attributes:
        label: its class.
        before: its score or probability, 0 to 1; None where it was not there.
        after: the same with the other routing; None where it is gone.
        before_box: left, top, right, bottom as shares of the picture; None for a class, or where it was not there.
        after_box: the same with the other routing.
        overlap: intersection over union of both boxes, where there are both.
    """

    label: str
    before: float | None
    after: float | None
    before_box: tuple[float, float, float, float] | None = None
    after_box: tuple[float, float, float, float] | None = None
    overlap: float | None = None

    @property
    def change(self) -> float | None:
        """What it gained; below 0 it lost; None where it is in one answer only."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def fate(self) -> str:
        """What became of it: a key of FATES."""
        return "lost" if self.after is None else "new" if self.before is None else "kept"


def box_overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom), 0 to 1."""
    width, height = (min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis]) for axis in (0, 1))
    both = max(width, 0.0) * max(height, 0.0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - both
    return both / union if union > 0 else 0.0


def row_names(rows: Sequence[AnswerRow]) -> tuple[str, ...]:
    """The label of each row, with a number behind it where several rows have it: "cell 1", "cell 2"."""
    labels = [row.label for row in rows]
    return tuple(f"{label} {labels[:at + 1].count(label)}" if labels.count(label) > 1 else label
                 for at, label in enumerate(labels))


def compare_answers(before: Answer, after: Answer, least: float = LEAST_OVERLAP) -> tuple[AnswerRow, ...]:
    """Two answers of one model beside each other: what was there before in its order, then what is new.

    Classes are paired by name. Boxes are paired within a class, those that overlap most first, each once; a box without
    such a partner is lost or new.

    Args:
        before: with the layer's own routing.
        after: with the other one.
        least: intersection over union from which two boxes may be the same.
    """
    rows = _paired_boxes(before.detections, after.detections, least)
    then, now = dict(before.classes), dict(after.classes)
    return (*rows, *(AnswerRow(label, then.get(label), now.get(label)) for label in {**then, **now}))


def _paired_boxes(before: Sequence[Detection], after: Sequence[Detection], least: float) -> list[AnswerRow]:
    pairs = sorted((-overlap, i, j) for i, one in enumerate(before) for j, other in enumerate(after)
                   if one.label == other.label and (overlap := box_overlap(one.box, other.box)) >= least)
    partner: dict[int, tuple[int, float]] = {}
    taken: set[int] = set()
    for overlap, i, j in pairs:
        if i not in partner and j not in taken:
            partner[i] = j, -overlap
            taken.add(j)
    rows = []
    for i, one in enumerate(before):
        if i in partner:
            j, overlap = partner[i]
            rows.append(AnswerRow(one.label, one.score, after[j].score, one.box, after[j].box, overlap))
        else:
            rows.append(AnswerRow(one.label, one.score, None, one.box))
    return rows + [AnswerRow(one.label, None, one.score, None, one.box)
                   for j, one in enumerate(after) if j not in taken]


@dataclass(frozen=True, slots=True, eq=False)
class Rerouted:
    """One layer routed otherwise on one picture.

    Attributes:
        reroute: where it looked instead.
        before: the model's answer with the layer's own routing.
        after: the answer with the other one.
        choices: pairs of a window on the map and a window that it was routed to instead.
        moved: those among them that are not in the layer's own choice.
    """

    reroute: Reroute
    before: Answer
    after: Answer
    choices: int
    moved: int

    @classmethod
    def of(cls, reroute: Reroute, trace: LayerTrace, before: Answer, after: Answer) -> Rerouted:
        """From the layer with its own choice, and the two answers."""
        n, mapped = trace.grid.n_windows, on_map(trace)
        own, other = (picked(windows, n)[mapped] for windows in (trace.r_idx[0].numpy(), windows_of(reroute, trace)))
        return cls(reroute, before, after, int(other.sum()), int((other & ~own).sum()))

    @property
    def rows(self) -> tuple[AnswerRow, ...]:
        """Both answers beside each other."""
        return compare_answers(self.before, self.after)


# the run --------------------------------------------------------------------------------------------------


def why_not(model: OpenModel, layer: LayerTrace) -> str:
    """Why a layer of a model cannot be made to look elsewhere, with the cure; "" where it can."""
    if not model.runs:
        return no_rerun()
    if not layer.routed:
        return message("layer {layer!r} does not route: its tokens attend to all that they reach, so there is no "
                       "choice to replace. Choose a layer that routes.", layer=layer.name)
    if layer.name not in model.specs:
        return message("layer {layer!r} runs more than once in a forward, so its choice cannot be replaced for one of "
                       "them: choose another layer.", layer=layer.name)
    if not model.classes:
        return message("this model gives no answer that could change: choose a detector or a classifier with trained "
                       "weights, such as the flowers or the blood cells.")
    return ""


def rerouting(reroute: Reroute, trace: LayerTrace, change: Change | None = None) -> Change:
    """The change of a model that routes a layer so.

    Args:
        reroute: where it is to look.
        trace: the layer with its own choice, under `change`.
        change: other windows that the same layer has already.

    Raises:
        BRAError: there is no such rule, a swap cannot be, or the other windows are another layer's.
    """
    if change is not None and change.layer != reroute.layer:
        raise BRAError(message("the layer with other windows is {changed!r}, and the one that looks elsewhere is "
                               "{layer!r}: change one layer at a time.", changed=change.layer, layer=reroute.layer))
    routing = tuple(map(tuple, windows_of(reroute, trace).tolist()))
    return replace(change or Change(reroute.layer), routing=routing)


def look_elsewhere(model: OpenModel, photo: Photo, side: int, reroute: Reroute,
                   change: Change | None = None) -> Rerouted:
    """Run a model on a photo as it is, and from one layer on with another routing.

    Args:
        model: a detector or a classifier.
        photo: the picture.
        side: its longer side in pixels when the model reads it.
        reroute: where the layer is to look instead.
        change: other windows of the same layer, in both runs.

    Raises:
        BRAError: there is no such layer, it cannot look elsewhere, or the model does not run on the photo.
    """
    own, kept = run_from(model, photo, side, change)
    if reroute.layer not in own.trace.layers:
        raise BRAError(message("layer {layer!r} has no windows to change: choose one of {layers}.",
                               layer=reroute.layer, layers=", ".join(model.specs)))
    trace = own.trace.layers[reroute.layer]
    if why_not(model, trace):
        raise BRAError(why_not(model, trace))
    other, _ = run_from(model, photo, side, rerouting(reroute, trace, change), kept)
    return Rerouted.of(reroute, trace, own.answer, other.answer)


# in words -------------------------------------------------------------------------------------------------

ABOUT: Final = message(
    "This is one picture and one layer. All weights stay as they are, and the layers after it learned to follow its "
    "own choice: a change says what this answer hangs on, not which routing is better.")
ABOUT_BOXES: Final = message(
    "A box before and a box after are the same where they are of one class and share half of their area (intersection "
    "over union of 0.5), those that share most first. A box whose score falls below what the detector reports is lost.")


def in_words(found: Rerouted) -> str:
    """How much was routed otherwise and what became of the answer, in two sentences."""
    moved = message("Other windows than the layer's own: {moved} of {choices} choices.", moved=found.moved,
                    choices=found.choices)
    if found.moved and found.before == found.after != Answer():
        return spaced([moved, message("Nothing of this answer changes: here it does not hang on where this layer "
                                      "looks. Try another layer.")])
    return spaced([moved, _classes_in_words(found) if found.before.classes else _boxes_in_words(found.rows)])


def _boxes_in_words(rows: Sequence[AnswerRow]) -> str:
    if not rows:
        return message("The model finds nothing on this picture, before and after.")
    kept = [(abs(change), row) for row in rows if (change := row.change) is not None]
    fates = [row.fate for row in rows]
    counts = {"before": len(rows) - fates.count("new"), "after": len(rows) - fates.count("lost"), "kept": len(kept),
              "lost": fates.count("lost"), "new": fates.count("new")}
    most, row = max(kept, key=lambda one: one[0], default=(0.0, rows[0]))
    if not most:
        return message("Boxes: {before} before, {after} after; {kept} stay, {lost} lost, {new} new. No score of those "
                       "that stay changes.", **counts)
    return message("Boxes: {before} before, {after} after; {kept} stay, {lost} lost, {new} new. The score that changes "
                   "most is that of {label}: {was:.2f} % before, {now:.2f} % after.", **counts, label=row.label,
                   was=100 * (row.before or 0.0), now=100 * (row.after or 0.0))


def _classes_in_words(found: Rerouted) -> str:
    (first, share), (then, after) = found.before.classes[0], found.after.classes[0]
    if first == then:
        return message("The answer stays {label}: {was:.2f} % before, {now:.2f} % after.", label=first,
                       was=100 * share, now=100 * after)
    return message("The answer was {label} ({was:.2f} %) and becomes {other} ({now:.2f} %).", label=first,
                   was=100 * share, other=then, now=100 * after)
