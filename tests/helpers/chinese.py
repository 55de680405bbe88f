"""What a Chinese visitor reads, and whether any English is left in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from bra.messages import Language, Message

CATALOGUE = Path(__file__).parents[2] / "dashboard" / "text" / "zh.json"
CHINESE = Language("zh", json.loads(CATALOGUE.read_text(encoding="utf-8")))
CODE = ("pip install --force-reinstall --no-deps ultralytics", "pip install -U ultralytics", "bra lint",
        "pip install 'bra[yolo]'", "pip install ultralytics", "apt-get install libgl1 libglib2.0-0", "bra sweep",
        "(batch, , height, width)", "(height, width, 3)")
"""Commands and shapes, which no language translates."""
_WORD = r"(?<![\w'])[A-Za-z][a-z']+(?![\w=(.])"
ENGLISH = re.compile(rf"{_WORD}(?:[ ,]+{_WORD})+")
"""Two words of English, one after the other; what has a _, = or ( in it is a name."""


def templates(sentence: Message) -> Iterator[str]:
    """Of a sentence and of those that are its values."""
    yield sentence.template
    for value in sentence.values.values():
        if isinstance(value, Message):
            yield from templates(value)


def without_values(sentence: Message) -> Message:
    """The same sentence with its names, numbers and other programs' words left out."""
    kept = Message(sentence)
    kept.template = sentence.template
    kept.values = {name: without_values(value) if isinstance(value, Message) else Nothing()
                   for name, value in sentence.values.items()}
    return kept


class Nothing:
    """A value that takes no place, whatever its format."""

    def __format__(self, form: str) -> str:
        return ""

    def __repr__(self) -> str:
        return ""


def in_chinese(sentence: object) -> str:
    """The sentence in Chinese; fails where a part of it has no translation or keeps words of English."""
    assert isinstance(sentence, Message), f"no memory: {sentence}"
    assert [text for text in templates(sentence) if text not in CHINESE.words] == []
    bare = CHINESE.translate(without_values(sentence))
    for command in CODE:
        bare = bare.replace(command, "")
    assert not ENGLISH.findall(bare), bare
    return CHINESE.translate(sentence)
