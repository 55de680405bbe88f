"""The parts of the page Cost: what this model pays for BRA, against what else it could be, and what to change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from bra.advice import choices, levers, positions
from bra.cost_table import cost_csv, cost_json, cost_markdown
from bra.costing import Cost
from bra.errors import BRAError
from bra.formula import LayerCost
from bra.models.catalog import ModelSettings
from dashboard import cost_services, model_widgets, state
from dashboard import cost_view as views
from dashboard.cost_view import CostView
from dashboard.figures import costs as charts
from dashboard.selection import N_WINS

MEASURES = {"macs": "multiply-adds", "params": "parameters", "peak_bytes": "memory"}
ROUNDS = 7
KINDS = ("as it is", "without BRA", "full attention", "second setting")


def choose_view() -> CostView:
    """The size of the image, and what the bars show."""
    old = state.cost_view()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        sides = list(views.SIDES)
        height = st.selectbox("Image height, px", sides, key=state.hold("cost_height", old.height, sides), width=150)
        width = st.selectbox("Image width, px", sides, key=state.hold("cost_width", old.width, sides), width=150)
        measure = st.segmented_control("Bars show", views.MEASURES, format_func=MEASURES.__getitem__, required=True,
                                       key=state.hold("cost_measure", old.measure, views.MEASURES))
    return state.save_cost_view(replace(old, height=height, width=width, measure=measure or old.measure))


def summary(cost: Cost, plain: Cost) -> tuple[str, ...]:
    """Three sentences: what the model costs, what of it is BRA's, and where most of that sits."""
    total, bra = cost.total, [layer for row in cost.rows for layer in row.layers]
    params, macs = total.params - plain.total.params, total.macs - plain.total.macs
    first = (f"At {cost.input[2]}×{cost.input[3]} this model has {total.params / 1e6:.2f} M parameters, and one image "
             f"takes {total.macs / 1e9:.2f} G multiply-adds.")
    if not bra:
        return (first, "It has no BRA layer.")
    second = (f"BRA makes {params / 1e6:.2f} M of the parameters ({share(params, total.params)}) and "
              f"{macs / 1e9:.2f} G of the multiply-adds ({share(macs, total.macs)}): without it they would be "
              f"{plain.total.params / 1e6:.2f} M and {plain.total.macs / 1e9:.2f} G.")
    costly = max((row for row in cost.rows if row.layers), key=lambda row: row.macs)
    parts: dict[str, int] = {}
    for part in costly.parts:
        parts[charts.part_of(part.name)] = parts.get(charts.part_of(part.name), 0) + part.macs
    most = max((name for name in parts if name != charts.OTHER), key=parts.__getitem__)
    third = (f"Its most costly row with BRA is {costly.name}, {share(costly.macs, total.macs)} of the model, of which "
             f"{share(parts[most], costly.macs)} is {most}.")
    return first, second, third


def share(part: float, whole: float) -> str:
    """A share in per cent."""
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def page(settings: ModelSettings, view: CostView) -> None:
    """Everything below the choices."""
    file = state.model_upload()
    try:
        cost = cost_services.cost_of(settings, view, file=file)
        plain = cost_services.cost_of(settings, view, "without BRA", file=file)
    except BRAError as error:
        st.error(model_widgets.sentence(error), icon=":material/error:")
        return
    for sentence in summary(cost, plain):
        st.markdown(sentence)
    st.vega_lite_chart(charts.bars(cost, view.measure), width="stretch")
    st.caption("Counted, not estimated: every operator of one forward at this image size; parts of BRA by formula, "
               "which the count must meet. Weights do not matter: trained or not, a model costs the same.")
    _rows(settings, view, cost)
    layers = [layer for row in cost.rows for layer in row.layers]
    if layers:
        _against(settings, view, plain)
        _advice(settings, view, layers)
    _places(plain)
    if settings.entry.family in ("yolo", "own"):
        _ultralytics(settings, cost)


def _rows(settings: ModelSettings, view: CostView, cost: Cost) -> None:
    measured = cost
    with st.container(horizontal=True):
        if st.toggle("Measure time on this machine", key="cost_time",
                     help=f"Median of {ROUNDS} forwards after warming up. The shares mean something elsewhere too."):
            measured = cost_services.cost_of(settings, view, rounds=ROUNDS, file=state.model_upload())
        st.download_button("CSV", cost_csv(measured), "cost.csv", "text/csv", on_click="ignore")
        st.download_button("JSON", cost_json(measured), "cost.json", "application/json", on_click="ignore")
        st.download_button("Markdown", cost_markdown(measured), "cost.md", "text/markdown", on_click="ignore")
    table(charts.row_table(measured), height=320)
    left_out = ", ".join(f"{one.name} {one.calls}×" for one in measured.not_counted[:12])
    st.caption(f"Not counted, since they multiply and add nothing in pairs: {left_out}.")


