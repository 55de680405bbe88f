"""Job queue: runs work in the order of submission in threads of its own; whoever waits knows the place in the queue.

A visitor's page never computes: it submits a job, looks up now and then, and may leave. The same work is done once,
however many submit it; a job that nobody waits for any more is dropped, or told to stop where it can be.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Final

GRACE: Final = 1.0
"""Seconds for which a place is kept for a visitor whose page runs again."""
Progress = Callable[[int, int], None]
"""Told (parts done, parts to do); raises Stopped when the work is not wanted any more."""


class Cancelled(Exception):  # noqa: N818  not an error: nobody wants the result
    """The work is not wanted any more."""


class QueueFullError(Exception):
    """So many wait already that nobody else may."""


def without_traceback(error: BaseException) -> BaseException:
    """The same error without traceback, cause and context.

    Those hold the frames that it went through, and frames hold what their functions were given: a visitor's file.
    """
    try:
        made = copy.copy(error)         # made from its type and arguments
    except Exception:                   # a type that is made from other things than it says
        return RuntimeError(f"{type(error).__name__}: {error}")
    # Libraries that send errors between processes teach copies to keep them.
    made.__cause__ = made.__context__ = made.__traceback__ = None
    return made


@dataclass(slots=True, eq=False)
class Job:
    """One piece of work.

    Attributes:
        key: what tells it from others.
        work: does it.
        waiting: how many visitors wait for it.
        left: when the last of them left.
        began: when it was begun; None while it waits.
        done: whether it has ended.
        parts: parts done, and to do; (0, 0) while that is not known.
        error: what it raised, as `without_traceback` makes it: never raised itself, it would keep whoever raised it.
    """

    key: Hashable
    work: Callable[[Progress], Any]
    waiting: int = 0
    left: float = 0.0
    began: float | None = None
    done: bool = False
    parts: tuple[int, int] = (0, 0)
    result: Any = field(default=None, repr=False)
    error: BaseException | None = None

    @property
    def abandoned(self) -> bool:
        """Whether nobody has waited for it for a while."""
        return not self.waiting and time.monotonic() - self.left > GRACE


class JobQueue:
    """Jobs by priority, first come first served within each.

    Args:
        threads: number of threads of each priority.
        longest: jobs that may wait in each.
        before: called in the working thread before each job, with how many are being worked on in all.
    """

    def __init__(self, threads: Mapping[str, int], longest: int,
                 before: Callable[[int], None] | None = None) -> None:
        self._threads = dict(threads)
        self._longest = longest
        self._before = before
        self._changed = Condition()
        self._waiting: dict[str, list[Job]] = {name: [] for name in threads}
        self._jobs: dict[tuple[str, Hashable], Job] = {}
        self._working = dict.fromkeys(threads, 0)
        self._started = self._closed = False

    def submit(self, priority: str, key: Hashable, work: Callable[[Progress], Any]) -> JobHandle:
        """Submit a job, or join those who wait for the same.

        Raises:
            QueueFullError: too many wait in this priority.
        """
        with self._changed:
            job = self._jobs.get((priority, key))
            if job is None:
                self._forget(priority)
                # Work that a free thread is about to take is not waiting.
                if len(self._waiting[priority]) - (self._threads[priority] - self._working[priority]) >= self._longest:
                    raise QueueFullError
                job = self._jobs[priority, key] = Job(key, work)
                self._waiting[priority].append(job)
            job.waiting += 1
            self._start()
            self._changed.notify_all()
        return JobHandle(self, priority, job)

    def lengths(self) -> dict[str, int]:
        """How many jobs wait in each priority."""
        with self._changed:
            return {name: sum(not one.abandoned for one in jobs) for name, jobs in self._waiting.items()}

    @property
    def working(self) -> int:
        """How many jobs are being worked on."""
        with self._changed:
            return sum(self._working.values())

    def close(self, seconds: float = 3.0) -> None:
        """Begin nothing more, and stop what can be stopped: the server ends. Waits so long for that."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not any(self._working.values()), seconds)

    def _start(self) -> None:
        if not self._started:
            self._started = True
            for priority, count in self._threads.items():
                for n in range(count):
                    Thread(target=self._serve, args=(priority,), name=f"{priority} {n}", daemon=True).start()

    def _serve(self, priority: str) -> None:
        while True:
            self._do(priority, self._next(priority))

    def _next(self, priority: str) -> Job:
        """The first that somebody waits for; blocks until there is one."""
        with self._changed:
            while True:
                self._forget(priority)
                found = next((one for one in self._waiting[priority] if one.waiting), None)
                if found is not None and not self._closed:
                    self._waiting[priority].remove(found)
                    found.began = time.monotonic()
                    self._working[priority] += 1
                    return found
                # Those whose visitors just left are looked at again when their time is up.
                self._changed.wait(GRACE if self._waiting[priority] else None)

    def _forget(self, priority: str) -> None:
        """Drop what nobody waits for any more; the lock is held."""
        for job in [one for one in self._waiting[priority] if one.abandoned]:
            self._waiting[priority].remove(job)
            del self._jobs[priority, job.key]

    def _do(self, priority: str, job: Job) -> None:
        def tell(done: int, todo: int) -> None:
            job.parts = (done, todo)
            with self._changed:
                if job.abandoned or self._closed:
                    self._end(priority, job)        # whoever submits it from now on begins anew
                    raise Cancelled

        try:
            if self._before is not None:
                self._before(self.working)
            job.result = job.work(tell)
        except BaseException as error:  # whoever waits gets it, and this thread lives on
            job.error = without_traceback(error)
        with self._changed:
            job.done = True
            self._working[priority] -= 1
            self._end(priority, job)
            self._changed.notify_all()

    def _end(self, priority: str, job: Job) -> None:
        if self._jobs.get((priority, job.key)) is job:
            del self._jobs[priority, job.key]


@dataclass(frozen=True, slots=True, eq=False)
class JobHandle:
    """One visitor's place in the queue: `with queue.submit(…) as handle`, given back however the block ends."""

    queue: JobQueue
    priority: str
    job: Job

    def __enter__(self) -> JobHandle:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with self.queue._changed:
            self.job.waiting -= 1
            self.job.left = time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Whether the work has ended, now or within so many seconds."""
        with self.queue._changed:
            return self.queue._changed.wait_for(lambda: self.job.done, seconds)

    @property
    def before(self) -> int | None:
        """How many jobs come before this one; None when it is being worked on or done."""
        with self.queue._changed:
            waiting = self.queue._waiting[self.priority]
            return sum(not one.abandoned for one in waiting[:waiting.index(self.job)]) if self.job in waiting else None

    @property
    def taken(self) -> float:
        """Seconds since the work was begun."""
        return 0.0 if self.job.began is None else time.monotonic() - self.job.began

    def result(self) -> Any:
        """What came out; raises what the work raised."""
        if self.job.error is not None:
            raise without_traceback(self.job.error) from None
        return self.job.result
