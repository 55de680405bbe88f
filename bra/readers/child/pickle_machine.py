"""What a pickle says, without doing it: a class becomes its name, a call becomes a record of the call.

Python's own reader imports and calls whatever a file names; replacing its classes still leaves it to a file how much
memory its memo takes. The machine here knows the instructions that `torch.save` writes, holds nothing but what the
file's bytes spell out, and calls only the functions that its caller lists.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bra.errors import CheckpointError
from bra.messages import message

Step = Callable[["_Machine"], None]


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle names, as "module.name". It is never looked up."""

    path: str


@dataclass(slots=True, eq=False)
class PickledObject:
    """An object that a pickle would make: what it would call, with which arguments, and the state it would be given."""

    path: str
    args: tuple[Any, ...] = ()
    state: Any = field(default_factory=dict)


def values(data: bytes, known: Mapping[str, Callable[..., Any]], stored: Callable[[Any], Any],
           max_steps: int = 4_000_000) -> Any:
    """The value that a pickle describes.

    Args:
        data: the pickle, in protocol 2 or newer.
        known: what may be called, by the path that the pickle names it with; everything else becomes a `PickledObject`.
        stored: from a persistent id to the value that stands for it.
        max_steps: instructions before it is given up.

    Raises:
        CheckpointError: damaged, in an older protocol, or longer than `max_steps`.
    """
    try:
        return _Machine(data, known, stored).run(max_steps)
    except (IndexError, KeyError, TypeError, ValueError, struct.error, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise damaged(message("its pickle breaks off with {kind}", kind=type(error).__name__)) from error


def damaged(why: str) -> CheckpointError:
    """The error of a file that was not written so."""
    return CheckpointError(message("This checkpoint is damaged ({why}): save it again with torch.save and choose that "
                                   "file.", why=why))


class _Machine:
    """Stack, marks and memo of a pickle that is being read; its instructions are in `_STEPS`."""

    def __init__(self, data: bytes, known: Mapping[str, Callable[..., Any]], stored: Callable[[Any], Any]) -> None:
        self.data, self.known, self.stored = data, known, stored
        self.at = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, max_steps: int) -> Any:
        for _ in range(max_steps):
            code = self.data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise CheckpointError(message("This checkpoint's pickle has the instruction {code:#04x}, which "
                                              "torch.save does not write: save it again with torch.save and choose "
                                              "that file.",
                                              code=code))
            step(self)
        raise CheckpointError(message("This checkpoint's pickle takes more than {max_steps:,} steps: save only the "
                                      "model's state_dict().", max_steps=max_steps))

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.at:
            raise IndexError
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.index(b"\n", self.at)
        return self.take(end - self.at + 1)[:-1].decode()

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items


def _constant(value: Any) -> Step:
    return lambda m: m.stack.append(value)


def _number(form: str) -> Step:
    return lambda m: m.stack.append(m.number(form))


def _text(form: str, codec: str = "utf-8") -> Step:
    return lambda m: m.stack.append(m.take(m.number(form)).decode(codec, "surrogatepass"))


def _bytes(form: str) -> Step:
    return lambda m: m.stack.append(m.take(m.number(form)))


def _put(form: str) -> Step:
    return lambda m: m.memo.__setitem__(m.number(form), m.stack[-1])


def _get(form: str) -> Step:
    return lambda m: m.stack.append(m.memo[m.number(form)])


def _tuple(count: int) -> Step:
    def step(m: _Machine) -> None:
        if count > len(m.stack):
            raise IndexError
        m.stack[-count:] = [tuple(m.stack[-count:])]
    return step


def _pushed(m: _Machine, value: Any) -> None:
    m.stack.append(value)       # looked up after the value was made, which may have changed the stack


def _added(m: _Machine, items: list[Any]) -> None:
    if isinstance(m.stack[-1], list):
        m.stack[-1].extend(items)


def _keyed(m: _Machine, items: list[Any]) -> None:
    target = m.stack[-1]
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Any other key is not needed, and one of nested tuples would be hashed by recursion.
        if isinstance(target, dict) and isinstance(key, (str, int, float)):
            target[key] = value


def _global(m: _Machine, module: Any, name: Any) -> None:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise TypeError
    m.stack.append(Name(f"{module}.{name}"))


def _called(m: _Machine, what: Any, args: Any) -> None:
    if not isinstance(args, tuple):
        raise TypeError
    path = what.path if isinstance(what, Name) else ""
    m.stack.append(m.known[path](*args) if path in m.known else PickledObject(path, args))


def _new(m: _Machine) -> None:
    args, what = m.stack.pop(), m.stack.pop()
    _called(m, what, args)


def _new_with_keywords(m: _Machine) -> None:
    m.stack.pop()
    _new(m)


def _build(m: _Machine) -> None:
    state = m.stack.pop()
    if isinstance(m.stack[-1], PickledObject):
        m.stack[-1].state = state


def _append(m: _Machine) -> None:
    item = m.stack.pop()
    _added(m, [item])


def _set_item(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _keyed(m, [key, value])


def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    _global(m, module, name)


def _mark(m: _Machine) -> None:
    m.below.append(m.stack)
    m.stack = []


_STEPS: Final[Mapping[int, Step]] = {
    code[0]: step for code, step in {
        b"\x80": lambda m: m.number("<B"), b"\x95": lambda m: m.number("<Q"),
        b"N": _constant(None), b"\x88": _constant(True), b"\x89": _constant(False), b")": _constant(()),
        b"]": lambda m: m.stack.append([]), b"}": lambda m: m.stack.append({}), b"\x8f": lambda m: m.stack.append([]),
        b"K": _number("<B"), b"M": _number("<H"), b"J": _number("<i"), b"G": _number(">d"),
        b"\x8a": lambda m: m.stack.append(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
        b"X": _text("<I"), b"\x8c": _text("<B"), b"\x8d": _text("<Q"), b"U": _text("<B", "latin-1"),
        b"T": _text("<i", "latin-1"), b"B": _bytes("<I"), b"C": _bytes("<B"), b"\x8e": _bytes("<Q"),
        b"q": _put("<B"), b"r": _put("<I"), b"\x94": lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),
        b"h": _get("<B"), b"j": _get("<I"),
        b"\x85": _tuple(1), b"\x86": _tuple(2), b"\x87": _tuple(3),
        b"(": _mark, b"0": lambda m: m.stack.pop(), b"1": lambda m: m.since_mark() and None,
        b"2": lambda m: m.stack.append(m.stack[-1]),
        b"t": lambda m: _pushed(m, tuple(m.since_mark())), b"\x91": lambda m: _pushed(m, m.since_mark()),
        b"a": _append, b"e": lambda m: _added(m, m.since_mark()), b"\x90": lambda m: _added(m, m.since_mark()),
        b"s": _set_item, b"u": lambda m: _keyed(m, m.since_mark()),
        b"c": lambda m: _global(m, m.line(), m.line()), b"\x93": _stack_global,
        b"R": _new, b"\x81": _new, b"\x92": _new_with_keywords, b"b": _build,
        b"Q": lambda m: m.stack.append(m.stored(m.stack.pop())),
    }.items()}
