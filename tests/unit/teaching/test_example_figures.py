"""What is drawn of the worked example: the module's numbers, marked where they moved; and its sheets of paper."""

from __future__ import annotations

import re
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bra.grid import WindowGrid
from bra.teaching.example import FIRST, TOPKS, run_example
from bra.teaching.source import STEPS
from dashboard.figures.example_steps import Scene, step_html
from dashboard.figures.number_grid import number
from dashboard.figures.photo_maps import CIVIDIS, NOTHING, heat, map_figure, photo_figure, span_of, strip_figure
from dashboard.i18n import tr_in
from dashboard.learn import example
from dashboard.learn.handout import handout
from dashboard.learn.step_texts import NAMES, ON_PHOTO, WHAT, WHY
from dashboard.state.example_view import NUDGED, ExampleView, place_of

EN = partial(tr_in, "en")
NUDGED_TOKENS = ExampleView().with_number(*NUDGED).tokens


def figures(html: str) -> dict[str, ElementTree.Element]:
    """The drawings of a step by the text of their titles."""
    root = ElementTree.fromstring(html)
    return {"".join(figure.find("figcaption").itertext()): figure for figure in root.iter("figure")}


def texts(figure: ElementTree.Element, kind: tuple[str, ...] = ("", "wx-changed")) -> list[str]:
    return [of.text or "" for of in figure.iter("text") if of.get("class") in kind]


def scene(token: int = 0, topk: int = 1, tokens: object = FIRST) -> Scene:
    return Scene(run_example(tokens, topk), run_example(), token, EN)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("topk", TOPKS)
@pytest.mark.parametrize("token", [0, 7, 15])
def test_every_step_is_drawn_whole(step: str, topk: int, token: int) -> None:
    made = figures(step_html(step, scene(token, topk, NUDGED_TOKENS)))
    assert made
    for figure in made.values():
        svg = figure.find("svg")
        _, _, wide, tall = map(float, svg.get("viewBox").split())
        for rect in svg.iter("rect"):
            x, y, w, h = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            assert x >= 0
            assert y >= 0
            assert x + w <= wide
            assert y + h <= tall


def test_the_affinities_in_the_figures_are_the_modules() -> None:
    made = texts(figures(step_html("topk", scene()))["A row: asks, column: is asked"])
    assert made == [number(a) for row in run_example().affinity[0].tolist() for a in row]


@pytest.mark.parametrize("token", range(16))
def test_scores_and_shares_in_the_figures_are_those_of_the_tokens_window(token: int) -> None:
    made, now = figures(step_html("softmax", scene(token, 2))), run_example(FIRST, 2)
    window = scene(token).at[0]
    for title, name in (("S", "scores"), ("P each row sums to 1", "attention")):
        expected = getattr(now, name)[0, 0, window].flatten().tolist()
        assert texts(made[title]) == [number(value) for value in expected]


def test_products_stand_where_their_factors_meet() -> None:
    cells = texts(next(iter(figures(step_html("affinity", scene())).values())))
    now = run_example()
    top, rows = cells[1:9], [cells[9 + 6 * n:15 + 6 * n] for n in range(4)]     # factors have two numbers
    assert top == [number(v) for mean in now.k_mean[0].tolist() for v in mean]
    for n, row in enumerate(rows):
        assert row[:2] == [number(v) for v in now.q_mean[0, n].tolist()]
        assert row[2:] == [number(v) for v in now.affinity[0, n].tolist()]


def test_only_what_moved_is_marked() -> None:
    assert "wx-mark" not in "".join(step_html(step, scene()) for step in STEPS)
    made = scene(2, 1, NUDGED_TOKENS)
    marks = {step: step_html(step, made).count('class="wx-mark"') for step in STEPS}
    assert marks["tokens"] == 4                                     # x, q, k and v of one token
    assert marks["topk"] == 4 + 3 + 1 + 1 == 9                      # its row and column, a route, the token on the map
    now, first = made.now, made.first
    moved = {name: int((getattr(now, name) - getattr(first, name)).abs().gt(1e-6).any(-1).sum())
             for name in ("mixed", "lepe", "out")}
    assert marks["projection"] == sum(moved.values())
    assert "differs from the first numbers" in step_html("topk", made)


def test_with_more_windows_what_is_new_is_marked() -> None:
    made = step_html("gather", scene(0, 2))
    assert made.count('class="wx-mark"') == 2 * 4                   # keys and values of the second window


def test_every_token_of_the_input_can_be_chosen() -> None:
    made = step_html("tokens", scene(5))
    assert sorted(map(int, re.findall(r'data-token="(\d+)"', made))) == list(range(16))
    assert len(re.findall(r'tabindex="0"', made)) == 1
    assert re.search(r'data-token="5" role="button" tabindex="0" aria-pressed="true"', made)


