"""The worked example, one step at a time: on a map of 4×4 tokens with every number, and on a photograph."""

from __future__ import annotations

from typing import Final

import streamlit as st

from bra.teaching import source
from bra.teaching.example import FIRST, HIGHEST, SIDE, TOPKS, Worked
from dashboard import components, worked_formula, worked_photo_panel
from dashboard.figures.example_steps import GRID, Scene, board
from dashboard.handout import handout
from dashboard.i18n import language, told, tr
from dashboard.services import learn as learn_services
from dashboard.state import example as example_state
from dashboard.state.example_view import WorkedView
from dashboard.worked_words import NAMES, WHAT, WHY

STEPS: Final = source.STEPS


def show_example(step: str, large: bool) -> None:
    """One step of the example on 4×4 tokens.

    Args:
        step: one of STEPS.
        large: whether it is projected: larger numbers.
    """
    view = example_state.current()
    now, first = learn_services.worked(view.tokens, view.topk), learn_services.worked(FIRST, WorkedView().topk)
    say(step)
    components.board(board(step, Scene(now, first, view.token, tr)), example_state.BOARD, example_state.take_token)
    choose_numbers(view)
    explain(step, now, view.token)
    if not large:
        show_function(step)
        handouts()


def show_photo(step: str, large: bool) -> None:
    """The same step on the visitor's picture; the arguments as in `show_example`."""
    worked_photo_panel.show(step)


def say(step: str) -> None:
    """What the step does, and why."""
    st.markdown(f"**{told(NAMES[step])}.** {told(WHAT[step])} {told(WHY[step])}")


def explain(step: str, made: Worked, token: int) -> None:
    """Formula, numbers, shapes and the lines of code of a step."""
    left, right = st.columns([1.3, 1], gap="medium", vertical_alignment="center")
    with left:
        st.latex(worked_formula.formula(step, made, token))
    lines = source.lines_of(step)
    with right:
        st.caption(" ".join(f"`{line}`" for line in worked_formula.shapes(step, made)))
        # Where the line stands is a comment before it, so that both are copied and projected together.
        st.code("\n".join(f"# {line.file}:{line.number}\n{line.text}" for line in lines), "python", wrap_lines=True)


def show_function(step: str) -> None:
    """The whole function around the step's line, for who wants to read on."""
    line = source.lines_of(step)[0]
    with st.expander(tr("The function around it: {name} in {file}", name=line.function, file=line.file)):
        st.code(line.body, "python")


def handouts() -> None:
    """The example on two sheets of paper, with blanks and filled in."""
    with st.container(horizontal=True):
        for solved, label in ((False, tr("Handout, 2 pages")), (True, tr("Its solution"))):
            st.download_button(label, handout(*learn_services.handout_numbers(), solved, language()),
                               f"bra_{'solution' if solved else 'handout'}_{language()}.html", "text/html",
                               on_click="ignore")


def choose_numbers(view: WorkedView) -> None:
    """The chosen token's two numbers, topk, and the way back."""
    row, col = divmod(view.token, SIDE)
    window, inside = GRID.window_of_token(row, col)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(tr("Window {w}, token {t}:", w=window, t=inside), width="content")
        for channel, letter in enumerate("₁₂"):
            key = example_state.given(f"x{view.token}{letter}", int(view.tokens[view.token][channel]))
            st.number_input(f"x{letter}", -HIGHEST, HIGHEST, key=key, label_visibility="collapsed", width=160,
                            on_change=example_state.take_number, args=(view.token, channel, key))
        key = example_state.given("topk", view.topk)
        st.markdown("topk", width="content")
        st.segmented_control("topk", TOPKS, key=key, label_visibility="collapsed", width="content",
                             on_change=example_state.take, args=("topk", key))
        st.button(tr("Reset"), on_click=example_state.reset,
                  disabled=(view.tokens, view.topk) == (FIRST, WorkedView().topk))
