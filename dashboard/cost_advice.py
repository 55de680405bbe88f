"""The lower part of the page Cost: other windows, other settings, other places, and Ultralytics' figure."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import streamlit as st

from bra.models.catalog import ModelSettings
from bra.profiling.advice import Position, choices, levers, positions
from bra.profiling.format import short
from bra.profiling.formula import LayerCost
from bra.profiling.model_cost import Cost, CostRow
from bra.spec import BRASpec
from dashboard.figures import cost as cost_figures
from dashboard.i18n import told, tr
from dashboard.services import cost as cost_services
from dashboard.state import session
from dashboard.state.cost_view import CostView
from dashboard.state.view import N_WINS
from dashboard.widgets.picture import plain as as_is
from dashboard.widgets.picture import table


def show(settings: ModelSettings, view: CostView, cost: Cost, plain: Cost) -> None:
    """For one row with BRA: its windows and settings. For a YOLO: where such a row could be."""
    rows = [row for row in cost.rows if row.layers]
    spec = BRASpec(64)
    if rows:
        numbers = list(range(len(rows)))
        at = st.selectbox(tr("For the row"), numbers, width=520,
                          format_func=[_described(row) for row in rows].__getitem__,
                          key=session.hold("cost_row", min(view.row, len(rows) - 1), numbers))
        view = session.save_cost_view(replace(view, row=at))
        layer = rows[at].layers[0]
        spec = layer.spec
        view = _windows(settings, view, rows[at], layer)
        _settings(layer)
    if cost_services.is_yolo(settings, session.model_upload()):
        _places(settings, view, spec, cost, plain)


def _described(row: CostRow) -> str:
    layer = row.layers[0]
    return tr("{row}: {h}×{w} tokens of {dim} channels", row=short(row.name), h=layer.grid.h, w=layer.grid.w,
              dim=layer.spec.dim)


def _windows(settings: ModelSettings, view: CostView, row: CostRow, layer: LayerCost) -> CostView:
    spec = layer.spec
    found = {one.n_win: one for one in choices(spec, layer.grid.h, layer.grid.w)}
    st.markdown(tr("**Which n_win?** Each token of this layer sees topk / n_win² = {topk} / {windows} = {share:.1%} of "
                   "the map. Other windows at equal coverage, the cheapest first:", topk=spec.topk,
                   windows=spec.n_windows, share=spec.topk / spec.n_windows))
    table(cost_figures.choice_table(list(found.values())), height=280)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        tried = st.selectbox(tr("Try"), list(found), width=170,
                             format_func=lambda n: f"n_win {n}, topk {found[n].topk}",
                             key=session.hold("cost_tried", view.tried or next(iter(found)), list(found)))
        one = found[tried]
        st.button(tr("Use it as the second setting"), key="cost_use", on_click=session.use_setting,
                  args=(one.n_win, one.topk), disabled=one.n_win not in N_WINS)
        if cost_services.is_yolo(settings, session.model_upload()):
            text = cost_services.resettled_yaml(settings, {"n_win": one.n_win, "topk": one.topk},
                                                session.model_upload(), [cost_figures.number_of(row.name)])
            st.download_button(tr("Model file with it in this row, YAML"), text, "model-bra.yaml", "text/yaml",
                               on_click="ignore")
    st.markdown(as_is(tr("n_win {n_win} {why}.", n_win=one.n_win, why=told(one.why))))
    return session.save_cost_view(replace(view, tried=tried if tried != next(iter(found)) else 0))


def _settings(layer: LayerCost) -> None:
    found = levers(layer.spec, layer.grid.h, layer.grid.w)
    saving, without = [one for one in found if one.params], [one for one in found if not one.params]
    st.markdown(tr("**“BiFormer has many parameters.”** This layer has {n:,}. What saves some of them, one setting "
                   "changed at a time:", n=layer.params))
    table(cost_figures.lever_table(saving))
    st.markdown(tr("What saves none, whatever else it saves:"))
    table(cost_figures.lever_table(without))


def _places(settings: ModelSettings, view: CostView, spec: BRASpec, cost: Cost, plain: Cost) -> None:
    options = _options(spec)
    found = positions(plain, **options)
    possible = [place for place in found if place.layer is not None]
    st.markdown(tr("**Where to put it?** One row with {options}, after each row of this model without BRA.",
                   options=_said(options))
                + (tr(" The dashed line is 1 GiB.") if view.measure == "peak_bytes" else ""))
    measure = view.measure if view.measure != "ms" else "macs"
    here = cost_figures.bra_after(cost, plain)
    st.vega_lite_chart(cost_figures.places(found, measure, here), width="stretch")
    refused = [place for place in found if place.layer is None]
    if refused:
        st.caption(as_is(tr("{n} rows cannot have it, {row} for one: {why}", n=len(refused), row=refused[0].after,
                            why=told(refused[0].why))))
    if not possible:
        return
    least, most = (extreme(possible, key=lambda place: place.layer.params) for extreme in (min, max))
    st.markdown(as_is(tr(
        "Its place is the largest lever: after {least} such a row has {params:,} parameters and takes {macs:,.0f} M "
        "multiply-adds, after {most} {most_params:,} and {most_macs:,.0f} M.",
        least=_place(least), params=least.layer.params, macs=least.layer.macs / 1e6,
        most=_place(most), most_params=most.layer.params, most_macs=most.layer.macs / 1e6)))
    rows = {cost_figures.number_of(place.after): place for place in possible}
    first = next((number for number, place in rows.items() if place.after in here), next(iter(rows)))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        after = st.selectbox(tr("After row"), list(rows), format_func=lambda n: rows[n].after, width=170,
                             key=session.hold("cost_after", view.after or first, list(rows)))
        st.download_button(tr("Model file with one BRA row there, YAML"),
                           cost_services.placed_yaml(settings, after, options, session.model_upload()),
                           "model-bra.yaml", "text/yaml", on_click="ignore")
    session.save_cost_view(replace(view, after=after if after != first else 0))
    st.markdown(as_is(tr("{why}.", why=told(rows[after].why))))


def _place(place: Position) -> str:
    return f"{place.after} ({place.h}×{place.w}×{place.dim})"


def _options(spec: BRASpec) -> dict[str, Any]:
    """What a spec sets other than by default, but for what hangs on the channels of its map."""
    return {field.name: getattr(spec, field.name) for field in fields(spec)
            if field.name not in ("dim", "qk_dim", "qk_scale") and getattr(spec, field.name) != field.default}


def _said(options: dict[str, Any]) -> str:
    return tr(", ").join(f"{name}={value}" for name, value in options.items()) or tr("default settings")


def beside_ultralytics(settings: ModelSettings, cost: Cost) -> None:
    """Ultralytics' printed figure beside ours, and why they differ."""
    st.subheader(tr("Beside Ultralytics' figure"), anchor=False)
    found = cost_services.ultralytics(settings, cost, session.model_upload())
    with st.container(horizontal=True):
        st.metric(tr("Ultralytics prints, GFLOPs"), f"{found.printed:.3f}", width=220)
        st.metric(tr("Its counter on the whole image"), f"{found.direct:.3f}", width=220)
        st.metric(tr("Ours: 2 × multiply-adds"), f"{found.ours:.3f}", width=220)
    st.markdown(as_is(told(found.sentence)))
