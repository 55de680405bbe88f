"""A trace as one HTML file that needs no server, no network and no app: the stage itself, with its numbers inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from string import Template

from torch import Tensor

from bra import viewer
from bra.messages import ENGLISH, Language, message, semicolon_joined
from bra.models.base import WARNING, Detection
from bra.photo import Photo
from bra.tracing import LayerTrace
from bra.viewer.pack import Caption, Place, stage_message, tiles_message


def report_html(photo: Photo, trace: LayerTrace, caption: Caption, focus: Place,
                pins: Mapping[str, Place] | None = None, whole: bool = False, show: Sequence[str] = (),
                detections: Sequence[Detection] = (), language: Language = ENGLISH,
                mean_map: Callable[[int], Tensor] | None = None) -> str:
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
        language: of the page; the caption's model and provenance are told in it too.
        mean_map: as for `tiles_message`.
    """
    tell = language.translate
    caption = replace(caption, model=tell(caption.model), provenance=tell(caption.provenance))
    pins = dict(pins or {})
    queries = [(role, place, whole) for role, place in pins.items()] or [("a", focus, whole)]
    grid = trace.grid
    sizes = {"line": caption.line(trace), "h": grid.h, "w": grid.w, "n_win": grid.n_win}
    about = message("{line}. {h}×{w} tokens in {n_win}×{n_win} windows, {padding:.1f} % of them padding.", **sizes,
                    padding=100 * grid.padding_share) if grid.padding_share else \
        message("{line}. {h}×{w} tokens in {n_win}×{n_win} windows.", **sizes)
    notes = tell(semicolon_joined(photo.notes)) if photo.notes else ""
    stage, page = viewer.text("stage.html"), viewer.text("report.html")
    fill = {
        "title": escape(tell(message("Where {picture} is routed", picture=caption.picture))),
        "about": escape(tell(about)),
        "warning": f"<p class=warning>{escape(tell(WARNING))}</p>" if caption.untrained else "",
        "lang": escape(language.code), "style": viewer.text("viewer.css"), "stage": stage,
        "stage_code": _code(viewer.STAGE, stage + page, language), "tiles_code": _code(viewer.TILES, "", language),
        "stage_data": _base64(stage_message(photo, trace, caption, focus, pins, show, None, detections)),
        "tiles_data": _base64(tiles_message(photo, trace, caption, queries, None, mean_map)),
        "foot": escape(f"{tell(message('Made by RouteScope.'))} {notes}"),
    }
    return Template(page).substitute(fill)


def _code(parts: Sequence[str], html: str, language: Language) -> str:
    """A view's script as the body of a function, in a language."""
    code = viewer.script(*parts).replace("export default function", "function")
    return viewer.in_words(code, viewer.words_of(code, html, language.words))


def _base64(message: bytes) -> str:
    return base64.b64encode(message).decode()
