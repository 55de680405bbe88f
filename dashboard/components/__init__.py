"""Our browser components, a function for each. Each that has words has another key in every language, by
`key_in_language`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from bra import viewer
from dashboard.i18n import CATALOGUES, key_in_language, language

HERE = Path(__file__).parent


def _registered(name: str, html: str, css: str, code: str) -> Mapping[str, Callable[..., object]]:
    """A component in every language: one script each, so that no message depends on the language."""
    return {language: st.components.v2.component(
        f"routescope_{name}" + (f"_{language}" if catalogue else ""), html=html, css=css,
        js=viewer.in_words(code, viewer.words_of(code, html, catalogue)))
        for language, catalogue in CATALOGUES.items()}


_stage = _registered("stage", viewer.text("stage.html"), viewer.text("viewer.css"), viewer.script(*viewer.STAGE))
_picture = _registered("picture", "<div></div>", "", viewer.script(*viewer.PICTURE))
_rail = _registered("rail", '<div class="rail"></div>', viewer.text("viewer.css"), viewer.script(*viewer.RAIL))
_multiples = _registered("multiples", '<div class="multiples"></div>', viewer.text("viewer.css"),
                         viewer.script(*viewer.MULTIPLES))
_gallery = _registered("gallery", '<div class="gallery"></div>', (HERE / "gallery.css").read_text(),
                       viewer.script("core") + "\n" + (HERE / "gallery.js").read_text(encoding="utf-8"))

_lesson_picture = _registered(
    "lesson_picture", '<div class="lesson-picture"></div>', (HERE / "lesson_picture.css").read_text(),
    viewer.script("core", "draw") + "\n" + (HERE / "lesson_picture.js").read_text(encoding="utf-8"))
_presenter = _registered("presenter", '<div class="presenter"></div>', (HERE / "presenter.css").read_text(),
                         viewer.script("core") + "\n" + (HERE / "presenter.js").read_text(encoding="utf-8"))
_number_grid = _registered("number_grid", '<div class="number-grid"></div>', (HERE / "number_grid.css").read_text(),
                           (HERE / "number_grid.js").read_text(encoding="utf-8"))
_reconnect = st.components.v2.component("routescope_reconnect", html="<span></span>",
                                        js=(HERE / "reconnect.js").read_text())

_browser = st.components.v2.component("routescope_browser", html="<span></span>", js=(HERE / "browser.js").read_text())


def browser(on_refused: Callable[[], None], awaits_style: bool, on_style: Callable[[], None]) -> None:
    """Going back leads to the page before; a file that is dropped or pasted anywhere goes to the field for its kind; a
    click on a chart counts however soon after the pointer moved it comes.

    Args:
        on_refused: called when there is no such field; `st.session_state["browser"].refused` is [name of the file,
            endings that are taken].
        awaits_style: whether `on_style` is to be called.
        on_style: called when the browser has applied the style of an otherwise empty page.
    """
    _browser(data={"awaits_style": awaits_style}, key="browser", on_refused_change=on_refused, on_style_change=on_style)


def reconnect() -> None:
    """Let the page run again when the browser has found its server again."""
    _reconnect(key="reconnect", on_back_change=lambda: None)


def _nothing(widget: str) -> None:
    """A callback for what a page does not need to hear."""


def _mount(component: Mapping[str, Callable[..., object]], data: object, key: str, default: Mapping[str, None] | None,
           **callbacks: Callable[[str], None]) -> None:
    """Put a component on the page in the visitor's language.

    Args:
        component: as `_registered`.
        data: what its script reads.
        key: of the widget in English.
        default: what it says before it was used.
        callbacks: what is called when it says something under that name: with the key of the widget that says it, which
            after a change of language may be that of the language before.
    """
    widget = key_in_language(key)
    component[language()](data=data, key=widget, default=default, **{
        f"on_{name}_change": partial(callback, widget) for name, callback in callbacks.items()})


def stage(message: bytes, key: str, on_pins: Callable[[str], None], on_show: Callable[[str], None],
          on_ready: Callable[[str], None] = _nothing) -> None:
    """The picture one points at.

    Args:
        message: what `stage_message` packed.
        key: of the widget in English.
        on_pins: called with the widget's key when the visitor pinned or cleared a query; `st.session_state[key].pins`
            is {"a": place or None, "b": place or None}.
        on_show: called so when the visitor switched something on or off; `st.session_state[key].show` lists what is on.
        on_ready: called so when the browser has drawn it.
    """
    _mount(_stage, _checked(message), key, {"pins": None, "show": None, "ready": None}, pins=on_pins, show=on_show,
           ready=on_ready)


def picture(message: bytes, key: str) -> None:
    """A picture for the stage of the page, unseen and without words; `message` as `picture_message` packed it."""
    _picture[language()](data=_checked(message), key=key)


def rail(message: bytes, key: str, on_pick: Callable[[str], None]) -> None:
    """All layers as thumbnails of which one is chosen.

    Args:
        message: what `rail_message` packed.
        key: of the widget in English.
        on_pick: called with the widget's key when the visitor clicked; `st.session_state[key].picked` is the name of
            the layer.
    """
    _mount(_rail, _checked(message), key, None, picked=on_pick)


def multiples(message: bytes, key: str, on_place: Callable[[str], None], on_open: Callable[[str], None]) -> None:
    """Many small pictures with one query.

    Args:
        message: what `multiples_message` or `pair_message` packed.
        key: of the widget in English.
        on_place: called with the widget's key when the visitor kept a query; `st.session_state[key].place` is [x, y].
        on_open: called so when the visitor asked for a setting; `st.session_state[key].opened` is [n_win, topk].
    """
    _mount(_multiples, _checked(message), key, {"place": None}, place=on_place, opened=on_open)


def gallery(pictures: Sequence[tuple[str, str, bytes]], chosen: str, key: str, on_pick: Callable[[str], None]) -> None:
    """A strip of pictures of which one is chosen.

    Args:
        pictures: key, name and WebP bytes of each.
        chosen: key of the one that is chosen, or another word for none.
        key: of the widget in English.
        on_pick: called with the widget's key when the visitor clicked; `st.session_state[key].picked` is the key of
            the picture.
    """
    items: list[Mapping[str, str]] = [
        {"key": name, "label": label, "src": "data:image/webp;base64," + base64.b64encode(data).decode()}
        for name, label, data in pictures]
    _mount(_gallery, {"items": items, "chosen": chosen}, key, None, picked=on_pick)


def lesson_picture(message: bytes, key: str, on_guess: Callable[[str], None]) -> None:
    """The lesson's picture, to point at or to guess on.

    Args:
        message: what `look_message` or `guess_message` packed.
        key: of the widget in English.
        on_guess: called with the widget's key when the visitor asked for the answer; `st.session_state[key].guess`
            lists the windows that were marked.
    """
    _mount(_lesson_picture, _checked(message), key, None, guess=on_guess)


def presenter(about: Mapping[str, str | bool], key: str, on_go: Callable[[str], None]) -> None:
    """The navigation at the foot of the lesson, which listens to the keys of the whole page where it is projected.

    Args:
        about: "stop", which changes from stop to stop; "place" in words; "query" of the link for others; "qr", the
            address of a picture of that link, or ""; "present", "first" and "last".
        key: of the widget in English.
        on_go: called with the widget's key when something was asked for; `st.session_state[key].go` is "next", "back",
            "present" or "leave".
    """
    _mount(_presenter, dict(about), key, None, go=on_go)


def number_grid(html: str, key: str, on_token: Callable[[str], None]) -> None:
    """Figures of the worked example as grids of numbers, of which a token may be chosen.

    Args:
        html: what `figures.example_steps.step_html` drew.
        key: of the widget in English.
        on_token: called with the widget's key when the visitor clicked; `st.session_state[key].token` is the number of
            the token.
    """
    _mount(_number_grid, {"html": html}, key, None, token=on_token)


def _checked(message: bytes) -> bytes:
    # Anything but bytes at the top level would arrive as the text of its repr, without an error.
    if not isinstance(message, bytes):
        raise TypeError(f"a component's message must be bytes, not {type(message).__name__}")
    return message
