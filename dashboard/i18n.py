"""The app's words in the visitor's language. English is what stands in the code; every other language is a catalogue.

The catalogue `text/zh.json` has the English of each text as its key. Values stand in both as `{name}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import streamlit as st

from bra.messages import Language, Message, message_of

TEXT: Final = Path(__file__).parent / "text"
LANGUAGES: Final = MappingProxyType({"en": "English", "zh": "中文"})
"""Each language by its own name."""
CATALOGUES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({
    "en": MappingProxyType({}),
    "zh": MappingProxyType(json.loads((TEXT / "zh.json").read_text(encoding="utf-8")))})
TAGS: Final = MappingProxyType({"en": "en", "zh": "zh-CN"})
"""Each language as a page's `lang` says it: by that, browsers choose the shapes of Chinese letters, and voices."""
SPOKEN: Final[Mapping[str, Language]] = MappingProxyType(
    {name: Language(tag, CATALOGUES[name]) for name, tag in TAGS.items()})
"""Each language as `bra` takes it."""
CHOSEN: Final = "language"
T = TypeVar("T")


def language() -> str:
    """The visitor's language: the one chosen here, or that of the link, or that of the browser."""
    return chosen_language() or ("zh" if (st.context.locale or "").lower().startswith("zh") else "en")


def chosen_language() -> str:
    """The language that was asked for by the switch or the link; "" where none was, and the browser's counts."""
    if CHOSEN not in st.session_state:
        asked = st.query_params.get("lang", "")
        st.session_state[CHOSEN] = asked if asked in LANGUAGES else ""
    found: str = st.session_state[CHOSEN]
    return found


def switch() -> None:
    """The button for the other language, in the header beside the menu; and the page itself says its language."""
    with st.container(key="language_tag"):
        st.html(f'<script>document.documentElement.lang = "{TAGS[language()]}"</script>', unsafe_allow_javascript=True)
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
    return tr_in(language(), text, **values)


def tr_in(wanted: str, text: str, /, **values: Any) -> str:
    """A text of the app in the language `wanted`, which need not be the visitor's; see `tr`."""
    found = CATALOGUES[wanted].get(text, text)
    return found.format(**values) if values else found


def translate(sentence: object) -> str:
    """What `bra` said, in the visitor's language: an error, a sentence or a label.

    Values that are such sentences are said in that language too. What is not in the catalogue, such as a file's name,
    stays as it is.
    """
    if isinstance(sentence, Exception):
        sentence = message_of(sentence)
    return visitor_language().translate(sentence) if isinstance(sentence, Message) else tr(str(sentence))


def visitor_language() -> Language:
    """The visitor's language as `bra` takes it, for files that are made outside of the visitor's session."""
    return SPOKEN[language()]


def option_labels(names: Mapping[T, object]) -> Callable[[T], str]:
    """A widget's `format_func`: what each option is called in the language of now.

    Said here and now, since a test asks for names outside of the visitor's session, where no language was chosen.

    Args:
        names: for each option its name as `translate` takes it.
    """
    labels = {option: translate(name) for option, name in names.items()}
    return labels.__getitem__


def key_in_language(key: str) -> str:
    """Key of one of our components in the visitor's language, which is another one in each.

    One that was kept would go on in the language that it was made in, and with the pins that it was opened with.
    """
    return key if (name := language()) == "en" else f"{key}_{name}"


def tr_noop(text: str) -> str:
    """The text itself: `tr` or `translate` shows it elsewhere, and the catalogue holds its translation."""
    return text


def chapter(name: str) -> str:
    """A longer text, `text/<language>/<name>.md`."""
    text = (TEXT / language() / f"{name}.md").read_text(encoding="utf-8")
    # A line that goes on after a Chinese letter or comma goes on without a space, which Markdown would put there.
    return re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[^\s#*-])", "", text)
