"""Explore: one picture, one model; point at a window and see where each layer routes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import streamlit as st

from bra.errors import BRAError
from bra.figures import routing
from bra.figures.attention import about, attention, names_of
from bra.metrics.routing import in_degree, received
from bra.models.base import Answer, ModelRun
from bra.models.catalog import ModelSettings
from bra.models.class_map import ClassMap
from bra.models.watched import OpenTimeline
from bra.reports.code import explore_code, inspect_command, recording_code
from bra.tracing import LayerTrace
from bra.viewer.pack import TILE_SIDE, Caption, Place, locate, place_of, traced_size
from dashboard import components
from dashboard.i18n import option_labels, tr, tr_noop, translate, visitor_language
from dashboard.services import explore as explore_services
from dashboard.services.explore import LayerRequest, LayerResult
from dashboard.services.models import LoadedModel, encoded, picture_bytes
from dashboard.state import first_visit, job_status, session
from dashboard.state.view import Selection
from dashboard.state.widgets import init_widget
from dashboard.widgets import chart, picture, reroute, share, timeline
from dashboard.widgets import model as model_widgets
from dashboard.widgets.tables import heads

HEIGHT = 420      # about that of the first chart, so that little moves when it comes


def explorer(view: Selection, request: LayerRequest, found: LayerResult, answer: Answer, caption: Caption,
             focus: Place) -> None:
    """All that is seen of one layer; what takes long is waited for here, where it can be cancelled."""
    selection = session.current()
    explore_services.prefetch_maps(found, _queries(selection, focus))
    explore_services.prefetch_class_map(found, selection.show)
    reroute.prefetch(found, selection, focus)
    _explorer(view, request, answer, caption, focus)


def _queries(selection: Selection, focus: Place) -> list[tuple[str, Place, bool]]:
    return [(role, place, selection.whole) for role, place in (selection.pins or {"a": focus}).items()]


@st.fragment
def _explorer(view: Selection, request: LayerRequest, answer: Answer, caption: Caption, focus: Place) -> None:
    """The stage, the attention of its pinned queries, and the export menu.

    Streamlit keeps the arguments of a fragment and what its downloads hold for as long as the page is open: keys, and
    never what they name.
    """
    # The buttons of a fragment may not stand in a place outside of it.
    job_status.set_status_slot(st.container(key="status_explore"))
    selection = replace(session.current(), settings=view.settings, layer=view.layer)
    found = explore_services.result_of(request)
    # By itself, since a message that is the same as before is not sent again: a new topk then brings numbers only.
    components.picture(picture_bytes(found.photo), "picture")
    pins, show = session.stage_opening(found.photo.digest)
    heat = _class_map(found, selection)
    components.stage(
        explore_services.stage_bytes(found, answer, caption, focus, pins, show, session.stage_follow(), heat),
        session.STAGE, session.on_pins, session.on_show, first_visit.on_ready)
    if heat is not None:
        st.caption(_about_heat(heat))
    whole = _charts(found, selection, caption, focus)
    # Read here: a download is made outside of the visitor's session, where there is no view to ask for.
    pins, language, stem = selection.pins, visitor_language(), _name(found, caption, request.settings)
    files = [
        share.File(tr("Routing, CSV"), lambda: explore_services.routing_file(request), share.named("csv", *stem)),
        share.File(tr("Trace, NPZ"), lambda: explore_services.trace_file(request), share.named("npz", *stem)),
        share.File(tr("Report, HTML"), lambda: explore_services.report_file(request, answer, caption, focus, pins,
                                                                            whole, selection.show, language),
                   share.named("html", *stem), tr("This view as one file that opens anywhere, without a network."))]
    model = found.loaded.model
    if isinstance(model, OpenTimeline) and request.model_file is not None:
        files += timeline.show_timeline(model, request.model_file, found.layer.name, selection.pins or {"a": focus})
    _share(request, found, selection, focus, whole, files)


def _name(found: LayerResult, caption: Caption, settings: ModelSettings) -> tuple[str, ...]:
    """Parts of the names of files: model, layer, picture and settings."""
    spec = found.layer.spec
    setting = f"n{spec.n_win}_k{spec.topk}_{settings.side}px" + "_masked" * settings.mask_padding
    return caption.model, caption.layer, caption.picture, setting


def _share(request: LayerRequest, found: LayerResult, selection: Selection, focus: Place, whole: bool,
           files: Sequence[share.File]) -> None:
    """The view's files, and itself as code, as a command and as a link."""
    layer, settings = found.layer, request.settings
    places = [locate(layer.grid, found.photo, place) for _, place, _ in _queries(selection, focus)]
    asked: list[tuple[int, int | None]] = [(window, None if whole else token) for window, token in places]
    second = asked[1] if len(asked) > 1 else None
    own = request.model_file if settings.entry.needs_file else None
    if own is not None and found.loaded.model.photo is not None:
        share.offer(recording_code(own.name, layer.name, *asked[0], second, settings, layer.attention_known),
                    files=files)
        return
    seen = share.picture_file(request.sample, request.picture_file)
    share.offer(explore_code(settings, layer.name, *asked[0], share.file_name(own), seen, layer.routed, second,
                             reroute.asked_for(selection, found, focus)),
                inspect_command(settings, layer.name, share.file_name(own), seen, selection.pins, whole), files=files)