def _against(settings: ModelSettings, view: CostView, plain: Cost) -> None:
    st.markdown("#### Against the same model otherwise")
    view = _second_setting(view)
    costs = {}
    for kind in KINDS:
        try:
            costs[kind] = plain if kind == "without BRA" else cost_services.cost_of(settings, view, kind,
                                                                                   file=state.model_upload())
        except BRAError as error:
            st.warning(f"The {kind} cannot be: {model_widgets.sentence(error)}")
    table(charts.against_table(costs))
    st.caption("Full attention: every window routed to all. Peak bytes are those of our fused kernel, which never "
               "writes the attention out.")
    try:
        text = cost_services.resettled_yaml(settings, view.second, state.model_upload())
        st.download_button("Model file with the second setting, YAML", text, "model-bra.yaml", "text/yaml",
                           on_click="ignore")
    except BRAError:
        st.caption("This model comes from no YOLO model file, so there is none to download.")


def _second_setting(view: CostView) -> CostView:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        n_wins = list(N_WINS)
        n_win = st.selectbox("Second setting: n_win", n_wins, key=state.hold("cost_n_win", view.n_win, n_wins),
                             width=170)
        ks = list(range(1, n_win**2 + 1))
        topk = st.selectbox("topk", ks, key=state.hold("cost_topk", min(view.topk, n_win**2), ks), width=100)
        narrow = st.selectbox("q and k channels", views.NARROW, width=150,
                              key=state.hold("cost_narrow", view.narrow, views.NARROW),
                              format_func=lambda n: "all" if n == 1 else f"1/{n}")
        pool = st.selectbox("Mean pooling of k, v", views.POOLS, key=state.hold("cost_pool", view.pool, views.POOLS),
                            format_func=lambda n: "none" if n == 1 else f"{n}×{n}", width=160)
        projections = st.selectbox("Projections", views.PROJECTIONS, width=130,
                                   key=state.hold("cost_projections", view.projections, views.PROJECTIONS))
    return state.save_cost_view(
        replace(view, n_win=n_win, topk=topk, narrow=narrow, pool=pool, projections=projections))


def _advice(settings: ModelSettings, view: CostView, layers: list[LayerCost]) -> None:
    st.markdown("#### What to change")
    names = [f"{at}. {layer.name or 'attention'}: {layer.grid.h}×{layer.grid.w} tokens, {layer.spec.dim} channels"
             for at, layer in enumerate(layers, 1)]
    chosen = st.selectbox("Layer", names, key="cost_layer")
    layer = layers[names.index(chosen)]
    found = choices(layer.spec, layer.grid.h, layer.grid.w)
    st.markdown(f"**n_win, at equal coverage** (topk / n_win² = {layer.spec.topk / layer.spec.n_windows:.1%}), the "
                "cheapest that meets it first. Written out, as in the tutorial's module, attention takes m·N·L "
                "numbers; fused it never exists.")
    table(charts.choice_table(found), height=280)
    best = next((one for one in found if one.equal and not one.padding_share), found[0])
    st.button(f"Use n_win {best.n_win}, topk {best.topk} as the second setting", key="cost_use",
              on_click=state.use_setting, args=(best.n_win, best.topk),
              disabled=best.n_win not in N_WINS, help=best.why)
    st.markdown("**“BiFormer has many parameters.”** What each change of one setting saves in this layer. n_win, topk, "
                "heads and pooling change no parameter; its place in the model is the largest lever, below.")
    table(charts.lever_table(levers(layer.spec, layer.grid.h, layer.grid.w)))


def _places(plain: Cost) -> None:
    st.markdown("#### Where to put it")
    found = positions(plain)
    st.vega_lite_chart(charts.places(found), width="stretch")
    refused = [place for place in found if place.layer is None]
    why = f" {len(refused)} rows cannot have it: {refused[0].why}" if refused else ""
    st.caption("One BRA row with default settings after each row of this model without BRA; each point is a map that "
               "rows return, height × width × channels. Left is cheap to run, low is small; both axes are "
               f"logarithmic.{why}")


def _ultralytics(settings: ModelSettings, cost: Cost) -> None:
    st.markdown("#### Beside Ultralytics' figure")
    st.markdown(cost_services.ultralytics_words(settings, cost, state.model_upload()))


def table(rows: list[dict[str, Any]], height: int | str = "content") -> None:
    """Numbers with thousands apart, sortable."""
    frame = pd.DataFrame(rows)
    formats = {name: st.column_config.NumberColumn(format="%.1f" if "%" in name or "ms" in name else "localized")
               for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])}
    st.dataframe(frame, hide_index=True, width="stretch", height=height, column_config=formats)
