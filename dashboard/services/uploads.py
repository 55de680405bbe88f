"""Callbacks of the file uploaders: each takes the file into the session, or the reason why it was refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamlit.runtime.uploaded_file_manager import DeletedFile, UploadedFile

from dashboard.runtime.uploads import MB
from dashboard.services.server import limits, server
from dashboard.state import session
from dashboard.state.upload import Upload, uploaded
from dashboard.state.view import UPLOAD, Selection
from dashboard.state.widgets import heard_before

PICTURES = 4
"""Own pictures of a visitor that are held beside each other."""


def on_file(uploader: str) -> None:
    """Callback of a file uploader: its file, or the reason why it was not taken, comes into the session."""
    file = session.widget_file(uploader)
    if isinstance(file, DeletedFile):       # one of many, which the server let go; what was taken of it stays
        return
    if heard_before(uploader, file.file_id if file is not None else None):
        return
    first = session.uploaded_file(uploader) is None
    taken, refusal = (None, "") if file is None else server().uploads.take(file, picture=False)
    session.keep_upload(uploader, taken, refusal)
    if not (first and uploader == session.MODEL_UPLOADER):      # of the first model, a link may name the layer
        _follow(uploader)


def on_pictures() -> None:
    """Callback of the field for pictures: those that came are held, the last one is looked at; those that went go."""
    files, known = session.widget_pictures(), session.known_pictures()
    there = {file.file_id for file in files}
    gone = {digest for name, digest in known.items() if name not in there}
    held = [one for one in session.own_pictures() if one.digest not in gone]
    last, refusal = session.upload(), ""
    for file in files:
        if isinstance(file, UploadedFile) and file.file_id not in known:
            taken, why = server().uploads.take(file, picture=True)
            refusal = why or refusal
            if taken is not None:
                last, held = taken, _last_few(taken, held)
                known = known | {file.file_id: taken.digest}
    session.keep_own_pictures(held, {name: digest for name, digest in known.items() if name in there})
    before = session.upload()
    session.keep_upload(session.UPLOADER, last if last in held else None, refusal)
    if session.upload() != before:
        _follow(session.UPLOADER)


def _last_few(newest: Upload, before: Sequence[Upload]) -> list[Upload]:
    """The newest picture and the last few before it, together no larger than one may be."""
    kept, room = [newest], limits().picture_mb * MB - len(newest.data)
    for one in before:
        room -= len(one.data)
        if one.digest != newest.digest and room >= 0 and len(kept) < PICTURES:
            kept.append(one)
    return kept


def remove(uploader: str) -> None:
    """Callback of the button beside a file that is held though its uploader is empty: it is forgotten."""
    gone = session.uploaded_file(uploader)
    if uploader == session.UPLOADER:
        session.keep_own_pictures([one for one in session.own_pictures() if one != gone], session.known_pictures())
    session.keep_upload(uploader, None, "")
    _follow(uploader)


def take_text(uploader: str, name: str, text: str) -> None:
    """Callback of a button beside a refused model file: this text in its place."""
    session.keep_upload(uploader, server().uploads.keep(uploaded(name, text.encode())), "")
    _follow(uploader)


def _follow(uploader: str) -> None:
    """What a file that came or went changes in the view, beside what its own part of a page shows."""
    if uploader == session.MODEL_UPLOADER:
        session.save(replace(session.current(), layer=""))      # layers of the last model are forgotten
    elif uploader == session.UPLOADER and (session.upload() is not None or session.current().picture == UPLOAD):
        # Saved under another name first, so that pins on an earlier upload are dropped too.
        session.save(replace(session.current(), picture=Selection().picture, a=None, b=None))
        if session.upload() is not None:
            session.save(replace(session.current(), picture=UPLOAD))
