"""The one server of this process: made from the environment at the first visit, with its share of processors."""

from __future__ import annotations

import atexit
import os

import streamlit as st
import torch
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

from bra import opening
from dashboard.runtime.config import Limits, own_modules
from dashboard.runtime.processors import threads
from dashboard.runtime.server import Server


@st.cache_resource(show_spinner=False)
def server() -> Server:
    """What all visitors share; raises BRAError for a setting of this server that cannot be."""
    limits = Limits.from_environment(os.environ, st.get_option("server.maxUploadSize"))
    _import_own_modules(own_modules(os.environ, st.get_option("server.address") or ""))
    made = Server.of(limits, _share_processors)
    made.uploads.count_incoming(st.get_option("server.maxUploadSize"))
    files = runtime.get_instance().uploaded_file_mgr if runtime.exists() else None
    if isinstance(files, MemoryUploadedFileManager):
        made.uploads.guard(files, runtime.get_instance().is_active_session)
    atexit.register(made.queue.close)    # a process that reads a checkpoint ends with the server
    return made


def _import_own_modules(path: str) -> None:
    """Let rows of model files name the classes of a file on this computer, if one was asked for."""
    if path:
        opening.yolo()      # says what is missing
        from bra.yolo.plugins import import_modules

        import_modules(path)


def limits() -> Limits:
    """What this server gives to all its visitors."""
    return server().limits


def _share_processors(working: int) -> None:
    """Called in a working thread: all processors for one job, and fewer for each of several."""
    torch.set_num_threads(threads(working, os.environ))
