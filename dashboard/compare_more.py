"""The other parts of the page Compare: two sides, probes of the picture, and sweeps over many."""

from __future__ import annotations

import streamlit as st

from bra.errors import BRAError
from bra.experiments.probes import PROBES
from bra.photo import Photo
from bra.reports.charts import quantity
from bra.reports.tables import amount, model_line, over_nearest
from bra.viewer.multiples import versus_message
from bra.viewer.pack import TILE_SIDE, Place
from dashboard import compare_panel, components
from dashboard.compare_panel import setting_of
from dashboard.figures import compare as compare_figures
from dashboard.i18n import mark, told, tongue, tr
from dashboard.services import models as model_services
from dashboard.state import session
from dashboard.state.view import Selection
from dashboard.widgets.picture import ask_file, heads, plain

PROBE_NAMES = {"brightness": mark("brightness"), "flip": mark("flip"), "shift": mark("shift"), "crop": mark("crop"),
               "swap": mark("swap")}


def sides(view: Selection, photo: Photo, focus: Place) -> None:
    """A against B on one picture."""
    st.caption(tr("A is the model of the side bar, with its windows. Set B here."))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = compare_panel.choose_layer(view, tr("A: layer"))
        other = compare_panel.choose_b(view, session.comparison())
    other = compare_panel.choose_b_windows(other, session.comparison())
    one = model_services.given(view.settings, photo, view.layer, session.model_upload())
    file = session.brought(session.MODEL_UPLOADER_B)
    two = model_services.given(other.settings, photo, other.layer, file)
    setting_a = setting_of(view, one.layer.n_win, one.layer.topk)
    setting_b = setting_of(other, two.layer.n_win, two.layer.topk)
    found = model_services.versus(photo, (view.settings, one, setting_a, session.model_upload()),
                            (other.settings, two, setting_b, file))
    names = tuple(f"{told(model_services.opened(side.settings, upload).label)}, {layer}" for side, upload, layer in
                  ((view, session.model_upload(), one.name), (other, file, two.name)))
    at = session.opening_place(session.VERSUS, photo.digest, focus)
    caption = "" if found.difference is not None else \
        tr("The two layers put out maps of different size or channels, so their outputs cannot be subtracted.")
    message = versus_message(photo, found, (names[0], names[1]), at, caption, model_services.encoded(photo, TILE_SIDE))
    components.multiples(message, session.VERSUS, session.take_multiples, session.take_opened)
    a, b = found.rows
    shared = found.shared.union_share
    st.markdown(tr("Over all queries, A and B share **{shared:.0f} %** of what either is routed to; two random choices "
                   "of that size would share {chance:.0f} %.", shared=100 * shared[shared == shared].mean(),
                   chance=100 * found.chance))
    less = mark("B less A")
    st.dataframe([
        {"": tr("keeps of its full attention"), **_shares(a.recall, b.recall, less)},
        {"": tr("its nearest windows keep"), **_shares(a.nearest, b.nearest, less)},
        {"": tr("multiply-adds of the layer"), "A": told(amount(a, "macs")), "B": told(amount(b, "macs")),
         less: _change(a.macs, b.macs)},
        {"": tr("memory of the layer"), "A": told(amount(a, "peak_bytes")), "B": told(amount(b, "peak_bytes")),
         less: _change(a.peak_bytes, b.peak_bytes)}], hide_index=True, column_config=heads([less]))


def _shares(a: float, b: float, less: str) -> dict[str, str]:
    return {"A": tr("{share:.1f} %", share=100 * a), "B": tr("{share:.1f} %", share=100 * b),
            less: tr("{gain:+.1f} %", gain=100 * (b - a))}


def _change(a: int, b: int) -> str:
    sign = "−" if b < a else "+"
    return tr("{amount} ({gain:+.0f} %)", amount=f"{sign}{quantity(abs(b - a))}", gain=100 * (b - a) / a)


def probes(view: Selection, photo: Photo) -> None:
    """What of each layer's routing survives a changed picture."""
    st.markdown(tr("The picture is changed, the same queries are asked again, and everything is taken back to where it "
                   "was: how much of the area that each query was routed to is routed to again?"))
    rows = model_services.probed(view.settings, photo, session.model_upload())
    columns = {mark("survives"): "survived", mark("if it kept its places"): "stayed",
               mark("nearest windows"): "nearest", mark("random windows"): "chance"}
    table = [{mark("layer"): row.layer, mark("probe"): tr("{name}: {about}", name=told(PROBE_NAMES[row.probe]),
                                                                     about=told(PROBES[row.probe].about)),
              **{label: 100 * getattr(row, name) for label, name in columns.items()}} for row in rows]
    st.dataframe(table, hide_index=True, height="content", column_config=heads(table[0], columns))
    st.caption(tr("A routing that follows content survives about as well as the nearest windows, whose losses are "
                  "those of the grid itself, which cuts a moved picture elsewhere. One that is written into places "
                  "survives like the column beside it. The nearest windows survive without looking at anything: only "
                  "above “if it kept its places”, and with less local choices, does a high number speak for content."))


def sweeps() -> None:
    """Opens the table of a sweep, and says how to make one."""
    st.markdown(tr("A folder of any size is swept on the command line; a run that was cut off goes on where it "
                   "stopped."))
    st.code("bra sweep FOLDER --n-win 4,7,8 --topk 1,2,4,8 --jobs 2 -o sweep", language="bash")
    ask_file(tr("Open its rows.parquet"), ["parquet"], session.SWEEP_UPLOADER, session.take_file, session.SWEEP_UPLOADER)
    file = session.brought(session.SWEEP_UPLOADER)
    if file is None:
        return
    try:
        table, rows = model_services.sweep_table(file)
    except BRAError as error:
        st.error(plain(told(error)), icon=":material/table:")
        return
    layers = list(dict.fromkeys(row.layer for row in rows))
    if not layers:
        st.info(tr("This table holds no rows: every file was skipped, or the folder was empty."))
        return
    st.markdown(tr("{n:,} pictures. {model}", n=max(row.pictures for row in rows),
                   model=plain(told(model_line(table.about)))))
    layer = st.selectbox(tr("Layer"), layers, key=session.hold("sweep_layer", layers[0], layers)) \
        if len(layers) > 1 else layers[0]
    shown = [row for row in rows if row.layer == layer]
    st.vega_lite_chart(compare_figures.swept(shown), width="stretch")
    st.caption(tr("Blue: one tick per picture. Orange: 95 % interval of the mean, from resampling pictures. Green: the "
                  "mean of the nearest windows."))
    found = [{"n_win": row.n_win, "topk": row.topk, mark("keeps"): 100 * row.recall,
              mark("nearest"): 100 * row.nearest, mark("over nearest, 95 %"): told(over_nearest(row)),
              mark("random"): 100 * row.chance, "MACs": quantity(row.macs),
              mark("memory"): quantity(row.peak_bytes) + "B"} for row in shown]
    st.dataframe(found, hide_index=True, column_config=heads(found[0], ("keeps", "nearest", "random")))
    language = tongue()
    st.download_button(tr("Report, HTML"), lambda: model_services.sweep_file(file, language), "sweep.html", "text/html",
                       on_click="ignore")
