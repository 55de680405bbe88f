"""RouteScope: `streamlit run dashboard/app.py`."""

from pathlib import Path

import streamlit as st

from dashboard import services, words
from dashboard.words import tr

HERE = Path(__file__).parent
st.set_page_config("RouteScope", str(HERE / "icon.png"), layout="wide")
# Streamlit's wide layout leaves 80 px empty on each side, which the picture can use.
st.html("""<style>
.stMainBlockContainer { padding-left: 2rem; padding-right: 2rem; }
.st-key-language_switch { position: fixed; top: .65rem; right: 3.4rem; width: auto; z-index: 999991; }
</style>""")
st.logo(str(HERE / "icon.png"), size="large")
words.switch()
services.warm_up()
st.navigation([
    st.Page(HERE / "views" / "explore.py", title=tr("Explore"), default=True),
    st.Page(HERE / "views" / "compare.py", title=tr("Compare")),
    st.Page(HERE / "views" / "cost.py", title=tr("Cost")),
    st.Page(HERE / "views" / "models.py", title=tr("Models")),
    st.Page(HERE / "views" / "guide.py", title=tr("How to read it")),
], position="top").run()
