"""What was worked out, kept for whoever asks next: as many megabytes as one says, the longest untouched goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from threading import Lock
from typing import Any


@dataclass(frozen=True, slots=True)
class Kept:
    """Something on the shelf.

    Attributes:
        value: it.
        size: its bytes.
        until: when it is no longer true, of `time.monotonic`; None for never.
    """

    value: Any
    size: int
    until: float | None


class ResultCache:
    """Values by key, shared and read-only; `most` bytes together, for any number of threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._passing: dict[Hashable, float] = {}      # those that are not kept for ever, and until when
        self._size = 0
        self._lock = Lock()

    def get(self, key: Hashable) -> Kept | None:
        """What is kept under the key, if anything."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None and found.until is not None and found.until <= time.monotonic():
                self._take_off(key)
                return None
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Hashable, value: Any, seconds: float | None = None) -> None:
        """Keep a value, for so long; one that alone is more than all the room is not kept."""
        size, now = 1_000 + weight(value), time.monotonic()
        with self._lock:
            for old in [old for old, until in self._passing.items() if until <= now]:
                self._take_off(old)     # nobody may ever ask for them again
            self._take_off(key)
            if size <= self._most:
                self._kept[key] = Kept(value, size, None if seconds is None else now + seconds)
                self._size += size
                if seconds is not None:
                    self._passing[key] = now + seconds
            while self._size > self._most:
                self._take_off(next(iter(self._kept)))

    def _take_off(self, key: Hashable) -> None:
        """Keep it no longer; the lock is held."""
        gone = self._kept.pop(key, None)
        self._passing.pop(key, None)
        self._size -= gone.size if gone is not None else 0

    @property
    def size(self) -> int:
        """Bytes of all that is kept; what two of them share counts twice."""
        with self._lock:
            return self._size

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept)


def weight(value: Any) -> int:
    """Bytes of the arrays, tensors, modules, tables and texts in a value; each counts once."""
    total, seen, waiting = 0, set(), [value]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if hasattr(one, "untyped_storage"):             # a tensor; views share one storage
            storage = one.untyped_storage()
            if (place := ("storage", storage.data_ptr())) not in seen:
                seen.add(place)
                total += storage.nbytes()
        elif isinstance(one, (bytes, str)):
            total += len(one)
        elif isinstance(nbytes := getattr(one, "nbytes", None), int):     # an array, or a table
            total += nbytes
        elif callable(getattr(one, "parameters", None)) and callable(getattr(one, "buffers", None)):
            waiting += [*one.parameters(), *one.buffers()]
        elif isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, (tuple, list, set, frozenset)):
            waiting += one
        elif is_dataclass(one) and not isinstance(one, type):
            waiting += [getattr(one, part.name) for part in fields(one)]
    return total
