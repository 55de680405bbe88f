"""Models: the cards of what was trained here, and how to open what was not."""

import streamlit as st

from dashboard import card_panel, services, words

known = services.model_cards()
card = card_panel.choose_card(known)
card_panel.show(card)
st.divider()
st.markdown(words.chapter("models"))
