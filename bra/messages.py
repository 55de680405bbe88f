"""Sentences that remember how they were made, so that a page can say the same in another language."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType
from typing import Any, Final

_BRACES: Final = re.compile(r"\{\{|\}\}|\{[a-z_]{1,30}(?:!r)?(?::(?:#04x|,?(?:\.\d)?[fg]?))?\}")
"""All that may stand in braces in a sentence that another process sent: no attributes, no widths."""
_DEEPEST: Final = 4


class Message(str):
    """An English sentence.

    Attributes:
        template: the sentence with `{name}` where its values stand.
        values: the values by name; a value may be such a sentence itself.
    """

    template: str
    values: Mapping[str, Any]


def message(template: str, /, **values: Any) -> Message:
    """The sentence of a template and its values, as `str.format` makes it; without values the template as it is."""
    made = Message(template.format(**values) if values else template)
    made.template, made.values = template, values
    return made


def message_of(error: BaseException) -> str:
    """What an error says, as the sentence that it was raised with where it was one."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, Message) else str(error)


def comma_joined(parts: Sequence[str]) -> str:
    """Sentences in a row, with commas between them."""
    return reduce(lambda rest, first: message("{first}, {rest}", first=first, rest=rest), reversed(parts))


def semicolon_joined(parts: Sequence[str]) -> str:
    """Sentences in a row, with semicolons between them."""
    return reduce(lambda rest, first: message("{first}; {rest}", first=first, rest=rest), reversed(parts))


def spaced(parts: Sequence[str]) -> str:
    """Whole sentences one after the other."""
    return reduce(lambda rest, first: message("{first} {rest}", first=first, rest=rest), reversed(parts))


@dataclass(frozen=True, slots=True)
class Language:
    """A language that sentences can be told in.

    Attributes:
        code: as in the `lang` of a page.
        words: its text for each English one, values as `{name}` in both; what is not in it stays English.
    """

    code: str = "en"
    words: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def translate(self, sentence: str) -> str:
        """The sentence in this language, and so are those that are its values."""
        if not isinstance(sentence, Message):
            return self.words.get(sentence, sentence)
        wanted = self.words.get(sentence.template, sentence.template)
        values = {name: self.translate(value) if isinstance(value, Message) else value
                  for name, value in sentence.values.items()}
        return wanted.format(**values) if values else wanted


ENGLISH: Final = Language()


def to_plain(sentence: str) -> Any:
    """A sentence as values that JSON has: text, or a template with its values."""
    if not isinstance(sentence, Message):
        return str(sentence)
    return {"template": sentence.template, "values": {
        name: value
        if isinstance(value, (int, float)) else to_plain(value if isinstance(value, Message) else str(value))
        for name, value in sentence.values.items()}}


def from_plain(plain: Any, depth: int = 0) -> str:
    """Inverse of `to_plain`, of what another process sent: nothing in it is believed.

    Raises:
        ValueError: it is not what `to_plain` makes.
    """
    if isinstance(plain, str):
        return plain.encode("utf-8", "backslashreplace").decode()       # half a character cannot be shown
    template, values = (plain.get("template"), plain.get("values")) if isinstance(plain, dict) else (None, None)
    if not isinstance(template, str) or not isinstance(values, dict) or depth > _DEEPEST or (
            values and re.search(r"[{}]", _BRACES.sub("", template))):
        raise ValueError("this is not a sentence")
    known = {name: value if isinstance(value, (int, float)) else from_plain(value, depth + 1)
             for name, value in values.items()}
    try:
        made = Message(template.format(**known) if known else template)
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise ValueError("this is not a sentence") from error
    made.template, made.values = template, known
    return made
