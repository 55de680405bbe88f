"""Pictures, models and runs of models on pictures, each computed once for all visitors; keys are frozen records."""

from __future__ import annotations

import ctypes
import gc
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import streamlit as st

from bra import bra_record, opening
from bra.errors import BRAError
from bra.experiments.compare import AttendingLayer, GivenLayer, LayerInput, layer_inputs, recorded_layers
from bra.messages import message
from bra.models.base import Change, ModelRun, OpenModel
from bra.models.card import ModelCard, cards
from bra.models.catalog import DIM, ModelSettings
from bra.models.recorded import OpenRecording
from bra.models.rerun import run_from
from bra.photo import Photo, PhotoLimits, declared_pixels
from bra.tracing import ModelTrace
from bra.viewer.pack import PICTURE_SIDE, picture_message
from dashboard.i18n import tr_noop
from dashboard.runtime.jobs import Progress
from dashboard.runtime.server import HEAVY, LARGE, QUICK
from dashboard.runtime.wait import run_cached
from dashboard.samples import GALLERY
from dashboard.services.server import limits, server
from dashboard.state.upload import Upload
from dashboard.state.view import Selection

if TYPE_CHECKING:       # Ultralytics takes seconds to import
    from bra.yolo.mend import Mended

opening.stay_offline()
SAMPLES: Final = Path(__file__).parents[2] / "sample_images"
M_ARENA_MAX: Final = -8
"""Each rerun is a thread of its own: with an arena for each, glibc keeps much of what is free."""
MANY: Final = 15_000_000
"""Parameters above which running a model is heavy work: a second or more on one processor."""
FAR: Final = 2_000_000_000
"""Multiply-adds of attention above which that of patches is."""
WIDE: Final = 4_000_000
"""Pixels above which pictures are read one at a time: up to 15 bytes each for a moment, in a TIFF of floats."""


def warm_up() -> None:
    """Compute the view that a visit begins with, and take everything loaded so far out of the garbage collector's way.

    Streamlit collects garbage after every rerun; with torch loaded that alone takes over 100 ms.
    """
    server()
    with suppress(OSError, AttributeError):     # glibc alone knows it
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
    first = Selection()
    model_run(load_model(first.settings), sample(first.picture))
    gc.collect()
    gc.freeze()


# Pictures. ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class PhotoKey:
    """A picture by the SHA-256 of its file."""

    digest: str


@st.cache_resource(max_entries=16, show_spinner=False)
def sample(key: str) -> Photo:
    """A picture of the gallery."""
    return Photo.from_bytes((SAMPLES / f"{key}.jpg").read_bytes())


def photo_of(data: bytes, digest: str = "") -> Photo:
    """Bytes, and their SHA-256 if it is known -> Photo; raises PhotoError for bytes that are not a picture."""
    most = limits()
    bounds = PhotoLimits(most.picture_mb * 2**20, most.megapixels * 1_000_000)
    return run_cached(server(), PhotoKey(digest or hashlib.sha256(data).hexdigest()),
                      lambda _: Photo.from_bytes(data, bounds), tr_noop("Reading the picture …"),
                      picture_priority(data))


def picture_priority(data: bytes) -> str:
    """Priority of reading a picture; a file that is refused for its size is not looked into."""
    return LARGE if len(data) <= limits().picture_mb * 2**20 and declared_pixels(data) > WIDE else QUICK


def picture_bytes(photo: Photo) -> bytes:
    """The message with the picture of the stage."""
    return picture_message(photo, encoded(photo, PICTURE_SIDE))


def encoded(photo: Photo, longest: int) -> bytes:
    """The picture as WebP, its longer side at most `longest` pixels."""
    return _encoded(photo.digest, longest, photo)


@st.cache_resource(max_entries=96, show_spinner=False)
def _encoded(digest: str, longest: int, _photo: Photo) -> bytes:
    return _photo.encoded(longest)


@st.cache_resource(max_entries=1, show_spinner=False)
def gallery(longest: int) -> Mapping[str, bytes]:
    """Every picture of the gallery by its key, as `encoded` makes it."""
    return {key: encoded(sample(key), longest) for key in GALLERY}


# Models. ------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class ModelKey:
    """What tells one model from another.

    Attributes:
        settings: `ModelSettings.opens`: what decides which model is opened.
        file: digest and name of a visitor's own file; "" for a model of the catalog. The name is part of it: it says
            the scale, and stands on its visitor's pages alone.
    """

    settings: ModelSettings
    file: str


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """An open model and what it was opened from; for one run of a page, which may not keep it.

    Attributes:
        settings: the model's settings, those of its windows and its picture included.
        upload: the visitor's own model file, if it is one.
        model: the open model, shared and read-only.
        key: what tells it from other models in every key.
    """

    settings: ModelSettings
    upload: Upload | None
    model: OpenModel
    key: ModelKey


def load_model(settings: ModelSettings, upload: Upload | None = None) -> LoadedModel:
    """The model that settings name, or the one in the visitor's own file.

    Args:
        settings: the model.
        upload: the visitor's model file; of no account where settings name a model of the catalog.

    Raises:
        BRAError: it cannot be opened; one sentence with the cure.
    """
    if settings.entry.family != "own":
        upload = None
    elif upload is None:
        raise BRAError(message("a model of your own needs its file: choose one in the side bar."))

    def work(progress: Progress) -> OpenModel:
        if upload is None:
            return opening.open_model(settings.opens)
        return opening.open_file(upload.data, upload.name, progress, settings.file)

    key = ModelKey(settings.opens, "" if upload is None else f"{upload.digest} {upload.name}")
    model = run_cached(server(), key, work, tr_noop("Opening the model …"), opening_priority(settings))
    return LoadedModel(settings, upload, model, key)


