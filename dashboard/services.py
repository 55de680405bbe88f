"""The only file that caches. Keys are digests of bytes and frozen settings; what is cached is shared and read-only."""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import streamlit as st
import torch
from starlette.formparsers import MultiPartParser

from bra import opening
from bra.compare import Compared, LayerInput, Setting, compare, layer_inputs
from bra.errors import BRAError
from bra.models.card import ModelCard, cards
from bra.models.catalog import DIM, ModelSettings
from bra.models.opened import Answer, Change, Look, OpenModel
from bra.photo import Photo, PhotoLimits
from bra.probes import ProbeRow, probe
from bra.sweep_table import Summary, SweepTable, read_table, summaries
from bra.tracing import LayerTrace, ModelTrace
from bra.viewer.pack import PICTURE_SIDE, Caption, Place, stage_message
from bra.wording import said
from dashboard.limits import Limits
from dashboard.line import Tell
from dashboard.state import Selection, Upload
from dashboard.waiting import HEAVY, QUICK, Office, worked
from dashboard.words import later, mark

opening.stay_offline()
SAMPLES = Path(__file__).parents[1] / "sample_images"
LARGE = 15_000_000
"""Parameters above which running a model is heavy work: a second or more on one processor."""
FAR = 5_000_000_000
"""Multiply-adds of attention above which that of patches is."""


@st.cache_resource(show_spinner=False)
def office() -> Office:
    """Where all work is done; raises BRAError for a setting of this server that cannot be."""
    limits = Limits.from_environment(os.environ, st.get_option("server.maxUploadSize"))
    # An upload of more than a megabyte would go through a file on the disk, which may be full; it is promised not to.
    MultiPartParser.spool_max_size = (limits.upload_mb + 1) * 2**20
    return Office.of(limits, _share_processors)


def limits() -> Limits:
    """What this server gives to all its visitors."""
    return office().limits


def _share_processors(working: int) -> None:
    """Called in a working thread: all processors for one piece of work, and fewer for each of several."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // working))


@st.cache_resource(show_spinner=later("Starting …"))
def warm_up() -> None:
    """Load torch's kernels once and take everything loaded so far out of the garbage collector's way.

    Streamlit collects garbage after every rerun; with torch loaded that alone takes over 100 ms.
    """
    office()
    first = Selection()
    opening.look(first.settings, sample(first.picture))
    gc.collect()
    gc.freeze()


@st.cache_resource(max_entries=16, show_spinner=False)
def sample(key: str) -> Photo:
    """A picture of the gallery."""
    return photo_of((SAMPLES / f"{key}.jpg").read_bytes())


def photo_of(data: bytes, digest: str = "") -> Photo:
    """Bytes, and their SHA-256 if it is known -> Photo; raises PhotoError for bytes that are not a picture."""
    return _photo(digest or hashlib.sha256(data).hexdigest(), data)


@worked(office, mark("Reading the picture …"))
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
        raise BRAError(said("a model of your own needs its file: choose one in the side bar."))
    return _opened(settings.opens, file_key(settings, file), file)


def file_key(settings: ModelSettings, file: Upload | None) -> str:
    """What tells one visitor's own model from another's in every key; "" for a model of the catalog.

    The file's name is part of it: it says the scale, and stands on its visitor's pages alone.
    """
    return f"{file.digest} {file.name}" if file is not None and settings.entry.family == "own" else ""


def check_size(file: Upload) -> None:
    """Raises BRAError for a file that is larger than this server allows; the browser alone cannot be believed."""
    most = limits().upload_mb
    if len(file.data) > most * 2**20:
        raise BRAError(said("this file has {mb:.1f} MB, and this server takes {most} MB (ROUTESCOPE_UPLOAD_MB): save "
                            "a smaller one, a model without its optimizer or as half precision.",
                            mb=len(file.data) / 2**20, most=most))


def _opening_lane(settings: ModelSettings, file: str, _file: Upload | None) -> str:
    return QUICK if settings.entry.card or settings.entry.family == "patches" else HEAVY


@worked(office, mark("Opening the model …"), _opening_lane)
def _opened(settings: ModelSettings, file: str, _file: Upload | None, _tell: Tell) -> OpenModel:
    if _file is None:
        return opening.open_model(settings)
    check_size(_file)
    return opening.open_file(_file.data, _file.name, _tell)


def look(settings: ModelSettings, photo: Photo, layer: str = "", file: Upload | None = None) -> Look:
    """The model's forward on the picture; `layer` is the one whose windows the settings change.

    Raises:
        BRAError: as `opened`, or the picture or the change does not suit the model.
    """
    model = opened(settings, file)
    return _look(settings.opens, file_key(settings, file), settings.side, settings.change_of(layer), photo.digest,
                 model, photo)


def _running_lane(settings: ModelSettings, file: str, side: int, *rest: object) -> str:
    model = next(one for one in rest if isinstance(one, OpenModel))
    if settings.entry.family == "patches":
        pairs = (side / settings.stride) ** 4 * settings.topk / settings.n_win**2
        return HEAVY if 4 * DIM * pairs > FAR else QUICK
    return HEAVY if sum(weights.numel() for weights in model.module.parameters()) > LARGE else QUICK


@worked(office, mark("Running the model …"), _running_lane)
def _look(settings: ModelSettings, file: str, side: int, change: Change | None, digest: str, _model: OpenModel,
          _photo: Photo) -> Look:
    found = _model.look(_photo, side, change)
    # The raw output of a detector holds its maps too, many times what its layers' traces take.
    return Look(ModelTrace(None, found.trace.layers), found.answer)


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


@worked(office, mark("Running the model …"), _running_lane)
def _given(settings: ModelSettings, file: str, side: int, digest: str, _model: OpenModel,
           _photo: Photo) -> Mapping[str, LayerInput]:
    return layer_inputs(_model, _photo, side)


def compared(settings: ModelSettings, photo: Photo, one: LayerInput, windows: tuple[Setting, ...], rounds: int,
             file: Upload | None = None) -> Compared:
    """Settings of one layer side by side; `rounds` forwards of each are timed."""
    return _compared(settings.opens, file_key(settings, file), settings.side, photo.digest, one.name, windows, rounds,
                     one)


@worked(office, mark("Comparing …"), HEAVY)
def _compared(settings: ModelSettings, file: str, side: int, digest: str, layer: str, windows: tuple[Setting, ...],
              rounds: int, _one: LayerInput, _tell: Tell) -> Compared:
    return compare(_one, windows, rounds, _tell)


def probed(settings: ModelSettings, photo: Photo, file: Upload | None = None) -> tuple[ProbeRow, ...]:
    """What of each layer's routing survives the probes."""
    return _probed(settings.opens, file_key(settings, file), settings.side, photo.digest, opened(settings, file), photo)


@worked(office, mark("Changing the picture and looking again …"), HEAVY)
def _probed(settings: ModelSettings, file: str, side: int, digest: str, _model: OpenModel, _photo: Photo,
            _tell: Tell) -> tuple[ProbeRow, ...]:
    return probe(_model, _photo, side, progress=_tell)


def sweep_table(file: Upload) -> tuple[SweepTable, tuple[Summary, ...]]:
    """A sweep's table that the visitor brought, and its summaries; raises BRAError for any other file."""
    check_size(file)
    return _sweep_table(file.digest, file.data)


@worked(office, mark("Reading the table …"), HEAVY)
def _sweep_table(digest: str, _data: bytes) -> tuple[SweepTable, tuple[Summary, ...]]:
    table = read_table(_data)
    return table, summaries(table.rows)
