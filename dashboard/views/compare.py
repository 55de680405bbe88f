"""Compare: settings, models and pictures side by side, until one can say "this one"."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from bra.errors import BRAError
from bra.experiments.compare import AttendingLayer, Compared, GivenLayer, Pair, Setting, SettingRow, amount
from bra.experiments.probes import PROBES
from bra.experiments.recommend import reason, weighed
from bra.figures import compare as compare_figures
from bra.figures.rules import rules as rules_figure
from bra.messages import message, semicolon_joined
from bra.metrics.routing import chance
from bra.metrics.rules import RULES, UNTRAINED_NOTE, verdict
from bra.models.base import WARNING
from bra.models.catalog import CATALOG, ModelSettings
from bra.photo import Photo
from bra.reports.code import (
    compare_code,
    compare_command,
    pair_code,
    probe_code,
    probe_command,
    rules_code,
    sweep_command,
    sweep_table_code,
)
from bra.reports.tables import COLLAPSED, compare_csv, compare_html, depends, model_line, over_nearest
from bra.units import Signed, quantity
from bra.viewer.multiples import multiples_message, pair_message
from bra.viewer.pack import TILE_SIDE, Place
from dashboard import components
from dashboard.i18n import option_labels, tr, tr_noop, translate, visitor_language
from dashboard.services import compare as compare_services
from dashboard.services.compare import Side
from dashboard.services.models import LoadedModel, encoded, given_layer, load_model
from dashboard.state import compare_view as choices
from dashboard.state import session
from dashboard.state.compare_view import EQUAL_TO, Comparison
from dashboard.state.view import Selection
from dashboard.state.widgets import init_multiselect, init_widget
from dashboard.widgets import chart, picture, share
from dashboard.widgets import model as model_widgets
from dashboard.widgets.file_options import ask_file_options
from dashboard.widgets.picture import ask_file, plain
from dashboard.widgets.tables import heads, table

EXPLORE, COST = (Path(__file__).parent / f"{page}.py" for page in ("explore", "cost"))
TAB_NAMES = {"grid": tr_noop("All settings at once"), "versus": tr_noop("A against B"),
             "rules": tr_noop("Other ways to choose"), "probes": tr_noop("Does it follow content?"),
             "sweeps": tr_noop("Many pictures")}
COST_NAMES = {"macs": tr_noop("multiply-adds"), "peak_bytes": tr_noop("memory"), "seconds": tr_noop("time")}
ROUNDS = 3


def leave_if_asked() -> None:
    """Go to Explore where a setting was clicked."""
    if session.leaving():
        st.switch_page(EXPLORE)


def choose_tab() -> Comparison:
    """Which part of the page is open."""
    wanted = session.comparison()
    tab = st.segmented_control(tr("Compare"), choices.TABS, format_func=option_labels(TAB_NAMES), required=True,
                               key=init_widget("tab", wanted.tab, choices.TABS), label_visibility="collapsed")
    return session.save_comparison(replace(wanted, tab=tab or wanted.tab))


def choose_layer(view: Selection, loaded: LoadedModel, label: str = "", attending: bool = False) -> Selection:
    """Which layer, where there are several; with `attending` those that do not route too."""
    names = [*loaded.model.specs, *(loaded.model.attending if attending else ())]
    if not names:
        return view
    usual = model_widgets.shown_layer(view.settings, "", tuple(names))
    layer = view.layer if view.layer in names else usual
    if len(names) > 1:
        layer = st.selectbox(label or tr("Layer"), names, key=init_widget("compare_layer", layer, names),
                             width=260)
    return session.save(replace(view, layer="" if layer == usual else layer))


def _choose_numbers(label: str, key: str, allowed: tuple[int, ...], wanted: tuple[int, ...],
                    explain: str) -> tuple[int, ...]:
    key = init_multiselect(key, wanted, allowed)
    chosen = st.pills(label, allowed, selection_mode="multi", key=key, help=explain)
    if len(chosen) > choices.MOST:
        st.caption(tr("The first {n} are shown.", n=choices.MOST))
    return choices.most(chosen) or wanted


def grid(view: Selection, loaded: LoadedModel, photo: Photo, focus: Place, seen: str) -> None:
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
        view = choose_layer(view, loaded)
        init_widget("equal", wanted.equal, (False, True))
        equal = st.toggle(tr("Equal coverage"), key="equal",
                          help=tr("topk is meant for n_win {n_win} and scaled with n_win² for the others, so that a "
                                  "column covers about the same share of the picture.", n_win=EQUAL_TO))
        # Nothing of a recording's model runs, so none of it can be timed.
        costs = choices.COSTS if loaded.model.runs else choices.COSTS[:-1]
        cost = st.segmented_control(tr("Against"), costs, format_func=option_labels(COST_NAMES), required=True,
                                    key=init_widget("cost", wanted.cost, costs))
    wanted = session.save_comparison(replace(wanted, n_wins=rows, topks=columns, equal=equal,
                                             cost=cost or wanted.cost))
    if equal:
        made: dict[int, list[int]] = {}
        for setting in wanted.settings:
            made.setdefault(setting.n_win, []).append(setting.topk)
        st.caption(tr("Equal coverage made of it: {made}.", made=translate(semicolon_joined([
            f"n_win {n_win}: topk {', '.join(map(str, topks))}" for n_win, topks in made.items()]))))
    given = given_layer(loaded, photo, view.layer)
    compared = compare_services.compared(loaded, photo, given, wanted.settings,
                                         ROUNDS if wanted.cost == "seconds" else 0)
    caption = f"{translate(loaded.model.label)} · {given.name} · {translate(loaded.model.origin)}"
    _pictures(photo, compared, wanted, caption, focus)
    name = _name(translate(loaded.model.label), given.name, seen, loaded.settings, wanted)
    _decide(compared, wanted, caption, name)
    equal_to, file, rounds = EQUAL_TO if wanted.equal else None, share.file_name(loaded.upload), \
        ROUNDS if wanted.cost == "seconds" else 0
    title, language, found, against = tr("Settings side by side"), visitor_language(), compared.rows, wanted.cost
    provenance, untrained = loaded.model.provenance, loaded.model.untrained
    share.offer(compare_code(loaded.settings, given.name, wanted.n_wins, wanted.topks, equal_to, file, seen, rounds),
                compare_command(loaded.settings, wanted.n_wins, wanted.topks, equal_to, given.name, file, seen,
                                wanted.cost, ROUNDS), files=[
        share.File(tr("Table, CSV"), lambda: compare_csv(found, provenance), share.named("csv", *name)),
        share.File(tr("Report, HTML"), lambda: compare_html(found, title, caption, against, language, untrained),
                   share.named("html", *name))])


def _name(model: str, layer: str, seen: str, settings: ModelSettings, wanted: Comparison) -> tuple[str, ...]:
    """Parts of the names of files: model, layer, picture and settings."""
    n_wins, topks = ("-".join(map(str, numbers)) for numbers in (wanted.n_wins, wanted.topks))
    return (model, layer, Path(seen).stem, f"n{n_wins}_k{topks}" + "_equal" * wanted.equal,
            f"{settings.side}px" + "_masked" * settings.mask_padding)


def _pictures(photo: Photo, compared: Compared, wanted: Comparison, caption: str, focus: Place) -> None:
    at = session.opening_place(session.GRID, photo.digest, focus)
    note = tr("★ no other setting keeps as much for less, and it keeps more than its controls · click a name to "
              "open it in Explore")
    message = multiples_message(photo, compared, wanted.cost, at, f"{caption} · {note}",
                                encoded(photo, TILE_SIDE))
    components.multiples(message, session.GRID, session.on_multiples, session.on_setting)


def _decide(compared: Compared, wanted: Comparison, caption: str, name: tuple[str, ...]) -> None:
    st.subheader(tr("Which one?"), anchor=False)
    st.markdown(translate(reason(compared.rows, wanted.cost)))
    chart.draw(compare_figures.deciding(compared.rows, wanted.cost, chart.style(), caption), *name, wanted.cost,
               key=session.CHART, on_select=session.on_chart_point)
    st.caption(tr("Thick grey: the Pareto front. Dashed: what the nearest windows of the same number keep; dotted: "
                  "random ones. Click a point to open that setting in Explore."))
    shares = {tr_noop("keeps"): "recall", tr_noop("nearest"): "nearest", tr_noop("chance"): "chance",
              tr_noop("best"): "oracle", tr_noop("padding"): "padding_share"}
    table([{"n_win": row.n_win, "topk": row.topk,
            **{name: 100 * getattr(row, field) for name, field in shares.items()},
            tr_noop("depends on the query"): translate(depends(row)), tr_noop("multiply-adds"): row.macs,
            tr_noop("memory"): row.peak_bytes, tr_noop("weighed"): translate(words)}
           for row, words in zip(compared.rows, weighed(compared.rows, wanted.cost), strict=True)],
          percents=shares, amounts={"multiply-adds": "", "memory": "B"})
    st.caption(tr("Weighed: beside the recommended setting, in points of attention kept and of padding, and in per "
                  "cent of its multiply-adds and its memory."))
    if any(row.collapsed for row in compared.rows):
        st.caption(translate(COLLAPSED))
    st.page_link(COST, label=tr("Cost of each part, and advice"), icon=":material/payments:")


def choose_b(view: Selection, wanted: Comparison) -> tuple[Selection, LoadedModel]:
    """Side B: model, weights and layer, its windows still as they were; and the model, open."""
    old, keys = wanted.b.settings, list(CATALOG)
    key = st.selectbox(tr("B: model"), keys, format_func=option_labels(model_widgets.MODEL_NAMES),
                       key=init_widget("b_model", old.model, keys), width=300)
    entry, a = CATALOG[key], view.settings
    same = old if old.model == key else replace(old, model=key, variant="", untrained=False, changed=False)
    patches = entry.family == "patches" == a.entry.family
    same = replace(same, side=a.side if patches or a.model == key else entry.side)
    if patches:
        same = replace(same, num_heads=a.num_heads, stride=a.stride)
    same = _choose_kind(same)
    try:
        loaded = load_model(same, session.uploaded_file(session.MODEL_UPLOADER_B))
    except BRAError as error:
        model_widgets.refuse(error, session.MODEL_UPLOADER_B)
        st.stop()
    names = [*loaded.model.specs, *loaded.model.attending]
    layer = next((name for name in (wanted.b.layer, view.layer) if name in names), names[0] if names else "")
    if len(names) > 1:
        layer = st.selectbox(tr("B: layer"), names, key=init_widget("b_layer", layer, names), width=260)
    return Selection(settings=same, layer=layer), loaded


def choose_b_windows(side: Selection, loaded: LoadedModel, wanted: Comparison) -> Selection:
    """Side B with the windows that it gets."""
    settings = model_widgets.choose_b_windows(side.settings, loaded.model.specs.get(side.layer))
    return session.save_comparison(replace(wanted, b=replace(side, settings=settings))).b


def _choose_kind(settings: ModelSettings) -> ModelSettings:
    """Variant, weights or file of side B, where there is something to choose."""
    entry = settings.entry
    if len(entry.variants) > 1:
        variants = list(entry.variants)
        variant = st.selectbox(tr("B: variant"), variants, width=260,
                               key=init_widget(f"b_variant_{entry.key}", settings.chosen_variant, variants))
        return replace(settings, variant="" if variant == variants[0] else variant)
    if entry.card:
        options = list(model_widgets.WEIGHTS)
        weights = st.segmented_control(tr("B: weights"), options, required=True,
                                       format_func=option_labels(model_widgets.WEIGHTS),
                                       key=init_widget(f"b_weights_{entry.key}", options[settings.untrained],
                                                       options))
        return replace(settings, untrained=weights == "untrained")
    if entry.family == "own":
        ask_file(tr("B: model file"), model_widgets.MODEL_ENDINGS, session.MODEL_UPLOADER_B)
        return replace(settings, file=ask_file_options(session.uploaded_file(session.MODEL_UPLOADER_B), "b_"))
    return settings


def setting_of(settings: ModelSettings, given: GivenLayer) -> Setting:
    """The windows that a side has: those that were asked for, or else the layer's own."""
    chosen = not isinstance(given, AttendingLayer) and (settings.entry.family == "patches" or settings.changed)
    asked = settings if chosen else given.own
    return Setting(asked.n_win, asked.topk)


