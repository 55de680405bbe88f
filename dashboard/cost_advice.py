"""The lower part of the page Cost: other windows, other settings, other places, and Ultralytics' figure."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import streamlit as st

from bra.advice import choices, levers, positions
from bra.cost_words import short
from bra.costing import Cost, CostRow
from bra.formula import LayerCost
from bra.models.catalog import ModelSettings
from bra.spec import BRASpec
from dashboard import cost_services, state
from dashboard.cost_view import CostView
from dashboard.figures import costs as charts
from dashboard.selection import N_WINS
from dashboard.widgets import plain as as_is
from dashboard.widgets import table


def show(settings: ModelSettings, view: CostView, cost: Cost, plain: Cost) -> None:
    """For one row with BRA: its windows and settings. For a YOLO: where such a row could be."""
    rows = [row for row in cost.rows if row.layers]
    spec = BRASpec(64)
    if rows:
        numbers = list(range(len(rows)))
        at = st.selectbox("For the row", numbers, format_func=lambda n: _described(rows[n]), width=520,
                          key=state.hold("cost_row", min(view.row, len(rows) - 1), numbers))
        view = state.save_cost_view(replace(view, row=at))
        layer = rows[at].layers[0]
        spec = layer.spec
        view = _windows(settings, view, rows[at], layer)
        _settings(layer)
    if cost_services.is_yolo(settings, state.model_upload()):
        _places(settings, view, spec, cost, plain)


def _described(row: CostRow) -> str:
    layer = row.layers[0]
    return f"{short(row.name)}: {layer.grid.h}×{layer.grid.w} tokens of {layer.spec.dim} channels"


def _windows(settings: ModelSettings, view: CostView, row: CostRow, layer: LayerCost) -> CostView:
    spec = layer.spec
    found = {one.n_win: one for one in choices(spec, layer.grid.h, layer.grid.w)}
    st.markdown(f"**Which n_win?** Each token of this layer sees topk / n_win² = {spec.topk} / {spec.n_windows} = "
                f"{spec.topk / spec.n_windows:.1%} of the map. Other windows at equal coverage, the cheapest first:")
    table(charts.choice_table(list(found.values())), height=280)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        tried = st.selectbox("Try", list(found), format_func=lambda n: f"n_win {n}, topk {found[n].topk}", width=170,
                             key=state.hold("cost_tried", view.tried or next(iter(found)), list(found)))
        one = found[tried]
        st.button("Use it as the second setting", key="cost_use", on_click=state.use_setting,
                  args=(one.n_win, one.topk), disabled=one.n_win not in N_WINS)
        if cost_services.is_yolo(settings, state.model_upload()):
            text = cost_services.resettled_yaml(settings, {"n_win": one.n_win, "topk": one.topk},
                                                state.model_upload(), [charts.number_of(row.name)])
            st.download_button("Model file with it in this row, YAML", text, "model-bra.yaml", "text/yaml",
                               on_click="ignore")
    st.markdown(as_is(f"n_win {one.n_win} {one.why}."))
    return state.save_cost_view(replace(view, tried=tried if tried != next(iter(found)) else 0))


def _settings(layer: LayerCost) -> None:
    found = levers(layer.spec, layer.grid.h, layer.grid.w)
    saving, without = [one for one in found if one.params], [one for one in found if not one.params]
    st.markdown(f"**“BiFormer has many parameters.”** This layer has {layer.params:,}. What saves some of them, one "
                "setting changed at a time:")
    table(charts.lever_table(saving))
    st.markdown("What saves none, whatever else it saves:")
    table(charts.lever_table(without))


def _places(settings: ModelSettings, view: CostView, spec: BRASpec, cost: Cost, plain: Cost) -> None:
    options = _options(spec)
    found = positions(plain, **options)
    possible = [place for place in found if place.layer is not None]
    st.markdown(f"**Where to put it?** One row with {_said(options)}, after each row of this model without BRA."
                + (" The dashed line is 1 GiB." if view.measure == "peak_bytes" else ""))
    measure = view.measure if view.measure != "ms" else "macs"
    here = charts.bra_after(cost, plain)
    st.vega_lite_chart(charts.places(found, measure, here), width="stretch")
    refused = [place for place in found if place.layer is None]
    if refused:
        st.caption(as_is(f"{len(refused)} rows cannot have it, {refused[0].after} for one: {refused[0].why}"))
    if not possible:
        return
    least, most = (extreme(possible, key=lambda place: place.layer.params) for extreme in (min, max))
    st.markdown(as_is(
        f"Its place is the largest lever: after {least.after} ({least.h}×{least.w}×{least.dim}) such a row has "
        f"{least.layer.params:,} parameters and takes {least.layer.macs / 1e6:,.0f} M multiply-adds, after "
        f"{most.after} ({most.h}×{most.w}×{most.dim}) {most.layer.params:,} and {most.layer.macs / 1e6:,.0f} M."))
    rows = {charts.number_of(place.after): place for place in possible}
    first = next((number for number, place in rows.items() if place.after in here), next(iter(rows)))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        after = st.selectbox("After row", list(rows), format_func=lambda n: rows[n].after, width=170,
                             key=state.hold("cost_after", view.after or first, list(rows)))
        st.download_button("Model file with one BRA row there, YAML",
                           cost_services.placed_yaml(settings, after, options, state.model_upload()),
                           "model-bra.yaml", "text/yaml", on_click="ignore")
    state.save_cost_view(replace(view, after=after if after != first else 0))
    st.markdown(as_is(f"{rows[after].why}."))


def _options(spec: BRASpec) -> dict[str, Any]:
    """What a spec sets other than by default, but for what hangs on the channels of its map."""
    return {field.name: getattr(spec, field.name) for field in fields(spec)
            if field.name not in ("dim", "qk_dim", "qk_scale") and getattr(spec, field.name) != field.default}


def _said(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "default settings"


def beside_ultralytics(settings: ModelSettings, cost: Cost) -> None:
    """Ultralytics' printed figure beside ours, and why they differ."""
    st.subheader("Beside Ultralytics' figure", anchor=False)
    found = cost_services.ultralytics(settings, cost, state.model_upload())
    with st.container(horizontal=True):
        st.metric("Ultralytics prints, GFLOPs", f"{found.printed:.3f}", width=220)
        st.metric("Its counter on the whole image", f"{found.direct:.3f}", width=220)
        st.metric("Ours: 2 × multiply-adds", f"{found.ours:.3f}", width=220)
    st.markdown(as_is(str(found)))
