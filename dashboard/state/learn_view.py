"""Where a visitor is in the lesson as one frozen record, and its part of the link. Answers are not in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from bra.teaching.source import STEPS
from dashboard.i18n import tr_noop
from dashboard.state import link

PARTS: Final = ("chapters", "example", "photo", "predict")
SCENES: Final = ("words", "try", "ask")
"""What a chapter is shown as, one after the other, where it is projected."""
LENGTHS: Final[Mapping[str, int]] = {
    "chapters": 9, "example": len(STEPS), "photo": len(STEPS), "predict": 8}
PIXELS: Final = range(112, 1793, 56)
"""Sides of which the map divides into 7 windows without padding."""
N_WINS: Final = range(2, 11)
FACTORS: Final = (25, 50, 100, 200, 400)
"""By what the affinities are multiplied, in per cent."""
CUTS: Final = (2, 4, 8, 16)
"""Windows per side of which a quarter is a whole number, and that divide 80 tokens."""
WEIGHTS: Final = (tr_noop("trained"), tr_noop("untrained"), tr_noop("likeness"))
ANSWERS: Final = (tr_noop("taught"), *WEIGHTS)
"""Whose routing can be predicted."""
LAYERS: Final = range(5)
TEACHERS: Final = (tr_noop("default"), tr_noop("straight-through"), tr_noop("taught"))
"""What taught the router of each model of drawn scenes; the words of `bra.training.scenes.ROUTERS`."""
KINDS: Final = (tr_noop("YOLO11's C2PSA"), tr_noop("YOLO12's A2C2f"), tr_noop("BRA in place of C2PSA"))
"""Which attention of a YOLO is looked at."""
SIDES: Final = (320, 640, 1280, 1920)
"""Sides of a picture for which its pairs are counted."""
Stop = tuple[str, int, str]
"""Part, step and scene."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """Where one is, and what is set there.

    Attributes:
        part: of PARTS.
        step: number of the chapter, of the example's step or of the round, from 1.
        scene: of SCENES; what of a chapter is projected. On a page one reads, all are.
        present: whether it is projected.
        pixels: side of the picture whose cost is counted.
        n_win: windows per side of the chapter on windows.
        topk: its routed windows.
        factor: on the affinities, in per cent.
        soft: whether the layer multiplies by its routing weights.
        cut: windows per side at equal coverage.
        pad_win: windows per side of the chapter on padding.
        masked: whether padding is left out there.
        weights: whose routing is looked at, of WEIGHTS.
        layer: number of the layer whose output is taken apart, from 0.
        who: whose routing is to be predicted, of ANSWERS.
        router: which of the models of drawn scenes is looked at, of TEACHERS.
        kind: which attention of a YOLO is looked at, by its number in KINDS.
        side: side of the picture in pixels for which its pairs are counted, of SIDES.
    """

    part: str = "chapters"
    step: int = 1
    scene: str = "words"
    present: bool = False
    pixels: int = 448
    n_win: int = 7
    topk: int = 4
    factor: int = 100
    soft: bool = False
    cut: int = 4
    pad_win: int = 5
    masked: bool = False
    weights: str = "trained"
    layer: int = 1
    who: str = "taught"
    router: str = "default"
    kind: int = 0
    side: int = 640

    @property
    def stop(self) -> Stop:
        """Where one is, as one of `stops`."""
        return self.part, self.step, self.scene if self.present and self.part == "chapters" else SCENES[0]

    def moved(self, by: int) -> Lesson:
        """So many stops on; at either end, as it is."""
        all_stops = stops(self.present)
        part, step, scene = all_stops[min(max(all_stops.index(self.stop) + by, 0), len(all_stops) - 1)]
        return replace(self, part=part, step=step, scene=scene)

    def at(self, part: str, step: int = 1) -> Lesson:
        """The beginning of a step of a part."""
        return replace(self, part=part, step=step, scene=SCENES[0])

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Lesson:
        """What a link asks for; whatever in it is unknown or out of range is left at its default."""
        found = link.read(cls(), _PARAMS, query)
        if found.step > LENGTHS[found.part]:
            found = replace(found, step=cls().step)
        if found.part != "chapters":
            found = replace(found, scene=cls().scene)
        return replace(found, topk=min(found.topk, found.n_win**2))

    def to_query(self) -> dict[str, str]:
        """What differs from the default. Inverse of `from_query`."""
        return link.write(self, Lesson(), _PARAMS)


_PARAMS: Final = (
    link.word("part", PARTS), link.number("step", range(1, max(LENGTHS.values()) + 1)), link.word("scene", SCENES),
    link.switch("present"), link.number("pixels", PIXELS, "learn_pixels"), link.number("n_win", N_WINS, "learn_n_win"),
    link.number("topk", range(1, N_WINS[-1] ** 2 + 1), "learn_topk"), link.number("factor", FACTORS, "learn_factor"),
    link.switch("soft", "learn_soft"), link.number("cut", CUTS, "learn_cut"),
    link.number("pad_win", N_WINS, "learn_pad_win"), link.switch("masked", "learn_masked"),
    link.word("weights", WEIGHTS, "learn_weights"), link.number("layer", LAYERS, "learn_layer"),
    link.word("who", ANSWERS, "learn_who"), link.word("router", TEACHERS, "learn_router"),
    link.number("kind", range(len(KINDS)), "learn_kind"), link.number("side", SIDES, "learn_side"))


def stops(present: bool) -> tuple[Stop, ...]:
    """Every stop of the lesson in order; projected, a chapter has one for each of its scenes."""
    return tuple((part, step, scene) for part in PARTS for step in range(1, LENGTHS[part] + 1)
                 for scene in (SCENES if present and part == "chapters" else SCENES[:1]))
