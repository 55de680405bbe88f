"""The only file that caches. Keys are digests of bytes and frozen settings; what is cached is shared and read-only."""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from threading import BoundedSemaphore

import streamlit as st

from bra import opening
from bra.compare import Compared, LayerInput, Setting, compare, layer_inputs
from bra.errors import BRAError
from bra.models.card import ModelCard, cards
from bra.models.catalog import ModelSettings
from bra.models.opened import Answer, Change, Look, OpenModel
from bra.models.resumed import KeptLooks, look_on
from bra.photo import Photo
from bra.probes import ProbeRow, probe
from bra.sweep_table import Summary, SweepTable, read_table, summaries
from bra.tracing import LayerTrace, ModelTrace
from bra.viewer.pack import PICTURE_SIDE, Caption, Place, stage_message
from dashboard.state import Selection, Upload

opening.stay_offline()
SAMPLES = Path(__file__).parents[1] / "sample_images"
KEPT_BYTES = 2**28
"""256 MiB of all visitors together: about 40 MiB for a square picture of 640 px in the smallest YOLO."""


@st.cache_resource(show_spinner="Starting …")
def warm_up() -> None:
    """Load torch's kernels once and take everything loaded so far out of the garbage collector's way.

    Streamlit collects garbage after every rerun; with torch loaded that alone takes over 100 ms.
    """
    first = Selection()
    opened(first.settings)
    look(first.settings, sample(first.picture))
    gc.collect()
    gc.freeze()


@st.cache_resource(show_spinner=False)
def slots() -> BoundedSemaphore:
    """As many places as there are processors: heavy work takes one, so that no visitor starves the others."""
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


def opened(settings: ModelSettings, file: Upload | None = None) -> OpenModel:
    """The model that settings name, or the one in the visitor's own file.

    Raises:
        BRAError: it cannot be opened; one sentence with the cure.
    """
    if settings.entry.family != "own":
        return _opened(settings.opens, "", None)
    if file is None:
        raise BRAError("a model of your own needs its file: choose one in the side bar.")
    return _opened(settings.opens, file_key(settings, file), file)


def file_key(settings: ModelSettings, file: Upload | None) -> str:
    """What tells one visitor's own model from another's in every key; "" for a model of the catalog.

    The file's name is part of it: it says the scale, and stands on its visitor's pages alone.
    """
    return f"{file.digest} {file.name}" if file is not None and settings.entry.family == "own" else ""


@st.cache_resource(max_entries=6, show_spinner="Opening the model …")
def _opened(settings: ModelSettings, file: str, _file: Upload | None) -> OpenModel:
    with slots():
        return opening.open_model(settings) if _file is None else opening.open_file(_file.data, _file.name)


def look(settings: ModelSettings, photo: Photo, layer: str = "", file: Upload | None = None) -> Look:
    """The model's forward on the picture; `layer` is the one whose windows the settings change.

    Raises:
        BRAError: as `opened`, or the picture or the change does not suit the model.
    """
    model = opened(settings, file)
    return _look(settings.opens, file_key(settings, file), settings.side, settings.change_of(layer), photo.digest,
                 model, photo)


@st.cache_resource(max_entries=16, show_spinner="Running the model …")
def _look(settings: ModelSettings, file: str, side: int, change: Change | None, digest: str, _model: OpenModel,
          _photo: Photo) -> Look:
    key = (settings, file, side, digest)
    with slots():
        found, kept = look_on(_model, _photo, side, change, _kept_looks().get(key))
    _kept_looks().put(key, kept)
    # The raw output of a detector holds its maps too, many times what its layers' traces take.
    return Look(ModelTrace(None, found.trace.layers), found.answer)


@st.cache_resource(show_spinner=False)
def _kept_looks() -> KeptLooks:
    """What the last pictures' forwards left, so that other windows in one layer run only what follows it."""
    return KeptLooks(KEPT_BYTES)