@st.cache_resource(max_entries=1, show_spinner=False)
def recorder_file() -> bytes:
    """The one-file recorder, as people drop it beside their own code."""
    return Path(bra_record.__file__).read_bytes()


def mended_files(file: Upload) -> tuple[Mended, ...]:
    """A model file mended, in the ways that its author may have meant; none where nothing is known to be mended."""
    if not file.name.lower().endswith((".yaml", ".yml")):
        return ()
    try:
        opening.yolo()
    except BRAError:        # the page has said that Ultralytics is missing
        return ()
    from bra.yolo.mend import without_channels

    return without_channels(file.data)


def opening_priority(settings: ModelSettings) -> str:
    """Priority of opening a model: our own small ones are quick."""
    return QUICK if settings.entry.card or settings.entry.family == "patches" else HEAVY


@st.cache_resource(max_entries=1, show_spinner=False)
def model_cards() -> dict[str, ModelCard]:
    """The cards of the shipped models, by name."""
    return cards()


# Runs. --------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class RunKey:
    """A model's forward on a picture.

    Attributes:
        model: the model.
        side: longer side of the picture in pixels when the model reads it.
        change: other windows in one layer, if any.
        photo: digest of the picture.
    """

    model: ModelKey
    side: int
    change: Change | None
    photo: str


@dataclass(frozen=True, slots=True)
class PartialRunKey:
    """What of a forward is kept for another one on the same picture, with other windows in the same layer."""

    model: ModelKey
    side: int
    photo: str


@dataclass(frozen=True, slots=True)
class LayerInputsKey:
    """What each layer of a model was given on a picture."""

    model: ModelKey
    side: int
    photo: str


def run_key(loaded: LoadedModel, photo: Photo, layer: str = "") -> RunKey:
    """Key of `model_run`; arguments as there."""
    return RunKey(loaded.key, loaded.settings.side, loaded.settings.change_of(layer), photo.digest)


def model_run(loaded: LoadedModel, photo: Photo, layer: str = "") -> ModelRun:
    """The model's forward on the picture; `layer` is the one whose windows the settings change.

    Raises:
        BRAError: the picture or the change does not suit the model.
    """
    key = run_key(loaded, photo, layer)
    return run_cached(server(), key, lambda _: changed_run(loaded, photo, key.change), tr_noop("Running the model …"),
                      running_priority(loaded))


def changed_run(loaded: LoadedModel, photo: Photo, change: Change | None) -> ModelRun:
    """The model's forward with a change of one layer, here and now: of what lies before the layer, nothing runs that
    an earlier one kept.

    Raises:
        BRAError: the picture or the change does not suit the model.
    """
    cache, side = server().cache, loaded.settings.side
    key = PartialRunKey(loaded.key, side, photo.digest)
    before = cache.get(key)
    found, kept = run_from(loaded.model, photo, side, change, None if before is None else before.value)
    if kept is not None:
        cache.put(key, kept)
    # The raw output of a detector holds its maps too, many times what its layers' traces take.
    return ModelRun(ModelTrace(None, found.trace.layers), found.answer)


def running_priority(loaded: LoadedModel) -> str:
    """Priority of running a model on a picture."""
    settings = loaded.settings
    if settings.entry.family == "own":      # a stranger's model may take long however few its parameters are
        return HEAVY
    if settings.entry.family == "patches":
        pairs = (settings.side / settings.stride) ** 4 * settings.topk / settings.n_win**2
        return HEAVY if 4 * DIM * pairs > FAR else QUICK
    return HEAVY if sum(weights.numel() for weights in loaded.model.module.parameters()) > MANY else QUICK


def given_layer(loaded: LoadedModel, photo: Photo, layer: str) -> GivenLayer:
    """As `layer_input`, or a layer of a recording, which is compared without its input, or one that does not route.

    Raises:
        BRAError: as there, or the picture is not the recording's.
    """
    if not layer and loaded.model.only_attends:
        layer = loaded.model.attending[0]
    if layer in loaded.model.attending:
        return AttendingLayer(layer, model_run(loaded, photo).trace.layers[layer])
    if not isinstance(loaded.model, OpenRecording):
        return layer_input(loaded, photo, layer)
    found = recorded_layers(loaded.model, photo)
    return found.get(layer, next(iter(found.values())))


def layer_input(loaded: LoadedModel, photo: Photo, layer: str) -> LayerInput:
    """What a layer of the model was given on the picture; the one to look at first where `layer` is not routed.

    Raises:
        BRAError: the picture does not suit the model, or it has no routed layer.
    """
    def work(_: Progress) -> Mapping[str, LayerInput]:
        return layer_inputs(loaded.model, photo, loaded.settings.side)

    found = run_cached(server(), LayerInputsKey(loaded.key, loaded.settings.side, photo.digest), work,
                       tr_noop("Running the model …"), running_priority(loaded))
    first = found.get(loaded.settings.entry.layer, next(iter(found.values())))
    return found.get(layer, first)
