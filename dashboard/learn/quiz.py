"""Predict, then see: mark the windows that one expects, and let the module answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import streamlit as st

from bra.errors import BRAError
from bra.figures.learn import Bar
from bra.metrics.routing import shared_choices
from bra.reports.code import explore_code
from bra.teaching.experiments import score
from bra.units import percent
from bra.viewer.pack import Place, locate
from dashboard import components
from dashboard.components import messages
from dashboard.i18n import tr, tr_noop, translate
from dashboard.learn.chapters import bars
from dashboard.samples import GALLERY
from dashboard.services import learn as learn_services
from dashboard.services import models as model_services
from dashboard.state import learn as learn_state
from dashboard.state import learn_view as views
from dashboard.state.learn_view import Lesson
from dashboard.state.widgets import init_widget
from dashboard.widgets import share
from dashboard.widgets.model import sentence

ROUNDS: Final[tuple[tuple[str, Place], ...]] = (
    ("portrait", GALLERY["portrait"].focus), ("portrait", (8000, 3000)),
    *((key, GALLERY[key].focus) for key in ("animal", "repeated_objects", "still_life", "tissue", "street", "texture")))
"""Picture and query of each round: the first two ask twice about one picture."""
ABOUT = {
    "taught": tr_noop("The answer is that of a model whose router was taught on photographs, without labels."),
    "trained": tr_noop("The answer is that of a model trained on flowers; it takes any picture."),
    "untrained": tr_noop("The answer is that of the same model before any training: random weights."),
    "likeness": tr_noop("The answer is that of fixed rules which compare colour and texture; nothing was learned."),
}
LAYERS: Final[Mapping[str, int]] = {"trained": 1, "untrained": 1, "likeness": 0}


def show(at: Lesson) -> Lesson:
    """One round: the picture, and once there is a guess, its score."""
    left, right = st.columns([1.25, 1], gap="medium")
    with right:
        who = st.segmented_control(tr("Whose answer?"), views.ANSWERS, format_func=tr, required=True,
                                   key=init_widget("learn_who", at.who, views.ANSWERS)) or at.who
        one = (who, at.step)
        guess = learn_state.guess(one)
        if guess is None or not at.present:     # projected, there is room for what it is or for what came out
            st.caption(translate(ABOUT[who]))
    at = replace(at, who=who)
    key, place = ROUNDS[at.step - 1]
    photo = model_services.sample(key)
    lt = learn_services.clearest_layer(photo) if who == "taught" else \
        learn_services.layer_of(who, photo, LAYERS[who])
    window = locate(lt.grid, photo, place)[0]
    try:
        made = None if guess is None else score(lt, window, guess)
    except BRAError as error:       # the browser alone cannot be believed
        guess = made = None
        learn_state.forget_guess(one)
        st.error(sentence(error))
    with left:
        st.markdown(tr("The window with the star attends to {k} of {n} windows. **Which ones?** Mark {k}; its own may "
                       "be one.", k=lt.spec.topk, n=lt.grid.n_windows))
        caption = tr("Layer {layer}, n_win {n_win}, topk {k}", layer=lt.name, n_win=lt.grid.n_win, k=lt.spec.topk)
        if lt.grid.padding_share:
            caption += tr(". ") + tr("Hatched: padding, see chapter 5.")
        encoded = model_services.encoded(photo, messages.PICTURE_SIDE)
        components.lesson_picture(messages.guess_message(photo, lt, window, guess, caption, encoded),
                                  learn_state.PICTURE, learn_state.on_guess)
    with right:
        if made is None:
            st.markdown(tr("Many mark what looks like the window with the star, or what lies next to it. Does the "
                           "model?"))
            st.caption(tr("Click the windows, or go to the picture with Tab, move with the arrow keys and mark with "
                          "Enter. Then ask for the answer."))
        else:
            learn_state.keep_score(one, made)
            st.markdown(tr("This round, hits of {k}:", k=made.of))
            bars(at, tr("% of the windows to be found"), caption, _hits(made.hits, made.nearest, made.chance, made.of))
            st.markdown(tr("On this picture {share} of all choices in this layer fall on the same {k} windows, "
                           "wherever the star is.", share=percent(shared_choices(lt)), k=lt.spec.topk))
        _total(at)
        if not at.present:
            learn_state.save(at)
            share.offer(explore_code(learn_services.MODELS[who], lt.name, window,
                                     picture=share.picture_file(key, None)))
    return at


def _hits(hits: float, nearest: float, chance: float, of: int) -> list[Bar]:
    return [Bar(tr("you"), hits / of, f"{hits:g}"),
            Bar(tr("the nearest windows"), nearest / of, f"{nearest:g}", "other"),
            Bar(tr("random windows, on average"), chance / of, f"{chance:.2f}", "other")]


def _total(at: Lesson) -> None:
    done = learn_state.scores()
    if not done:
        return
    names = ("hits", "nearest", "chance", "of")
    hits, nearest, chance, of = (sum(getattr(one, name) for one in done) for name in names)
    text = tr("Rounds so far: {n}. Hits of {k}:", n=len(done), k=of)
    if at.present:      # there is no room for a second chart
        st.markdown(f"{text} " + " · ".join(f"{bar.name} {bar.text}" for bar in _hits(hits, nearest, chance, of)))
    else:
        st.markdown(text)
        bars(at, tr("% of the windows to be found"), text, _hits(hits, nearest, chance, of))
    st.button(tr("Start again"), on_click=learn_state.forget_scores)
