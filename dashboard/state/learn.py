"""Where a visitor is in the lesson and its link; and what is not in the link: answers, guesses and their score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from bra.teaching.experiments import Score
from dashboard.state import example as example_state
from dashboard.state import session
from dashboard.state.learn_view import LENGTHS, PARTS, Lesson

PRESENTER, PICTURE, PART, STEP = "presenter", "lesson_picture", "learn_part", "learn_step"
"""Keys of the widgets whose callbacks stand here."""
Round = tuple[str, int]
"""Whose routing was to be predicted, and the number of the round."""


def current() -> Lesson:
    """Where this visitor is; a new visit begins with what its link says."""
    if "lesson" not in st.session_state:
        st.session_state["lesson"] = Lesson.from_query(st.query_params.to_dict())
    found: Lesson = st.session_state["lesson"]
    return found


def save(wanted: Lesson) -> Lesson:
    """Keep where the visitor is, and put it into the link, with the picture of Explore and the worked example."""
    st.session_state["lesson"] = wanted
    session.put_link(session.current().to_query() | wanted.to_query() | example_state.current().to_query())
    return wanted


def link() -> dict[str, str]:
    """The parameters of the page's link for others: they read what is projected."""
    return session.shared_link()


def on_go(presenter: str) -> None:
    """Callback of the presenter with that key: a stop on or back, and in front of a class or not."""
    asked, at = st.session_state[presenter].go, current()
    if asked in ("next", "back"):
        save(at.moved(1 if asked == "next" else -1))
    elif asked in ("present", "leave"):
        save(replace(at, present=asked == "present", scene=Lesson().scene))


def on_part() -> None:
    """Callback of the choice of a part."""
    if st.session_state[PART] in PARTS:
        save(current().at(st.session_state[PART]))


def on_step() -> None:
    """Callback of the choice of a step."""
    at, step = current(), st.session_state[STEP]
    if step in range(1, LENGTHS[at.part] + 1):
        save(at.at(at.part, step))


def set_widget(key: str, value: object) -> str:
    """Give the widget `key` its value before it is drawn, however it came about; returns the key."""
    st.session_state[key] = value
    return key


def answer(step: int) -> int | None:
    """What was answered to a chapter's question."""
    answers: Mapping[int, int] = st.session_state.get("lesson_answers", {})
    return answers.get(step)


def on_answer(step: int) -> None:
    """Callback of a question."""
    st.session_state.setdefault("lesson_answers", {})[step] = st.session_state[f"learn_answer_{step}"]


def on_guess(picture: str) -> None:
    """Callback of the picture with that key: the windows that were marked."""
    marked, at = st.session_state[picture].guess, current()
    if isinstance(marked, (list, tuple)) and all(isinstance(one, int) for one in marked):
        # The first guess counts: the answer is on show from then on.
        _guesses().setdefault((at.who, at.step), tuple(dict.fromkeys(marked)))


def guess(one: Round) -> tuple[int, ...] | None:
    """The windows that were marked in a round; None before its answer was asked for."""
    return _guesses().get(one)


def forget_guess(one: Round) -> None:
    """Ask a round anew."""
    _guesses().pop(one, None)


def keep_score(one: Round, made: Score) -> None:
    """Count a round."""
    st.session_state.setdefault("lesson_scores", {})[one] = made


def scores() -> tuple[Score, ...]:
    """Every round that was counted."""
    return tuple(st.session_state.get("lesson_scores", {}).values())


def forget_scores() -> None:
    """Begin the rounds anew."""
    for name in ("lesson_scores", "lesson_guesses"):
        st.session_state.pop(name, None)


def _guesses() -> dict[Round, tuple[int, ...]]:
    found: dict[Round, tuple[int, ...]] = st.session_state.setdefault("lesson_guesses", {})
    return found
