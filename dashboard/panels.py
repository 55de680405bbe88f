"""The parts of a page that answer a click without running the whole page again."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from bra.export import routing_csv, trace_npz
from bra.models.opened import Look
from bra.photo import Photo
from bra.report import report_html
from bra.tracing import LayerTrace
from bra.viewer.pack import Caption, Place, rail_message, tiles_message
from dashboard import components, services, state, widgets
from dashboard.selection import Selection
from dashboard.words import tongue, tr


def rail(look: Look, chosen: str) -> None:
    """Every layer of the model at once, where it has several."""
    if len(look.trace.layers) > 1:
        components.rail(rail_message(look.trace.layers, chosen), state.RAIL, state.take_layer)


@st.fragment
def explorer(view: Selection, photo: Photo, look: Look, layer: LayerTrace, caption: Caption, focus: Place) -> None:
    """The stage, the attention of its pinned queries, and the downloads."""
    selection = replace(state.current(), settings=view.settings, layer=view.layer)
    # By itself, since a message that is the same as before is not sent again: a new topk then brings numbers only.
    components.picture(services.picture_bytes(photo), "picture")
    pins, show = state.stage_opening(photo.digest)
    message = services.stage_bytes(selection, photo, layer, look.answer, caption, focus, pins, show,
                                   state.model_upload())
    components.stage(message, state.STAGE, state.take_pins, state.take_show)

    heading, choice = st.columns([2.2, 1], vertical_alignment="bottom")
    heading.subheader(tr("What the query tokens attend to"), anchor=False)
    with choice:
        whole = widgets.choose_attention(selection.whole)
    # Read here: a download is made outside of the visitor's session, where there is no view to ask for.
    pins, language = selection.pins, tongue()
    queries = [(role, place, whole) for role, place in (pins or {"a": focus}).items()]
    components.tiles(tiles_message(photo, layer, caption, queries, b""), "tiles")

    stem = f"routing_n{layer.spec.n_win}_k{layer.spec.topk}"
    with st.container(horizontal=True):
        st.download_button(tr("Routing, CSV"), lambda: routing_csv(layer), f"{stem}.csv", "text/csv", on_click="ignore")
        st.download_button(tr("Trace, NPZ"), lambda: trace_npz(layer), f"{stem}.npz", "application/octet-stream",
                           on_click="ignore")
        st.download_button(
            tr("Report, HTML"), lambda: report_html(photo, layer, caption, focus, pins, whole, selection.show,
                                                      look.answer.detections, language),
            f"{stem}.html", "text/html", on_click="ignore",
            help=tr("This view as one file that opens anywhere, without a network."))
