"""The worked example, one step at a time: on a map of 4×4 tokens with every number, and on a photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import streamlit as st

from bra.reports.code import example_code, explore_code
from bra.teaching import source
from bra.teaching.example import FIRST, HIGHEST, SIDE, TOPKS, W_K, W_O, ExampleNumbers
from dashboard import components
from dashboard.figures.example_steps import GRID, Scene, step_html
from dashboard.figures.number_grid import number
from dashboard.i18n import language, tr, translate
from dashboard.learn import photo_steps
from dashboard.learn.handout import handout
from dashboard.learn.step_texts import NAMES, WHAT, WHY
from dashboard.services import learn as learn_services
from dashboard.state import example as example_state
from dashboard.state.example_view import ExampleView
from dashboard.widgets import share

STEPS: Final = source.STEPS


def show_example(step: str, large: bool) -> None:
    """One step of the example on 4×4 tokens.

    Args:
        step: one of STEPS.
        large: whether it is projected: larger numbers.
    """
    view = example_state.current()
    now = learn_services.example_numbers(view.tokens, view.topk)
    first = learn_services.example_numbers(FIRST, ExampleView().topk)
    say(step)
    components.number_grid(step_html(step, Scene(now, first, view.token, tr)), example_state.NUMBER_GRID,
                           example_state.on_token)
    choose_numbers(view)
    explain(step, now, view.token)
    if not large:
        show_function(step)
        share.offer(example_code(view.tokens, view.topk), files=handouts(), charts=False)


def show_photo(step: str, large: bool) -> None:
    """The same step on the visitor's picture; the arguments as in `show_example`."""
    at = photo_steps.show(step)
    if not large:
        share.offer(explore_code(learn_services.photo_settings(at.view.n_win, at.view.k), at.layer.name, *at.asked,
                                 picture=at.file))


def say(step: str) -> None:
    """What the step does, and why."""
    st.markdown(f"**{translate(NAMES[step])}.** {translate(WHAT[step])} {translate(WHY[step])}")


def explain(step: str, made: ExampleNumbers, token: int) -> None:
    """Formula, numbers, shapes and the lines of code of a step."""
    left, right = st.columns([1.3, 1], gap="medium", vertical_alignment="center")
    with left:
        st.latex(formula(step, made, token))
    lines = source.lines_of(step)
    with right:
        st.caption(" ".join(f"`{line}`" for line in shapes(step, made)))
        # Where the line stands is a comment before it, so that both are copied and projected together.
        st.code("\n".join(f"# {line.file}:{line.number}\n{line.text}" for line in lines), "python", wrap_lines=True)


def show_function(step: str) -> None:
    """The whole function around the step's line, for who wants to read on."""
    line = source.lines_of(step)[0]
    with st.expander(tr("The function around it: {name} in {file}", name=line.function, file=line.file)):
        st.code(line.body, "python")


def handouts() -> list[share.File]:
    """The example on two sheets of paper, with blanks and filled in."""
    return [share.File(label, handout(*learn_services.handout_numbers(), solved, language()),
                       f"bra_{'solution' if solved else 'handout'}_{language()}.html")
            for solved, label in ((False, tr("Handout, 2 pages")), (True, tr("Its solution")))]


def choose_numbers(view: ExampleView) -> None:
    """The chosen token's two numbers, topk, and the way back."""
    row, col = divmod(view.token, SIDE)
    window, inside = GRID.window_of_token(row, col)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(tr("Window {w}, token {t}:", w=window, t=inside), width="content")
        for channel, letter in enumerate("₁₂"):
            key = example_state.set_widget(f"x{view.token}{letter}", int(view.tokens[view.token][channel]))
            st.number_input(f"x{letter}", -HIGHEST, HIGHEST, key=key, label_visibility="collapsed", width=160,
                            on_change=example_state.on_number, args=(view.token, channel, key))
        key = example_state.set_widget("topk", view.topk)
        st.markdown("topk", width="content")
        st.segmented_control("topk", TOPKS, key=key, label_visibility="collapsed", width="content",
                             on_change=example_state.on_change, args=("topk", key))
        st.button(tr("Reset"), on_click=example_state.on_reset,
                  disabled=(view.tokens, view.topk) == (FIRST, ExampleView().topk))


