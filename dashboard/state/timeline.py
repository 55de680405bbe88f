"""Which epoch of a watched training a visitor looks at, and whether it plays."""

from __future__ import annotations

import streamlit as st

from dashboard.state import job_status

EPOCH = "timeline_epoch"
CURVES = "timeline_curves"
KEPT = 4
"""Files whose epochs are remembered."""


def chosen_epoch(digest: str) -> int | None:
    """The epoch of a file that was chosen; None for its last."""
    kept: dict[str, int] = st.session_state.get("timeline_epochs", {})
    return kept.get(digest)


def save_epoch(digest: str, epoch: int) -> None:
    """Look at an epoch of a file next."""
    kept = {name: one for name, one in st.session_state.get("timeline_epochs", {}).items() if name != digest}
    st.session_state["timeline_epochs"] = dict([*kept.items(), (digest, epoch)][-KEPT:])


def epoch_widget(epoch: int) -> str:
    """Key of the slider, which is set to what is looked at."""
    st.session_state[EPOCH] = epoch
    return EPOCH


def on_epoch(digest: str) -> None:
    """Callback of the slider: a hand on it ends the playing.

    The clock's own run is no hand: a slow browser sends with it the epoch before, which the slider still shows.
    """
    if job_status.is_fragment_run():
        return
    save_epoch(digest, st.session_state[EPOCH])
    st.session_state["timeline_playing"] = ""


def on_play(digest: str, epochs: tuple[int, ...], epoch: int) -> None:
    """Callback of the button: plays from where one is, from the end anew; where it plays it stops."""
    if is_playing(digest):
        st.session_state["timeline_playing"] = ""
        return
    st.session_state["timeline_playing"] = digest
    if epoch == epochs[-1]:
        save_epoch(digest, epochs[0])


def is_playing(digest: str) -> bool:
    """Whether the epochs of this file follow one another by themselves."""
    return bool(st.session_state.get("timeline_playing") == digest)


def wait_for_tick() -> None:
    """The page was drawn: what runs next by itself is the clock."""
    st.session_state["timeline_drawn"] = True


def advance(digest: str, epochs: tuple[int, ...], epoch: int) -> bool:
    """Whether it is time for the next epoch, which is then the one that is looked at; the last one ends the playing."""
    if st.session_state.pop("timeline_drawn", False) or not is_playing(digest):
        return False
    at = epochs.index(epoch) + 1
    if at < len(epochs):
        save_epoch(digest, epochs[at])
    if at + 1 >= len(epochs):
        st.session_state["timeline_playing"] = ""
    return True
