"""What if the layer had looked elsewhere: another routing for one layer, and what becomes of the model's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import streamlit as st

from bra.errors import BRAError
from bra.experiments.reroute import (
    ABOUT,
    ABOUT_BOXES,
    FATES,
    REROUTES,
    AnswerRow,
    Reroute,
    Rerouted,
    Swap,
    in_words,
    row_names,
)
from bra.figures import reroute as figures
from bra.metrics.routing import choosable
from bra.viewer.pack import TILE_SIDE, Place, locate, place_of, traced_size
from dashboard.i18n import option_labels, tr, tr_noop, translate
from dashboard.services import explore as explore_services
from dashboard.services.explore import LayerResult
from dashboard.services.models import encoded
from dashboard.state import first_visit, session
from dashboard.state.view import ELSEWHERE, Selection
from dashboard.state.widgets import init_widget, set_known, unless_repeated
from dashboard.widgets import chart, picture, tables
from dashboard.widgets.model import sentence

HEIGHT = 420
OPTIONS = {"": REROUTES["bra"], "swap": tr_noop("one window swapped"),
           **{rule: REROUTES[rule] for rule in ELSEWHERE if rule != "swap"}}
BEFORE, AFTER, CHANGE, OVERLAP = (tr_noop("before"), tr_noop("afterwards"), tr_noop("change, points"),
                                  tr_noop("overlap of boxes"))
"""Columns of the table that hold numbers, in per cent."""


def asked_for(selection: Selection, found: LayerResult, focus: Place) -> Reroute | None:
    """As `reroute_of`, and None where the layer cannot be routed otherwise."""
    if not selection.elsewhere or explore_services.why_not_elsewhere(found):
        return None
    return reroute_of(selection, found, focus)


def reroute_of(selection: Selection, found: LayerResult, focus: Place) -> Reroute | None:
    """Where the layer is to look instead; None where it looks as ever, or it is not said yet where."""
    layer = found.layer
    if selection.elsewhere != "swap":
        return Reroute(layer.name, selection.elsewhere) if selection.elsewhere else None
    query, new = _windows(selection, found, focus)
    row = layer.r_idx[0, query].tolist()
    if new is None or new in row:
        return None
    return Reroute(layer.name, swaps=(Swap(query, row[_rank(selection, len(row)) - 1], new),))


def prefetch(found: LayerResult, selection: Selection, focus: Place) -> None:
    """Wait for the answer with the other routing, if one is asked for; in front of the fragment that shows it."""
    asked = asked_for(selection, found, focus)
    if asked is not None:
        explore_services.prefetch_rerouted(found, asked)


def show(found: LayerResult, selection: Selection, focus: Place, name: Sequence[str], line: str) -> None:
    """The choice of another routing, and what becomes of the answer; or why there is none.

    Args:
        found: the layer on the picture.
        selection: the view.
        focus: place of query A where none is pinned.
        name: parts of the names of files.
        line: caption of the figures.
    """
    if reason := explore_services.why_not_elsewhere(found):
        st.info(sentence(BRAError(reason)), icon=":material/block:")
        return
    st.segmented_control(tr("The layer is routed to"), list(OPTIONS), required=True,
                         format_func=option_labels(OPTIONS), on_change=session.on_elsewhere,
                         key=init_widget(session.ELSEWHERE, selection.elsewhere, list(OPTIONS)),
                         help=tr("“As routed” undoes it. Random windows are drawn once and stay the same."))
    if selection.elsewhere == "swap":
        _choose_swap(found, selection, focus)
    asked = reroute_of(selection, found, focus)
    if asked is not None:
        try:
            _result(explore_services.rerouted(found, asked), found, name, line)
        except BRAError as error:
            st.error(sentence(error), icon=":material/error:")
    st.caption(translate(ABOUT))


def _windows(selection: Selection, found: LayerResult, focus: Place) -> tuple[int, int | None]:
    """The windows of query A and of query B, which is None where it is not pinned."""
    grid, photo = found.layer.grid, found.photo
    return (locate(grid, photo, selection.a or focus)[0],
            None if selection.b is None else locate(grid, photo, selection.b)[0])


def _rank(selection: Selection, topk: int) -> int:
    """Rank of the window that is replaced, from 1."""
    return min(selection.replaced, topk) or topk


def _choose_swap(found: LayerResult, selection: Selection, focus: Place) -> None:
    """Which routed window of query A goes, and which takes its place: the one of query B on the picture."""
    layer, (query, new) = found.layer, _windows(selection, found, focus)
    row = layer.r_idx[0, query].tolist()
    n_win, free = layer.grid.n_win, choosable(layer)

    def place(window: int) -> str:
        return tr("window {window}, row {row}, column {column}", window=window, row=window // n_win,
                  column=window % n_win)

    with st.container(horizontal=True, vertical_alignment="bottom"):
        ranks = list(range(1, len(row) + 1))
        st.selectbox(tr("Query A, window {window}, no longer looks at", window=query), ranks, width=280,
                     format_func=option_labels({rank: f"{rank}. {place(row[rank - 1])}" for rank in ranks}),
                     on_change=session.on_replaced,
                     key=init_widget(session.REPLACED, _rank(selection, len(row)), ranks))
        others = [window for window in range(len(free)) if free[window] and window not in row]
        places = [place_of(layer.grid, found.photo, window) for window in range(len(free))]
        chosen = st.selectbox(tr("but at (query B: click it on the picture)"), others, index=None, width=280,
                              format_func=option_labels({window: place(window) for window in others}),
                              placeholder=tr("Choose a window"), on_change=unless_repeated(
                                  session.INSTEAD, partial(session.on_instead, selection.a or focus, places)),
                              key=session.instead_widget(new if new in others else None))
        set_known(session.INSTEAD, chosen)
    if new is None:
        st.info(tr("Click the window on the picture that query A is to look at instead: it becomes query B."),
                icon=":material/touch_app:")
    elif new in row:
        st.info(tr("Query A looks at window {window} already: click another one for query B.", window=new),
                icon=":material/touch_app:")


def _result(found: Rerouted, of: LayerResult, name: Sequence[str], line: str) -> None:
    """Both answers beside each other: a sentence, a table, their scores as a chart, and boxes on the picture."""
    found = replace(found, before=picture.translated(found.before), after=picture.translated(found.after))
    rows = found.rows
    st.markdown(picture.plain(translate(in_words(found))))
    if not rows:
        return
    boxed = any(row.before_box or row.after_box for row in rows)
    # Before the stage is drawn there is none: a browser would load plotly first, and one could not point for seconds.
    if first_visit.stage_drawn():
        _draw(found, of, boxed, name, line)
    else:
        st.skeleton(height=HEIGHT)
    if len(rows) > figures.MOST_ROWS:
        st.caption(tr("The chart of scores holds the {n} that came, went or changed most; the table holds all.",
                      n=figures.MOST_ROWS))
    if boxed:
        st.caption(translate(ABOUT_BOXES))
    table = [_line(row, title) for row, title in zip(rows, row_names(rows), strict=True)]
    tables.table(table, percents=(BEFORE, AFTER, OVERLAP))


def _draw(found: Rerouted, of: LayerResult, boxed: bool, name: Sequence[str], line: str) -> None:
    """The scores as a chart, and beside it the boxes on the picture."""
    rows, style, rule = found.rows, chart.style(), "swap" if found.reroute.swaps else found.reroute.rule
    if not boxed:
        chart.draw(figures.scores(rows, style, line), *name, "elsewhere", rule)
        return
    left, right = st.columns(2)
    grid, photo = of.layer.grid, of.photo
    with left:
        chart.draw(figures.boxes(rows, grid, encoded(photo, TILE_SIDE), traced_size(grid, photo), style, line),
                   *name, "elsewhere", rule, "boxes")
    with right:
        chart.draw(figures.scores(rows, style, line), *name, "elsewhere", rule)


def _line(row: AnswerRow, title: str) -> dict[str, str | float | None]:
    """A row of the table."""
    def per_cent(value: float | None) -> float | None:
        return None if value is None else 100 * value

    line: dict[str, str | float | None] = {
        tr_noop("what"): title, BEFORE: per_cent(row.before), AFTER: per_cent(row.after), CHANGE: per_cent(row.change)}
    if row.before_box or row.after_box:
        line |= {OVERLAP: per_cent(row.overlap), tr_noop("becomes"): translate(FATES[row.fate])}
    return line
