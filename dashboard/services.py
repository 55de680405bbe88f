"""The only file that caches. Keys are digests of bytes and frozen settings; what is cached is shared and read-only."""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from threading import BoundedSemaphore

import streamlit as st

from bra.models import catalog
from bra.models.catalog import ModelSettings
from bra.photo import Photo
from bra.tracing import LayerTrace, ModelTrace
from bra.viewer.pack import PICTURE_SIDE, Caption, Place, stage_message

SAMPLES = Path(__file__).parents[1] / "sample_images"


@st.cache_resource(show_spinner="Starting …")
def warm_up() -> None:
    """Load torch's kernels once and take everything loaded so far out of the garbage collector's way.

    Streamlit collects garbage after every rerun; with torch loaded that alone takes over 100 ms.
    """
    trace(ModelSettings(), sample("animal"))
    gc.collect()
    gc.freeze()


@st.cache_resource(show_spinner=False)
def _slots() -> BoundedSemaphore:
    return BoundedSemaphore(os.cpu_count() or 1)


@st.cache_resource(max_entries=16, show_spinner=False)
def sample(key: str) -> Photo:
    """A picture of the gallery."""
    return photo_of((SAMPLES / f"{key}.jpg").read_bytes())


def photo_of(data: bytes, digest: str = "") -> Photo:
    """Bytes, and their SHA-256 if it is known -> Photo; raises PhotoError for bytes that are not a picture."""
    return _photo(digest or hashlib.sha256(data).hexdigest(), data)


@st.cache_resource(max_entries=32, show_spinner="Reading the picture …")
def _photo(digest: str, _data: bytes) -> Photo:
    return Photo.from_bytes(_data)


def trace(settings: ModelSettings, photo: Photo) -> ModelTrace:
    """The model's forward on the picture."""
    return _trace(settings, photo.digest, photo)


@st.cache_resource(max_entries=16, show_spinner="Running the model …")
def _trace(settings: ModelSettings, digest: str, _photo: Photo) -> ModelTrace:
    with _slots():
        return catalog.look(settings, _photo)


def stage_bytes(settings: ModelSettings, photo: Photo, layer: LayerTrace, caption: Caption, focus: Place,
                pins: Mapping[str, Place], show: tuple[str, ...]) -> bytes:
    """The message of the stage."""
    return _stage(settings, photo.digest, caption, focus, tuple(pins.items()), show, photo, layer)


@st.cache_resource(max_entries=32, show_spinner=False)
def _stage(settings: ModelSettings, digest: str, caption: Caption, focus: Place,
           pins: tuple[tuple[str, Place], ...], show: tuple[str, ...], _photo: Photo, _layer: LayerTrace) -> bytes:
    return stage_message(_photo, _layer, caption, focus, dict(pins), show, encoded(_photo, PICTURE_SIDE))


def encoded(photo: Photo, longest: int) -> bytes:
    """The picture as WebP, its longer side at most `longest` pixels."""
    return _encoded(photo.digest, longest, photo)


@st.cache_resource(max_entries=96, show_spinner=False)
def _encoded(digest: str, longest: int, _photo: Photo) -> bytes:
    return _photo.encoded(longest)
