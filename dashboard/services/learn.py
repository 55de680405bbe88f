"""What the lesson asks for: layers run again with one thing changed, and the worked example's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np
import streamlit as st
import torch
from numpy.typing import NDArray

from bra.experiments.compare import LayerInput
from bra.metrics import routing, summary
from bra.metrics.activations import LayerMaps, layer_maps, score_map
from bra.metrics.overlap import semantic_overlap
from bra.metrics.rules import RuleRow, most_chosen, try_rules
from bra.metrics.summary import LayerFidelity
from bra.models.catalog import CATALOG, DEFAULT, ModelSettings
from bra.photo import Photo, encode
from bra.profiling.formula import traced_cost
from bra.teaching import experiments
from bra.teaching.example import FIRST, ExampleNumbers, Tokens, run_example
from bra.teaching.experiments import Leak, OutputParts, Reweighed
from bra.tracing import LayerTrace
from bra.training.scenes import SIDE as SIDE_READ
from bra.training.scenes import Router, draw_scene, open_scene_net
from bra.viewer.pack import PICTURE_SIDE, Caption, Place, stage_message
from dashboard.i18n import tr_noop
from dashboard.runtime.wait import run_cached
from dashboard.services.models import LoadedModel, encoded, layer_input, load_model, model_run
from dashboard.services.server import server
from dashboard.state import learn_view
from dashboard.state.example_view import NUDGED, ExampleView

SIDE: Final = 320
MODELS: Final[Mapping[str, ModelSettings]] = {
    "trained": ModelSettings("flowers", side=SIDE), "untrained": ModelSettings("flowers", side=SIDE, untrained=True),
    "likeness": ModelSettings("similarity", n_win=5, topk=4, side=SIDE),
    "taught": ModelSettings(DEFAULT, side=CATALOG[DEFAULT].side)}
"""By the words of `learn_view.WEIGHTS` and `learn_view.ANSWERS`."""
SCENE: Final = 7
"""Seed of the scene of the chapter on routers, one that no training draws."""
SCENE_SIDE: Final = 512
"""Pixels a side at which it is shown."""


@dataclass(frozen=True, slots=True)
class ReweighedKey:
    """A layer of the trained model with its affinities times factor / 100, asked at one window."""

    photo: str
    layer: str
    window: int
    factor: int
    soft: bool


@dataclass(frozen=True, slots=True)
class LeakKey:
    """A layer of the trained model with other windows, padding attended or masked."""

    photo: str
    layer: str
    n_win: int
    topk: int
    masked: bool


@dataclass(frozen=True, slots=True)
class FidelityKey:
    """What the routing of a layer keeps, by model, picture and number of the layer."""

    weights: str
    photo: str
    at: int


@dataclass(frozen=True, slots=True)
class TaughtKey:
    """The last layer of a model of drawn scenes, by what taught its router."""

    router: str


@dataclass(frozen=True, slots=True)
class RuledKey:
    """All rules of routing in the last layer of the taught model of drawn scenes."""


@dataclass(frozen=True, slots=True)
class OutputPartsKey:
    """What the output of a layer of the trained model is made of."""

    photo: str
    at: int


@dataclass(frozen=True, slots=True)
class PhotoMapsKey:
    """The maps of the layer of the photograph's steps."""

    n_win: int
    topk: int
    photo: str


def lesson_model(weights: str) -> LoadedModel:
    """One of MODELS, open."""
    return load_model(MODELS[weights])


def layer_of(weights: str, photo: Photo, at: int) -> LayerTrace:
    """Number `at` of a model's routed layers on a picture, or its last one."""
    layers = _routed_layers(weights, photo)
    return layers[min(at, len(layers) - 1)]


def layer_names(weights: str, photo: Photo) -> tuple[str, ...]:
    """Names of a model's routed layers, in order."""
    return tuple(lt.name for lt in _routed_layers(weights, photo))


def _routed_layers(weights: str, photo: Photo) -> list[LayerTrace]:
    return [lt for lt in model_run(lesson_model(weights), photo).trace.layers.values() if lt.routed]


def clearest_layer(photo: Photo) -> LayerTrace:
    """The layer that Explore opens with, which its card's measures chose, on a picture."""
    return model_run(lesson_model("taught"), photo).trace.layers[CATALOG[DEFAULT].layer]


def input_of(weights: str, photo: Photo, at: int) -> LayerInput:
    """What that layer was given."""
    return layer_input(lesson_model(weights), photo, layer_of(weights, photo, at).name)


def memory_written_out(layer: LayerTrace) -> int:
    """Bytes that a layer takes where keys are copied for every window and weights written out, as in most copies."""
    return traced_cost(layer.spec, layer.grid).explicit_peak_bytes


def reweighed(photo: Photo, given: LayerInput, window: int, factor: int, soft: bool) -> Reweighed:
    """The layer of the trained model with its affinities times factor / 100."""
    return run_cached(server(), ReweighedKey(photo.digest, given.name, window, factor, soft),
                      lambda _: experiments.reweighed(given, window, factor / 100, soft), tr_noop("Measuring …"))


def leak(photo: Photo, given: LayerInput, n_win: int, topk: int, masked: bool) -> tuple[LayerTrace, Leak]:
    """The layer of the trained model with other windows, and what padding takes there."""
    return run_cached(server(), LeakKey(photo.digest, given.name, n_win, topk, masked),
                      lambda _: experiments.leak(given, n_win, topk, masked), tr_noop("Measuring …"))


