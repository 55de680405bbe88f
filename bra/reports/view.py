"""The stage as an object: a notebook shows it where a cell ends with it, and it saves itself as a page.

Plain HTML with everything inside, in a frame of its own: several on one page do not meet, and nothing is fetched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

from bra.errors import BRAError
from bra.messages import message
from bra.models.adapters import OpenClassifier, OpenPatches
from bra.models.base import Detection, ModelRun, OpenModel
from bra.models.biformer import BiFormer
from bra.models.catalog import CATALOG, SIDE
from bra.models.patches import PatchModel
from bra.opening import model_and_variant, opened, yolo
from bra.photo import Photo
from bra.reports.layer_html import report_html
from bra.tracing import LayerTrace, ModelTrace, network
from bra.viewer.pack import FULL, Caption, Place

HEIGHT = 760
"""Pixels of the frame until its page has told its own height."""
YOLO_SIDE = 640


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The routing of one layer on one picture, to point at.

    Attributes:
        layer: the layer's name.
        frame: the stage as an HTML page, which needs no network and no server: what a notebook shows and keeps. The
            charts are left out, since notebooks refuse cells of many megabytes: marimo those above 8 MB.
        make: makes the same page with the charts of the pinned queries.
    """

    layer: str
    frame: str = field(repr=False)
    make: Callable[[], str] = field(repr=False)

    @property
    def page(self) -> str:
        """The whole page, charts included, as `save` writes it."""
        return self.make()

    def _repr_html_(self) -> str:
        # Not sandboxed: a frame that may not reach its page cannot follow the page's theme and height.
        return (f'<iframe srcdoc="{escape(self.frame)}" title="{escape(self.layer or "attention")}" '
                f'style="width:100%;height:{HEIGHT}px;border:0;display:block"></iframe>')

    def save(self, path: str | Path) -> Path:
        """Write the page to a file that opens anywhere; returns its path."""
        Path(path).write_text(self.page, encoding="utf-8")
        return Path(path)


def show(model_or_trace: Any, photo: Any, layer: str | None = None, side: int | None = None,
         at: tuple[float, float] = (50, 50), a: tuple[float, float] | None = None,
         b: tuple[float, float] | None = None) -> View:
    """The routing of a layer on a picture: point at windows, click to pin one, see its numbers.

    Args:
        model_or_trace: a trace of a model or a layer; or a model to run: an opened one, a name of the catalogue, a
            file, an Ultralytics model or a BiFormer. Of any other model give its trace, `bra.trace(model, x)`.
        photo: the picture: a Photo, a file's path or bytes, (H, W, 3) uint8, or a PIL image. With a trace, the picture
            that the model read.
        layer: its name; None for the first that is routed.
        side: of a model, the longer side in pixels at which it reads the picture; None for what suits it.
        at: where to look first, in per cent of width and height.
        a: the pinned query A, likewise.
        b: the pinned query B, likewise.

    Raises:
        BRAError: the model cannot be run on a picture, there is no such layer, or the picture is of another shape than
            what the trace is of.
    """
    picture = Photo.of(photo)
    name = Path(photo).name if isinstance(photo, (str, Path)) else message("picture")
    label: str = message("a trace")
    provenance: str = message("weights as given")
    detections: tuple[Detection, ...] = ()
    untrained = False
    given: Any = model_or_trace
    if isinstance(given, ModelRun):
        given, detections = given.trace, given.answer.detections
    if isinstance(given, LayerTrace):
        given = ModelTrace(None, {given.name: given})
    if not isinstance(given, ModelTrace):
        model, usual = _model(given)
        run = model.look(picture, usual if side is None else side)
        given, detections, label, provenance = run.trace, run.answer.detections, model.label, model.provenance
        untrained = model.untrained
    routed = [one for one, found in given.layers.items() if found.routed]
    wanted = layer if layer is not None else (routed or [*given.layers])[0]
    trace = given.layers[wanted]
    _check_shape(trace, picture)
    pins = {role: _place(place) for role, place in (("a", a), ("b", b)) if place is not None}
    caption = Caption(label, wanted, provenance, name, untrained)
    written = partial(report_html, picture, trace, caption, _place(at), pins, detections=detections)
    return View(wanted, written(charts=False), written)


def _place(place: tuple[float, float]) -> Place:
    x, y = place
    if not (0 <= x <= 100 and 0 <= y <= 100):
        raise BRAError(message("place {place} is not on the picture: give 0 to 100 per cent each.", place=str(place)))
    return round(x * FULL / 100), round(y * FULL / 100)


def _model(given: Any) -> tuple[OpenModel, int]:
    """A model that reads pictures, and the side that suits it."""
    if isinstance(given, (str, Path)):
        return opened(given), CATALOG[model_and_variant(str(given))[0]].side
    if isinstance(given, OpenModel):
        return given, YOLO_SIDE if hasattr(given.module, "yaml") else SIDE
    module = network(given)
    if module.training:
        module = copy.deepcopy(module).eval()
    label, provenance = type(module).__name__, message("weights as given")
    if isinstance(module, BiFormer):
        return OpenClassifier(module, label, provenance), SIDE
    if isinstance(module, PatchModel):
        return OpenPatches(module, label, provenance), SIDE
    if hasattr(module, "yaml") and isinstance(getattr(module, "model", None), nn.Module):
        made: OpenModel = yolo().opened(module, label, provenance)
        return made, YOLO_SIDE
    raise BRAError(message("how {kind} reads a picture is not known: give its trace, "
                           "bra.show(bra.trace(model, x), photo).", kind=type(module).__name__))


def _check_shape(trace: LayerTrace, photo: Photo) -> None:
    """The picture must have the shape of the trace's input: otherwise windows would be laid on other places."""
    height, width = trace.grid.image or (trace.grid.h, trace.grid.w)
    ratio = (photo.width / photo.height) / (width / height)
    if not 1 / (1 + 2 / min(height, width)) <= ratio <= 1 + 2 / min(height, width):
        raise BRAError(message("the trace is of an input of {w}×{h} and the picture has {width}×{height} px, another "
                               "shape: give the picture that the model read.", w=width, h=height, width=photo.width,
                               height=photo.height))
