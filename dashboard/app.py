"""RouteScope: `streamlit run dashboard/app.py`."""

import sys
from pathlib import Path

import streamlit as st

if str(Path(__file__).parents[1]) not in sys.path:
    # Installed, this folder lies in another package, so that nothing else can be meant by `dashboard`.
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bra.errors import BRAError
from dashboard import components, i18n
from dashboard.i18n import tr, translate
from dashboard.services import models as model_services
from dashboard.state import job_status, session
from dashboard.widgets.picture import plain

HERE = Path(__file__).resolve().parent
st.set_page_config("RouteScope", str(HERE / "icon.png"), layout="wide")
# Streamlit's wide layout leaves 80 px empty on each side, which the picture can use.
st.html("""<style>
.stMainBlockContainer { padding-left: 2rem; padding-right: 2rem; }
.st-key-reconnect, .st-key-browser { display: none; }
[data-testid="stStatusWidget"] { margin-right: 4rem; }
.st-key-language_switch { position: fixed; top: .65rem; right: 3.4rem; width: auto; z-index: 999991; }
.st-key-language_tag { position: absolute; width: 0; height: 0; overflow: hidden; }
.st-key-picture { position: absolute; }
.st-key-notices:empty, [data-testid="stLayoutWrapper"]:has(> .st-key-notices:empty) { display: none; }
/* Many files of one's own are listed in the height of two. */
.st-key-uploader [data-testid="stFileUploaderDropzone"] { max-height: 8rem; overflow-y: auto; }
.st-key-stand_in { opacity: .4; filter: grayscale(1); }
[data-testid="stFileUploaderDropzoneInstructions"] span { white-space: normal; }
/* Streamlit's own grey is 3.8 : 1, its numbers in code 2.6 : 1. */
[data-testid="stCaptionContainer"], [data-testid="stFileUploaderDropzoneInstructions"] span {
  color: inherit !important; opacity: .82; }
[data-testid="stCode"] .token { color: inherit !important; }
/* Streamlit writes white on the dark theme's light blue: 2.3 : 1. */
[data-testid="stBaseButton-primary"] { color: light-dark(#fff, #0b1a24) !important; }
</style>""")
st.logo(str(HERE / "icon.png"), size="large")
i18n.switch()
components.reconnect()
components.browser(session.on_refused_file)
job_status.set_status_slot(st.container())
try:
    model_services.warm_up()
except BRAError as error:       # a setting of this server that cannot be
    st.error(translate(error))
    st.stop()
# Always there: what follows would be drawn anew, and a file on its way be lost, if a sentence came before it.
with st.container(key="notices"):
    if refused := session.refused_of_link():
        st.info(tr("This link asks for what cannot be: {names}. The usual values stand in their place.",
                   names=", ".join(refused)), icon=":material/link_off:")
    name, kinds = session.refused_file()
    if name:
        st.error(tr("{name} is not opened: here, files end in {kinds}.", name=plain(name), kinds=plain(kinds)),
                 icon=":material/error:")
st.navigation([
    st.Page(HERE / "views" / "explore.py", title=tr("Explore"), default=True),
    st.Page(HERE / "views" / "learn.py", title=tr("Learn")),
    st.Page(HERE / "views" / "compare.py", title=tr("Compare")),
    st.Page(HERE / "views" / "cost.py", title=tr("Cost")),
    st.Page(HERE / "views" / "models.py", title=tr("Models")),
    st.Page(HERE / "views" / "guide.py", title=tr("How to read it")),
], position="top").run()
