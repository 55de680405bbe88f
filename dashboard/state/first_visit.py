"""What is known of a visit before torch is there: its link, as far as it decides what comes first, and its browser."""

from __future__ import annotations

import time
from typing import Final

import streamlit as st
from streamlit import runtime

STYLE_SECONDS: Final = 0.3
"""A browser has to fetch the piece of Streamlit that applies a style before it applies one."""
BROWSER_SECONDS: Final = 2.0
LOOK: Final = 0.05
"""The longest that a browser is waited for, and the seconds between two looks."""
STAGE_DRAWN: Final = "stage_drawn"


def begins_with_the_first_view() -> bool:
    """Whether the link asks for nothing but a language."""
    return set(st.query_params.to_dict()) <= {"lang"}


def let_style_arrive() -> None:
    """Give a new visitor's browser the time in which it gets the style: what comes with it is drawn and then moved."""
    if runtime.exists() and "styled" not in st.session_state:
        time.sleep(STYLE_SECONDS)
    st.session_state["styled"] = True


def on_ready() -> None:
    """Callback of the stage: the browser has drawn it."""
    st.session_state[STAGE_DRAWN] = True


def stage_drawn() -> bool:
    """Whether this visitor's browser has drawn a stage yet."""
    return STAGE_DRAWN in st.session_state


def let_browser_draw() -> None:
    """Give the browser the time in which it draws the first stage, for which it fetches much: importing torch meanwhile
    would hold that up. The run ends here when the browser says that it has."""
    for _ in range(round(BROWSER_SECONDS / LOOK)):
        if stage_drawn() or not runtime.exists():
            return
        time.sleep(LOOK)
