"""The app's words in the visitor's language. English is what stands in the code; every other language is a catalogue.

The catalogue `text/zh.json` has the English of each text as its key. Values stand in both as `{name}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import streamlit as st

from bra.wording import Said

TEXT: Final = Path(__file__).parent / "text"
LANGUAGES: Final = MappingProxyType({"en": "English", "zh": "中文"})
"""Each language by its own name."""
CATALOGUES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({
    "en": MappingProxyType({}),
    "zh": MappingProxyType(json.loads((TEXT / "zh.json").read_text(encoding="utf-8")))})
CHOSEN: Final = "language"


def language() -> str:
    """The visitor's language: the one chosen here, or that of the link, or that of the browser."""
    chosen = chosen_language()
    if chosen:
        return chosen
    return "zh" if (st.context.locale or "").lower().startswith("zh") else "en"


def chosen_language() -> str:
    """The language that was asked for by the switch or the link; "" where none was, and the browser's counts."""
    if CHOSEN not in st.session_state:
        asked = st.query_params.get("lang", "")
        st.session_state[CHOSEN] = asked if asked in LANGUAGES else ""
    found: str = st.session_state[CHOSEN]
    return found


def switch() -> None:
    """The button for the other language, in the header beside the menu."""
    other = next(name for name in LANGUAGES if name != language())
    st.button(LANGUAGES[other], key="language_switch", type="tertiary", on_click=_choose, args=(other,))


def _choose(name: str) -> None:
    st.session_state[CHOSEN] = name


def tr(text: str, /, **values: Any) -> str:
    """A text of the app in the visitor's language, with its values in place.

    Args:
        text: the English, written out where it is used: the catalogue's test reads the code.
        values: what stands in it as `{name}`; without any, braces are left as they are.
    """
    wanted = CATALOGUES[language()].get(text, text)
    return wanted.format(**values) if values else wanted


def told(sentence: object) -> str:
    """What `bra` said, in the visitor's language: an error, a sentence or a label.

    Values that are such sentences are said in that language too. What is not in the catalogue, such as a file's name,
    stays as it is.
    """
    if isinstance(sentence, Exception) and sentence.args:
        sentence = sentence.args[0]
    if isinstance(sentence, Said):
        return tr(sentence.template, **{name: told(value) if isinstance(value, Said) else value
                                        for name, value in sentence.values.items()})
    return tr(str(sentence))


def mark(text: str) -> str:
    """The text itself: it is shown by `tr` or `told` somewhere else, and its translation belongs to the catalogue."""
    return text


def chapter(name: str) -> str:
    """A longer text, `text/<language>/<name>.md`."""
    return (TEXT / language() / f"{name}.md").read_text(encoding="utf-8")
