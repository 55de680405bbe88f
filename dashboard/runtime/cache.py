"""Bounded LRU cache of results, shared by all visitors; keys are digests of bytes and frozen settings."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from threading import Lock
from typing import Any

from cachetools import TLRUCache

OVERHEAD = 1_000
"""Bytes that an entry counts beside its value."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One value in the cache.

    Attributes:
        value: the result, read-only.
        size: its bytes.
        until: when it is no longer true, of `time.monotonic`; infinite for never.
    """

    value: Any
    size: int
    until: float


def _expiry(_key: Hashable, entry: CacheEntry, _now: float) -> float:
    return entry.until


def _entry_size(entry: CacheEntry) -> int:
    return entry.size


class ResultCache:
    """Least recently used values go first once there are more than `max_bytes`; for any number of threads."""

    def __init__(self, max_bytes: int) -> None:
        self._entries = TLRUCache(max_bytes, _expiry, time.monotonic, _entry_size)
        self._lock = Lock()

    def get(self, key: Hashable) -> CacheEntry | None:
        """The entry under the key, if there is one that is still true."""
        with self._lock:
            found: CacheEntry | None = self._entries.get(key)
            return found

    def put(self, key: Hashable, value: Any, seconds: float = math.inf) -> None:
        """Keep a value, for so many seconds; one that alone is larger than the cache is not kept."""
        entry = CacheEntry(value, OVERHEAD + size_of(value), time.monotonic() + seconds)
        with self._lock:
            self._entries.pop(key, None)
            if entry.size <= self._entries.maxsize:
                self._entries[key] = entry

    @property
    def size(self) -> int:
        """Bytes of all entries; what two of them share counts twice."""
        with self._lock:
            return int(self._entries.currsize)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)


def size_of(value: Any) -> int:
    """Bytes of the arrays, tensors, modules, tables and texts in a value; each counts once."""
    seen: set[object] = set()
    total, waiting = 0, [value]
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