# The formula of each step of the worked example, once in letters and once with the numbers of one token. ------------

LETTERS: Final[Mapping[str, str]] = MappingProxyType({
    "tokens": r"q = W_q\,x \qquad k = W_k\,x \qquad v = W_v\,x",
    "windows": r"(b,\,h,\,w,\,c) \to (b,\,p^2,\,t,\,c) \qquad t = \frac{h\,w}{p^2}",
    "means": r"\bar q_i = \frac{1}{t}\sum_{n} q_{i,n} \qquad \bar k_i = \frac{1}{t}\sum_{n} k_{i,n}",
    "affinity": r"A_{ij} = \tfrac{1}{2}\;\bar q_i \cdot \bar k_j",
    "topk": r"I_i = \operatorname{topk}_j\, A_{ij}",
    "gather": r"K_i = [\,k_j : j \in I_i\,] \qquad V_i = [\,v_j : j \in I_i\,]",
    "scores": r"S_{nm} = \tfrac{1}{2}\;q_n \cdot K_m",
    "softmax": r"P_{nm} = \frac{e^{S_{nm}}}{\sum_{l} e^{S_{nl}}}",
    "output": r"O_n = \sum_m P_{nm}\,V_m",
    "lepe": r"L = \operatorname{DWConv}_{3\times3}(v)",
    "projection": r"y = W_o\,(O + L)",
})
SHAPES: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = MappingProxyType({
    "tokens": (("x, v", "b, h, w, c", "x"), ("q, k", "b, h, w, Q", "q_map")),
    "windows": (("q, k", "b, p2, t, Q", "q"), ("v", "b, p2, t, c", "v")),
    "means": (("q̄, k̄", "b, p2, Q", "q_mean"),),
    "affinity": (("A", "b, p2, p2", "affinity"),),
    "topk": (("r_idx", "b, p2, k", "r_idx"),),
    "gather": (("K", "b, m, p2, k·t, Q", "keys"), ("V", "b, m, p2, k·t, c", "values")),
    "scores": (("S", "b, m, p2, t, k·t", "scores"),),
    "softmax": (("P", "b, m, p2, t, k·t", "attention"),),
    "output": (("O", "b, h, w, c", "mixed"),),
    "lepe": (("L", "b, h, w, c", "lepe"),),
    "projection": (("y", "b, h, w, c", "out"),),
})
"""For each step the tensors that it makes: symbol, letters of its axes, name in `ExampleNumbers`."""


def formula(step: str, made: ExampleNumbers, token: int) -> str:
    """Both, one under the other, as LaTeX."""
    return rf"\begin{{gathered}} {LETTERS[step]} \\[.6em] {with_numbers(step, made, token)} \end{{gathered}}"


def shapes(step: str, made: ExampleNumbers) -> tuple[str, ...]:
    """Lines such as "A (b, p2, p2) = (1, 4, 4)"."""
    return tuple(f"{symbol} ({letters}) = ({', '.join(map(str, getattr(made, name).shape))})"
                 for symbol, letters, name in SHAPES[step])


