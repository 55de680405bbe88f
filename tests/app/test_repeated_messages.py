"""What a browser says once more, or in the language before, changes nothing: callbacks of components and uploaders."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


def page_of_pins() -> None:
    """Pins of one stage, then other pins by the page itself, then words of the stage with the time at which each was
    sent."""
    from dataclasses import replace
    from types import SimpleNamespace

    import streamlit as st

    from dashboard.state import session

    def said(**pins: object) -> None:
        st.session_state["stage"] = SimpleNamespace(pins=pins)
        session.on_pins("stage")
        st.text(str((session.current().a, session.current().b)))

    said(a=[1000, 2000], b=None, sent=1)
    session.save(replace(session.current(), a=(5, 5)))
    said(a=[1000, 2000], b=None, sent=1)        # again
    said(a=None, b=None, sent=2)
    session.save(replace(session.current(), b=(7, 7)))
    said(a=None, b=None, sent=3)                # the same, but clicked once more


def test_pins_are_heard_once_and_the_same_click_twice_counts_twice() -> None:
    app = AppTest.from_function(page_of_pins).run()
    assert not app.exception
    assert [text.value for text in app.text] == [
        "((1000, 2000), None)", "((5, 5), None)", "(None, None)", "(None, None)"]


def page_in_chinese(rail: str) -> None:
    """A page in Chinese that hears of a layer from a rail that is still there in English."""
    from types import SimpleNamespace

    import streamlit as st

    from dashboard.state import session

    st.session_state["language"] = "zh"
    st.session_state[rail] = SimpleNamespace(picked="stages.1.0.attn")
    session.on_layer(rail)
    st.text(session.current().layer)


def test_a_click_in_the_language_before_counts() -> None:
    for rail in ("rail", "rail_zh"):
        app = AppTest.from_function(page_in_chinese, args=(rail,)).run()
        assert not app.exception
        assert app.text[0].value == "stages.1.0.attn"


def page_of_files() -> None:
    """A model file that a page mended is there once the browser says again what was uploaded."""
    import streamlit as st
    from streamlit.proto.Common_pb2 import FileURLs
    from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

    from dashboard.services import uploads
    from dashboard.state import session

    def given(file_id: str) -> None:
        st.session_state["model_uploader"] = UploadedFile(UploadedFileRec(file_id, "m.yaml", "", b"given"), FileURLs())
        uploads.on_file("model_uploader")
        found = session.uploaded_file("model_uploader")
        st.text("" if found is None else found.data.decode())

    given("1")
    uploads.take_text("model_uploader", "m-mended.yaml", "mended")
    given("1")
    given("2")


def test_a_file_is_taken_once() -> None:
    app = AppTest.from_function(page_of_files).run()
    assert not app.exception
    assert [text.value for text in app.text] == ["given", "mended", "given"]


def page_of_charts(said: list[tuple[object, object]]) -> None:
    """A chart with which a page is drawn, and what is chosen in it one after the other."""
    import streamlit as st

    from dashboard.state.widgets import set_known, unless_repeated

    heard: list[object] = []
    call = unless_repeated("chart", lambda: heard.append(st.session_state["chart"]))
    for value, drawn in said:
        st.session_state["chart"] = value
        call()
        if drawn is not None:
            set_known("chart", drawn)
    st.text(str(heard))


def test_a_choice_is_heard_once_and_again_after_its_widget_was_drawn_without_it() -> None:
    app = AppTest.from_function(page_of_charts, args=([("x", None), ("x", None), ("y", ""), ("y", None)],)).run()
    assert not app.exception
    assert app.text[0].value == "['x', 'y', 'y']"
