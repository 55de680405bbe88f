"""Explore: one picture, one model; point at a window and see where each layer routes it."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from bra.models.base import Answer, ModelRun
from bra.viewer.pack import Caption, Place, rail_message
from dashboard import components
from dashboard.i18n import tr, translate, visitor_language
from dashboard.services import explore as explore_services
from dashboard.services.explore import LayerRequest
from dashboard.services.models import LoadedModel, picture_bytes
from dashboard.state import job_status, session
from dashboard.state.view import Selection
from dashboard.widgets import model as model_widgets
from dashboard.widgets import picture


def rail(run: ModelRun, chosen: str) -> None:
    """Every layer of the model at once, where it has several."""
    if len(run.trace.layers) > 1:
        components.rail(rail_message(run.trace.layers, chosen), session.RAIL, session.on_layer)


def explorer(view: Selection, request: LayerRequest, answer: Answer, caption: Caption, focus: Place) -> None:
    """All that is seen of one layer; what takes long is waited for here, where it can be cancelled."""
    explore_services.prefetch_maps(request, _queries(session.current(), focus))
    _explorer(view, request, answer, caption, focus)


def _queries(selection: Selection, focus: Place) -> list[tuple[str, Place, bool]]:
    return [(role, place, selection.whole) for role, place in (selection.pins or {"a": focus}).items()]


@st.fragment
def _explorer(view: Selection, request: LayerRequest, answer: Answer, caption: Caption, focus: Place) -> None:
    """The stage, the attention of its pinned queries, and the downloads.

    Streamlit keeps the arguments of a fragment and what its downloads hold for as long as the page is open: keys, and
    never what they name.
    """
    # The buttons of a fragment may not stand in a place outside of it.
    job_status.set_status_slot(st.container())
    selection = replace(session.current(), settings=view.settings, layer=view.layer)
    found = explore_services.result_of(request)
    # By itself, since a message that is the same as before is not sent again: a new topk then brings numbers only.
    components.picture(picture_bytes(found.photo), "picture")
    pins, show = session.stage_opening(found.photo.digest)
    components.stage(explore_services.stage_bytes(found, answer, caption, focus, pins, show), session.STAGE,
                     session.on_pins, session.on_show)

    heading, choice = st.columns([2.2, 1], vertical_alignment="bottom")
    heading.subheader(tr("What the query tokens attend to"), anchor=False)
    with choice:
        whole = picture.choose_attention(selection.whole)
    # Read here: a download is made outside of the visitor's session, where there is no view to ask for.
    pins, language = selection.pins, visitor_language()
    stem = f"routing_n{found.layer.spec.n_win}_k{found.layer.spec.topk}"
    queries = _queries(replace(selection, whole=whole), focus)
    components.tiles(explore_services.tiles_bytes(found, caption, queries), "tiles")

    with st.container(horizontal=True):
        st.download_button(tr("Routing, CSV"), lambda: explore_services.routing_file(request), f"{stem}.csv",
                           "text/csv", on_click="ignore")
        st.download_button(tr("Trace, NPZ"), lambda: explore_services.trace_file(request), f"{stem}.npz",
                           "application/octet-stream", on_click="ignore")
        st.download_button(
            tr("Report, HTML"), lambda: explore_services.report_file(request, answer, caption, focus, pins, whole,
                                                                     selection.show, language),
            f"{stem}.html", "text/html", on_click="ignore",
            help=tr("This view as one file that opens anywhere, without a network."))


def show(view: Selection, loaded: LoadedModel, run: ModelRun, chosen: picture.ChosenPicture) -> None:
    """What one layer of the model did on the picture, under what is to be said of it."""
    model_widgets.warn_of_weights(loaded)
    picture.heading(chosen.name, chosen.hint, chosen.photo.notes)
    picture.say(run.answer)
    layer = run.trace.layers[model_widgets.layer_of(view, tuple(run.trace.layers))]
    rail(run, layer.name)
    picture.warn_of_padding(layer)
    model_widgets.choose_mask(view.settings, layer)
    picture.warn_of_hubs(layer)
    provenance = model_widgets.provenance_of(view.settings, loaded.model.provenance)
    changed = model_widgets.shown_layer(view.settings, view.layer, tuple(loaded.model.specs))
    request = LayerRequest(view.settings, loaded.upload, chosen.sample, None if chosen.sample else session.upload(),
                           layer.name, changed)
    caption = Caption(translate(loaded.model.label), layer.name, provenance, chosen.name,
                      loaded.model.untrained)
    explorer(view, request, run.answer, caption, chosen.focus)


def main() -> None:
    """Draw the page."""
    picture.choose_picture(tr("RouteScope: where does routing attention look?"))
    chosen = picture.chosen_picture()
    with st.sidebar:
        view = model_widgets.choose_settings(chosen.photo)
    view, loaded, run = model_widgets.run_chosen(wanted := view, chosen.photo)
    stands_in = chosen.stands_in or view.settings != wanted.settings
    with picture.result_area(stands_in, loaded.model.label, chosen.name):
        show(view, loaded, run, chosen)


if __name__ == "__main__":
    main()
