"""Does routing follow content? The picture is changed in a way that is known, and the routed areas are compared.

Of the area that a query was routed to, a part is routed to again when the same query is asked on the changed picture,
with everything taken back to where it was. Three controls stand beside it: a routing that stays where it was on the
grid, the nearest windows, and as many windows at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from bra.errors import BRAError
from bra.messages import message
from bra.metrics import routing as bf
from bra.metrics.agreement import even_places, shared, windows_at
from bra.metrics.routing import Floats
from bra.models.base import OpenModel
from bra.photo import Photo
from bra.tracing import LayerTrace

Pixels = NDArray[np.uint8]
SHIFT: Final = 0.1
CROP: Final = 0.75
DIM: Final = 0.6


@dataclass(frozen=True, slots=True)
class Probe:
    """One change of a picture.

    Attributes:
        name: for people.
        about: what it does, and what it leaves as it was.
        change: (H, W, 3) pixels -> pixels.
        moved: (n, 2) places of the picture -> where their content is on the changed one; outside 0 to 1 it is gone.
    """

    name: str
    about: str
    change: Callable[[Pixels], Pixels]
    moved: Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """How much of a layer's routed area survives a probe: means over the picture, 0 to 1.

    NaN where no query is routed to the picture: untrained layers may all choose a window of padding only.

    Attributes:
        layer: its name.
        probe: a key of PROBES.
        survived: share of the routed area that is routed to again.
        stayed: the same of a routing that keeps to its places on the grid whatever the picture shows.
        nearest: the same of the nearest windows, which survive whatever leaves neighbours neighbours.
        chance: the same of as many random windows.
    """

    layer: str
    probe: str
    survived: float
    stayed: float
    nearest: float
    chance: float

    def to_dict(self) -> dict[str, Any]:
        """All values by name."""
        return asdict(self)


def _mirrored(rgb: Pixels) -> Pixels:
    return rgb[:, ::-1]


def _shifted(rgb: Pixels) -> Pixels:
    by = round(SHIFT * rgb.shape[1])
    return np.pad(rgb, [(0, 0), (by, 0), (0, 0)], mode="edge")[:, : rgb.shape[1]]


def _cropped(rgb: Pixels) -> Pixels:
    (top, bottom), (left, right) = ((round(side * (1 - CROP) / 2), round(side * (1 + CROP) / 2)) for side in
                                    rgb.shape[:2])
    return rgb[top:bottom, left:right]


def _dimmed(rgb: Pixels) -> Pixels:
    return np.asarray(np.rint(rgb * DIM), np.uint8)


def _swapped(rgb: Pixels) -> Pixels:
    half = rgb.shape[1] // 2
    return np.concatenate([rgb[:, half:], rgb[:, :half]], 1)


def _as_it_was(places: Floats) -> Floats:
    return places


def _to_mirror(places: Floats) -> Floats:
    return np.stack([1 - places[:, 0], places[:, 1]], -1)


def _to_shift(places: Floats) -> Floats:
    return np.asarray(places + np.array([SHIFT, 0.0]))


def _to_crop(places: Floats) -> Floats:
    return np.asarray((places - (1 - CROP) / 2) / CROP)


def _to_swap(places: Floats) -> Floats:
    return np.stack([(places[:, 0] + 0.5) % 1, places[:, 1]], -1)


PROBES: Final[Mapping[str, Probe]] = MappingProxyType({
    "brightness": Probe(message("brightness"), message("{share} % darker, nothing moves", share=round(100 - 100 * DIM)),
                        _dimmed, _as_it_was),
    "flip": Probe(message("flip"), message("left and right mirrored, neighbours stay "
                                           "neighbours"), _mirrored, _to_mirror),
    "shift": Probe(message("shift"), message("moved right by {share:.0f} % of the width, neighbours stay neighbours",
                                             share=100 * SHIFT), _shifted, _to_shift),
    "crop": Probe(message("crop"), message("the middle {share:.0f} % of each side, "
                                           "enlarged", share=100 * CROP), _cropped,
                  _to_crop),
    "swap": Probe(message("swap"), message("left and right half exchanged: only who follows content finds the other "
                                           "half again"), _swapped, _to_swap),
})


def probe(model: OpenModel, photo: Photo, side: int, names: Sequence[str] = tuple(PROBES),
          progress: Callable[[int, int], None] = lambda done, todo: None) -> tuple[ProbeRow, ...]:
    """How much of what each routed layer chose survives each probe.

    Args:
        model: the model; it runs once on the picture and once on each changed one.
        photo: the picture.
        side: its longer side in pixels when the model reads it.
        names: keys of PROBES.
        progress: told (probes done, probes to do); what it raises ends the work.

    Raises:
        BRAError: there is no such probe, or no routed layer.
    """
    if unknown := [name for name in names if name not in PROBES]:
        raise BRAError(message("probe {name!r} is not known: choose of {names}.", name=unknown[0],
                               names=", ".join(PROBES)))
    # Reduced once, yet large enough that a crop can still fill the side.
    photo = Photo.from_array(photo.resized(round(side / CROP)))
    before = {name: lt for name, lt in model.look(photo, side).trace.layers.items() if lt.routed}
    if not before:
        raise BRAError(message("{model} has no routed layer to probe: choose another model.", model=model.label))
    rows = []
    for done, name in enumerate(names):
        progress(done, len(names))
        one = PROBES[name]
        after = model.look(Photo.from_array(np.ascontiguousarray(one.change(photo.rgb))), side).trace.layers
        rows += [_row(name, one, lt, after[layer]) for layer, lt in before.items()]
    return tuple(rows)


def _row(name: str, one: Probe, a: LayerTrace, b: LayerTrace) -> ProbeRow:
    places = even_places()
    at_a, at_b = windows_at(a.grid, places), windows_at(b.grid, one.moved(places))

    def survived(before: LayerTrace, after: LayerTrace) -> float:
        shares = shared(before, at_a, after, at_b).survived
        return float(shares[np.isfinite(shares)].mean()) if np.isfinite(shares).any() else math.nan

    return ProbeRow(a.name, name, survived(a, b), survived(a, replace(b, r_idx=a.r_idx)),
                    survived(_nearest(a), _nearest(b)), bf.chance(b))


def _nearest(trace: LayerTrace) -> LayerTrace:
    return replace(trace, r_idx=torch.from_numpy(bf.nearest_windows(trace))[None])
