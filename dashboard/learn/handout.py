"""The worked example on two sheets of A4, with blanks or filled in: one file that opens and prints alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Final

from bra.teaching.example import LEPE, SIDE, W_O, ExampleNumbers
from dashboard.figures.example_steps import CUT, GRID, Scene, cell, matrix, products, sources, window_names
from dashboard.figures.number_grid import Cell, grid, number, row_of, sign, windowed
from dashboard.i18n import tr_in
from dashboard.state.example_view import NUDGED

CSS: Final = """
@page { size: A4; margin: 12mm 12mm 10mm; }
:root { color-scheme: light; }
body { margin: 0; color: #000; background: #fff;
  font: 10.5pt/1.4 "Source Sans 3", "Noto Sans", Arial, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei";
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }
.paper { box-sizing: border-box; width: 186mm; margin: 0 auto; break-after: page; }
.paper:last-child { break-after: auto; }
h1 { font-size: 15pt; margin: 0 0 1mm; }
h2 { font-size: 11pt; margin: 2.2mm 0 .3mm; }
p { margin: 0 0 1mm; }
.name { float: right; }
.wx { --px: .84px; font-family: inherit; gap: 1mm 4mm; font-size: 9.5pt; }
.paper:last-child .wx { --px: .76px; }
.answer { border-bottom: .3mm solid; display: inline-block; min-width: 42mm; font-weight: 700; }
li { margin-bottom: 1mm; }
ol { padding-left: 5mm; margin: 1mm 0; }
"""


def handout(first: ExampleNumbers, nudged: ExampleNumbers, solved: bool, language: str) -> str:
    """The sheets as one HTML file.

    Args:
        first: the example's numbers, topk 1.
        nudged: the same after the change NUDGED.
        solved: whether the blanks are filled in.
        language: of its words.
    """
    tr = partial(tr_in, language)
    scene = Scene(first, first, 0, tr)
    title = tr("Bi-level routing attention by hand: solution") if solved else tr("Bi-level routing attention by hand")
    name = "" if solved else f'<span class="name">{tr("Name")} ____________________</span>'
    sheets = (name, _first_sheet(scene, solved)), ("", _second_sheet(scene, nudged, solved))
    pages = "".join(f'<section class="paper">{beside}<h1>{title} <small>{n} / 2</small></h1>{body}</section>'
                    for n, (beside, body) in enumerate(sheets, 1))
    grid_css = (Path(__file__).parents[1] / "components" / "number_grid.css").read_text(encoding="utf-8")
    return (f'<!doctype html><html lang="{"zh-Hans" if language == "zh" else language}"><meta charset="utf-8">'
            f"<title>{escape(title)}</title><style>{grid_css}{CSS}</style>{pages}</html>")


def _first_sheet(s: Scene, solved: bool) -> str:
    tr, windows = s.tr, range(4)
    x, k = (s.of(name, 0)[0] for name in ("x", "k"))
    q_mean, k_mean, affinity = (s.of(name, 0)[0] for name in ("q_mean", "k_mean", "affinity"))
    names, tokens = window_names(tr), [tr("token {n}", n=n) for n in range(4)]
    fill = partial(_filled, solved=solved)
    routes = s.now.r_idx[0, :, 0].tolist()
    tokens_map = [[Cell(_numbers(x[r][c]), window=GRID.window_of_token(r, c)[0]) for c in range(SIDE)]
                  for r in range(SIDE)]
    keys = grid("<b>k</b>", [[fill(cell(k[i][n], k[i][n], window=i), i == 0) for n in range(4)] for i in windows],
                names, tokens)
    table = products(
        "<b>A</b> = ½ <b>q̄</b> · <b>k̄</b>", [fill(cell(q_mean[i], q_mean[i], window=i), True) for i in windows],
        [fill(cell(k_mean[j], k_mean[j], window=j), True) for j in windows],
        [[fill(cell(affinity[i][j], affinity[i][j]), i < 2) for j in windows] for i in windows],
        names, names, None, across=66)
    chosen = grid("<b>r_idx</b>", [[fill(Cell((str(j),)), True)] for j in routes], names)
    empty = [[Cell(("", ""), window=GRID.window_of_token(r, c)[0]) for c in range(SIDE)] for r in range(SIDE)]
    arrows = windowed("", empty, CUT, names, list(enumerate(routes)), drawn=solved)
    return "".join((
        f"<p>{tr('4×4 tokens of two numbers, n_win 2, topk 1, one head.')} ",
        f"{tr('Bold: what was to be filled in.') if solved else tr('Fill in every empty cell.')}</p>",
        _step(1, tr("Tokens and windows"), tr("Here q = v = x.")
              + " " + tr("A key is k = (x₁ − x₂, x₁ + x₂): upper number minus lower, upper plus lower."),
              row_of([windowed("<b>x = q = v</b>", tokens_map, CUT, names), sign("→"), keys])),
        _step(2, tr("Window means"),
              tr("Into the coloured cells below: at the left the mean of each window's four queries, at the top of "
                 "its four keys."), ""),
        _step(3, tr("Affinity"), tr("Half of: upper times upper plus lower times lower."), row_of([table])),
        _step(4, tr("Top-k"), tr("Write down the window with the largest number of each row, and draw an arrow to it."),
              row_of([chosen, sign("→"), arrows])),
    ))


def _second_sheet(s: Scene, nudged: ExampleNumbers, solved: bool) -> str:
    tr, fill = s.tr, partial(_filled, solved=solved)
    keys, values, scores, attention = (s.of(name, 0, 0, 0)[0] for name in ("keys", "values", "scores", "attention"))
    q, columns = s.of("q", 0, 0)[0], range(len(keys))
    window = s.chosen[0]
    gathered = grid(tr("gathered for window {n}: w window, t token in it", n=0),
                    [[fill(cell(of[n], of[n], window=window), True) for n in columns] for of in (keys, values)],
                    ["K", "V"], sources(s))
    table = products("<b>S</b> = ½ <b>q</b> · <b>K</b>", [cell(one, one, window=0) for one in q],
                     [fill(cell(one, one, window=window), True) for one in keys],
                     [[fill(cell(scores[t][n], scores[t][n]), t < 2) for n in columns] for t in range(4)],
                     [tr("token {n}", n=n) for n in range(4)], sources(s), None)
    powers = [math.exp(score) for score in scores[0]]
    shares = grid(tr("token {n}", n=0), [
        [fill(Cell((number(value),)), True) for value in (*powers, sum(powers))],
        [fill(Cell((f"{value:.2f}",)), True) for value in (*attention[0], sum(attention[0]))]],
        ["e^S", "P"], [*sources(s), tr("sum")])
    known = tr(", ").join(f"e<sup>{number(value)}</sup> = {math.exp(value):.2f}" for value in sorted(set(scores[0])))
    pairs = [grid(f"<b>{name}</b>", [[fill(Cell(_numbers(getattr(s.now, of)[0, 0, 0].tolist())), True)]])
             for name, of in (("O", "mixed"), ("L", "lepe"), ("y", "out"))]
    filters = [matrix(tr("filter of channel {n}", n=n + 1), kernel) for n, kernel in enumerate(LEPE)]
    return "".join((
        f"<p>{tr('From here on only window 0, and from step 7 on only its token 0.')}</p>",
        _step(5, tr("Gather"), tr("Copy the keys and values of the window that window 0 is routed to."),
              row_of([gathered])),
        _step(6, tr("Scores"), tr("Half of: upper times upper plus lower times lower."), row_of([table])),
        _step(7, tr("Softmax"), tr("Divide each power of e by their sum.") + f" {known}" + tr("."), row_of([shares])),
        _step(8, tr("Output, LePE, projection"),
              tr("L: upper number half of left plus right on the map, lower number half of above plus below, 0 beyond "
                 "the edge. O: the sum of the values, each times its share. y: of O + L, upper plus lower, and upper "
                 "minus lower."),
              row_of([*filters, sign("→"), pairs[1], sign("+"), pairs[0], sign("→"), matrix("W<sub>o</sub>", W_O),
                      pairs[2]])),
        f"<h2>{tr('Questions')}</h2><ol>",
        *(f'<li>{question}<br><span class="answer">{answer if solved else "&nbsp;"}</span></li>'
          for question, answer in _questions(s, nudged)),
        "</ol>",
    ))


def _questions(s: Scene, nudged: ExampleNumbers) -> list[tuple[str, str]]:
    """Questions and their answers, the numbers of which are the example's."""
    tr, routes, after = s.tr, s.now.r_idx[0, :, 0].tolist(), nudged.r_idx[0, :, 0].tolist()
    unread = tr(", ").join(str(i) for i in range(4) if i not in routes)
    moved = tr(", ").join(tr("window {a} reads {b} instead of {c}", a=i, b=after[i], c=routes[i])
                          for i in range(4) if after[i] != routes[i])
    token, channel, value = NUDGED
    row, col = divmod(token, SIDE)
    window, inside = GRID.window_of_token(row, col)
    old = number(s.now.x[0, row, col, channel].item())
    return [
        (tr("Which window is read by none?"), tr("window {n}", n=unread)),
        (tr("The upper number of token {t} of window {w} becomes {new} instead of {old}. Whose route changes?",
            t=inside, w=window, new=value, old=old), moved),
        (tr("With topk 4, which step drops nothing any more?"), tr("Top-k: every token then attends to all 16.")),
    ]


def _filled(given: Cell, asked: bool, solved: bool) -> Cell:
    """A cell that is asked for: empty, or with its answer standing out."""
    if not asked:
        return given
    if solved:
        return replace(given, bold=True)
    return replace(given, lines=("",) * len(given.lines))


def _numbers(values: Sequence[float]) -> tuple[str, ...]:
    return tuple(number(value) for value in values)


def _step(n: int, name: str, words: str, figures: str) -> str:
    return f"<h2>{n}. {name}</h2><p>{words}</p>{figures}"
