"""What is known of a visit before torch is there: its link, as far as it decides what comes first, and its browser."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import urlsplit

import streamlit as st
from streamlit import runtime

STYLE_SECONDS: Final = 3.0
STAGE_SECONDS: Final = {"starting": 2.0, "started": 1.0}
"""The longest that a browser is waited for: until it has applied the style, and until it has drawn the stage of a
server that starts or has started."""
LOOK: Final = 0.01
"""Seconds between two looks."""
STYLED, BEGUN, STAGE_DRAWN = "styled", "begun", "stage_drawn"


def begins_with_the_first_view() -> bool:
    """Whether the link asks for nothing but a language."""
    return set(st.query_params.to_dict()) <= {"lang"}


def awaits_style() -> bool:
    """Whether nothing is drawn before the browser has applied the style."""
    return STYLED not in st.session_state


def on_style() -> None:
    """Callback of the browser: it has applied the style."""
    st.session_state[STYLED] = True


def begins() -> bool:
    """Whether nothing is drawn yet of a visit that begins with the first view."""
    if not runtime.exists() or BEGUN in st.session_state:
        return False
    page = urlsplit(str(st.context.url)).path.rpartition("/")[2]
    return page in ("", "explore") and begins_with_the_first_view()


def let_style_arrive() -> None:
    """Give a new visitor's browser the time in which it fetches what applies a style: what comes before the style is
    drawn and then moved. The run ends here when the browser says that it has; the visit begins after it."""
    _wait(STYLED, STYLE_SECONDS)
    st.session_state[STYLED] = st.session_state[BEGUN] = True


def on_ready(stage: str) -> None:
    """Callback of the stage with that key: the browser has drawn it."""
    st.session_state[STAGE_DRAWN] = True


def stage_drawn() -> bool:
    """Whether this visitor's browser has drawn a stage yet."""
    return STAGE_DRAWN in st.session_state


def let_browser_draw(started: bool) -> None:
    """Give the browser the time in which it draws the first stage, for which it fetches much: the rest of the page, and
    importing torch, would hold that up. The run ends here when the browser says that it has.

    Args:
        started: whether the server has started.
    """
    _wait(STAGE_DRAWN, STAGE_SECONDS["started" if started else "starting"])


def _wait(word: str, seconds: float) -> None:
    for _ in range(round(seconds / LOOK)):
        # Streamlit looks, whenever the session is read, whether the browser asked for another run.
        if word in st.session_state or not runtime.exists():
            return
        time.sleep(LOOK)
