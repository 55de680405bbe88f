"""A trace as one HTML file that needs no server, no network and no app: the stage itself, with its numbers inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from string import Template

from bra import viewer
from bra.models.opened import Detection
from bra.photo import Photo
from bra.tracing import LayerTrace
from bra.viewer.pack import Caption, Place, stage_message, tiles_message


def report_html(photo: Photo, trace: LayerTrace, caption: Caption, focus: Place,
                pins: Mapping[str, Place] | None = None, whole: bool = False, show: Sequence[str] = (),
                detections: Sequence[Detection] = ()) -> str:
    """The page as text.

    Args:
        photo: the picture.
        trace: one layer on it.
        caption: names that stand on the page; escaped here.
        focus: where to look before anyone points.
        pins: pinned queries "a" and "b"; without any, the attention of the focus is shown.
        whole: show the mean over each query's window instead of its token.
        show: what is switched on, of `viewer.pack.SHOWS`.
        detections: what the model found on the photo.
    """
    pins = dict(pins or {})
    queries = [(role, place, whole) for role, place in pins.items()] or [("a", focus, whole)]
    grid = trace.grid
    about = (f"{caption.line(trace)}. {grid.h}×{grid.w} tokens in {grid.n_win}×{grid.n_win} windows"
             + (f", {100 * grid.padding_share:.1f} % of them padding" if grid.padding_share else "") + ".")
    fill = {
        "title": escape(f"Where {caption.picture} is routed"), "about": escape(about),
        "style": viewer.text("viewer.css"), "stage": viewer.text("stage.html"),
        "stage_code": _as_body(viewer.script(*viewer.STAGE)), "tiles_code": _as_body(viewer.script(*viewer.TILES)),
        "stage_data": _base64(stage_message(photo, trace, caption, focus, pins, show, None, detections)),
        "tiles_data": _base64(tiles_message(photo, trace, caption, queries)),
        "foot": escape("Made by RouteScope. " + "; ".join(photo.notes)),
    }
    return Template(viewer.text("report.html")).substitute(fill)


def _as_body(module: str) -> str:
    return module.replace("export default function", "function")


def _base64(message: bytes) -> str:
    return base64.b64encode(message).decode()
