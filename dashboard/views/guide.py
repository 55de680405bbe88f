"""How to read it: the words that the pictures need, and how to use the package without the app."""

import streamlit as st

from dashboard import i18n
from dashboard.i18n import tr
from dashboard.state import session

session.put_link({})
left, _ = st.columns([2, 1])
with left:
    chapters = st.tabs([tr("Reading the pictures"), tr("Your own model"), tr("In Python"), tr("Training")])
    for tab, name in zip(chapters, ("guide", "own_model", "python", "training"), strict=True):
        tab.markdown(i18n.chapter(name))