# The other parts of the page Compare: two sides, probes of the picture, and sweeps over many. -----------------------

PROBE_NAMES = {"brightness": tr_noop("brightness"), "flip": tr_noop("flip"), "shift": tr_noop("shift"),
               "crop": tr_noop("crop"),
               "swap": tr_noop("swap")}


def sides(view: Selection, loaded: LoadedModel, photo: Photo, focus: Place, seen: str) -> None:
    """A against B on one picture."""
    st.caption(tr("A is the model of the side bar, with its windows. Set B here."))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = choose_layer(view, loaded, tr("A: layer"), attending=True)
        other, loaded_b = choose_b(view, session.comparison())
    other = choose_b_windows(other, loaded_b, session.comparison())
    loaded_b = replace(loaded_b, settings=other.settings)
    if loaded_b.model.untrained and not loaded.model.untrained:
        st.warning(f"B: {translate(WARNING)}", icon=":material/casino:")
    a, b = (Side(model, given, setting_of(model.settings, given)) for model, given in
            ((loaded, given_layer(loaded, photo, view.layer)), (loaded_b, given_layer(loaded_b, photo, other.layer))))
    found = compare_services.pair(photo, a, b)
    names = tuple(f"{translate(side.loaded.model.label)}, {side.given.name}" for side in (a, b))
    at = session.opening_place(session.PAIR, photo.digest, focus)
    caption = "" if found.difference is not None else \
        tr("The two layers put out maps of different size or channels, so their outputs cannot be subtracted.")
    message = pair_message(photo, found, (names[0], names[1]), at, caption, encoded(photo, TILE_SIDE))
    components.multiples(message, session.PAIR, session.on_multiples, session.on_setting)
    row_a, row_b = found.rows
    st.markdown(_together(found))
    less = tr_noop("B less A")
    st.dataframe([
        {"": tr("keeps of its full attention"), **_shares(row_a, row_b, "recall", less)},
        {"": tr("its nearest windows keep"), **_shares(row_a, row_b, "nearest", less)},
        {"": tr("depends on the query"), "A": translate(depends(row_a)), "B": translate(depends(row_b)), less: ""},
        {"": tr("multiply-adds of the layer"), "A": translate(amount(row_a, "macs")),
         "B": translate(amount(row_b, "macs")), less: _change(row_a.macs, row_b.macs)},
        {"": tr("memory of the layer"), "A": translate(amount(row_a, "peak_bytes")),
         "B": translate(amount(row_b, "peak_bytes")),
         less: _change(row_a.peak_bytes, row_b.peak_bytes) if row_a.routed and row_b.routed else ""}],
        hide_index=True, height="content", column_config=heads([less]))
    one, two = ((side.loaded.settings, side.given.name, side.windows, share.file_name(side.loaded.upload))
                for side in (a, b))
    share.offer(pair_code(one, two, seen), charts=False)


