"""How to read it: the words that the pictures need."""

import streamlit as st

from dashboard import i18n
from dashboard.state import session

session.put_link({})
left, _ = st.columns([2, 1])
left.markdown(i18n.chapter("guide"))
