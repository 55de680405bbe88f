"""Bounds and counts the files that all visitors uploaded, for as long as anything holds them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final
from weakref import WeakValueDictionary

import starlette.requests
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from bra.messages import message
from dashboard.runtime.config import Limits
from dashboard.state.upload import Upload, uploaded

MB: Final = 2**20
FILES: Final = 8
"""Files of one visitor that are kept: a page has four places for one, and each place needs the newest alone."""
FULL: Final = "application/x-routescope-full"
LARGE: Final = "application/x-routescope-large"
"""Kinds of a file that was not kept. It has its name and no bytes, so that the page can say why: of an upload that is
answered with an error, the visitor would see the number of that error."""


class UploadStore:
    """Counter of the uploaded files of all visitors, and gate before Streamlit's own store of them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._files = MemoryUploadedFileManager("")
        self._taken: WeakValueDictionary[int, Upload] = WeakValueDictionary()
        self._coming = 0
        self._lock = Lock()

    @property
    def total_bytes(self) -> int:
        """Bytes of all files that are here: in Streamlit's store, or in a visit or a piece of work."""
        there = [file.data for files in [*self._files.file_storage.values()] for file in [*files.values()]]
        there += [one.data for one in self._taken.values()]
        return sum({id(data): len(data) for data in there}.values())

    def guard(self, files: MemoryUploadedFileManager, visits: Callable[[str], bool]) -> None:
        """Let no file into Streamlit's store but through here: it keeps whatever any number of visits sends.

        Args:
            files: the store.
            visits: whether there is a visit of that name; a file that comes after its visit's end would stay for ever.
        """
        keep = files.add_file

        def add_file(session_id: str, file: UploadedFileRec) -> None:
            if not visits(session_id):
                return
            with self._lock:
                self._make_room(session_id, len(file.data))
                keep(session_id, self._checked(file))

        self._files = files
        files.add_file = add_file       # type: ignore[method-assign]

    def _make_room(self, session_id: str, coming: int) -> None:
        """The oldest of a visit's files go: two of the largest models and a picture fit beside each other."""
        most = (2 * self._limits.upload_mb + self._limits.picture_mb) * MB
        files = self._files.file_storage.get(session_id, {})
        while files and (len(files) >= FILES or sum(len(file.data) for file in files.values()) + coming > most):
            self._files.remove_file(session_id, next(iter(files)))

    def _checked(self, file: UploadedFileRec) -> UploadedFileRec:
        if len(file.data) > self._limits.upload_mb * MB:
            return file._replace(type=LARGE, data=b"")
        if self.total_bytes + len(file.data) > self._limits.uploads_mb * MB:
            return file._replace(type=FULL, data=b"")
        return file

    def take(self, file: UploadedFile, picture: bool) -> tuple[Upload | None, str]:
        """A visitor's file as the pages have it, or None and the sentence that says why not."""
        most = self._limits.picture_mb if picture else self._limits.upload_mb
        if file.type == FULL:
            return None, message("This server holds {most} MB of its visitors' files, the most that it may "
                                 "(ROUTESCOPE_UPLOADS_MB): try again when somebody has left.",
                                 most=self._limits.uploads_mb)
        if file.type == LARGE or file.size > most * MB:
            context = get_script_run_ctx()
            if context is not None:     # its bytes go at once
                context.uploaded_file_mgr.add_file(        # type: ignore[attr-defined]
                    context.session_id, UploadedFileRec(file.file_id, file.name, LARGE, b""))
            return None, message("This picture's file has more than the {most} MB that this server takes "
                                 "(ROUTESCOPE_PICTURE_MB): save a smaller copy.", most=most) if picture else message(
                   "This file has more than the {most} MB that this server takes (ROUTESCOPE_UPLOAD_MB): save a "
                   "smaller one, a model without its optimizer or as half precision.", most=most)
        return self.keep(uploaded(file.name, file.getvalue())), ""

    def keep(self, file: Upload) -> Upload:
        """A file that was taken, or made of one that was: it is counted for as long as anything holds it."""
        with self._lock:
            self._taken[id(file)] = file
        return file

    def count_incoming(self, largest_mb: int) -> None:
        """Bound what is on its way too, and let none of it go through the disk, which may be full.

        Args:
            largest_mb: what the server takes of one upload, which may be more than we do.
        """
        store, most = self, self._limits.uploads_mb * MB

        class Counted(MultiPartParser):
            spool_max_size = (largest_mb + 1) * MB
            come = 0

            def on_part_data(self, data: bytes, start: int, end: int) -> None:
                self.come += end - start
                store._coming += end - start
                if store._coming > most:
                    raise MultiPartException("Too many uploads at once")
                super().on_part_data(data, start, end)

            async def parse(self) -> FormData:
                try:
                    return await super().parse()
                finally:
                    store._coming -= self.come

        starlette.requests.MultiPartParser = Counted        # type: ignore[attr-defined]
