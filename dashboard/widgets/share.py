"""The export menu of a view: its files, the form of saved charts, the code that makes it, and its link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import urlencode

import segno
import streamlit as st

from bra.figures.template import file_name as joined
from dashboard.i18n import tr
from dashboard.state import session
from dashboard.state.upload import Upload
from dashboard.widgets import chart

KINDS: Final = MappingProxyType({
    "csv": "text/csv", "json": "application/json", "md": "text/markdown", "html": "text/html", "yaml": "text/yaml",
    "npz": "application/octet-stream", "safetensors": "application/octet-stream", "webp": "image/webp"})
"""Media types by the endings of files."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a view.

    Attributes:
        label: what it is.
        data: what is in it, or what makes it when it is asked for.
        name: under which it is saved.
        help: more, on a question mark.
    """

    label: str
    data: str | bytes | Callable[[], str | bytes]
    name: str
    help: str | None = None


def named(ending: str, *parts: object) -> str:
    """A file's name that tells model, layer, picture and settings apart: ("csv", "Flowers", "n7_k4") and so on."""
    return f"{joined('routescope', *parts)}.{ending}"


def offer(program: str = "", *commands: str, files: Sequence[File] = (), charts: bool = True) -> None:
    """The export menu of a view, drawn once per page.

    Args:
        program: the shortest program that makes what the view shows; "" where there is none.
        commands: lines of the command line that make it too; those that are "" are left out.
        files: what can be downloaded.
        charts: whether the view has any whose camera saves them.
    """
    names = [tr("Files")] * bool(files or charts) + [tr("Code for this view")] * bool(program) + [tr("Copy link")]
    with st.popover(tr("Export"), icon=":material/ios_share:"):
        tabs = dict(zip(names, st.tabs(names), strict=True))
        if files or charts:
            with tabs[tr("Files")]:
                for file in files:
                    st.download_button(file.label, file.data, file.name, KINDS.get(file.name.rpartition(".")[2]),
                                       on_click="ignore", icon=":material/download:", help=file.help, width="stretch")
                if charts:
                    chart.choose_format()
        if program:
            with tabs[tr("Code for this view")]:
                st.caption(tr("The shortest program that makes the numbers of this view. Run it in the folder of your "
                              "files; built-in pictures lie in sample_images."))
                st.code(program, "python")
                written = [command for command in commands if command]
                if written:
                    st.caption(tr("On the command line:"))
                for command in written:
                    st.code(command, "bash", wrap_lines=True)
        with tabs[tr("Copy link")]:
            st.caption(tr("The link holds this view, but for files of your own."))
            st.code(link(), None, wrap_lines=True)


def link() -> str:
    """The address of the view, for others."""
    query = session.shared_link()
    return f"{st.context.url or ''}{'?' if query else ''}{urlencode(query)}"


def qr_code() -> str:
    """The view's address as a QR code: the address of a picture of it, black on white with the margin that it needs."""
    return str(segno.make(link(), error="m").svg_data_uri(scale=8, dark="#000", light="#fff"))


def picture_file(sample: str, upload: Upload | None) -> str:
    """The picture of a view as a file that a program reads: a built-in one as it lies in a checkout, or one's own.

    Args:
        sample: key of the built-in picture; "" where it is the visitor's own.
        upload: the visitor's own picture.
    """
    return f"sample_images/{sample}.jpg" if sample or upload is None else upload.name


def file_name(upload: Upload | None) -> str:
    """Name of a visitor's file; "" for none."""
    return "" if upload is None else upload.name
