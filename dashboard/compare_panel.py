"""The parts of the page Compare: what to set side by side, and the side by side itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import streamlit as st

from bra.experiments.compare import Compared, Setting
from bra.models.catalog import CATALOG, ModelSettings
from bra.photo import Photo
from bra.reports.tables import compare_csv, compare_html, reason
from bra.viewer.multiples import multiples_message
from bra.viewer.pack import TILE_SIDE, Place
from dashboard import components
from dashboard.figures import compare as compare_figures
from dashboard.i18n import mark, named, told, tongue, tr
from dashboard.services import models as model_services
from dashboard.state import compare_view as choices
from dashboard.state import session
from dashboard.state.compare_view import EQUAL_TO, Comparison
from dashboard.state.view import Selection
from dashboard.state.widgets import hold_some
from dashboard.widgets import model as model_widgets
from dashboard.widgets.picture import ask_file, heads

EXPLORE = Path(__file__).parent / "views" / "explore.py"
TAB_NAMES = {"grid": mark("All settings at once"), "versus": mark("A against B"),
             "probes": mark("Does it follow content?"), "sweeps": mark("Many pictures")}
COST_NAMES = {"macs": mark("multiply-adds"), "peak_bytes": mark("memory"), "seconds": mark("time")}
ROUNDS = 3


def leave_if_asked() -> None:
    """Go to Explore where a setting was clicked."""
    if session.leaving():
        st.switch_page(EXPLORE)


def choose_tab() -> Comparison:
    """Which part of the page is open."""
    wanted = session.comparison()
    tab = st.segmented_control(tr("Compare"), choices.TABS, format_func=named(TAB_NAMES), required=True,
                               key=session.hold("tab", wanted.tab, choices.TABS), label_visibility="collapsed")
    return session.save_comparison(replace(wanted, tab=tab or wanted.tab))


def choose_layer(view: Selection, label: str = "") -> Selection:
    """Which routed layer, where there are several."""
    names = list(model_services.opened(view.settings, session.model_upload()).specs)
    if not names:
        return view
    usual = model_widgets.shown_layer(view.settings, "", tuple(names))
    layer = view.layer if view.layer in names else usual
    if len(names) > 1:
        layer = st.selectbox(label or tr("Layer"), names, key=session.hold("compare_layer", layer, names), width=260)
    return session.save(replace(view, layer="" if layer == usual else layer))


def _choose_numbers(label: str, key: str, allowed: tuple[int, ...], wanted: tuple[int, ...],
                    explain: str) -> tuple[int, ...]:
    key = hold_some(key, wanted, allowed)
    chosen = st.pills(label, allowed, selection_mode="multi", key=key, help=explain)
    if len(chosen) > choices.MOST:
        st.caption(tr("The first {n} are shown.", n=choices.MOST))
    return choices.most(chosen) or wanted


def grid(view: Selection, photo: Photo, focus: Place) -> None:
    """Small multiples, the chart that decides, and the table."""
    wanted = session.comparison()
    left, right = st.columns(2)
    with left:
        rows = _choose_numbers(tr("Windows per side, n_win: up to six rows"), "rows", choices.N_WIN_CHOICES,
                               wanted.n_wins, tr("The map is cut into n_win × n_win windows."))
    with right:
        columns = _choose_numbers(tr("Routed windows, topk: up to six columns"), "columns", choices.TOPK_CHOICES,
                                  wanted.topks, tr("Each window attends to so many windows."))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = choose_layer(view)
        session.hold("equal", wanted.equal, (False, True))
        equal = st.toggle(tr("Equal coverage"), key="equal",
                          help=tr("topk is meant for n_win {n_win} and scaled with n_win² for the others, so that a "
                                  "column covers about the same share of the picture.", n_win=EQUAL_TO))
        cost = st.segmented_control(tr("Against"), choices.COSTS, format_func=named(COST_NAMES), required=True,
                                    key=session.hold("cost", wanted.cost, choices.COSTS))
    wanted = session.save_comparison(replace(wanted, n_wins=rows, topks=columns, equal=equal,
                                           cost=cost or wanted.cost))
    one = model_services.given(view.settings, photo, view.layer, session.model_upload())
    compared = model_services.compared(view.settings, photo, one, wanted.settings,
                                 ROUNDS if wanted.cost == "seconds" else 0, session.model_upload())
    model = model_services.opened(view.settings, session.model_upload())
    caption = f"{told(model.label)} · {one.name} · {told(model.provenance)}"
    _pictures(photo, compared, wanted, caption, focus)
    _decide(compared, wanted, caption)


def _pictures(photo: Photo, compared: Compared, wanted: Comparison, caption: str, focus: Place) -> None:
    at = session.opening_place(session.GRID, photo.digest, focus)
    note = tr("★ no other setting keeps as much for less · click a name to open it in Explore")
    message = multiples_message(photo, compared, wanted.cost, at, f"{caption} · {note}",
                                model_services.encoded(photo, TILE_SIDE))
    components.multiples(message, session.GRID, session.take_multiples, session.take_opened)


def _decide(compared: Compared, wanted: Comparison, caption: str) -> None:
    st.subheader(tr("Which one?"), anchor=False)
    st.markdown(told(reason(compared.rows, wanted.cost)))
    chart, table = st.columns([1.4, 1], gap="large")
    with chart:
        st.vega_lite_chart(compare_figures.deciding(compared.rows, wanted.cost), width="stretch", key=session.CHART,
                           on_select=session.take_point, selection_mode="pick")
        st.caption(tr("Thick grey: the Pareto front. Dashed: what the nearest windows of the same number keep; dotted: "
                      "random ones. Click a point to open that setting in Explore."))
    with table:
        shares = {mark("keeps"): "recall", mark("nearest"): "nearest", mark("chance"): "chance",
                  mark("best"): "oracle", mark("padding"): "padding_share"}
        st.dataframe([{"n_win": row.n_win, "topk": row.topk,
                       **{name: 100 * getattr(row, field) for name, field in shares.items()}}
                      for row in compared.rows], hide_index=True, height=360, column_config=heads(shares, shares))
        title, language = tr("Settings side by side"), tongue()
        with st.container(horizontal=True):
            _download(tr("Table, CSV"), lambda: compare_csv(compared.rows), "settings.csv", "text/csv")
            _download(tr("Report, HTML"), lambda: compare_html(compared.rows, title, caption, wanted.cost, language),
                      "settings.html", "text/html")


def _download(label: str, data: Callable[[], str], name: str, kind: str) -> None:
    st.download_button(label, data, name, kind, on_click="ignore")


def choose_b(view: Selection, wanted: Comparison) -> Selection:
    """Side B: model, weights and layer, its windows still as they were."""
    old, keys = wanted.b.settings, list(CATALOG)
    key = st.selectbox(tr("B: model"), keys, format_func=named(model_widgets.MODEL_NAMES),
                       key=session.hold("b_model", old.model, keys), width=300)
    entry, a = CATALOG[key], view.settings
    same = old if old.model == key else replace(old, model=key, variant="", untrained=False, changed=False)
    patches = entry.family == "patches" == a.entry.family
    same = replace(same, side=a.side if patches or a.model == key else entry.side)
    if patches:
        same = replace(same, num_heads=a.num_heads, stride=a.stride)
    same = _choose_kind(same)
    specs = model_services.opened(same, session.brought(session.MODEL_UPLOADER_B)).specs
    names = list(specs)
    layer = next((name for name in (wanted.b.layer, view.layer) if name in names), names[0] if names else "")
    if len(names) > 1:
        layer = st.selectbox(tr("B: layer"), names, key=session.hold("b_layer", layer, names), width=260)
    return Selection(settings=same, layer=layer)


def choose_b_windows(side: Selection, wanted: Comparison) -> Selection:
    """Side B with the windows that it gets."""
    spec = model_services.opened(side.settings, session.brought(session.MODEL_UPLOADER_B)).specs.get(side.layer)
    settings = model_widgets.choose_b_windows(side.settings, spec)
    return session.save_comparison(replace(wanted, b=replace(side, settings=settings))).b


def _choose_kind(settings: ModelSettings) -> ModelSettings:
    """Variant, weights or file of side B, where there is something to choose."""
    entry = settings.entry
    if len(entry.variants) > 1:
        variants = list(entry.variants)
        variant = st.selectbox(tr("B: variant"), variants, width=260,
                               key=session.hold(f"b_variant_{entry.key}", settings.chosen_variant, variants))
        return replace(settings, variant="" if variant == variants[0] else variant)
    if entry.card:
        options = list(model_widgets.WEIGHTS)
        weights = st.segmented_control(tr("B: weights"), options, required=True,
                                       format_func=named(model_widgets.WEIGHTS),
                                       key=session.hold(f"b_weights_{entry.key}", options[settings.untrained], options))
        return replace(settings, untrained=weights == "untrained")
    if entry.family == "own":
        ask_file(tr("B: model file"), model_widgets.MODEL_ENDINGS, session.MODEL_UPLOADER_B, session.take_file,
                 session.MODEL_UPLOADER_B)
    return settings


def setting_of(view: Selection, n_win: int, topk: int) -> Setting:
    """The windows that a side has: those that were asked for, or else the layer's own."""
    settings = view.settings
    if settings.entry.family == "patches" or settings.changed:
        return Setting(settings.n_win, settings.topk)
    return Setting(n_win, topk)
