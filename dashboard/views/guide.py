"""How to read it: the words that the pictures need."""

from pathlib import Path

import streamlit as st

left, _ = st.columns([2, 1])
left.markdown((Path(__file__).parents[1] / "text" / "guide.md").read_text(encoding="utf-8"))
