"""A trace as one HTML file that needs no server, no network and no app: the stage itself, with its numbers inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from string import Template

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bra import viewer
from bra.figures import routing
from bra.figures.attention import Attended, about, attended, attention, names_of
from bra.figures.template import Style, file_name
from bra.messages import ENGLISH, Language, message, semicolon_joined
from bra.metrics.query_dependence import in_words
from bra.models.base import WARNING, Detection
from bra.photo import Photo
from bra.reports.figure_html import figure_html, figures_script
from bra.tracing import LayerTrace
from bra.viewer.pack import TILE_SIDE, Caption, Place, locate, stage_message, traced_size


def report_html(photo: Photo, trace: LayerTrace, caption: Caption, focus: Place,
                pins: Mapping[str, Place] | None = None, whole: bool = False, show: Sequence[str] = (),
                detections: Sequence[Detection] = (), language: Language = ENGLISH,
                mean_map: Callable[[int], Tensor] | None = None, charts: bool = True,
                heat: NDArray[np.float32] | None = None) -> str:
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
        mean_map: as for `attended`.
        charts: whether the charts of the pinned queries follow the stage; what draws them is 5 MB.
        heat: as for `stage_message`.
    """
    tell = language.translate
    caption = replace(caption, model=tell(caption.model), provenance=tell(caption.provenance))
    pins = dict(pins or {})
    queries = [(role, place, whole) for role, place in pins.items()] or [("a", focus, whole)]
    grid = trace.grid
    windows = [(role, locate(grid, photo, place)[0]) for role, place, _ in queries]
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
        "stage_code": _code(viewer.STAGE, stage + page, language),
        "stage_data": _base64(stage_message(photo, trace, caption, focus, pins, show, None, detections, 0, heat,
                                            heat is not None)),
        "hidden": "" if charts else " hidden",
        "figures": _figures(photo, trace, caption, windows, attended(trace, photo, queries, mean_map), language)
        if charts else "",
        "figures_code": figures_script(language) if charts else "",
        "foot": escape(f"{tell(message('Made by RouteScope.'))} {notes}"),
    }
    return Template(page).substitute(fill)


def _figures(photo: Photo, trace: LayerTrace, caption: Caption, windows: Sequence[tuple[str, int]],
             queries: Sequence[Attended], language: Language) -> str:
    """The charts of the pinned queries, with their words, one below the other; of attention where it is known."""
    style, line, grid = Style(language), caption.line(trace), trace.grid
    picture, size = photo.encoded(TILE_SIDE), traced_size(grid, photo)
    every = range(len(names_of(trace.spec.num_heads)))
    made = {"attention": attention(queries, every, grid, picture, size, style, line)} if queries else {}
    made["ranking"] = routing.ranking(trace, windows, style, line)
    if routing.drawable(trace):
        made["matrix"] = routing.matrix(trace, windows, style, line)
    made["in-degree"] = routing.in_degree(trace, picture, size, windows, style, line)
    setting = f"n{grid.n_win}_k{trace.spec.topk}"
    words = "".join(f"<p>{escape(language.translate(said))}</p>" for said in
                    filter(None, (in_words(trace), *(about(trace, query) for query in queries))))
    return words + "".join(
        figure_html(figure, file_name(caption.model, caption.layer, caption.picture, setting, kind))
        for kind, figure in made.items())


def _code(parts: Sequence[str], html: str, language: Language) -> str:
    """A view's script as the body of a function, in a language."""
    code = viewer.script(*parts).replace("export default function", "function")
    return viewer.in_words(code, viewer.words_of(code, html, language.words))


def _base64(message: bytes) -> str:
    return base64.b64encode(message).decode()
