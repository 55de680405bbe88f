"""Learn: what bi-level routing attention does, in chapters, an example and a guess; also in front of a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import streamlit as st

from dashboard import components
from dashboard.i18n import tr, tr_noop, translate
from dashboard.learn import chapters, example, quiz
from dashboard.learn import text as chapter_texts
from dashboard.learn.code import chapter_program
from dashboard.learn.step_texts import NAMES
from dashboard.learn.text import Chapter
from dashboard.state import learn as learn_state
from dashboard.state import learn_view as views
from dashboard.state.learn_view import Lesson
from dashboard.widgets import share

HERE: Final = Path(__file__).parents[1] / "components"
PART_NAMES: Final = {
    "chapters": tr_noop("Chapters"), "example": tr_noop("Every number, by hand"),
    "photo": tr_noop("The same on a photo"),
    "predict": tr_noop("Predict, then see")}
CHAPTER_NAMES: Final = (
    tr_noop("Why not everything"), tr_noop("Windows and routing"), tr_noop("What weights do not "
                                                                           "do"), tr_noop("n_win and topk"),
    tr_noop("Padding"), tr_noop("Trained or not"), tr_noop("Pretty maps"),
    tr_noop("Does the router learn?"), tr_noop("What YOLO already does"), tr_noop("Other ways to choose"))
TRIALS: Final[tuple[Callable[[Lesson], Lesson], ...]] = (
    chapters.cost, chapters.windows, chapters.weights, chapters.cuts,
    chapters.padding, chapters.recall_by_weights, chapters.output_parts, chapters.router, chapters.yolo_attention,
    chapters.rules)


def page() -> None:
    """Everything on the page."""
    at = learn_state.current()
    style = (HERE / "lesson.css").read_text() + ((HERE / "presentation.css").read_text() if at.present else "")
    st.html(f"<style>{style}</style>")
    if not at.present:
        _choose(at)
    parts: Mapping[str, Callable[[Lesson], Lesson]] = {"chapters": _chapter, "example": _example, "photo": _photo,
                                                       "predict": _predict}
    at = learn_state.save(at)       # its link is offered while the part is drawn
    at = learn_state.save(parts[at.part](at))
    with st.container(key="lesson_foot"):
        _presenter(at)


def _choose(at: Lesson) -> None:
    """Which part, and which step of it."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(tr("Part"), views.PARTS, format_func=lambda part: translate(PART_NAMES[part]),
                             required=True,
                             key=learn_state.set_widget(learn_state.PART, at.part), on_change=learn_state.on_part,
                             label_visibility="collapsed")
    steps = range(1, views.LENGTHS[at.part] + 1)
    names = {step: _step_name(at.part, step) for step in steps}
    st.pills(tr("Step"), steps, format_func=names.__getitem__, required=True,
             key=learn_state.set_widget(learn_state.STEP, at.step), on_change=learn_state.on_step,
             label_visibility="collapsed")


def _step_name(part: str, step: int) -> str:
    """A step's number, and its name where it has one."""
    if part == "predict":
        return f"{step}"
    named = CHAPTER_NAMES[step - 1] if part == "chapters" else NAMES[example.STEPS[step - 1]]
    return f"{step} {translate(named)}"


def _chapter(at: Lesson) -> Lesson:
    text, trial = chapter_texts.of_step(at.step), TRIALS[at.step - 1]
    if at.present:
        return _scene(at, text, trial)
    left, right = st.columns([1, 1.55], gap="large")
    with left:
        st.subheader(text.claim, anchor=False)
        st.markdown(text.words)
        st.markdown(f"**{tr('Question')}**")
        _question(at, text)
    with right:
        st.markdown(f"**{tr('Try it')}**")
        st.markdown(text.trying)
        tried = learn_state.save(trial(at))
        share.offer(chapter_program(tried))
        return tried


def _scene(at: Lesson, text: Chapter, trial: Callable[[Lesson], Lesson]) -> Lesson:
    with st.container(key=f"lesson_{at.scene}"):
        if at.scene == "words":
            st.subheader(text.claim, anchor=False)
            seen, said = chapters.sides(at)
            with seen:
                chapters.picture_of(at)
            said.markdown(text.words)
        elif at.scene == "try":
            st.markdown(text.trying)
            return trial(at)
        else:
            _question(at, text)
    return at


def _question(at: Lesson, text: Chapter) -> None:
    st.markdown(text.question)
    given = learn_state.answer(at.step)
    choice = st.radio(tr("Your answer"), range(len(text.choices)), format_func=text.choices.__getitem__, index=None,
                      key=learn_state.set_widget(f"learn_answer_{at.step}", given), label_visibility="collapsed",
                      on_change=learn_state.on_answer, args=(at.step,))
    if choice is not None:
        right = choice == text.right
        say = st.success if right else st.error
        say(_verdict(right, tr("Right.") if right else tr("No."), text.answer))


def _verdict(right: bool, word: str, answer: str) -> str:
    """The answer to a question in Markdown, its first word in bold: not by colour alone."""
    return f"{':material/check_circle:' if right else ':material/cancel:'} **{word}** {answer}"


def _example(at: Lesson) -> Lesson:
    with st.container(key="lesson_example"):
        example.show_example(example.STEPS[at.step - 1], at.present)
    return at


def _photo(at: Lesson) -> Lesson:
    with st.container(key="lesson_photo"):
        example.show_photo(example.STEPS[at.step - 1], at.present)
    return at


def _predict(at: Lesson) -> Lesson:
    with st.container(key="lesson_predict"):
        return quiz.show(at)


def _presenter(at: Lesson) -> None:
    stops = views.stops(at.present)
    n = stops.index(at.stop)
    place = tr("{part}, {n} of {all}", part=translate(PART_NAMES[at.part]), n=at.step, all=views.LENGTHS[at.part])
    if at.present and at.part == "chapters":
        place += f" · {views.SCENES.index(at.scene) + 1}/{len(views.SCENES)}"
    components.presenter({"stop": "/".join(map(str, at.stop)), "place": place, "query": urlencode(learn_state.link()),
                          "qr": share.qr_code() if at.present else "", "present": at.present, "first": n == 0,
                          "last": n == len(stops) - 1},
                         learn_state.PRESENTER, learn_state.on_go)


def main() -> None:
    """Draw the page."""
    page()


if __name__ == "__main__":
    main()
