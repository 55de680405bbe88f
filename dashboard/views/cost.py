"""Cost: what every layer of a model costs, what BRA adds, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from bra.errors import BRAError
from bra.figures import cost as cost_figures
from bra.messages import Message, message
from bra.models.recorded import OpenRecording
from bra.profiling.advice import Position, choices, positions, setting_changes
from bra.profiling.format import cost_csv, cost_json, cost_markdown, short, summary
from bra.profiling.formula import LayerCost
from bra.profiling.model_cost import Cost, CostRow
from bra.reports.code import cost_code, cost_command
from bra.reports.files import recorded_csv
from bra.spec import BRASpec
from bra.units import quantity
from dashboard.i18n import option_labels, tr, tr_noop, translate
from dashboard.services import cost as cost_services
from dashboard.services.cost import Variant
from dashboard.services.models import LoadedModel, load_model
from dashboard.state import cost_view as views
from dashboard.state import session
from dashboard.state.cost_view import CostView
from dashboard.state.view import N_WINS, Selection
from dashboard.state.widgets import init_widget
from dashboard.widgets import chart, share, tables
from dashboard.widgets import model as model_widgets
from dashboard.widgets.picture import plain as as_is
from dashboard.widgets.tables import sentence_table, table

MEASURES = {"macs": tr_noop("multiply-adds"), "params": tr_noop("parameters"), "peak_bytes": tr_noop("memory"),
            "ms": tr_noop("time")}
ROUNDS = 7
COMPARE = Path(__file__).parent / "compare.py"
TAB_NAMES = {"rows": tr_noop("What it costs"), "change": tr_noop("What to change"),
             "places": tr_noop("Where to put it"), "otherwise": tr_noop("Against the same model otherwise"),
             "ultralytics": tr_noop("Beside Ultralytics' figure")}
# How the first choice of each is called; the others are numbers. (A text of its own would be shown on the page.)
NARROW, POOLS = {1: tr_noop("all")}, {1: tr_noop("none")}
VARIANT_NAMES = {Variant.AS_IS: tr_noop("as it is"), Variant.WITHOUT_BRA: tr_noop("without BRA"),
                 Variant.FULL_ATTENTION: tr_noop("full attention"), Variant.SECOND_SETTING: tr_noop("second setting")}
FUNCTIONS = {Variant.WITHOUT_BRA: "without_bra", Variant.FULL_ATTENTION: "with_full_attention",
             Variant.SECOND_SETTING: "with_settings"}
# Columns of the tables whose numbers are shown with one decimal.
DECIMALS = frozenset((
    tr_noop("share, %"), tr_noop("time, ms"), tr_noop("of the time, %"), tr_noop("parameters, %"),
    tr_noop("multiply-adds, %"), tr_noop("peak, %"), tr_noop("covers, %"), tr_noop("padding, %")))


def choose_size() -> CostView:
    """The size of the image."""
    old = session.cost_view()
    with st.container(horizontal=True):
        sides = list(views.SIDES)
        height = st.selectbox(tr("Image height, px"), sides, width=140,
                              key=init_widget("cost_height", old.height, sides))
        width = st.selectbox(tr("Image width, px"), sides, width=140,
                             key=init_widget("cost_width", old.width, sides))
    return session.save_cost_view(replace(old, height=height, width=width))


def choose_tab(view: CostView, offered: Sequence[str]) -> CostView:
    """Which part of the page is open, of those that this model has."""
    tab = st.segmented_control(tr("Cost"), offered, format_func=option_labels(TAB_NAMES), required=True,
                               key=init_widget("cost_tab", view.tab, offered), label_visibility="collapsed")
    return session.save_cost_view(replace(view, tab=tab or view.tab))


def _choose_measure(view: CostView, offered: Sequence[str]) -> CostView:
    """What the bars of a chart show."""
    measure = st.segmented_control(tr("Show"), offered, format_func=option_labels(MEASURES), required=True,
                                   key=init_widget("cost_measure", view.measure, offered))
    return session.save_cost_view(replace(view, measure=measure or view.measure))


def page(selection: Selection, view: CostView) -> None:
    """Everything below the size: what a model costs, and of the rest the part that is open."""
    try:
        loaded = load_model(selection.settings, session.model_upload())
        cost = cost_services.cost_of(loaded, view)
        plain = cost_services.cost_of(loaded, view, Variant.WITHOUT_BRA)
    except BRAError as error:
        model_widgets.refuse(error)
        return
    if not loaded.model.specs and loaded.upload is not None:
        model_widgets.say_no_routing(loaded)
    model_widgets.warn_of_weights(loaded)
    with_bra, yolo = any(row.layers for row in cost.rows), cost_services.is_yolo(loaded)
    view = choose_tab(view, [tab for tab in views.TABS if tab == "rows" or {
        "change": with_bra, "places": yolo, "otherwise": with_bra, "ultralytics": yolo}[tab]])
    files: list[share.File] = []
    rounds = 0
    if view.tab == "rows":
        cost, rounds = rows(loaded, view, cost, plain)
    elif view.tab == "change":
        files = change(loaded, view, cost)
    elif view.tab == "places":
        files = places(loaded, view, cost, plain)
    elif view.tab == "otherwise":
        view, files = against(loaded, view, plain, cost)
    else:
        beside_ultralytics(loaded, cost)
    _share(loaded, view, rounds, [*_tables(cost), *files])


def rows(loaded: LoadedModel, view: CostView, cost: Cost, plain: Cost) -> tuple[Cost, int]:
    """What every row costs, as charts and as a table; returns the cost, with times where they were asked for, and the
    rounds in which they were taken."""
    for sentence in summary(cost, plain):
        st.markdown(as_is(translate(sentence)))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        shown = st.container()
        init_widget("cost_time", False, (False, True))
        timed = st.toggle(tr("Measure time on this machine"), key="cost_time",
                          help=tr("Median of {n} forwards after warming up; a large model takes a while. The shares "
                                  "mean something elsewhere too.", n=ROUNDS))
        with shown:
            view = _choose_measure(view, views.MEASURES if timed else views.MEASURES[:-1])
    if timed:
        try:
            cost = cost_services.timed_cost(loaded, view, ROUNDS)
        except BRAError as error:
            model_widgets.refuse(error)
            return cost, 0
    with_bra, yolo = [row for row in cost.rows if row.layers], cost_services.is_yolo(loaded)
    # In a model with BRA its rows have other numbers than without: there, only those with BRA mean something elsewhere.
    pick = partial(_on_row, tuple(row.name for row in with_bra),
                   tuple(row.name for row in plain.rows) if yolo and not with_bra else ())
    drawn = chart.style()
    bars, parameters = st.tabs([tr("Every row"), tr("Parameters as a tree")], on_change="rerun", key="cost_charts")
    with bars:
        if bars.open:
            if with_bra:
                st.caption(tr("Click a row with BRA to see what to change in it."))
            elif yolo:
                st.caption(tr("Click a row to see what a BRA row after it would cost."))
            chart.draw(cost_figures.bars(cost, view.measure, drawn, loaded.model.assumptions), cost.model,
                       view.measure, key=session.COST_BARS, on_select=partial(pick, session.COST_BARS))
    with parameters:
        if parameters.open:
            chart.draw(cost_figures.icicle(cost, drawn, loaded.model.assumptions), cost.model, "parameters",
                       key=session.COST_TREE, on_select=partial(pick, session.COST_TREE))
    st.caption(tr("Counted, not estimated: every operator of one forward at this image size; parts of BRA by formula, "
                  "which the count must meet. Weights do not matter: trained or not, a model costs the same."))
    _rows(cost)
    return cost, ROUNDS if timed else 0


def _on_row(with_bra: tuple[str, ...], plain: tuple[str, ...], key: str) -> None:
    """Callback of the charts: of the bars, it opens the part of the page that tells of the row that was clicked.

    In the other charts, one of which is on that part and one of which looks into the row, it is only said.
    """
    row = session.on_cost_row(with_bra, plain, key)
    tab = "change" if with_bra else "places"
    if row and key == session.COST_BARS:
        session.open_cost_tab(tab)
    elif row:
        st.toast(tr("“{part}” tells of {row} now.", part=translate(TAB_NAMES[tab]), row=as_is(short(row))),
                 icon=":material/check:")


def _tables(cost: Cost) -> list[share.File]:
    """The rows as files."""
    name = cost.model, "cost", "x".join(map(str, cost.input[2:]))
    return [share.File(tr("Table, CSV"), cost_csv(cost), share.named("csv", *name)),
            share.File(tr("Table, JSON"), cost_json(cost), share.named("json", *name)),
            share.File(tr("Table, Markdown"), cost_markdown(cost), share.named("md", *name))]


def _share(loaded: LoadedModel, view: CostView, rounds: int, files: list[share.File]) -> None:
    """The tables and model files; and the tables as code, as a command and as a link."""
    possible = []
    for variant, name in FUNCTIONS.items() if view.tab == "otherwise" else ():
        with suppress(BRAError):
            cost_services.cost_of(loaded, view, variant)
            possible.append(name)
    file, size = share.file_name(loaded.upload), (view.height, view.width)
    share.offer(cost_code(loaded.settings, size, file, rounds, possible, view.second, view.narrow),
                cost_command(loaded.settings, size, file, rounds), files=files)


def recorded_page(recording: OpenRecording) -> None:
    """The table of a recording: what the recorder counted, at the size of its picture."""
    cost, rows, measures = recording.cost, recording.table, views.MEASURES[:2]
    measure = st.segmented_control(tr("Show"), measures, format_func=option_labels(MEASURES), required=True,
                                   key=init_widget("cost_measure", session.cost_view().measure, measures))
    unknown = sum(not row.counted for row in rows)
    st.markdown(as_is(tr(
        "Recorded on an input of {size}: {model} has {params:,} parameters, and {macs} multiply-adds were counted.",
        size="×".join(map(str, cost.input)), model=cost.model, params=cost.total.params,
        macs=quantity(cost.total.macs))))
    if unknown:
        st.info(tr("{n} of {all} rows hold code of their own, whose multiply-adds are not known: what is counted of "
                   "them are convolutions, linear layers, and the attention of layers that were heard.", n=unknown,
                   all=len(rows)), icon=":material/info:")
    st.caption(tr("Memory and time were not recorded. For these, for other settings and for other places, open the "
                  "model's own file, or run bra.cost where the model runs."))
    chart.draw(cost_figures.bars(cost, measure or "macs", chart.style()).update_layout(showlegend=False), cost.model,
               measure or "macs")
    table([{tr_noop("row"): row.name, tr_noop("class"): row.kind, tr_noop("parameters"): row.params,
            tr_noop("multiply-adds"): row.macs, tr_noop("all of it counted"): tr("yes") if row.counted else tr("no"),
            tr_noop("returns"): "×".join(map(str, row.out))} for row in rows], DECIMALS)
    share.offer(files=[share.File(tr("Table, CSV"), lambda: recorded_csv(rows),
                                  share.named("csv", cost.model, "recorded"))])


def _rows(cost: Cost) -> None:
    table(tables.row_table(cost), DECIMALS, tables.AMOUNTS)
    # An operator's own name, such as "mean", is a name; what is said of one is a sentence.
    left_out = tr(", ").join(f"{translate(one.name) if isinstance(one.name, Message) else one.name} {one.calls}×"
                             for one in cost.not_counted[:12])
    st.caption(tr("Click a column's head to sort by it."))
    st.caption(as_is(tr("Not counted, since they multiply and add nothing in pairs: {operators}.", operators=left_out)))


def against(loaded: LoadedModel, view: CostView, plain: Cost, cost: Cost) -> tuple[CostView, list[share.File]]:
    """The model in other ways, beside each other; returns the view, and the model file with the second setting."""
    view = _second_setting(view)
    costs = {}
    for variant, name in VARIANT_NAMES.items():
        try:
            costs[variant] = plain if variant is Variant.WITHOUT_BRA else cost_services.cost_of(loaded, view, variant)
        except BRAError as error:
            st.warning(tr("“{kind}” cannot be: {why}", kind=translate(name), why=model_widgets.sentence(error)))
    named = {VARIANT_NAMES[variant]: one for variant, one in costs.items()}
    table(tables.against_table(named), decimals=DECIMALS, amounts=tables.AMOUNTS)
    chart.draw(cost_figures.against(named, chart.style(), loaded.model.assumptions), cost.model, "settings",
               f"n{view.n_win}_k{view.topk}")
    st.caption(tr("Full attention: every window routed to all. Bytes are those of the fused form used here, which "
                  "never writes attention out. The second setting stands in all BRA layers."))
    if Variant.SECOND_SETTING in costs and cost_services.is_yolo(loaded):
        dims = {number: row.layers[0].spec.dim for number, row in enumerate(cost.rows) if row.layers}
        text = cost_services.yaml_with_second_setting(loaded, view, dims)
        narrow = tr("Fewer channels of q and k are written as numbers, which fit this scale of the model.")
        return view, [share.File(tr("Model file with the second setting, YAML"), text,
                                 share.named("yaml", cost.model, f"n{view.n_win}_k{view.topk}"),
                                 narrow if view.narrow > 1 else None)]
    return view, []


def _second_setting(view: CostView) -> CostView:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        n_wins = list(N_WINS)
        n_win = st.selectbox(tr("Second setting: n_win"), n_wins,
                             key=init_widget("cost_n_win", view.n_win, n_wins),
                             width=170)
        ks = list(range(1, n_win**2 + 1))
        topk = st.selectbox("topk", ks, key=init_widget("cost_topk", min(view.topk, n_win**2), ks), width=100)
        narrow = st.selectbox(tr("q and k channels"), views.NARROW, width=150,
                              key=init_widget("cost_narrow", view.narrow, views.NARROW),
                              format_func=option_labels({n: NARROW.get(n, f"1/{n}") for n in views.NARROW}))
        pool = st.selectbox(tr("Mean pooling of k, v"), views.POOLS, width=160,
                            key=init_widget("cost_pool", view.pool, views.POOLS),
                            format_func=option_labels({n: POOLS.get(n, f"{n}×{n}") for n in views.POOLS}))
        projections = st.selectbox(tr("Projections"), views.PROJECTIONS, width=130,
                                   key=init_widget("cost_projections", view.projections, views.PROJECTIONS))
    return session.save_cost_view(
        replace(view, n_win=n_win, topk=topk, narrow=narrow, pool=pool, projections=projections))


# Other windows, other settings, other places, and Ultralytics' figure. ----------------------------------------------

def change(loaded: LoadedModel, view: CostView, cost: Cost) -> list[share.File]:
    """Other windows and other settings for one row with BRA; returns model files."""
    number, row, view = _choose_row(view, cost)
    files = _windows(loaded, view, number, row, cost)
    _settings(row.layers[0])
    return files


def _choose_row(view: CostView, cost: Cost) -> tuple[int, CostRow, CostView]:
    """The row with BRA that is told of, and its number among all rows."""
    found = [(number, row) for number, row in enumerate(cost.rows) if row.layers]
    options = list(range(len(found)))
    at = st.selectbox(tr("For the row"), options, width=520,
                      format_func=[_described(row) for _, row in found].__getitem__,
                      key=init_widget("cost_row", min(view.row, len(found) - 1), options))
    return (*found[at], session.save_cost_view(replace(view, row=at)))


def _described(row: CostRow) -> str:
    layer = row.layers[0]
    return tr("{row}: {h}×{w} tokens of {dim} channels", row=short(row.name), h=layer.grid.h, w=layer.grid.w,
              dim=layer.spec.dim)


def _windows(loaded: LoadedModel, view: CostView, number: int, row: CostRow, cost: Cost) -> list[share.File]:
    layer, files = row.layers[0], []
    spec = layer.spec
    found = {one.n_win: one for one in choices(spec, layer.grid.h, layer.grid.w)}
    st.markdown(tr("**Which n_win?** Each token of this layer sees topk / n_win² = {topk} / {windows} = {share:.1%} of "
                   "the map. Other windows at equal coverage, the cheapest first:", topk=spec.topk,
                   windows=spec.n_windows, share=spec.topk / spec.n_windows))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        tried = st.selectbox(tr("Try"), list(found), width=170,
                             format_func=lambda n: f"n_win {n}, topk {found[n].topk}",
                             key=init_widget("cost_tried", view.tried or next(iter(found)), list(found)))
        one = found[tried]
        st.button(tr("Use it as the second setting"), key="cost_use", on_click=_on_use, args=(one.n_win, one.topk),
                  disabled=one.n_win not in N_WINS)
    if cost_services.is_yolo(loaded):
        text = cost_services.yaml_with_settings(loaded, {"n_win": one.n_win, "topk": one.topk}, [number])
        files.append(share.File(
            tr("Model file with n_win {n_win}, topk {topk} in row {row}, YAML", n_win=one.n_win, topk=one.topk,
               row=short(row.name)), text,
            share.named("yaml", cost.model, short(row.name), f"n{one.n_win}_k{one.topk}")))
    st.markdown(as_is(tr("n_win {n_win} {why}.", n_win=one.n_win, why=translate(one.why))))
    table(tables.choice_table(list(found.values())), DECIMALS, tables.AMOUNTS)
    st.caption(tr("Cost alone does not choose: what a setting keeps of full attention on a picture, against its cost, "
                  "memory and padding, is weighed in one place."))
    if st.button(tr("Which one? Weighed on Compare"), icon=":material/balance:", key="cost_weigh", type="tertiary"):
        session.weigh_layer(layer.name)
        st.switch_page(COMPARE)
    session.save_cost_view(replace(view, tried=tried if tried != next(iter(found)) else 0))
    return files


def _on_use(n_win: int, topk: int) -> None:
    """Callback: these windows are the second setting, beside which the model is shown next."""
    session.use_setting(n_win, topk)
    session.open_cost_tab("otherwise")
    st.toast(tr("The second setting is now n_win {n_win}, topk {topk}.", n_win=n_win, topk=topk),
             icon=":material/check:")


def _settings(layer: LayerCost) -> None:
    found = setting_changes(layer.spec, layer.grid.h, layer.grid.w)
    saving, without = [one for one in found if one.params], [one for one in found if not one.params]
    st.markdown(tr("**“BiFormer has many parameters.”** This layer has {n:,}. What saves some of them, one setting "
                   "changed at a time:", n=layer.params))
    sentence_table(tables.setting_change_table(saving), tables.AMOUNTS)
    st.markdown(tr("What saves none, whatever else it saves:"))
    sentence_table(tables.setting_change_table(without), tables.AMOUNTS)


def places(loaded: LoadedModel, view: CostView, cost: Cost, plain: Cost) -> list[share.File]:
    """Where a row such as one of the model's own could be; returns the model file with it there."""
    spec = BRASpec(64)
    if any(row.layers for row in cost.rows):
        _, row, view = _choose_row(view, cost)
        spec = row.layers[0].spec
    view = _choose_measure(view, views.MEASURES[:-1])
    options = _options(spec)
    found = positions(plain, **options)
    possible = [(place, place.layer) for place in found if place.layer is not None]
    st.markdown(tr("**Where to put it?** One row with {options}, after each row of this model without BRA.",
                   options=_options_text(options))
                + (tr(" The dashed line is 1 GiB.") if view.measure == "peak_bytes" else ""))
    here = tables.bra_after(cost, plain)
    size = "×".join(map(str, plain.input[2:]))
    caption = message("{model} · one image of {size} · one BRA row with {options}", model=plain.model, size=size,
                      options=_options_text(options))
    if possible:
        (least, cheap), (most, dear) = (extreme(possible, key=lambda pair: pair[1].params) for extreme in (min, max))
        st.markdown(as_is(tr(
            "Its place is the largest lever: after {least} such a row has {params:,} parameters and takes {macs:,.0f} "
            "M multiply-adds, after {most} {most_params:,} and {most_macs:,.0f} M.",
            least=_place(least), params=cheap.params, macs=cheap.macs / 1e6,
            most=_place(most), most_params=dear.params, most_macs=dear.macs / 1e6)))
    chart.draw(cost_figures.places(found, view.measure, here, chart.style(), caption), plain.model, "places",
               view.measure, key=session.COST_PLACES, on_select=partial(
                   _on_row, (), tuple(row.name for row in plain.rows), session.COST_PLACES))
    refused = [place for place in found if place.layer is None]
    if refused:
        st.caption(as_is(tr("{n} rows cannot have it, {row} for one: {why}", n=len(refused), row=refused[0].after,
                            why=translate(refused[0].why))))
    if not possible:
        return []
    numbers = {row.name: number for number, row in enumerate(plain.rows)}
    rows = {numbers[place.after]: place for place, _ in possible}
    first = next((number for number, place in rows.items() if place.after in here), next(iter(rows)))
    after = st.selectbox(tr("After row"), list(rows), format_func=lambda n: rows[n].after, width=170,
                         key=init_widget("cost_after", view.after or first, list(rows)))
    session.save_cost_view(replace(view, after=after if after != first else 0))
    st.markdown(as_is(tr("{why}.", why=translate(rows[after].why))))
    return [share.File(tr("Model file with one BRA row after {row}, YAML", row=rows[after].after),
                       cost_services.yaml_with_row_after(loaded, after, options),
                       share.named("yaml", plain.model, "bra-after", rows[after].after))]


