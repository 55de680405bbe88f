"""RouteScope: `streamlit run dashboard/app.py`."""

import sys
from functools import partial
from pathlib import Path

import streamlit as st

if str(Path(__file__).parents[1]) not in sys.path:
    # Installed, this folder lies in another package, so that nothing else can be meant by `dashboard`.
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bra.errors import BRAError
from dashboard import components, i18n
from dashboard.i18n import tr, translate
from dashboard.services.start import start
from dashboard.state import first_visit, job_status
from dashboard.widgets import first_view

HERE = Path(__file__).resolve().parent
st.set_page_config("RouteScope", str(HERE / "icon.png"), layout="wide")
# The pages come before anything that asks for another run: a browser that does not know them asks for the first one.
# Before the server has started, each page is its frame alone, at the same address. After that a visit without a link
# still begins with the first view alone: a browser has it sooner than among all that stands around it.
ready = start().done
frame_only = first_visit.begins() or not ready
names = {"explore": tr("Explore"), "learn": tr("Learn"), "compare": tr("Compare"), "cost": tr("Cost"),
         "models": tr("Models"), "guide": tr("How to read it")}
page = st.navigation([
    st.Page(partial(first_view.draw, name, ready) if frame_only else HERE / "views" / f"{name}.py", title=title,
            url_path=name, default=name == "explore") for name, title in names.items()], position="top")
st.sidebar.container()      # before anything else, which would be pushed aside when the side bar comes
# Streamlit's wide layout leaves 80 px empty on each side, which the picture can use. They stay where Streamlit shows
# something of its own before this comes, which would move.
st.html("""<style>
@media (min-width: 768px) {
  .stMainBlockContainer > [data-testid="stVerticalBlock"] { margin: 0 -3rem; width: auto;
    max-width: none; align-self: stretch; }
}
.st-key-reconnect, .st-key-browser { display: none; }
[data-testid="stStatusWidget"] { margin-right: 4rem; }
.st-key-language_switch { position: fixed; top: .65rem; right: 3.4rem; width: auto; z-index: 999991; }
.st-key-language_tag { position: absolute; width: 0; height: 0; overflow: hidden; }
.st-key-picture { position: absolute; }
.st-key-notices:not(:empty) { margin-bottom: 1rem; }
/* The heights of what the browser loads piece by piece, so that what follows has its place before. */
[class*="st-key-strip"] { min-height: 98px; }
[class*="st-key-rail"] { min-height: 64px; }
.st-key-uploader { min-height: 151px; }
.st-key-model, [class*="st-key-weights_"], [class*="st-key-side_"] { min-height: 68px; }
[class*="st-key-stage"] { min-height: 95vh; }
@media (min-width: 1100px) {
  [class*="st-key-stage"] { min-height: calc(max(320px, min(100vh - 345px, 30vw)) + 140px); }
}
/* Many files of one's own are listed in the height of two. */
.st-key-uploader [data-testid="stFileUploaderDropzone"] { max-height: 8rem; overflow-y: auto; }
/* What is waited for is said over the page: above it, it would push everything down and up again. */
[class*="st-key-status"]:has([data-testid="stMarkdown"], [data-testid="stAlert"]) {
  position: fixed; bottom: 1rem; z-index: 999; width: auto; max-width: min(36rem, 90vw); padding: .4rem 1rem;
  border-radius: .5rem; background: light-dark(#fff, #1a1d24); box-shadow: 0 2px 12px #0005; }
/* Without a graphics card its shimmer takes the processor a third of the time in which a page loads. */
[data-testid^="stSkeleton"] { animation: none !important; }
:has(> .st-key-stand_in) + * > .st-key-result { opacity: .4; filter: grayscale(1); }
[data-testid="stFileUploaderDropzoneInstructions"] span { white-space: normal; }
/* Streamlit's own grey is 3.8 : 1, its numbers in code 2.6 : 1. */
[data-testid="stCaptionContainer"], [data-testid="stFileUploaderDropzoneInstructions"] span {
  color: inherit !important; opacity: .82; }
[data-testid="stCode"] .token { color: inherit !important; }
/* Streamlit writes white on the dark theme's light blue: 2.3 : 1. */
[data-testid="stBaseButton-primary"] { color: light-dark(#fff, #0b1a24) !important; }
</style>""")
st.logo(str(HERE / "icon.png"), size="large")
body, beside = st.container(gap=None), st.container()
with beside:
    components.reconnect()
    components.browser(first_view.when_started("on_refused_file"), first_visit.awaits_style(), first_visit.on_style)
first_visit.let_style_arrive()
with body:
    # Always there: what follows would be drawn anew, and a file on its way be lost, if a sentence came before it.
    notices, content = st.container(key="notices"), st.container()
with beside:        # what the style lays over the page comes last
    i18n.switch()
    job_status.set_status_slot(st.container(key="status"))
if frame_only:
    with content:
        page.run()
    first_visit.let_browser_draw(ready)
    start().wait()
    st.rerun()
else:
    from dashboard.state import session  # it brings torch, which is there now
    from dashboard.widgets.picture import plain

    refusal = start().wait()
    if isinstance(refusal, BRAError):       # a setting of this server that cannot be
        st.error(translate(refusal))
        st.stop()
    with notices:
        if refused := session.refused_of_link():
            st.info(tr("This link asks for what cannot be: {names}. The usual values stand in their place.",
                       names=", ".join(refused)), icon=":material/link_off:")
        name, kinds = session.refused_file()
        if name:
            st.error(tr("{name} is not opened: here, files end in {kinds}.", name=plain(name), kinds=plain(kinds)),
                     icon=":material/error:")
    with content:
        page.run()