def _class_map(found: LayerResult, selection: Selection) -> ClassMap | None:
    """The class heat map where the stage shows it; says so where none can be made of this picture."""
    try:
        return explore_services.class_map_of(found, selection.show)
    except BRAError as error:
        st.caption(model_widgets.sentence(error))
        return None


def _about_heat(heat: ClassMap) -> str:
    """What a class heat map is, and what it is not."""
    sizes = ", ".join(f"{h}×{w}" for h, w in heat.level_sizes)
    of = tr("the {n} surest predictions, overlapping ones among them (best {score:.0f} %)", n=len(heat.scores),
            score=100 * heat.scores[0]) \
        if len(heat.scores) > 1 else tr("the best prediction")
    return tr("Class heat map (LayerCAM) of {what}: where the last maps ({sizes}) speak for the score. It explains the "
              "answer of the whole model; it is no attention, and this layer may well look elsewhere.", what=of,
              sizes=sizes)


def _charts(found: LayerResult, selection: Selection, caption: Caption, focus: Place) -> bool:
    """Charts of the pinned queries, each made when its tab is opened; whether attention is that of whole windows."""
    layer, grid, style, line = found.layer, found.layer.grid, chart.style(), caption.line(found.layer)
    name = _name(found, caption, selection.settings)
    small, size = encoded(found.photo, TILE_SIDE), traced_size(grid, found.photo)
    windows = [(role, locate(grid, found.photo, place)[0]) for role, place, _ in _queries(selection, focus)]
    named = [tr("Routing matrix"), tr("Who is chosen")] if layer.routed else \
        [tr("Attention matrix"), tr("Who gets the attention")]
    labels = [tr("What the query tokens attend to"), tr("Ranking of A and B"), *named, tr("Do layers choose alike?"),
              tr("Look elsewhere")]
    attending, ranking, matrix, chosen, between, other = st.tabs(
        labels, default=labels[-1] if session.opened_elsewhere() else None, on_change="rerun",
        key="explore_tabs" if layer.routed else "explore_tabs_attention")
    whole = selection.whole
    with attending:
        if attending.open:
            whole = _attention(found, selection, focus, small, name, line)
    with ranking:
        if ranking.open:
            chart.draw(routing.ranking(layer, windows, style, line), *name, "ranking")
    with matrix:
        if matrix.open and not routing.drawable(layer):
            st.info(tr("A matrix of {n} × {n} windows is more than a browser can draw: lower n_win.", n=grid.n_windows))
        elif matrix.open:
            st.caption(tr("Draw a box: its first and last row become the queries A and B of the stage."))
            chart.draw(routing.matrix(layer, windows, style, line), *name, "matrix", key=session.MATRIX,
                       on_select=partial(session.on_box, _centres(found), session.MATRIX), modes=("box",))
    with chosen:
        if chosen.open:
            st.caption(_degrees(layer) + " " + tr("Draw a box: the window under its middle becomes query A."))
            chart.draw(routing.in_degree(layer, small, size, windows, style, line), *name, "in-degree",
                       key=session.WHO_CHOSEN, modes=("box",), on_select=partial(
                           session.on_picture_box, _centres(found), size, session.WHO_CHOSEN))
    with between:
        if between.open:
            _between_layers(found)
    with other:
        if other.open:
            reroute.show(found, selection, focus, name, line)
    return whole


def _between_layers(found: LayerResult) -> None:
    """Each routed layer beside the one before it: overlap of choices, and the recall under the other's choice."""
    pairs = explore_services.layer_pairs(found)
    if not pairs:
        st.info(tr("This model has no two layers that leave windows out, so there is nothing to compare."))
        return
    columns = {tr_noop("overlap"): "overlap", tr_noop("chance"): "chance", tr_noop("keeps"): "recall",
               tr_noop("with the choice before"): "carried", tr_noop("lost, points"): "lost"}
    table = [{tr_noop("layer"): pair.layer, tr_noop("before it"): pair.before,
              **{label: round(100 * value, 1) if math.isfinite(value := getattr(pair, name)) else None
                 for label, name in columns.items()}} for pair in pairs]
    st.dataframe(table, hide_index=True, height="content", column_config=heads(table[0], [*columns][:-1]))
    st.caption(tr("Overlap: of the area of the picture that either layer is routed to from a place, the share that "
                  "both are; grids may differ. With the choice before: what the layer would keep of its full "
                  "attention if it did not choose, but took the windows that the choice of the layer before covers "
                  "most. This is one picture, and without training."))