def _place(place: Position) -> str:
    return f"{place.after} ({place.h}×{place.w}×{place.dim})"


def _options(spec: BRASpec) -> dict[str, Any]:
    """What a spec sets other than by default, but for what hangs on the channels of its map."""
    return {field.name: getattr(spec, field.name) for field in fields(spec)
            if field.name not in ("dim", "qk_dim", "qk_scale") and getattr(spec, field.name) != field.default}


def _options_text(options: dict[str, Any]) -> str:
    return tr(", ").join(f"{name}={value}" for name, value in options.items()) or tr("default settings")


def beside_ultralytics(loaded: LoadedModel, cost: Cost) -> None:
    """Ultralytics' printed figure beside ours, and why they differ."""
    found = cost_services.ultralytics(loaded, cost)
    with st.container(horizontal=True):
        st.metric(tr("Ultralytics prints, GFLOPs"), f"{found.printed:.3f}", width=220)
        st.metric(tr("Its counter on the whole image"), f"{found.direct:.3f}", width=220)
        st.metric(tr("Ours: 2 × multiply-adds"), f"{found.ours:.3f}", width=220)
    st.markdown(as_is(translate(found.sentence)))


def _recording(selection: Selection) -> OpenRecording | None:
    """The recording that was chosen, if it is one."""
    try:
        return cost_services.recorded(load_model(selection.settings, session.model_upload()))
    except BRAError:
        return None     # the page says why


def main() -> None:
    """Draw the page."""
    st.subheader(tr("What does it cost, and what for?"), anchor=False)
    with st.sidebar:
        chosen = model_widgets.choose_settings(None)
    recording = _recording(chosen)
    if recording is not None:
        recorded_page(recording)
        return
    page(chosen, choose_size())


if __name__ == "__main__":
    main()
