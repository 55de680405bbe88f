"""Callbacks of the file uploaders: each takes the file into the session, or the reason why it was refused."""

from __future__ import annotations

from dataclasses import replace

from streamlit.runtime.uploaded_file_manager import DeletedFile

from dashboard.services.server import server
from dashboard.state import session
from dashboard.state.view import UPLOAD, Selection


def on_picture() -> None:
    """Callback of the uploader of pictures: its file becomes the visitor's picture, or else the default does."""
    if not _take(session.UPLOADER) or (session.upload() is None and session.current().picture != UPLOAD):
        return
    # Saved under another name first, so that pins on an earlier upload are dropped too.
    session.save(replace(session.current(), picture=Selection().picture, a=None, b=None))
    if session.upload() is not None:
        session.save(replace(session.current(), picture=UPLOAD))


def on_model() -> None:
    """Callback of the uploader of models: its file becomes the visitor's model; layers of the last are forgotten."""
    if _take(session.MODEL_UPLOADER):
        session.save(replace(session.current(), layer=""))


def on_file(uploader: str) -> None:
    """Callback of an uploader whose file changes nothing but what its own part of a page shows."""
    _take(uploader)


def _take(uploader: str) -> bool:
    """Put the file of an uploader into the session, or that there is none; whether it came or went."""
    file = session.widget_file(uploader)
    if isinstance(file, DeletedFile):       # one of many, which the server let go; what was taken of it stays
        return False
    taken, refusal = (None, "") if file is None else server().uploads.take(file, picture=uploader == session.UPLOADER)
    session.keep_upload(uploader, taken, refusal)
    return True