@given(st.floats(-1e4, 1e4))
def test_a_number_is_written_short_and_near(value: float) -> None:
    text = number(value).replace("−", "-")
    assert abs(float(text) - value) <= 0.0051
    assert len(text.partition(".")[2]) <= 3
    assert not text.startswith("-0") or float(text) != 0


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("topk", TOPKS)
def test_formulas_hold_their_results(step: str, topk: int) -> None:
    made = run_example(NUDGED_TOKENS, topk)
    for token in range(16):
        latex = example.formula(step, made, token)
        assert latex.count("{") == latex.count("}")
        assert latex.count(r"\left(") == latex.count(r"\right)")
    window, row = Scene(made, made, 6, EN).at[0], (1, 2)
    last = {"affinity": made.affinity[0, window, made.r_idx[0, window, 0]], "scores": made.scores[0, 0, window, 2, 0],
            "softmax": made.attention[0, 0, window, 2, 0]}
    if step in last:
        result = number(last[step].item()).replace("−", "-")
        assert example.with_numbers(step, made, 6).endswith(f"= {result}")
    if step in ("output", "lepe"):
        result = ",\\,".join(number(v).replace("−", "-")
                             for v in getattr(made, {"output": "mixed"}.get(step, step))[0][row].tolist())
        assert example.with_numbers(step, made, 6).endswith(f"= ({result})")


def test_shapes_name_as_many_axes_as_there_are() -> None:
    made = run_example(FIRST, 3)
    for step in STEPS:
        for line in example.shapes(step, made):
            letters, sizes = re.fullmatch(r".+? \((.+)\) = \((.+)\)", line).groups()
            assert letters.count(",") == sizes.count(",")
    assert example.shapes("softmax", made) == ("P (b, m, p2, t, k·t) = (1, 1, 4, 4, 12)",)


def test_every_step_has_its_words() -> None:
    assert all(tuple(words) == STEPS for words in (NAMES, WHAT, WHY, ON_PHOTO, example.LETTERS,
                                                   example.SHAPES))


# Sheets of paper -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_handout_asks_and_the_solution_answers(language: str) -> None:
    first, nudged = run_example(), run_example(NUDGED_TOKENS)
    asked, solved = (handout(first, nudged, done, language) for done in (False, True))
    answers = {number(v) for v in [*first.affinity[0, 0].tolist(), *first.out[0, 0, 0].tolist(),
                                   *first.mixed[0, 0, 0].tolist()]}
    bold = re.findall(r'<text class="wx-changed"[^>]*>([^<]*)<', solved)
    assert answers <= set(bold)
    blanks = len(re.findall(r'<text class=""[^>]*></text>', asked))
    assert blanks == len(bold) + 2 * 16 > 90                        # and the map to draw arrows on has no numbers
    assert not {"1.46", "3.23", "−1.31", "1.625"} & set(re.findall(r">([^<>]+)</text>", asked))
    assert asked.count('class="wx-arrow"') == 0
    assert solved.count('class="wx-arrow"') == 4
    assert asked.count('class="paper"') == 2
    right = {"en": ["window 0", "window 1 reads 2 instead of 3"], "zh": ["窗口 0", "窗口 1 读取 2，而不是 3"]}[language]
    assert re.findall(r'class="answer">([^<]*)<', solved)[:2] == right
    assert set(re.findall(r'class="answer">([^<]*)<', asked)) == {"&nbsp;"}
    assert not re.findall(r'(?:src|href)="(?!data:)', solved)


# On a photograph --------------------------------------------------------------------------------------------------


GRID = WindowGrid.over_image(64, 96, 8, 12, 3)


def test_a_map_is_coloured_from_its_smallest_to_its_largest_number() -> None:
    values = np.array([[0.0, 1.0], [np.nan, 2.0]])
    assert span_of(values, np.array([[-1.0, np.nan]])) == (-1, 2)
    colours = heat(values, 0, 2)
    assert colours[0, 0].tolist() == list(CIVIDIS[0])
    assert colours[0, 1].tolist() == list(CIVIDIS[4])
    assert colours[1, 1].tolist() == list(CIVIDIS[-1])
    assert colours[1, 0].tolist() == list(NOTHING)
    assert heat(np.ones((2, 2)), 1, 1).tolist() == heat(np.zeros((2, 2)), 0, 1).tolist()


def test_pictures_frame_the_windows_they_are_about() -> None:
    made = figures("<div>" + photo_figure("seen", b"", GRID, query=4, routed=[0, 8]) + "</div>")["seen"]
    frames = {rect.get("stroke") for rect in made.iter("rect") if rect.get("stroke")}
    assert frames == {"#111", "#E69F00", "#56B4E9"}
    assert [text.text for text in made.iter("text")] == ["1", "2"]
    strip = figures("<div>" + strip_figure("cut", b"", GRID, [8, 0]) + "</div>")["cut"]
    assert [text.text for text in strip.iter("text")] == ["1: w8", "2: w0"]
    boxes = [GRID.box_of_window(window)[:2] for window in (8, 0)]
    shown = [svg.get("viewBox").split()[:2] for svg in strip.find("svg").iter("svg")][1:]
    assert [(float(y), float(x)) for x, y in shown] == boxes
    plain = map_figure("map", np.zeros((8, 12)), GRID, (0, 1), token=(2, 3))
    assert plain.count('stroke="#fff"') == 1


@given(st.integers(0, 8), st.integers(0, 11))
def test_a_place_leads_back_to_its_token(window: int, token: int) -> None:
    x, y = place_of(GRID, window, token)
    row, col = GRID.token_of_window(window, token)
    if row < GRID.h and col < GRID.w:
        assert GRID.window_of_pixel(y / 10_000 * 64, x / 10_000 * 96) == (window, token)
    assert 0 <= min(x, y) <= max(x, y) <= 10_000