def _attention(found: LayerResult, selection: Selection, focus: Place, small: bytes, name: tuple[str, ...],
               line: str) -> bool:
    """What the queries attend to: as maps over the picture, and by window."""
    layer = found.layer
    if not layer.attention_known:
        st.info(translate(layer.proof.note if layer.proof else ""), icon=":material/visibility_off:")
        return selection.whole
    names = names_of(layer.spec.num_heads)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        whole = picture.choose_attention(selection.whole)
        options = ["both", "every", *range(2, len(names))]
        labels = {"both": tr("Mean and maximum"), "every": tr("Every head")}
        shown = st.selectbox(tr("Heads"), options, width=220, label_visibility="collapsed", key=init_widget(
            "heads", "both", options), format_func=option_labels(labels | {n: names[n] for n in options[2:]}))
    which = {"both": [0, 1], "every": list(range(len(names)))}.get(shown, [shown])
    queries = explore_services.attended_of(found, _queries(replace(selection, whole=whole), focus))
    for query in queries:
        st.markdown(translate(about(layer, query)))
    style = chart.style()
    # Before the stage is drawn there is none: a browser would load plotly first, and one could not point for seconds.
    if first_visit.stage_drawn():
        chart.draw(attention(queries, which, layer.grid, small, traced_size(layer.grid, found.photo), style, line),
                   *name, "attention")
    else:
        st.skeleton(height=HEIGHT)
    with st.expander(tr("Where the attention of {role} goes, by window", role=queries[0].role.upper()),
                     on_change="rerun", key="explore_where") as below:
        if below.open:
            masses = routing.window_masses(layer.grid, queries[0].maps)
            chart.draw(routing.where(layer, (queries[0].role, queries[0].window), masses, style, line), *name, "where")
    return whole


def _centres(found: LayerResult) -> tuple[Place, ...]:
    return tuple(place_of(found.layer.grid, found.photo, window) for window in range(found.layer.grid.n_windows))


def _degrees(layer: LayerTrace) -> str:
    if not layer.routed:
        shares = received(layer)
        most = int(shares.argmax())
        return tr("Most attention goes to window {window}: {share:.1f} % of all, where even attention would give "
                  "{even:.1f} %.", window=most, share=100 * shares[most], even=100 / len(shares))
    counts = in_degree(layer)
    hub = int(counts.argmax())
    return tr("Most chosen: window {hub}, by {most} of {all}. Never chosen: {never} of {all} windows. Even routing "
              "would give {even} each.", hub=hub, most=int(counts[hub]), all=len(counts),
              never=int((counts == 0).sum()), even=layer.spec.topk)


def show(view: Selection, loaded: LoadedModel, run: ModelRun, chosen: picture.ChosenPicture) -> None:
    """What one layer of the model did on the picture, under what is to be said of it."""
    layer = run.trace.layers[model_widgets.layer_of(view, tuple(run.trace.layers))]
    changed = model_widgets.shown_layer(view.settings, view.layer, tuple(loaded.model.specs))
    request = LayerRequest(view.settings, loaded.upload, chosen.sample, None if chosen.sample else session.upload(),
                           layer.name, changed)
    found = explore_services.result_of(request)
    # In a place of its own: a browser draws the stage anew when another number of elements comes before it.
    with st.container():
        model_widgets.warn_of_weights(loaded)
        picture.heading(chosen.name, chosen.hint, chosen.photo.notes)
        picture.say(run.answer)
        if rail := explore_services.rail_bytes(found):
            components.rail(rail, session.RAIL, session.on_layer)
        if isinstance(loaded.model, OpenTimeline) and loaded.upload is not None:
            timeline.choose_epoch(loaded.model, loaded.upload)
        picture.warn_of_padding(layer)
        if loaded.model.runs:      # a recording holds no input that could be padded anew
            model_widgets.choose_mask(view.settings, layer)
        picture.say_dependence(layer)
    provenance = model_widgets.provenance_of(view.settings, loaded.model.origin)
    caption = Caption(translate(loaded.model.label), layer.name, provenance, chosen.name,
                      loaded.model.untrained)
    explorer(view, request, found, run.answer, caption, chosen.focus)


def main() -> None:
    """Draw the page."""
    picture.choose_picture(tr("RouteScope: where does routing attention look?"))
    chosen = picture.chosen_picture()
    with st.sidebar:
        view = model_widgets.choose_settings(chosen.photo)
    with st.container():        # what is refused is said here, and takes no place from what follows
        view, chosen, loaded, run = model_widgets.run_chosen(wanted := view, chosen)
    stands_in = chosen.stands_in or view.settings != wanted.settings
    with picture.result_area(stands_in, loaded.model.label, chosen.name):
        show(view, loaded, run, chosen)


if __name__ == "__main__":
    main()
