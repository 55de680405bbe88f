"""Explore: one picture, one model; point at a window and see where each layer routes it."""

import streamlit as st

from bra.viewer.pack import Caption
from dashboard import panels
from dashboard.i18n import told
from dashboard.services import explore as explore_services
from dashboard.state import session
from dashboard.widgets import model as model_widgets
from dashboard.widgets import picture

picture.choose_picture()
photo, name, hint, focus = picture.picture()
with st.sidebar:
    chosen = model_widgets.choose_settings(photo)
view, model, look = model_widgets.looked(chosen, photo)
picture.heading(name, hint, photo.notes)
picture.say(look.answer)
layer = look.trace.layers[model_widgets.layer_of(view, tuple(look.trace.layers))]
panels.rail(look, layer.name)
picture.warn_of_padding(layer.grid)
picture.warn_of_hubs(layer)
provenance = model_widgets.provenance_of(view.settings, model.provenance)
changed = model_widgets.shown_layer(view.settings, view.layer, tuple(model.specs))
shown = explore_services.shown(view.settings, photo, session.upload(), changed, layer.name, session.model_upload())
panels.explorer(view, shown, look.answer, Caption(told(model.label), layer.name, provenance, name), focus)