@st.cache_resource(max_entries=1, show_spinner=False)
def model_cards() -> dict[str, ModelCard]:
    """The cards of the shipped models, by name."""
    return cards()


def stage_bytes(view: Selection, photo: Photo, layer: LayerTrace, answer: Answer, caption: Caption, focus: Place,
                pins: Mapping[str, Place], show: tuple[str, ...], file: Upload | None = None) -> bytes:
    """The message of the stage."""
    return _stage(view.settings, file_key(view.settings, file), photo.digest, layer.name, caption, focus,
                  tuple(pins.items()), show, photo, layer, answer)


@st.cache_resource(max_entries=32, show_spinner=False)
def _stage(settings: ModelSettings, file: str, digest: str, name: str, caption: Caption, focus: Place,
           pins: tuple[tuple[str, Place], ...], show: tuple[str, ...], _photo: Photo, _layer: LayerTrace,
           _answer: Answer) -> bytes:
    return stage_message(_photo, _layer, caption, focus, dict(pins), show, encoded(_photo, PICTURE_SIDE),
                         _answer.detections)


def encoded(photo: Photo, longest: int) -> bytes:
    """The picture as WebP, its longer side at most `longest` pixels."""
    return _encoded(photo.digest, longest, photo)


@st.cache_resource(max_entries=96, show_spinner=False)
def _encoded(digest: str, longest: int, _photo: Photo) -> bytes:
    return _photo.encoded(longest)


def given(settings: ModelSettings, photo: Photo, layer: str, file: Upload | None = None) -> LayerInput:
    """What a layer of the model was given on the picture; the first routed one where `layer` is not routed.

    Raises:
        BRAError: as `opened`, or the model has no routed layer.
    """
    model = opened(settings, file)
    found = _given(settings.opens, file_key(settings, file), settings.side, photo.digest, model, photo)
    return found[layer] if layer in found else next(iter(found.values()))


@st.cache_resource(max_entries=8, show_spinner="Running the model …")
def _given(settings: ModelSettings, file: str, side: int, digest: str, _model: OpenModel,
           _photo: Photo) -> Mapping[str, LayerInput]:
    with slots():
        return layer_inputs(_model, _photo, side)


def compared(settings: ModelSettings, photo: Photo, one: LayerInput, windows: tuple[Setting, ...], rounds: int,
             file: Upload | None = None) -> Compared:
    """Settings of one layer side by side; `rounds` forwards of each are timed."""
    return _compared(settings.opens, file_key(settings, file), settings.side, photo.digest, one.name, windows, rounds,
                     one)


@st.cache_resource(max_entries=8, show_spinner="Comparing …")
def _compared(settings: ModelSettings, file: str, side: int, digest: str, layer: str, windows: tuple[Setting, ...],
              rounds: int, _one: LayerInput) -> Compared:
    with slots():
        return compare(_one, windows, rounds)


def probed(settings: ModelSettings, photo: Photo, file: Upload | None = None) -> tuple[ProbeRow, ...]:
    """What of each layer's routing survives the probes."""
    return _probed(settings.opens, file_key(settings, file), settings.side, photo.digest, opened(settings, file), photo)


@st.cache_resource(max_entries=8, show_spinner="Changing the picture and looking again …")
def _probed(settings: ModelSettings, file: str, side: int, digest: str, _model: OpenModel,
            _photo: Photo) -> tuple[ProbeRow, ...]:
    with slots():
        return probe(_model, _photo, side)


def sweep_table(file: Upload) -> tuple[SweepTable, tuple[Summary, ...]]:
    """A sweep's table that the visitor brought, and its summaries; raises BRAError for any other file."""
    return _sweep_table(file.digest, file.data)


@st.cache_resource(max_entries=2, show_spinner="Reading the table …")
def _sweep_table(digest: str, _data: bytes) -> tuple[SweepTable, tuple[Summary, ...]]:
    table = read_table(_data)
    return table, summaries(table.rows)
