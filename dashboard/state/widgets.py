"""What a widget holds, kept when its options or the page change; and what a visitor waits for, or called off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.scriptrunner import get_script_run_ctx

T = TypeVar("T")


def init_widget(key: str, value: T, allowed: Sequence[T]) -> str:
    """Give the widget `key` its value before it is drawn.

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


def set_status_slot(place: DeltaGenerator) -> None:
    """Where on this visitor's page it is said what is waited for."""
    st.session_state["waiting_place"] = place


def status_slot() -> DeltaGenerator:
    """That place; a page that has none gets one here."""
    found: DeltaGenerator = st.session_state.get("waiting_place") or st.container()
    return found


def visited() -> bool:
    """Whether this thread runs a visitor's page; downloads are made by threads that do not."""
    return get_script_run_ctx(suppress_warning=True) is not None


def is_fragment_run() -> bool:
    """Whether only a fragment of the page runs again: a run that no click in the fragment ends."""
    run = get_script_run_ctx(suppress_warning=True)
    return run is not None and bool(run.fragment_ids_this_run)


def check_interrupted() -> None:
    """End this run of the page here, if the visitor left or did something else meanwhile.

    Streamlit looks for that whenever the session is read.
    """
    _ = "waiting_place" in st.session_state


def unique_key(name: str) -> str:
    """A key for a button that no other run of this visit had."""
    st.session_state[f"{name}_count"] = number = st.session_state.get(f"{name}_count", 0) + 1
    return f"{name}_{number}"


def refusal(uploader: str) -> str:
    """Why the last file of an uploader was not taken; "" where it was."""
    why: str = st.session_state.get(f"{uploader}_refused", "")
    return why


def cancel(sign: str) -> None:
    """Callback: the visitor does not want to wait for this piece of work."""
    st.session_state["called_off"] = sign


def cancelled_job() -> str:
    """Which piece of work this visitor called off last; "" for none."""
    return str(st.session_state.get("called_off", ""))


def retry() -> None:
    """Callback: the visitor wants it after all."""
    st.session_state.pop("called_off", None)
