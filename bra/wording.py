"""Sentences that remember how they were made, so that a page can say the same in another language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Said(str):
    """An English sentence.

    Attributes:
        template: the sentence with `{name}` where its values stand.
        values: the values by name; a value may be such a sentence itself.
    """

    template: str
    values: Mapping[str, Any]


def said(template: str, /, **values: Any) -> Said:
    """The sentence of a template and its values, as `str.format` makes it; without values the template as it is."""
    made = Said(template.format(**values) if values else template)
    made.template, made.values = template, values
    return made
