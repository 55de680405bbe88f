"""What one tries in the last three chapters: what padding takes, what a routing is worth, and what a map proves."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboard.figures import learn as learn_figures
from dashboard.figures.learn import Bar, percent
from dashboard.i18n import tr
from dashboard.lesson_chapters import look, sides
from dashboard.samples import GALLERY
from dashboard.services import learn as learn_services
from dashboard.services import models as model_services
from dashboard.state import learn_view as views
from dashboard.state import session
from dashboard.state.learn_view import Lesson

COVERED = 0.16
"""Share of the map that the layer on padding sees: 4 of 25 windows, as it was trained."""


def padding(at: Lesson) -> Lesson:
    """Windows that do not divide the map, with the padding attended or masked."""
    left, right = st.columns([1.6, 1], vertical_alignment="bottom")
    n_win = left.slider(tr("Windows per side, n_win"), views.N_WINS[0], views.N_WINS[-1],
                        key=session.hold("learn_pad_win", at.pad_win, views.N_WINS))
    session.hold("learn_masked", at.masked, (False, True))
    masked = right.toggle("mask_padding", key="learn_masked", help=tr("Leave padding out of means and attention."))
    photo = model_services.sample("street")
    one = learn_services.input_of("trained", photo, 1)
    topk = max(1, round(COVERED * n_win**2))
    lt, found = learn_services.leak(photo, one, n_win, topk, masked)
    above, below = sides()
    with above:
        look(at, photo, lt, GALLERY["street"].focus,
             tr("Hatched: padding. Layer {layer} of the model trained on flowers, topk {k}.",
                layer=one.name, k=topk))
    below.html(learn_figures.figure(
        tr("{h} × {w} tokens, padded to {H} × {W}.", h=lt.grid.h, w=lt.grid.w, H=lt.grid.H, W=lt.grid.W),
        learn_figures.bars([Bar(tr("padding's share of the map"), found.of_map, percent(found.of_map), "other"),
                     Bar(tr("padding's share of attention"), found.of_attention, percent(found.of_attention)),
                     Bar(tr("the same, worst window"), found.worst, percent(found.worst)),
                     Bar(tr("change of the output by masking"), found.change, percent(found.change), "bad")])))
    return replace(at, pad_win=n_win, masked=masked)


def worth(at: Lesson) -> Lesson:
    """Trained, untrained and alike: what each keeps, beside chance and the nearest windows."""
    weights = st.segmented_control(tr("Weights"), views.WEIGHTS, format_func=tr, required=True,
                                   key=session.hold("learn_weights", at.weights, views.WEIGHTS)) or at.weights
    photo = model_services.sample("animal")
    lt = learn_services.layer_of(weights, photo, 4)
    found, shared = learn_services.fidelity_of(weights, photo, 4)
    above, below = sides()
    with above:
        look(at, photo, lt, GALLERY["animal"].focus, _whose(weights, lt.name))
    below.html(learn_figures.figure(
        tr("Share of full attention that is kept, {k} of {n} windows:", k=found.topk, n=lt.grid.n_windows),
        learn_figures.bars([Bar(tr("its own routing"), found.recall, percent(found.recall)),
                     Bar(tr("the nearest windows"), found.recall_nearest, percent(found.recall_nearest), "other"),
                     Bar(tr("random windows, chance"), found.recall_chance, percent(found.recall_chance), "other")]),
        learn_figures.note(tr("Hubs: the {k} windows chosen most get this share of all choices:", k=found.topk)),
        learn_figures.bars([Bar(tr("share of the hubs"), shared, percent(shared), "bad")])))
    return replace(at, weights=weights)


def _whose(weights: str, layer: str) -> str:
    if weights == "likeness":
        return tr("Content likeness: fixed rules compare colour and texture. Nothing was learned.")
    if weights == "untrained":
        return tr("Layer {layer} of the same model with random weights: untrained.", layer=layer)
    return tr("Layer {layer} of the model trained on flowers.", layer=layer)


def proof(at: Lesson) -> Lesson:
    """What a layer's output is made of, and what becomes of it under other windows."""
    layer = st.segmented_control(tr("Layer"), views.LAYERS, format_func=lambda n: f"{n + 1}", required=True,
                                 key=session.hold("learn_layer", at.layer, views.LAYERS))
    layer = at.layer if layer is None else layer
    photo = model_services.sample("animal")
    lt = learn_services.layer_of("trained", photo, layer)
    found, side = learn_services.voices(photo, layer), lt.spec.side_dwconv
    above, below = sides()
    with above:
        look(at, photo, lt, GALLERY["animal"].focus, _whose("trained", lt.name))
    below.html(learn_figures.figure(
        tr("What this layer puts out comes from"),
        learn_figures.bars([Bar(tr("attention, which the picture shows"), found.attention, percent(found.attention)),
                     Bar(tr("LePE, {side} × {side} tokens around", side=side), 1 - found.attention,
                         percent(1 - found.attention), "other")]),
        learn_figures.note(tr("How far the output moves, in per cent of its size, with")),
        learn_figures.bars([Bar(tr("random windows instead"), found.at_random, percent(found.at_random), "bad"),
                     Bar(tr("the nearest windows instead"), found.to_nearest, percent(found.to_nearest), "bad"),
                     Bar(tr("no LePE"), found.without_lepe, percent(found.without_lepe), "bad")])))
    return replace(at, layer=layer)
