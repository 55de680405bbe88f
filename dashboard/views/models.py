"""Models: the cards of what was trained here, and how to open what was not."""

from pathlib import Path

import streamlit as st

from dashboard import card_panel, services

known = services.model_cards()
card = card_panel.choose_card(known)
card_panel.show(card)
st.divider()
st.markdown((Path(__file__).parents[1] / "text" / "models.md").read_text(encoding="utf-8"))
