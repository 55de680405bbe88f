"""Explore: one picture, one layer; point at a window and see where it is routed."""

import streamlit as st

from bra.errors import BRAError
from bra.viewer.pack import Caption
from dashboard import panels, services, widgets

widgets.choose_picture()
photo, name, hint, focus = widgets.picture()
with st.sidebar:
    selection = widgets.choose_settings(photo)
try:
    trace = services.trace(selection.settings, photo)
except BRAError as error:
    st.error(str(error))
    st.stop()
widgets.heading(name, hint, photo.notes)
widgets.warn_of_padding(photo, selection.settings)
entry = selection.settings.entry
layer = trace.layers[selection.layer or entry.layers[0]]
panels.explorer(photo, layer, Caption(entry.label, layer.name, entry.provenance, name), focus)
