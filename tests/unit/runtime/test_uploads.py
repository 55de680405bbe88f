"""Files of all visitors together are bounded, and counted for as long as anything holds them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import starlette.requests
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from dashboard.runtime.config import Limits
from dashboard.runtime.uploads import FILES, FULL, LARGE, MB, UploadStore
from dashboard.state.upload import Upload

LIMITS = Limits(upload_mb=2, picture_mb=1, uploads_mb=7)


@pytest.fixture
def store() -> MemoryUploadedFileManager:
    return MemoryUploadedFileManager("/upload")


@pytest.fixture
def room(store: MemoryUploadedFileManager) -> UploadStore:
    made = UploadStore(LIMITS)
    made.guard(store, lambda visit: visit != "gone")
    return made


def bring(store: MemoryUploadedFileManager, visit: str, name: str, mb: float) -> UploadedFile | None:
    """As the upload's route does, and then the page; None where nothing is stored."""
    store.add_file(session_id=visit, file=UploadedFileRec(name, f"{name}.pt", "application/x", bytes(int(mb * MB))))
    found = store.get_files(visit, [name])
    return UploadedFile(found[0], FileURLs()) if found else None


def taken(room: UploadStore, file: UploadedFile | None, picture: bool = False) -> Upload:
    assert file is not None
    upload, why = room.take(file, picture)
    assert not why
    assert upload is not None
    return upload


def refused(room: UploadStore, file: UploadedFile | None, picture: bool = False) -> str:
    assert file is not None
    upload, why = room.take(file, picture)
    assert upload is None
    return why


def test_all_visitors_together_are_bounded_and_told_by_what(room: UploadStore,
                                                            store: MemoryUploadedFileManager) -> None:
    for visit in ("a", "b", "c"):
        taken(room, bring(store, visit, "one", 2))
    last = bring(store, "d", "one", 1.5)
    assert last is not None
    assert (last.type, last.size, last.name) == (FULL, 0, "one.pt")
    assert "holds 7 MB" in refused(room, last)
    assert "ROUTESCOPE_UPLOADS_MB" in refused(room, last)
    taken(room, bring(store, "d", "smaller", 1))
    store.remove_session_files("b")
    gc.collect()
    taken(room, bring(store, "d", "again", 1.5))


def test_what_a_visit_or_work_still_holds_counts_once(room: UploadStore, store: MemoryUploadedFileManager) -> None:
    held = [taken(room, bring(store, visit, "one", 2)) for visit in ("a", "b", "c")]
    assert room.total_bytes == 6 * MB, "the store and the visit have the same bytes"
    for visit in ("a", "b", "c"):
        store.remove_file(visit, "one")     # the browser takes it back, the visit goes on with it
    assert room.total_bytes == 6 * MB
    assert "ROUTESCOPE_UPLOADS_MB" in refused(room, bring(store, "d", "one", 2))
    held.clear()
    gc.collect()
    assert room.total_bytes == 0
    taken(room, bring(store, "d", "two", 2))


def test_one_visitor_fills_nothing_for_the_others(room: UploadStore, store: MemoryUploadedFileManager) -> None:
    for n in range(40):
        taken(room, bring(store, "a", f"{n}", 2))
        gc.collect()
    assert [*store.file_storage["a"]] == ["38", "39"], "the newest"
    for n in range(40):
        taken(room, bring(store, "b", f"{n}", 0.01))
    assert [*store.file_storage["b"]] == [f"{n}" for n in range(40 - FILES, 40)]


def test_a_file_that_comes_after_its_visit_ended_is_not_kept(room: UploadStore,
                                                             store: MemoryUploadedFileManager) -> None:
    assert bring(store, "gone", "one", 1) is None
    assert not store.file_storage
    assert room.total_bytes == 0


@pytest.mark.parametrize(("mb", "picture", "setting"), [(2.1, False, "UPLOAD_MB"), (1.1, True, "PICTURE_MB")])
def test_a_file_that_is_too_large_is_dropped_where_it_is_taken(
        room: UploadStore, store: MemoryUploadedFileManager, mb: float, picture: bool, setting: str) -> None:
    file = bring(store, "a", "one", mb)
    assert file is not None
    assert (file.type == LARGE) == (not picture)        # only the page knows what is a picture
    why = refused(room, file, picture)
    assert f"ROUTESCOPE_{setting}" in why
    assert f" {int(mb)} MB" in why


@pytest.fixture
def _parser() -> Iterator[None]:
    before = starlette.requests.MultiPartParser        # type: ignore[attr-defined]
    yield
    starlette.requests.MultiPartParser = before        # type: ignore[attr-defined]


async def sending(mb: float, start: asyncio.Event, end: asyncio.Event, breaks: bool = False) -> UploadFile:
    """One upload that comes until `start`, and ends with `end`, or breaks off there."""
    async def stream() -> AsyncIterator[bytes]:
        yield b'--e\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(int(mb * MB))
        start.set()
        await end.wait()
        if breaks:
            raise ConnectionError
        yield b"\r\n--e--\r\n"

    parser = starlette.requests.MultiPartParser(        # type: ignore[attr-defined]
        Headers({"content-type": "multipart/form-data; boundary=e"}), stream())
    file = (await parser.parse())["file"]
    assert isinstance(file, UploadFile)
    return file


@pytest.mark.usefixtures("_parser")
def test_what_is_on_its_way_is_bounded_too_and_stays_in_memory(room: UploadStore) -> None:
    room.count_incoming(120)

    async def visitors() -> None:
        end, begun = asyncio.Event(), [asyncio.Event() for _ in range(2)]
        first = [asyncio.create_task(sending(3, begun[n], end, breaks=n == 1)) for n in range(2)]
        for one in begun:
            await one.wait()
        with pytest.raises(MultiPartException):
            await sending(1.5, asyncio.Event(), end)
        end.set()
        file = await first[0]
        assert not file.file._rolled        # type: ignore[attr-defined]
        assert len(await file.read()) == 3 * MB
        with pytest.raises(ConnectionError):
            await first[1]
        large = await sending(6.5, asyncio.Event(), end)     # nothing of those is counted any more
        assert not large.file._rolled       # type: ignore[attr-defined]

    with ThreadPoolExecutor(1) as own:      # this thread may have a loop already, that of the browser's tests
        own.submit(asyncio.run, asyncio.wait_for(visitors(), 30)).result()
