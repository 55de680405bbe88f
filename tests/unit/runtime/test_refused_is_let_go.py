"""Nothing of a refused file stays: not with the refusal that is kept for a while, nor with those who were told."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from bra.errors import BRAError, PhotoError
from bra.messages import message
from dashboard.runtime import wait
from dashboard.runtime.cache import ResultCache
from dashboard.runtime.config import Limits
from dashboard.runtime.jobs import JobQueue, without_traceback
from dashboard.runtime.server import Server
from dashboard.runtime.wait import run_cached


class File:
    """Stands for a visitor's file: the bytes themselves cannot be watched, what holds them can."""

    def __init__(self) -> None:
        self.data = bytes(100)


def server() -> Server:
    return Server.of(Limits(slots=1, heavy_slots=1))


def reading(shared: Server) -> Callable[..., Any]:
    """A reader as those of our services: it fails in another library, which is the cause of the refusal."""
    def decoded(data: bytes) -> None:
        raise RuntimeError(f"{len(data)} bytes too many")

    def read(file: File) -> None:
        data = file.data
        try:
            decoded(data)
        except RuntimeError as error:
            raise PhotoError(message("This picture is damaged: {n} bytes.", n=len(data))) from error

    return lambda digest, file: run_cached(shared, digest, lambda _: read(file), "Reading …")


def ask(read: Callable[..., Any], file: File) -> BRAError:
    """A visitor's page, which keeps what it was told."""
    with pytest.raises(PhotoError) as caught:
        read("digest", file)
    return caught.value


def test_a_refused_file_is_freed_while_its_refusal_is_kept() -> None:
    shared = server()
    read = reading(shared)
    files = [File(), File()]
    watched = [weakref.ref(file) for file in files]

    def page(file: File) -> None:
        for _ in range(2):          # the second time it comes from the cache
            with suppress(PhotoError):
                read("digest", file)

    for file in files:
        page(file)
    files.clear()
    del file
    gc.collect()
    assert [one() for one in watched] == [None, None]
    assert len(shared.cache) == 1
    assert shared.cache.size < 2_000


def test_each_is_told_by_an_error_of_its_own_with_the_sentence_as_it_was_made() -> None:
    shared = server()
    read = reading(shared)
    refusals = [ask(read, File()) for _ in range(3)]
    assert len({id(error) for error in refusals}) == 3
    for error in refusals:
        assert error.args[0].template == "This picture is damaged: {n} bytes."
        assert error.args[0].values == {"n": 100}
        assert error.__cause__ is None
        assert error.__context__ is None
        frames = [entry.tb_frame.f_code.co_name for entry in tracebacks(error)]
        assert "decoded" not in frames
    depths = [len(tracebacks(error)) for error in refusals[1:]]
    assert depths[0] == depths[1], "it does not grow with each who is told"


def tracebacks(error: BaseException) -> list[Any]:
    found, entry = [], error.__traceback__
    while entry is not None:
        found.append(entry)
        entry = entry.tb_next
    return found


def test_a_job_keeps_no_frame_of_its_work() -> None:
    queue, watched = JobQueue({"quick": 1}, 5), []

    def work(tell: Callable[[int, int], None]) -> None:
        file = File()
        watched.append(weakref.ref(file))
        raise ValueError("no")

    with queue.submit("quick", "one", work) as handle:
        assert handle.wait(5)
        gc.collect()
        assert watched[0]() is None
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                handle.result()
        assert handle.job.error is not None
        assert handle.job.error.__traceback__ is None


def test_an_error_that_cannot_be_made_again_is_still_told() -> None:
    class OddError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    assert str(without_traceback(OddError(1, 2))) == "OddError: 1 and 2"


def test_what_nobody_asks_for_again_leaves_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "REFUSED", 0.05)
    shared = server()

    def read(number: int) -> int:
        def work(_: object) -> int:
            if number:
                raise PhotoError(message("no"))
            return number

        return run_cached(shared, number, work, "Reading …")

    for number in range(1, 30):
        with pytest.raises(PhotoError):
            read(number)
    time.sleep(0.1)
    read(0)
    assert len(shared.cache) == 1
    assert shared.cache.size == 1_000


def test_a_new_value_under_a_passing_key_stays() -> None:
    cache = ResultCache(10_000)
    cache.put("a", 1, seconds=0.01)
    cache.put("a", 2)
    time.sleep(0.05)
    cache.put("b", 3)
    found = cache.get("a")
    assert found is not None
    assert found.value == 2


@dataclass(frozen=True)
class OneKey:
    digest: str


@dataclass(frozen=True)
class OtherKey:
    digest: str


def test_records_of_two_classes_with_the_same_fields_are_two_keys() -> None:
    shared = server()
    found = [run_cached(shared, key("same"), lambda _, name=key.__name__: name, "Reading …")
             for key in (OneKey, OtherKey)]
    assert found == ["OneKey", "OtherKey"]
