"""Cost: what every layer of a model costs, what BRA adds, and what to change."""

import streamlit as st

from dashboard import cost_panel
from dashboard.i18n import tr
from dashboard.widgets import model as model_widgets

st.subheader(tr("What does it cost, and what for?"), anchor=False)
with st.sidebar:
    chosen = model_widgets.choose_settings(None)
view, timed = cost_panel.choose_view()
cost_panel.page(chosen.settings, view, timed)
