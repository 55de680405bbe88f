"""What the session knows of a job that its page waits for: where its status is shown, and whether it was cancelled."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.scriptrunner import get_script_run_ctx

SLOT, CANCELLED = "status_slot", "cancelled_job"


def set_status_slot(place: DeltaGenerator) -> None:
    """Where on this visitor's page it is said what is waited for."""
    st.session_state[SLOT] = place


def status_slot() -> DeltaGenerator:
    """That place; a page that has none gets one here."""
    found: DeltaGenerator = st.session_state.get(SLOT) or st.container()
    return found


def in_page_run() -> bool:
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
    _ = SLOT in st.session_state


def unique_key(name: str) -> str:
    """A key for a button that no other run of this visit had."""
    st.session_state[f"{name}_count"] = number = st.session_state.get(f"{name}_count", 0) + 1
    return f"{name}_{number}"


def on_cancel(sign: str) -> None:
    """Callback: the visitor does not want to wait for the job with this sign."""
    st.session_state[CANCELLED] = sign


def cancelled_job() -> str:
    """Sign of the job that this visitor cancelled last; "" for none."""
    return str(st.session_state.get(CANCELLED, ""))


def on_retry() -> None:
    """Callback: the visitor wants it after all."""
    st.session_state.pop(CANCELLED, None)