def with_numbers(step: str, made: ExampleNumbers, token: int) -> str:
    """The formula of a step with the numbers of one token or of its window, as LaTeX."""
    row, col = divmod(token, SIDE)
    i, n = GRID.window_of_token(row, col)
    x, q, k, v = (getattr(made, name)[0].tolist() for name in ("x", "q", "k", "v_map"))
    q_mean, k_mean, affinity = (getattr(made, name)[0].tolist() for name in ("q_mean", "k_mean", "affinity"))
    chosen: list[int] = made.r_idx[0, i].tolist()
    keys, values, scores, attention = (getattr(made, name)[0, 0, i].tolist()
                                       for name in ("keys", "values", "scores", "attention"))
    mixed, lepe, out = (getattr(made, name)[0, row, col].tolist() for name in ("mixed", "lepe", "out"))
    if step == "tokens":
        return rf"W_q = W_v = 1 \qquad k = {_matrix(W_K)}{_column(x[row][col])} = {_column(k[i][n])}"
    if step == "windows":
        return r"t = \frac{4 \cdot 4}{2^2} = 4"
    if step == "means":
        return rf"\bar q_{i} = \tfrac14\left({' + '.join(_pair(one) for one in q[i])}\right) = {_pair(q_mean[i])}"
    if step == "affinity":
        j = chosen[0]
        return rf"A_{{{i},{j}}} = {_half(q_mean[i], k_mean[j])} = {_n(affinity[i][j])}"
    if step == "topk":
        line = [rf"\mathbf{{{_n(a)}}}" if j in chosen else _n(a) for j, a in enumerate(affinity[i])]
        kept = ", ".join(map(str, chosen))
        return rf"A_{i} = (" + r",\;".join(line) + rf") \;\Rightarrow\; I_{i} = \{{{kept}\}}"
    if step == "gather":
        return rf"k\,t = {made.topk} \cdot 4 = {4 * made.topk} \le h\,w = {SIDE * SIDE}"
    if step == "scores":
        return rf"S_{{{n},0}} = {_half(q[i][n], keys[0])} = {_n(scores[n][0])}"
    if step == "softmax":
        below = " + ".join(_some([f"e^{{{_n(score)}}}" for score in scores[n]]))
        return rf"P_{{{n},0}} = \frac{{e^{{{_n(scores[n][0])}}}}}{{{below}}} = {_n(attention[n][0])}"
    if step == "output":
        terms = [rf"{_n(share)}\,{_pair(value)}" for share, value in zip(attention[n], values, strict=True)]
        return rf"O_{n} = {' + '.join(_some(terms, 3))} = {_pair(mixed)}"
    if step == "lepe":
        def at(r: int, c: int, channel: int) -> str:
            return _bracket(v[r][c][channel]) if 0 <= r < SIDE and 0 <= c < SIDE else "0"

        beside = rf"\tfrac12({at(row, col - 1, 0)} + {at(row, col + 1, 0)})"
        above = rf"\tfrac12({at(row - 1, col, 1)} + {at(row + 1, col, 1)})"
        return rf"L = \left({beside},\; {above}\right) = {_pair(lepe)}"
    return rf"y = {_matrix(W_O)}\left({_column(mixed)} + {_column(lepe)}\right) = {_column(out)}"


def _n(value: float) -> str:
    return number(value).replace("−", "-")


def _pair(values: Sequence[float]) -> str:
    return "(" + r",\,".join(_n(value) for value in values) + ")"


def _column(values: Sequence[float]) -> str:
    return r"\begin{pmatrix}" + r"\\".join(_n(value) for value in values) + r"\end{pmatrix}"


def _matrix(rows: Sequence[Sequence[float]]) -> str:
    return r"\begin{pmatrix}" + r"\\".join("&".join(_n(value) for value in row) for row in rows) + r"\end{pmatrix}"


def _half(a: Sequence[float], b: Sequence[float]) -> str:
    terms = " + ".join(rf"{_bracket(x)} \cdot {_bracket(y)}" for x, y in zip(a, b, strict=True))
    return rf"\tfrac12\left({terms}\right)"


def _bracket(value: float) -> str:
    return f"({_n(value)})" if value < 0 else _n(value)


def _some(terms: list[str], most: int = 4) -> list[str]:
    return terms if len(terms) <= most else [*terms[:most - 1], r"\dots"]
