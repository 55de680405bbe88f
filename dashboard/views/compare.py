"""Compare: settings, models and pictures side by side, until one can say "this one"."""

import streamlit as st

from bra.errors import BRAError
from dashboard import compare_more, compare_panel
from dashboard.widgets import model as model_widgets
from dashboard.widgets import picture

compare_panel.leave_if_asked()
picture.choose_picture()
photo, name, hint, focus = picture.picture()
with st.sidebar:
    view = model_widgets.choose_settings(photo)
tab = compare_panel.choose_tab().tab
try:
    if tab == "grid":
        compare_panel.grid(view, photo, focus)
    elif tab == "versus":
        compare_more.sides(view, photo, focus)
    elif tab == "probes":
        compare_more.probes(view, photo)
    else:
        compare_more.sweeps()
except BRAError as error:
    st.error(model_widgets.sentence(error))