def _together(found: Pair) -> str:
    """What two layers have in common, in a sentence."""
    shared, names = found.shared.union_share, ("A", "B")
    if found.caught is not None:
        whole, routed = sorted(range(2), key=lambda n: found.traces[n].routed)
        share = chance(found.traces[routed])
        return tr("{whole} does not route. Of its attention, **{caught:.0f} %** falls on what {routed} is routed to "
                  "from the same place; as many random windows would get {chance:.0f} %.", whole=names[whole],
                  routed=names[routed], caught=100 * found.caught, chance=100 * share)
    return tr("Over all queries, A and B share **{shared:.0f} %** of what either is routed to; two random choices "
              "of that size would share {chance:.0f} %.", shared=100 * shared[shared == shared].mean(),
              chance=100 * found.chance)


def _shares(row_a: SettingRow, row_b: SettingRow, field: str, less: str) -> dict[str, str]:
    a, b = getattr(row_a, field), getattr(row_b, field)
    # A layer that does not route leaves nothing out, so there is nothing to keep.
    return {"A": tr("{share:.1f} %", share=100 * a) if row_a.routed else "–",
            "B": tr("{share:.1f} %", share=100 * b) if row_b.routed else "–",
            less: tr("{gain:+.1f} points", gain=Signed(100 * (b - a))) if row_a.routed and row_b.routed else ""}


