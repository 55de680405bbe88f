"""The one office of this server: its limits, its line and its shelf, and which lane a piece of work goes to."""

from __future__ import annotations

import atexit
import os
from typing import Final

import streamlit as st
import torch
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

from bra.models.base import OpenModel
from bra.models.catalog import DIM, ModelSettings
from bra.photo import declared_pixels
from dashboard.runtime.config import Limits, threads
from dashboard.runtime.wait import HEAVY, LARGE, QUICK, Server

MANY: Final = 15_000_000
"""Parameters above which running a model is heavy work: a second or more on one processor."""
FAR: Final = 2_000_000_000
"""Multiply-adds of attention above which that of patches is."""

WIDE: Final = 4_000_000
"""Pixels above which pictures are read one at a time: up to 15 bytes each for a moment, in a TIFF of floats."""


@st.cache_resource(show_spinner=False)
def server() -> Server:
    """Where all work is done; raises BRAError for a setting of this server that cannot be."""
    limits = Limits.from_environment(os.environ, st.get_option("server.maxUploadSize"))
    made = Server.of(limits, _share_processors)
    made.uploads.count_incoming(st.get_option("server.maxUploadSize"))
    files = runtime.get_instance().uploaded_file_mgr if runtime.exists() else None
    if isinstance(files, MemoryUploadedFileManager):
        made.uploads.guard(files, runtime.get_instance().is_active_session)
    atexit.register(made.line.close)    # a process that reads a checkpoint ends with the server
    return made


def limits() -> Limits:
    """What this server gives to all its visitors."""
    return server().limits


def _share_processors(working: int) -> None:
    """Called in a working thread: all processors for one piece of work, and fewer for each of several."""
    torch.set_num_threads(threads(working, os.environ))


def picture_priority(digest: str, data: bytes) -> str:
    """Where a picture is read; a file that is refused for its size is not looked into."""
    return LARGE if len(data) <= limits().picture_mb * 2**20 and declared_pixels(data) > WIDE else QUICK


def opening_priority(settings: ModelSettings, *rest: object) -> str:
    """Where a model is opened: our own small ones at once, all else in its turn."""
    return QUICK if settings.entry.card or settings.entry.family == "patches" else HEAVY


def running_priority(settings: ModelSettings, file: str, side: int, *rest: object) -> str:
    """Where a model is run: one of `rest` is the model."""
    model = next(one for one in rest if isinstance(one, OpenModel))
    if settings.entry.family == "own":      # a stranger's model may take long however few its parameters are
        return HEAVY
    if settings.entry.family == "patches":
        pairs = (side / settings.stride) ** 4 * settings.topk / settings.n_win**2
        return HEAVY if 4 * DIM * pairs > FAR else QUICK
    return HEAVY if sum(weights.numel() for weights in model.module.parameters()) > MANY else QUICK
