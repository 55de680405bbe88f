"""What hands a view over: the Python that makes its numbers, the commands that do, and its link."""

from __future__ import annotations

from urllib.parse import urlencode

import segno
import streamlit as st

from dashboard.i18n import tr
from dashboard.state import session
from dashboard.state.upload import Upload


def offer(program: str = "", *commands: str) -> None:
    """Code and link of a view, in one line.

    Args:
        program: the shortest program that makes what the view shows; "" where there is none.
        commands: lines of the command line that make it too; those that are "" are left out.
    """
    with st.container(horizontal=True):
        if program:
            with st.popover(tr("Code for this view"), icon=":material/code:"):
                st.caption(tr("The shortest program that makes the numbers of this view. Run it in the folder of your "
                              "files; built-in pictures lie in sample_images."))
                st.code(program, "python")
                written = [command for command in commands if command]
                if written:
                    st.caption(tr("On the command line:"))
                for command in written:
                    st.code(command, "bash", wrap_lines=True)
        with st.popover(tr("Copy link"), icon=":material/link:"):
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
