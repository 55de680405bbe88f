"""The only file that caches. Keys are digests of bytes and frozen settings; what is cached is shared and read-only."""

from __future__ import annotations

import ctypes
import gc
import hashlib
from collections.abc import Hashable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import streamlit as st

from bra import opening
from bra.errors import BRAError
from bra.experiments.compare import Compared, LayerInput, Pair, Setting, compare, layer_inputs
from bra.experiments.compare import versus as set_beside
from bra.experiments.probes import ProbeRow, probe
from bra.experiments.sweep_table import Summary, SweepTable, read_table, summaries
from bra.messages import Language, message
from bra.models.base import Change, ModelRun, OpenModel
from bra.models.card import ModelCard, cards
from bra.models.catalog import ModelSettings
from bra.models.rerun import run_from
from bra.photo import Photo, PhotoLimits
from bra.reports.tables import sweep_html
from bra.tracing import ModelTrace
from bra.viewer.pack import PICTURE_SIDE, picture_message
from dashboard.i18n import LazyText, tr_noop
from dashboard.runtime.cache import ResultCache
from dashboard.runtime.jobs import Progress
from dashboard.runtime.server import limits, opening_priority, picture_priority, running_priority, server
from dashboard.runtime.wait import HEAVY, worked
from dashboard.state.session import Selection, Upload

opening.stay_offline()
SAMPLES = Path(__file__).parents[2] / "sample_images"
M_ARENA_MAX = -8
"""Each rerun is a thread of its own: with an arena for each, glibc keeps much of what is free."""


@st.cache_resource(show_spinner=LazyText("Starting …"))
def warm_up() -> None:
    """Load torch's kernels once and take everything loaded so far out of the garbage collector's way.

    Streamlit collects garbage after every rerun; with torch loaded that alone takes over 100 ms.
    """
    server()
    with suppress(OSError, AttributeError):     # glibc alone knows it
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
    first = Selection()
    opening.look(first.settings, sample(first.picture))
    gc.collect()
    gc.freeze()


@st.cache_resource(max_entries=16, show_spinner=False)
def sample(key: str) -> Photo:
    """A picture of the gallery."""
    return Photo.from_bytes((SAMPLES / f"{key}.jpg").read_bytes())


def photo_of(data: bytes, digest: str = "") -> Photo:
    """Bytes, and their SHA-256 if it is known -> Photo; raises PhotoError for bytes that are not a picture."""
    return _photo(digest or hashlib.sha256(data).hexdigest(), data)


@worked(server, tr_noop("Reading the picture …"), picture_priority)
def _photo(digest: str, _data: bytes) -> Photo:
    most = limits()
    return Photo.from_bytes(_data, PhotoLimits(most.picture_mb * 2**20, most.megapixels * 1_000_000))


def opened(settings: ModelSettings, file: Upload | None = None) -> OpenModel:
    """The model that settings name, or the one in the visitor's own file.

    Raises:
        BRAError: it cannot be opened; one sentence with the cure.
    """
    if settings.entry.family != "own":
        return _opened(settings.opens, "", None)
    if file is None:
        raise BRAError(message("a model of your own needs its file: choose one in the side bar."))
    return _opened(settings.opens, file_key(settings, file), file)


def file_key(settings: ModelSettings, file: Upload | None) -> str:
    """What tells one visitor's own model from another's in every key; "" for a model of the catalog.

    The file's name is part of it: it says the scale, and stands on its visitor's pages alone.
    """
    return f"{file.digest} {file.name}" if file is not None and settings.entry.family == "own" else ""


@worked(server, tr_noop("Opening the model …"), opening_priority)
def _opened(settings: ModelSettings, file: str, _file: Upload | None, _tell: Progress) -> OpenModel:
    if _file is None:
        return opening.open_model(settings)
    return opening.open_file(_file.data, _file.name, _tell, settings.file)


def look(settings: ModelSettings, photo: Photo, layer: str = "", file: Upload | None = None) -> ModelRun:
    """The model's forward on the picture; `layer` is the one whose windows the settings change.

    Raises:
        BRAError: as `opened`, or the picture or the change does not suit the model.
    """
    model = opened(settings, file)
    return _look(settings.opens, file_key(settings, file), settings.side, settings.change_of(layer), photo.digest,
                 model, photo, server().shelf)


@worked(server, tr_noop("Running the model …"), running_priority)
def _look(settings: ModelSettings, file: str, side: int, change: Change | None, digest: str, _model: OpenModel,
          _photo: Photo, _shelf: ResultCache) -> ModelRun:
    key = ("kept", settings, file, side, digest)
    before = _shelf.get(key)
    found, kept = run_from(_model, _photo, side, change, None if before is None else before.value)
    if kept is not None:
        _shelf.put(key, kept)       # so that other windows in one layer run only what follows it
    # The raw output of a detector holds its maps too, many times what its layers' traces take.
    return ModelRun(ModelTrace(None, found.trace.layers), found.answer)