def _change(a: int, b: int) -> str:
    sign = "−" if b < a else "+"
    return tr("{amount} ({gain:+.0f} %)", amount=f"{sign}{quantity(abs(b - a))}", gain=Signed(100 * (b - a) / a))


def rules(view: Selection, loaded: LoadedModel, photo: Photo, seen: str) -> None:
    """Other rules of routing at equal cost in one layer."""
    st.caption(tr("Every rule lets a window's queries attend to as many windows; how they are chosen differs. The "
                  "windows are those of the side bar, or the layer's own."))
    view = choose_layer(view, loaded)
    given = given_layer(loaded, photo, view.layer)
    windows = setting_of(loaded.settings, given)
    if windows.topk >= windows.n_win**2:
        st.info(tr("With n_win {n_win} and topk {topk} every window is chosen, so that no rule differs: lower topk.",
                   n_win=windows.n_win, topk=windows.topk), icon=":material/select_all:")
        return
    rows = compare_services.ruled(loaded, photo, given, windows)
    st.markdown(translate(verdict(rows)))
    caption = message("{model} · {layer} · n_win {n_win} · topk {topk} · {provenance}", model=loaded.model.label,
                      layer=given.name or message("attention"), n_win=windows.n_win, topk=windows.topk,
                      provenance=loaded.model.origin)
    drawn, table = st.columns([1.2, 1], gap="large")
    with drawn:
        chart.draw(rules_figure(rows, chart.style(), caption), loaded.model.label, given.name, "rules")
        st.caption(tr("Dotted: random windows. The layer's own rule is orange. Change of the output: 0 % is the output "
                      "of full attention."))
    with table:
        shares = {tr_noop("keeps"): "recall", tr_noop("change of the output"): "change"}
        found = [{tr_noop("rule"): translate(RULES[row.rule].name),
                  **{name: 100 * getattr(row, field) for name, field in shares.items()}, "MACs": quantity(row.macs),
                  tr_noop("keys and values read"): quantity(row.kv_bytes) + "B"}
                 for row in sorted(rows, key=lambda row: -row.recall)]
        st.dataframe(found, hide_index=True, height="content", column_config=heads(found[0], shares))
        st.caption(translate(UNTRAINED_NOTE) + " " + tr("Whether the windows show alike things needs labels: see the "
                                                        "option `--labels` of the command below."))
    with st.expander(tr("How each rule chooses, and what would have to learn for it")):
        st.markdown("\n".join(f"- **{translate(rule.name)}** {translate(rule.about)} *{translate(rule.training)}*"
                              for rule in RULES.values()))
    file = share.file_name(loaded.upload)
    own = windows == given.own
    share.offer(rules_code(loaded.settings, given.name, windows, file, seen),
                sweep_command(loaded.settings, () if own else (windows.n_win,), () if own else (windows.topk,),
                              layers=(given.name,) if given.name else (), file=file, rules=True))


