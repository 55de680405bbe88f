"""Explore: one picture, one model; point at a window and see where each layer routes it."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from bra.models.base import Answer, ModelRun
from bra.viewer.pack import Caption, Place, rail_message
from dashboard import components
from dashboard.i18n import tr, translate, visitor_language
from dashboard.services import explore as explore_services
from dashboard.services import models as model_services
from dashboard.services.explore import LayerRequest
from dashboard.state import session
from dashboard.state import widgets as widget_state
from dashboard.state.view import Selection
from dashboard.widgets import model as model_widgets
from dashboard.widgets import picture


def rail(look: ModelRun, chosen: str) -> None:
    """Every layer of the model at once, where it has several."""
    if len(look.trace.layers) > 1:
        components.rail(rail_message(look.trace.layers, chosen), session.RAIL, session.take_layer)


def explorer(view: Selection, shown: LayerRequest, answer: Answer, caption: Caption, focus: Place) -> None:
    """All that is seen of one layer; what takes long is waited for here, where it can be called off."""
    explore_services.beforehand(shown, _queries(session.current(), focus))
    _explorer(view, shown, answer, caption, focus)


def _queries(selection: Selection, focus: Place) -> list[tuple[str, Place, bool]]:
    return [(role, place, selection.whole) for role, place in (selection.pins or {"a": focus}).items()]


@st.fragment
def _explorer(view: Selection, shown: LayerRequest, answer: Answer, caption: Caption, focus: Place) -> None:
    """The stage, the attention of its pinned queries, and the downloads.

    Streamlit keeps the arguments of a fragment and what its downloads hold for as long as the page is open: keys, and
    never what they name.
    """
    # The buttons of a fragment may not stand in a place outside of it.
    widget_state.set_status_slot(st.container())
    selection = replace(session.current(), settings=view.settings, layer=view.layer)
    seen = explore_services.seen(shown)
    # By itself, since a message that is the same as before is not sent again: a new topk then brings numbers only.
    components.picture(model_services.picture_bytes(seen.photo), "picture")
    pins, show = session.stage_opening(seen.photo.digest)
    components.stage(explore_services.stage_bytes(seen, answer, caption, focus, pins, show), session.STAGE,
                     session.take_pins, session.take_show)

    heading, choice = st.columns([2.2, 1], vertical_alignment="bottom")
    heading.subheader(tr("What the query tokens attend to"), anchor=False)
    with choice:
        whole = picture.choose_attention(selection.whole)
    # Read here: a download is made outside of the visitor's session, where there is no view to ask for.
    pins, language = selection.pins, visitor_language()
    stem = f"routing_n{seen.layer.spec.n_win}_k{seen.layer.spec.topk}"
    queries = _queries(replace(selection, whole=whole), focus)
    components.tiles(explore_services.tiles_bytes(seen, caption, queries), "tiles")

    with st.container(horizontal=True):
        st.download_button(tr("Routing, CSV"), lambda: explore_services.routing_file(shown), f"{stem}.csv", "text/csv",
                           on_click="ignore")
        st.download_button(tr("Trace, NPZ"), lambda: explore_services.trace_file(shown), f"{stem}.npz",
                           "application/octet-stream", on_click="ignore")
        st.download_button(
            tr("Report, HTML"), lambda: explore_services.report_file(shown, answer, caption, focus, pins, whole,
                                                                     selection.show, language),
            f"{stem}.html", "text/html", on_click="ignore",
            help=tr("This view as one file that opens anywhere, without a network."))


def main() -> None:
    """Draw the page."""
    picture.choose_picture()
    photo, name, hint, focus = picture.picture()
    with st.sidebar:
        chosen = model_widgets.choose_settings(photo)
    view, model, look = model_widgets.looked(chosen, photo)
    picture.heading(name, hint, photo.notes)
    picture.say(look.answer)
    layer = look.trace.layers[model_widgets.layer_of(view, tuple(look.trace.layers))]
    rail(look, layer.name)
    picture.warn_of_padding(layer.grid)
    picture.warn_of_hubs(layer)
    provenance = model_widgets.provenance_of(view.settings, model.origin)
    changed = model_widgets.shown_layer(view.settings, view.layer, tuple(model.specs))
    shown = explore_services.shown(view.settings, photo, session.upload(), changed, layer.name, session.model_upload())
    explorer(view, shown, look.answer, Caption(translate(model.label), layer.name, provenance, name), focus)


if __name__ == "__main__":
    main()
