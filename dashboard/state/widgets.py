"""Values of widgets, set before they are drawn and kept when their options or the page change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import streamlit as st

T = TypeVar("T")


def init_widget(key: str, value: T, allowed: Sequence[T]) -> str:
    """Give the widget `key` its value before it is drawn; returns the key.

    It keeps what it had; where that is not possible any more, or it had nothing, it gets `value`, or of numbers the one
    nearest to it, or else the first.
    """
    if key not in st.session_state:
        st.session_state[key] = value
    # Written even where it stays: to Streamlit, a widget with other options or on another page is a new one, which
    # would begin at its own default.
    had = st.session_state[key] = st.session_state[key]
    if had not in allowed:
        numbers = [a for a in allowed if isinstance(a, int) and isinstance(had, int)]
        st.session_state[key] = min(numbers, key=lambda a: abs(a - had), default=allowed[0])
    return key


def init_text(key: str, value: str) -> str:
    """Give the text field `key` its value before it is drawn; it keeps what it had. Returns the key."""
    st.session_state[key] = st.session_state.get(key, value)
    return key


def init_multiselect(key: str, wanted: Sequence[int], allowed: Sequence[int]) -> str:
    """Give the widget `key`, of which several may be chosen, its values before it is drawn; it keeps what it had."""
    had = st.session_state.get(key)
    st.session_state[key] = [value for value in (wanted if had is None else had) if value in allowed]
    return key


def unless_repeated(key: str, callback: Callable[[], None]) -> Callable[[], None]:
    """A callback that is not called for what the page knows already: it draws the widget, and then says `set_known`.

    Streamlit forgets a choice with the run that does not draw its widget, the browser a moment later. What it sends in
    between says the same once more, and would undo what was clicked meanwhile.
    """
    def call() -> None:
        if not heard_before(key, st.session_state[key]):
            callback()

    return call


def set_known(key: str, value: object) -> None:
    """Keep the value with which a page was drawn."""
    st.session_state[f"{key}_heard"] = value


def heard_before(key: str, mark: object) -> bool:
    """Whether a widget said this before, as what a browser sends once more; keeps what it said last.

    Args:
        key: of the widget.
        mark: what tells one saying from another; None is never one that was heard.
    """
    known = st.session_state.get(f"{key}_heard")
    st.session_state[f"{key}_heard"] = mark
    return mark is not None and mark == known