def fidelity_of(weights: str, photo: Photo, at: int) -> tuple[LayerFidelity, float]:
    """What a layer's routing keeps, beside its controls, and the share of choices on the same few windows."""
    layer = layer_of(weights, photo, at)
    return run_cached(server(), FidelityKey(weights, photo.digest, at),
                      lambda _: (summary.report(layer), routing.shared_choices(layer)), tr_noop("Measuring …"))


def taught(router: str) -> tuple[Photo, LayerTrace, Mapping[str, float | int | None]]:
    """The drawn scene, what the last layer of one of the three did on it, and the overlap of labels there."""
    return run_cached(server(), TaughtKey(router), lambda _: _taught(router), tr_noop("Measuring …"))


def _taught(router: str) -> tuple[Photo, LayerTrace, Mapping[str, float | int | None]]:
    photo = Photo.from_bytes(encode(draw_scene(SCENE, SCENE_SIDE).rgb, "PNG"))
    *_, layer = open_scene_net(cast(Router, router)).look(photo, SIDE_READ).trace.layers.values()
    return photo, layer, semantic_overlap(layer, draw_scene(SCENE, SIDE_READ).labels).to_dict()


def ruled() -> tuple[Photo, Mapping[str, LayerTrace], Mapping[str, RuleRow]]:
    """The drawn scene; what the last layer of the taught model would choose there by each rule; what each keeps."""
    return run_cached(server(), RuledKey(), lambda _: _ruled(), tr_noop("Measuring …"))


def _ruled() -> tuple[Photo, Mapping[str, LayerTrace], Mapping[str, RuleRow]]:
    photo, layer, _ = _taught("taught")
    rows = {row.rule: row for row in try_rules(layer, draw_scene(SCENE, SIDE_READ).labels)}
    choices = {rule: torch.from_numpy(most_chosen(layer, rule))[None] for rule in learn_view.RULES}
    return photo, {rule: replace(layer, r_idx=r_idx, r_weight=layer.affinity.gather(-1, r_idx).softmax(-1))
                   for rule, r_idx in choices.items()}, rows


KINDS: Final = (ModelSettings("stock", side=640), ModelSettings("stock", side=640, variant="yolo12n"),
                ModelSettings("yolo", side=640, variant="yolo11n-bra-c2psa"))
"""Models of `learn_view.KINDS`; the attention that is looked at is the first."""


def attention_of_yolo(kind: int, photo: Photo) -> LayerTrace:
    """The first attention layer of one of KINDS on a picture."""
    return next(iter(model_run(load_model(KINDS[kind]), photo).trace.layers.values()))


def output_parts(photo: Photo, at: int) -> OutputParts:
    """What the output of a layer of the trained model is made of."""
    layer = layer_of("trained", photo, at)
    return run_cached(server(), OutputPartsKey(photo.digest, at), lambda _: experiments.output_parts(layer),
                      tr_noop("Measuring …"))


# Numbers of the worked example. -------------------------------------------------------------------------------------

@st.cache_resource(max_entries=64, show_spinner=False)
def example_numbers(tokens: Tokens, topk: int) -> ExampleNumbers:
    """The example run on 16 tokens of two numbers."""
    return run_example(tokens, topk)


def handout_numbers() -> tuple[ExampleNumbers, ExampleNumbers]:
    """The numbers of the handout, and those after the change that its last question asks about."""
    return example_numbers(FIRST, 1), example_numbers(ExampleView().with_number(*NUDGED).tokens, 1)


PHOTO_MODEL: Final = replace(MODELS["trained"], n_win=ExampleView().n_win, topk=ExampleView().k)
PHOTO_LAYER: Final = "stages.1.0.attn"
"""A layer of which a window still holds dozens of tokens; as it was trained: n_win 5, topk 4."""


def photo_settings(n_win: int, topk: int) -> ModelSettings:
    """The model that the steps are shown on, with these windows in its layer."""
    trained = (n_win, topk) == (PHOTO_MODEL.n_win, PHOTO_MODEL.topk)
    return replace(PHOTO_MODEL, n_win=n_win, topk=topk, changed=not trained)


def photo_layer(n_win: int, topk: int, photo: Photo) -> LayerTrace:
    """What its layer did on a picture."""
    return model_run(load_model(photo_settings(n_win, topk)), photo, PHOTO_LAYER).trace.layers[PHOTO_LAYER]


def photo_maps(photo: Photo, layer: LayerTrace) -> LayerMaps:
    """Its maps, from keys to output; `layer` as `photo_layer` returned it."""
    return run_cached(server(), PhotoMapsKey(layer.spec.n_win, layer.spec.topk, photo.digest),
                      lambda _: layer_maps(layer), tr_noop("Running the layer …"))


def photo_input(photo: Photo) -> NDArray[np.float32]:
    """(c, h, w): what the layer was given."""
    found: NDArray[np.float32] = layer_input(load_model(PHOTO_MODEL), photo, PHOTO_LAYER).x[0].numpy()
    return found


def photo_scores(layer: LayerTrace, window: int, token: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(h, w) scores and attention of one token in the layer's first head; NaN where it cannot look."""
    scores = score_map(layer, window, token)[0]
    shares = layer.grid.crop(layer.attention_map(window, token)[0].numpy()).astype(np.float64)
    return scores, np.where(np.isnan(scores), np.nan, shares)


def photo_stage(layer: LayerTrace, photo: Photo, caption: Caption, focus: Place, tint: tuple[str, ...]) -> bytes:
    """The message of the stage."""
    return stage_message(photo, layer, caption, focus, {}, tint, encoded(photo, PICTURE_SIDE))
