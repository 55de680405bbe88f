"""Models: the cards of what was trained here, and how to open what was not."""

import streamlit as st

from dashboard import card_panel, i18n
from dashboard.services import models as model_services

known = model_services.model_cards()
card = card_panel.choose_card(known)
card_panel.show(card)
st.divider()
st.markdown(i18n.chapter("models"))