def probes(loaded: LoadedModel, photo: Photo, seen: str) -> None:
    """What of each layer's routing survives a changed picture."""
    st.markdown(tr("The picture is changed, the same queries are asked again, and everything is taken back to where it "
                   "was: how much of the area that each query was routed to is routed to again?"))
    rows = compare_services.probed(loaded, photo)
    columns = {tr_noop("survives"): "survived", tr_noop("if it kept its places"): "stayed",
               tr_noop("nearest windows"): "nearest", tr_noop("random windows"): "chance"}
    table = [{tr_noop("layer"): row.layer,
              tr_noop("probe"): tr("{name}: {about}", name=translate(PROBE_NAMES[row.probe]),
                                                                     about=translate(PROBES[row.probe].about)),
              **{label: 100 * getattr(row, name) for label, name in columns.items()}} for row in rows]
    st.dataframe(table, hide_index=True, height="content", column_config=heads(table[0], columns))
    st.caption(tr("A routing that follows content survives about as well as the nearest windows, whose losses are "
                  "those of the grid itself, which cuts a moved picture elsewhere. One that is written into places "
                  "survives like the column beside it. The nearest windows survive without looking at anything: only "
                  "above “if it kept its places”, and with less local choices, does a high number speak for content."))
    file = share.file_name(loaded.upload)
    share.offer(probe_code(loaded.settings, file, seen), probe_command(loaded.settings, file, seen), charts=False)


