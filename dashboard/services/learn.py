"""What the lesson asks for: layers run again with one thing changed, cached like everything in `services`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from bra.experiments.compare import LayerInput
from bra.metrics import routing, summary
from bra.metrics.activations import LayerMaps, layer_maps, score_map
from bra.metrics.summary import LayerFidelity
from bra.models.catalog import ModelSettings
from bra.photo import Photo
from bra.teaching import experiments
from bra.teaching.example import FIRST, ExampleNumbers, Tokens, run_example
from bra.teaching.experiments import Leak, Reweighed, Voices
from bra.tracing import LayerTrace
from bra.viewer.pack import PICTURE_SIDE, Caption, Place, stage_message
from dashboard.i18n import tr_noop
from dashboard.runtime.server import server
from dashboard.runtime.wait import worked as cached_job
from dashboard.services import models as model_services
from dashboard.services.models import given, look
from dashboard.state.example_view import NUDGED, ExampleView
from dashboard.state.view import Selection

SIDE: Final = 320
TRAINED: Final = ModelSettings("flowers", side=SIDE)
MODELS: Final[Mapping[str, ModelSettings]] = {
    "trained": TRAINED, "untrained": replace(TRAINED, untrained=True),
    "likeness": ModelSettings("similarity", n_win=5, topk=4, side=SIDE)}
"""By the words of `lesson_view.WEIGHTS`."""


def layer_of(weights: str, photo: Photo, at: int) -> LayerTrace:
    """Number `at` of a model's routed layers on a picture, or its last one."""
    layers = [lt for lt in look(MODELS[weights], photo).trace.layers.values() if lt.routed]
    return layers[min(at, len(layers) - 1)]


def input_of(weights: str, photo: Photo, at: int) -> LayerInput:
    """What that layer was given."""
    return given(MODELS[weights], photo, layer_of(weights, photo, at).name)


def reweighed(photo: Photo, one: LayerInput, window: int, factor: int, soft: bool) -> Reweighed:
    """The layer of the trained model with its affinities times factor / 100."""
    return _reweighed(photo.digest, one.name, window, factor, soft, one)


@cached_job(server, tr_noop("Measuring …"))
def _reweighed(digest: str, layer: str, window: int, factor: int, soft: bool, _one: LayerInput) -> Reweighed:
    return experiments.reweighed(_one, window, factor / 100, soft)


def leak(photo: Photo, one: LayerInput, n_win: int, topk: int, masked: bool) -> tuple[LayerTrace, Leak]:
    """The layer of the trained model with other windows, and what padding takes there."""
    return _leak(photo.digest, one.name, n_win, topk, masked, one)


@cached_job(server, tr_noop("Measuring …"))
def _leak(digest: str, layer: str, n_win: int, topk: int, masked: bool, _one: LayerInput) -> tuple[LayerTrace, Leak]:
    return experiments.leak(_one, n_win, topk, masked)


def fidelity_of(weights: str, photo: Photo, at: int) -> tuple[LayerFidelity, float]:
    """What a layer's routing keeps, beside its controls, and the share of choices on the same few windows."""
    return _fidelity(weights, photo.digest, at, layer_of(weights, photo, at))


@cached_job(server, tr_noop("Measuring …"))
def _fidelity(weights: str, digest: str, at: int, _layer: LayerTrace) -> tuple[LayerFidelity, float]:
    return summary.report(_layer), routing.shared_choices(_layer)


def voices(photo: Photo, at: int) -> Voices:
    """Who speaks in the output of a layer of the trained model."""
    return _voices(photo.digest, at, layer_of("trained", photo, at))


@cached_job(server, tr_noop("Measuring …"))
def _voices(digest: str, at: int, _layer: LayerTrace) -> Voices:
    return experiments.voices(_layer)


# Numbers of the worked example, cached; what is cached is shared and read-only. -------------------------------------

@st.cache_resource(max_entries=64, show_spinner=False)
def worked(tokens: Tokens, topk: int) -> ExampleNumbers:
    """The example run on 16 tokens of two numbers."""
    return run_example(tokens, topk)


def handout_numbers() -> tuple[ExampleNumbers, ExampleNumbers]:
    """The numbers of the handout, and those after the change that its last question asks about."""
    return worked(FIRST, 1), worked(ExampleView().with_number(*NUDGED).tokens, 1)


PHOTO_MODEL: Final = replace(Selection().settings, n_win=ExampleView().n_win, topk=ExampleView().k)
PHOTO_LAYER: Final = "stages.1.0.attn"
"""A layer of which a window still holds dozens of tokens; as it was trained: n_win 5, topk 4."""


def photo_settings(n_win: int, topk: int) -> ModelSettings:
    """The model that the steps are shown on, with these windows in its layer."""
    trained = (n_win, topk) == (PHOTO_MODEL.n_win, PHOTO_MODEL.topk)
    return replace(PHOTO_MODEL, n_win=n_win, topk=topk, changed=not trained)


def photo_layer(n_win: int, topk: int, photo: Photo) -> LayerTrace:
    """What its layer did on a picture."""
    return model_services.look(photo_settings(n_win, topk), photo, PHOTO_LAYER).trace.layers[PHOTO_LAYER]


def photo_maps(n_win: int, topk: int, photo: Photo) -> LayerMaps:
    """Its maps, from keys to output."""
    return _photo_maps(n_win, topk, photo.digest, photo_layer(n_win, topk, photo))


@cached_job(server, tr_noop("Running the layer …"))
def _photo_maps(n_win: int, topk: int, digest: str, _layer: LayerTrace) -> LayerMaps:
    return layer_maps(_layer)


def photo_input(photo: Photo) -> NDArray[np.float32]:
    """(c, h, w): what the layer was given."""
    given: NDArray[np.float32] = model_services.given(PHOTO_MODEL, photo, PHOTO_LAYER).x[0].numpy()
    return given


def photo_scores(layer: LayerTrace, window: int, token: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(h, w) scores and attention of one token in the layer's first head; NaN where it cannot look."""
    scores = score_map(layer, window, token)[0]
    shares = layer.grid.crop(layer.attention_map(window, token)[0].numpy()).astype(np.float64)
    return scores, np.where(np.isnan(scores), np.nan, shares)


def photo_stage(layer: LayerTrace, photo: Photo, caption: Caption, focus: Place, tint: tuple[str, ...]) -> bytes:
    """The message of the stage."""
    return stage_message(photo, layer, caption, focus, {}, tint, model_services.encoded(photo, PICTURE_SIDE))
