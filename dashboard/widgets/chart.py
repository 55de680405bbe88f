"""Plotly figures on a page: in the visitor's language and theme, with the export that he chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import plotly.graph_objects as go
import streamlit as st

from bra.figures.template import Style, export_config, file_name, locale_config
from dashboard.i18n import tr, visitor_language
from dashboard.state import session
from dashboard.state.widgets import init_widget, set_known, unless_repeated

FORMATS = ("PNG", "SVG")
Mode = Literal["points", "box", "lasso"]


def style(size: int = 13) -> Style:
    """How figures are dressed on this visitor's page; `size` of the type, in pixels."""
    return Style(visitor_language(), st.context.theme.type == "dark", size, is_phone())


def is_phone() -> bool:
    """Whether the visitor's browser says that it is one of a phone."""
    return "Mobi" in (st.context.headers.get("User-Agent") or "")


def choose_format() -> None:
    """What the camera of every chart saves; drawn in the export menu."""
    st.segmented_control(tr("Charts are saved as"), FORMATS, required=True, on_change=session.on_chart_format,
                         key=init_widget(session.CHART_FORMAT, session.chart_format(), FORMATS),
                         help=tr("Point at a chart and press its camera. PNG has four pixels for each on the screen, "
                                 "SVG has lines that stay sharp at any size."))


def draw(figure: go.Figure, *name: object, key: str | None = None, on_select: Callable[[], None] | None = None,
         modes: Sequence[Mode] = ("points",)) -> None:
    """A figure as wide as its place.

    Args:
        figure: in the style of `style()`.
        name: parts of the name of the file that its camera saves.
        key: of the widget, where something is chosen in it.
        on_select: callback of a choice; `st.session_state[key].selection` holds it.
        modes: how one chooses.
    """
    form: Literal["svg", "png"] = "svg" if session.chart_format() == "SVG" else "png"
    config = export_config(file_name("routescope", *name), form) | locale_config(visitor_language())
    if on_select is None or key is None:
        st.plotly_chart(figure, theme=None, width="stretch", config=config, key=key)
    else:
        chosen = st.plotly_chart(figure, theme=None, width="stretch", config=config, key=key,
                                 on_select=unless_repeated(key, on_select), selection_mode=list(modes))
        set_known(key, chosen)
