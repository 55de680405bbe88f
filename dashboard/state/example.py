"""The worked example in the session: its record, and the callbacks of its widgets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import streamlit as st

from bra.grid import WindowGrid
from bra.teaching.example import FIRST
from dashboard.state.example_view import TOKENS, ExampleView, place_of
from dashboard.state.view import inside
from dashboard.state.widgets import heard_before

RECORD: Final = "example_view"
NUMBER_GRID: Final = "example_numbers"
"""Key of the number grid, of which a token is clicked."""


def current() -> ExampleView:
    """What this visitor looks at; a new visit begins with what its link says.

    The page puts `current().to_query()` into its link.
    """
    if RECORD not in st.session_state:
        st.session_state[RECORD] = ExampleView.from_query(st.query_params.to_dict())
    found: ExampleView = st.session_state[RECORD]
    return found


def set_widget(name: str, value: Any) -> str:
    """Key of the widget that shows `value`, which it gets before it is drawn: the record is what counts."""
    key = f"example_{name}"
    st.session_state[key] = value
    return key


def on_change(name: str, key: str) -> None:
    """Callback of a widget that holds one attribute of the record; None, where nothing is chosen, changes nothing."""
    value = st.session_state[key]
    if value is not None:
        _keep(replace(current(), **{name: value}))


def on_number(token: int, channel: int, key: str) -> None:
    """Callback of a number of an input token."""
    value = st.session_state[key]
    if value is not None:
        _keep(current().with_number(token, channel, value))


def on_token(grid: str) -> None:
    """Callback of the number grid with that key: the token that was clicked is the one looked at."""
    token = st.session_state[grid].token
    if isinstance(token, (int, float)) and int(token) in TOKENS:
        _keep(replace(current(), token=int(token)))


def on_place(stage: str) -> None:
    """Callback of the stage with that key: the query that was pinned is the place looked at."""
    pins = st.session_state[stage].pins or {}
    pin = pins.get("a")
    if pin and not heard_before(stage, pins.get("sent")):
        _keep(replace(current(), place=inside(int(pin[0]), int(pin[1]))))


def on_window(grid: WindowGrid, key: str) -> None:
    """Callback of the choice of a window: its middle token is looked at."""
    middle_token = grid.window_h // 2 * grid.window_w + grid.window_w // 2
    _keep(replace(current(), place=place_of(grid, st.session_state[key], middle_token)))


def on_window_token(grid: WindowGrid, window: int, key: str) -> None:
    """Callback of the choice of a token in a window."""
    _keep(replace(current(), place=place_of(grid, window, st.session_state[key])))


def on_reset() -> None:
    """Callback: the first numbers come back."""
    _keep(replace(current(), tokens=FIRST, topk=ExampleView().topk))


def _keep(wanted: ExampleView) -> None:
    st.session_state[RECORD] = replace(wanted, k=min(wanted.k, wanted.n_win**2))
