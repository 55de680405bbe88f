"""The pictures one points at: one drawing code for the app and for the stand-alone report.

The scripts are plain functions in several files that are joined into one module, since a page without a network can
import nothing: `core.js` and then the parts of one view, the last of which exports its `mount`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from importlib.resources import files

STAGE = ("core", "draw", "rank", "vector", "stage")
PICTURE = ("core", "picture")
RAIL = ("core", "rail")
MULTIPLES = ("core", "draw", "multiples")


def script(*parts: str) -> str:
    """The named script files joined into one ES module."""
    return "\n".join((files(__name__) / f"{part}.js").read_text(encoding="utf-8") for part in parts)


def in_words(code: str, words: Mapping[str, str]) -> str:
    """The same script in another language: `words` has that language's text for each English one."""
    return f"{code}\nwords = {json.dumps(dict(words))};" if words else code


def words_of(code: str, html: str, words: Mapping[str, str]) -> dict[str, str]:
    """Of another language's texts those that a script and its skeleton ask for."""
    asked = texts_of_script(code) | texts_of_skeleton(html)
    return {english: other for english, other in words.items() if english in asked}


def text(name: str) -> str:
    """One of the style sheets or page skeletons beside this file."""
    return (files(__name__) / name).read_text(encoding="utf-8")


def texts_of_script(code: str) -> set[str]:
    """The English texts that a script asks `tr` for."""
    return {json.loads(found) for found in re.findall(r'\btr\(("(?:[^"\\]|\\.)*")', code)}


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        wanted = (given.get("data-tr") or "").split()
        self.found |= {given.get(name) or "" for name in wanted if name != "text"}
        self.open = "text" in wanted

    def handle_data(self, data: str) -> None:
        if self.open:
            self.found.add(data)
        self.open = False


def texts_of_skeleton(html: str) -> set[str]:
    """The English texts of a skeleton that `data-tr` names."""
    parser = _Texts()
    parser.feed(html)
    return parser.found
