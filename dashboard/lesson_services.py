"""What the lesson asks for: layers run again with one thing changed, cached like everything in `services`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from bra.experiments.compare import LayerInput
from bra.metrics import routing, summary
from bra.metrics.summary import LayerFidelity
from bra.models.catalog import ModelSettings
from bra.photo import Photo
from bra.teaching import experiments
from bra.teaching.experiments import Leak, Reweighed, Voices
from bra.tracing import LayerTrace
from dashboard.i18n import mark
from dashboard.runtime.wait import worked
from dashboard.services import given, look, office

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


@worked(office, mark("Measuring …"))
def _reweighed(digest: str, layer: str, window: int, factor: int, soft: bool, _one: LayerInput) -> Reweighed:
    return experiments.reweighed(_one, window, factor / 100, soft)


def leak(photo: Photo, one: LayerInput, n_win: int, topk: int, masked: bool) -> tuple[LayerTrace, Leak]:
    """The layer of the trained model with other windows, and what padding takes there."""
    return _leak(photo.digest, one.name, n_win, topk, masked, one)


@worked(office, mark("Measuring …"))
def _leak(digest: str, layer: str, n_win: int, topk: int, masked: bool, _one: LayerInput) -> tuple[LayerTrace, Leak]:
    return experiments.leak(_one, n_win, topk, masked)


def fidelity_of(weights: str, photo: Photo, at: int) -> tuple[LayerFidelity, float]:
    """What a layer's routing keeps, beside its controls, and the share of choices on the same few windows."""
    return _fidelity(weights, photo.digest, at, layer_of(weights, photo, at))


@worked(office, mark("Measuring …"))
def _fidelity(weights: str, digest: str, at: int, _layer: LayerTrace) -> tuple[LayerFidelity, float]:
    return summary.report(_layer), routing.shared_choices(_layer)


def voices(photo: Photo, at: int) -> Voices:
    """Who speaks in the output of a layer of the trained model."""
    return _voices(photo.digest, at, layer_of("trained", photo, at))


@worked(office, mark("Measuring …"))
def _voices(digest: str, at: int, _layer: LayerTrace) -> Voices:
    return experiments.voices(_layer)
