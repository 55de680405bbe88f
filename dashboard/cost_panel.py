"""The upper part of the page Cost: what this model pays for BRA, row by row and against what else it could be."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from bra.errors import BRAError
from bra.messages import Said
from bra.models.catalog import ModelSettings
from bra.profiling.format import cost_csv, cost_json, cost_markdown, summary
from bra.profiling.model_cost import Cost
from dashboard import cost_advice
from dashboard.figures import cost as cost_figures
from dashboard.i18n import mark, named, told, tr
from dashboard.services import cost as cost_services
from dashboard.state import cost_view as views
from dashboard.state import session
from dashboard.state.cost_view import CostView
from dashboard.state.view import N_WINS
from dashboard.widgets import model as model_widgets
from dashboard.widgets.picture import plain as as_is
from dashboard.widgets.picture import table

MEASURES = {"macs": mark("multiply-adds"), "params": mark("parameters"), "peak_bytes": mark("memory"),
            "ms": mark("time")}
ROUNDS = 7
NARROW, POOLS = {1: mark("all")}, {1: mark("none")}
"""How the first choice of each is called; the others are numbers."""
KINDS = (mark("as it is"), mark("without BRA"), mark("full attention"), mark("second setting"))


def choose_view() -> tuple[CostView, bool]:
    """The size of the image, what the bars show, and whether time is measured."""
    old = session.cost_view()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        sides = list(views.SIDES)
        height = st.selectbox(tr("Image height, px"), sides, width=140,
                              key=session.hold("cost_height", old.height, sides))
        width = st.selectbox(tr("Image width, px"), sides, width=140,
                             key=session.hold("cost_width", old.width, sides))
        chart = st.container()
        session.hold("cost_time", False, (False, True))
        timed = st.toggle(tr("Measure time on this machine"), key="cost_time",
                          help=tr("Median of {n} forwards after warming up; a large model takes a while. The shares "
                                  "mean something elsewhere too.", n=ROUNDS))
        offered = views.MEASURES if timed else views.MEASURES[:-1]
        measure = chart.segmented_control(tr("Show"), offered, format_func=named(MEASURES), required=True,
                                          key=session.hold("cost_measure", old.measure, offered))
    return session.save_cost_view(replace(old, height=height, width=width, measure=measure or old.measure)), timed


def page(settings: ModelSettings, view: CostView, timed: bool) -> None:
    """Everything below the choices."""
    file = session.model_upload()
    try:
        cost = cost_services.cost_of(settings, view, file=file)
        plain = cost_services.cost_of(settings, view, "without BRA", file=file)
        if timed:
            cost = cost_services.timed_cost(settings, view, ROUNDS, file)
    except BRAError as error:
        st.error(model_widgets.sentence(error), icon=":material/error:")
        return
    for sentence in summary(cost, plain):
        st.markdown(as_is(told(sentence)))
    st.html(cost_figures.legend(cost_figures.bar_colours(cost, view.measure)))
    st.vega_lite_chart(cost_figures.bars(cost, view.measure), width="stretch")
    st.caption(tr("Counted, not estimated: every operator of one forward at this image size; parts of BRA by formula, "
                  "which the count must meet. Weights do not matter: trained or not, a model costs the same."))
    _rows(cost)
    with_bra = [row for row in cost.rows if row.layers]
    if with_bra:
        view = _against(settings, view, plain, cost)
    if with_bra or cost_services.is_yolo(settings, file):
        st.subheader(tr("What to change"), anchor=False)
        cost_advice.show(settings, view, cost, plain)
    if cost_services.is_yolo(settings, file):
        cost_advice.beside_ultralytics(settings, cost)


def _rows(cost: Cost) -> None:
    table(cost_figures.row_table(cost), height=320)
    # An operator's own name, such as "mean", is a name; what is said of one is a sentence.
    left_out = tr(", ").join(f"{told(one.name) if isinstance(one.name, Said) else one.name} {one.calls}×"
                             for one in cost.not_counted[:12])
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(tr("Click a column's head to sort by it."))
        st.download_button("CSV", cost_csv(cost), "cost.csv", "text/csv", on_click="ignore")
        st.download_button("JSON", cost_json(cost), "cost.json", "application/json", on_click="ignore")
        st.download_button("Markdown", cost_markdown(cost), "cost.md", "text/markdown", on_click="ignore")
    st.caption(as_is(tr("Not counted, since they multiply and add nothing in pairs: {operators}.", operators=left_out)))


def _against(settings: ModelSettings, view: CostView, plain: Cost, cost: Cost) -> CostView:
    st.subheader(tr("Against the same model otherwise"), anchor=False)
    view = _second_setting(view)
    costs = {}
    for kind in KINDS:
        try:
            costs[kind] = plain if kind == "without BRA" else cost_services.cost_of(settings, view, kind,
                                                                                   file=session.model_upload())
        except BRAError as error:
            st.warning(tr("“{kind}” cannot be: {why}", kind=told(kind), why=model_widgets.sentence(error)))
    table(cost_figures.against_table(costs))
    st.caption(tr("Full attention: every window routed to all. Bytes are those of the fused form used here, which "
                  "never writes attention out. The second setting stands in all BRA layers."))
    if "second setting" in costs and cost_services.is_yolo(settings, session.model_upload()):
        dims = {cost_figures.number_of(row.name): row.layers[0].spec.dim for row in cost.rows if row.layers}
        text = cost_services.second_yaml(settings, view, dims, session.model_upload())
        narrow = tr("Fewer channels of q and k are written as numbers, which fit this scale of the model.")
        st.download_button(tr("Model file with the second setting, YAML"), text, "model-bra.yaml", "text/yaml",
                           on_click="ignore", help=narrow if view.narrow > 1 else None)
    return view


def _second_setting(view: CostView) -> CostView:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        n_wins = list(N_WINS)
        n_win = st.selectbox(tr("Second setting: n_win"), n_wins, key=session.hold("cost_n_win", view.n_win, n_wins),
                             width=170)
        ks = list(range(1, n_win**2 + 1))
        topk = st.selectbox("topk", ks, key=session.hold("cost_topk", min(view.topk, n_win**2), ks), width=100)
        narrow = st.selectbox(tr("q and k channels"), views.NARROW, width=150,
                              key=session.hold("cost_narrow", view.narrow, views.NARROW),
                              format_func=named({n: NARROW.get(n, f"1/{n}") for n in views.NARROW}))
        pool = st.selectbox(tr("Mean pooling of k, v"), views.POOLS, width=160,
                            key=session.hold("cost_pool", view.pool, views.POOLS),
                            format_func=named({n: POOLS.get(n, f"{n}×{n}") for n in views.POOLS}))
        projections = st.selectbox(tr("Projections"), views.PROJECTIONS, width=130,
                                   key=session.hold("cost_projections", view.projections, views.PROJECTIONS))
    return session.save_cost_view(
        replace(view, n_win=n_win, topk=topk, narrow=narrow, pool=pool, projections=projections))
