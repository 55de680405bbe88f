"""A page as it is drawn before torch is there: its frame in final size, and the first view with its picture and grid.

It stands where the page itself draws the same with the same keys, so that nothing moves or blinks when that comes.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard import components
from dashboard.i18n import language, tr, translate
from dashboard.samples import GALLERY
from dashboard.services.first_view import first_view
from dashboard.services.start import start
from dashboard.state import first_visit

UPLOADER_HEIGHT, SIDE_HEIGHT, PAGE_HEIGHT = 151, 420, 640
"""Pixels of what the page draws in these places."""


def when_started(name: str) -> Callable[..., None]:
    """A callback of the session by its name: what is clicked before the server has started is heard then."""
    def call(*arguments: str) -> None:
        start().wait()
        from dashboard.state import session

        getattr(session, name)(*arguments)

    return call


def draw(page: str, started: bool) -> None:
    """The frame of a page by its name; without the word that the server starts, if it has."""
    with st.sidebar:
        if not started:
            st.caption(f":material/hourglass_top: {tr('Starting …')}")
        st.skeleton(height=SIDE_HEIGHT)
    if page != "explore":
        st.skeleton(height=PAGE_HEIGHT)
        return
    found = first_view(language())
    strip, drop = st.columns([2.6, 1], vertical_alignment="center")
    with strip:
        st.subheader(tr("RouteScope: where does routing attention look?"), anchor=False)
        chosen = "animal" if first_visit.begins_with_the_first_view() else ""
        components.gallery([(key, translate(sample.name), found.thumbnails[key]) for key, sample in GALLERY.items()],
                           chosen, "strip", when_started("on_gallery"))
    with drop:
        st.skeleton(height=UPLOADER_HEIGHT)
    if not chosen:
        st.skeleton(height=PAGE_HEIGHT)
        return
    # As the page itself lays them out, so that a browser keeps what is here.
    st.container()
    st.container(key="asked_for")
    with st.container(key="result"):
        with st.container():
            st.markdown(found.heading)
            components.rail(found.rail, "rail", when_started("on_layer"))
            for note in found.notes:
                st.caption(note)
        with st.container():
            st.container(key="status_explore")
            components.picture(found.picture, "picture")
            components.stage(found.stage, "stage", when_started("on_pins"), when_started("on_show"),
                             first_visit.on_ready)
