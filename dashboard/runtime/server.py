"""What all visitors of one server share: limits, job queue, result cache, uploads; and the priorities of jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dashboard.runtime.cache import ResultCache
from dashboard.runtime.config import Limits
from dashboard.runtime.jobs import JobQueue
from dashboard.runtime.uploads import UploadStore

QUICK: Final = "quick"
HEAVY: Final = "heavy"
LARGE: Final = "large"
"""Priorities with threads of their own: what takes a fraction of a second; all else, which must not hold it up; and
large pictures, one at a time, since reading one takes much memory for a moment."""
AT_ONCE: Final = "now"
"""No job at all: what takes some milliseconds, as long as the queue itself would. The page's own thread computes it,
and the result is cached."""


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """The shared parts of one server."""

    limits: Limits
    queue: JobQueue
    cache: ResultCache
    uploads: UploadStore

    @classmethod
    def of(cls, limits: Limits, before: Callable[[int], None] | None = None) -> Server:
        """A server with these limits; `before` as for `JobQueue`."""
        threads = {QUICK: limits.quick, HEAVY: limits.heavy_slots, LARGE: 1}
        return cls(limits, JobQueue(threads, limits.queue, before), ResultCache(limits.keep_mb * 2**20),
                   UploadStore(limits))