@st.cache_resource(max_entries=1, show_spinner=False)
def model_cards() -> dict[str, ModelCard]:
    """The cards of the shipped models, by name."""
    return cards()


def picture_bytes(photo: Photo) -> bytes:
    """The message with the picture of the stage and of the tiles."""
    return picture_message(photo, encoded(photo, PICTURE_SIDE))


def encoded(photo: Photo, longest: int) -> bytes:
    """The picture as WebP, its longer side at most `longest` pixels."""
    return _encoded(photo.digest, longest, photo)


@st.cache_resource(max_entries=96, show_spinner=False)
def _encoded(digest: str, longest: int, _photo: Photo) -> bytes:
    return _photo.encoded(longest)


def given(settings: ModelSettings, photo: Photo, layer: str, file: Upload | None = None) -> LayerInput:
    """What a layer of the model was given on the picture; the one to look at first where `layer` is not routed.

    Raises:
        BRAError: as `opened`, or the model has no routed layer.
    """
    model = opened(settings, file)
    found = _given(settings.opens, file_key(settings, file), settings.side, photo.digest, model, photo)
    first = found.get(settings.entry.layer, next(iter(found.values())))
    return found.get(layer, first)


@worked(server, tr_noop("Running the model …"), running_priority)
def _given(settings: ModelSettings, file: str, side: int, digest: str, _model: OpenModel,
           _photo: Photo) -> Mapping[str, LayerInput]:
    return layer_inputs(_model, _photo, side)


def compared(settings: ModelSettings, photo: Photo, one: LayerInput, windows: tuple[Setting, ...], rounds: int,
             file: Upload | None = None) -> Compared:
    """Settings of one layer side by side; `rounds` forwards of each are timed."""
    return _compared(settings.opens, file_key(settings, file), settings.side, photo.digest, one.name, windows, rounds,
                     one)


@worked(server, tr_noop("Comparing …"), HEAVY)
def _compared(settings: ModelSettings, file: str, side: int, digest: str, layer: str, windows: tuple[Setting, ...],
              rounds: int, _one: LayerInput, _tell: Progress) -> Compared:
    return compare(_one, windows, rounds, _tell)


Side = tuple[ModelSettings, LayerInput, Setting, Upload | None]
"""A model, one of its layers, the windows that it gets, and the visitor's own file."""


def versus(photo: Photo, a: Side, b: Side) -> Pair:
    """One layer against another on a picture."""
    one, two = (compared(settings, photo, given, (windows,), 0, file) for settings, given, windows, file in (a, b))
    sides = tuple((settings.opens, file_key(settings, file), settings.side, given.name, windows)
                  for settings, given, windows, file in (a, b))
    return _versus(photo.digest, sides, one, two)


@worked(server, tr_noop("Comparing …"), HEAVY)
def _versus(digest: str, sides: Hashable, _a: Compared, _b: Compared) -> Pair:
    return set_beside(_a, _b)


def probed(settings: ModelSettings, photo: Photo, file: Upload | None = None) -> tuple[ProbeRow, ...]:
    """What of each layer's routing survives the probes."""
    return _probed(settings.opens, file_key(settings, file), settings.side, photo.digest, opened(settings, file), photo)


@worked(server, tr_noop("Changing the picture and looking again …"), HEAVY)
def _probed(settings: ModelSettings, file: str, side: int, digest: str, _model: OpenModel, _photo: Photo,
            _tell: Progress) -> tuple[ProbeRow, ...]:
    return probe(_model, _photo, side, progress=_tell)


def sweep_table(file: Upload) -> tuple[SweepTable, tuple[Summary, ...]]:
    """A sweep's table that the visitor brought, and its summaries; raises BRAError for any other file."""
    return _sweep_table(file.digest, file.data)


@worked(server, tr_noop("Reading the table …"), HEAVY)
def _sweep_table(digest: str, _data: bytes, _tell: Progress) -> tuple[SweepTable, tuple[Summary, ...]]:
    still = partial(_tell, 0, 0)
    table = read_table(_data, still)
    return table, summaries(table.rows, still)


def sweep_file(file: Upload, language: Language) -> str:
    """That table as one HTML file."""
    return _sweep_file(file.digest, language.code, sweep_table(file)[0], language)


@worked(server, tr_noop("Writing the file …"), HEAVY)
def _sweep_file(digest: str, language: str, _table: SweepTable, _language: Language) -> str:
    return sweep_html(_table, language=_language)
