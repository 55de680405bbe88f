"""RouteScope: `streamlit run dashboard/app.py`."""

from pathlib import Path

import streamlit as st

from dashboard import services

HERE = Path(__file__).parent
st.set_page_config("RouteScope", str(HERE / "icon.png"), layout="wide")
# Streamlit's wide layout leaves 80 px empty on each side, which the picture can use.
st.html("<style>.stMainBlockContainer { padding-left: 2rem; padding-right: 2rem; }</style>")
st.logo(str(HERE / "icon.png"), size="large")
services.warm_up()
st.navigation([
    st.Page(HERE / "views" / "explore.py", title="Explore", default=True),
    st.Page(HERE / "views" / "compare.py", title="Compare"),
    st.Page(HERE / "views" / "cost.py", title="Cost"),
    st.Page(HERE / "views" / "models.py", title="Models"),
    st.Page(HERE / "views" / "guide.py", title="How to read it"),
], position="top").run()
