"""Cost: what every layer of a model costs, what BRA adds, and what to change."""

import streamlit as st

from dashboard import cost_panel, model_widgets

st.subheader("What does it cost, and what for?", anchor=False)
with st.sidebar:
    view = model_widgets.choose_settings(None)
cost_panel.page(view.settings, cost_panel.choose_view())
