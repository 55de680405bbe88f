"""Codec between a frozen record and the parameters of a link: each attribute is declared once, and read and written so.

A link is an input: whatever in it is unknown or out of range is left at the record's default.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Param:
    """One attribute of a record as one parameter of a link.

    Attributes:
        name: of the attribute.
        key: of the parameter.
        read: text -> value; None where the text asks for what cannot be.
        write: value -> text; inverse of `read`.
    """

    name: str
    key: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str


def read(usual: T, params: Sequence[Param], query: Mapping[str, str]) -> T:
    """The record that a link asks for; what it does not ask for is as in `usual`."""
    asked = {param.name: param.read(query[param.key]) for param in params if param.key in query}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    return replace(usual, **changes)  # type: ignore[type-var]


def refused(params: Sequence[Param], query: Mapping[str, str]) -> tuple[str, ...]:
    """Parameters of a link that ask for what cannot be."""
    return tuple(param.key for param in params if param.key in query and param.read(query[param.key]) is None)


def write(record: object, usual: object, params: Sequence[Param]) -> dict[str, str]:
    """The parameters of a link: what of the record differs from `usual`. Inverse of `read`."""
    return {param.key: param.write(getattr(record, param.name)) for param in params
            if getattr(record, param.name) != getattr(usual, param.name)}


def number_in(text: str) -> int | None:
    """A whole number of at most five digits, or None."""
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and digits.isascii() and len(digits) < 6 else None


def number(name: str, allowed: Collection[int], key: str = "") -> Param:
    """A whole number, one of `allowed`."""
    def read_number(text: str) -> int | None:
        found = number_in(text)
        return found if found in allowed else None

    return Param(name, key or name, read_number)


def word(name: str, allowed: Collection[str], key: str = "") -> Param:
    """A text, one of `allowed`."""
    return Param(name, key or name, lambda text: text if text in allowed else None)


def switch(name: str, key: str = "", usual: bool = False) -> Param:
    """Whether something is on: "1" or "0"; any other text is as `usual`."""
    return Param(name, key or name, lambda text: text != "0" if usual else text == "1", lambda on: str(int(on)))


def numbers(name: str, allowed: Sequence[int], most: int, key: str = "") -> Param:
    """Several of the numbers `allowed`, ascending, each once, at most so many: "4.7.8"; none of them where one is
    another."""
    def read_numbers(text: str) -> tuple[int, ...] | None:
        words = text.split(".")[: 2 * most]
        found = {n for n in allowed if str(n) in words}
        return tuple(sorted(found))[:most] if found and len(found) == len(set(words)) else None

    return Param(name, key or name, read_numbers, lambda chosen: ".".join(map(str, chosen)))