def sweeps(view: Selection) -> None:
    """Opens the table of a sweep, and says how to make one of the model and the settings of this page."""
    st.markdown(tr("A folder of any size is swept on the command line; a run that was cut off goes on where it "
                   "stopped."))
    compared, upload = session.comparison(), session.model_upload()
    st.code(sweep_command(view.settings, compared.n_wins, compared.topks, EQUAL_TO if compared.equal else None,
                          file=upload.name if upload else ""), language="bash")
    ask_file(tr("Open its rows.parquet"), ["parquet"], session.SWEEP_UPLOADER)
    file = session.uploaded_file(session.SWEEP_UPLOADER)
    if file is None:
        share.offer(charts=False)
        return
    try:
        table, rows = compare_services.sweep_table(file)
    except BRAError as error:
        st.error(plain(translate(error)), icon=":material/table:")
        return
    layers = list(dict.fromkeys(row.layer for row in rows))
    if not layers:
        st.info(tr("This table holds no rows: every file was skipped, or the folder was empty."))
        return
    st.markdown(tr("{n:,} pictures. {model}", n=max(row.pictures for row in rows),
                   model=plain(translate(model_line(table.about)))))
    layer = st.selectbox(tr("Layer"), layers, key=init_widget("sweep_layer", layers[0], layers)) \
        if len(layers) > 1 else layers[0]
    shown = [row for row in rows if row.layer == layer]
    caption = message("{model} {layer}", model=translate(model_line(table.about)),
                      layer=message("Layer {name}", name=layer or message("attention")))
    chart.draw(compare_figures.swept(shown, chart.style(), caption), "sweep", file.name, layer)
    st.caption(tr("One tick per picture; the interval is from resampling pictures. Click a name in the legend to show "
                  "or hide its marks."))
    found = [{"n_win": row.n_win, "topk": row.topk, tr_noop("keeps"): 100 * row.recall,
              tr_noop("nearest"): 100 * row.nearest, tr_noop("over nearest, 95 %"): translate(over_nearest(row)),
              tr_noop("random"): 100 * row.chance, tr_noop("depends on the query"): translate(depends(row)),
              "MACs": quantity(row.macs),
              tr_noop("memory"): quantity(row.peak_bytes) + "B"} for row in shown]
    st.dataframe(found, hide_index=True, height="content",
                 column_config=heads(found[0], ("keeps", "nearest", "random")))
    if any(row.collapsed for row in shown):
        st.caption(translate(COLLAPSED))
    language = visitor_language()
    share.offer(sweep_table_code(file.name, layer), files=[share.File(
        tr("Report, HTML"), lambda: compare_services.sweep_file(file, language), share.named("html", file.name))])


def main() -> None:
    """Draw the page."""
    leave_if_asked()
    picture.choose_picture(tr("Compare: which windows, which model?"))
    chosen = picture.chosen_picture()
    with st.sidebar:
        view = model_widgets.choose_settings(chosen.photo)
    tab = choose_tab().tab
    try:
        if tab == "sweeps":
            sweeps(view)
            return
        loaded = load_model(view.settings, session.model_upload())
        if not loaded.model.specs and loaded.model.runs and not (tab == "versus" and loaded.model.attending):
            model_widgets.say_no_routing(loaded)
            return
        chosen = model_widgets.picture_for(loaded, chosen)
        with picture.result_area(chosen.stands_in, loaded.model.label, chosen.name):
            model_widgets.warn_of_weights(loaded)
            seen = share.picture_file(chosen.sample, session.upload())
            if tab == "grid":
                grid(view, loaded, chosen.photo, chosen.focus, seen)
            elif tab == "versus":
                sides(view, loaded, chosen.photo, chosen.focus, seen)
            elif tab == "rules":
                rules(view, loaded, chosen.photo, seen)
            else:
                probes(loaded, chosen.photo, seen)
    except BRAError as error:
        model_widgets.refuse(error)


if __name__ == "__main__":
    main()
