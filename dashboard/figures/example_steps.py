"""What each step of the worked example looks like: the numbers of `ExampleNumbers` in grids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from bra.grid import WindowGrid
from bra.teaching.example import LEPE, N_WIN, SIDE, ExampleNumbers
from dashboard.figures.number_grid import Cell, grid, number, row_of, sign, windowed

RANKS: Final = "1234"
SYMBOLS: Final = MappingProxyType({"q_mean": "q̄", "k_mean": "k̄"})


def step_html(step: str, scene: Scene) -> str:
    """The figures of a step, as HTML."""
    tr = scene.tr
    figures = _FIGURES[step](scene, tr)
    if any("wx-mark" in figure for figure in figures):
        figures.append(f'<p class="wx-note">◥ {tr("differs from the first numbers")}</p>')
    return row_of(figures)


def as_map(scene: Scene, title: str, name: str, cut: bool = True, click: bool = False, frame: Sequence[int] = (),
           arrows: Sequence[tuple[int, int]] = ()) -> str:
    """A tensor (b, h, w, c) as the map; where it is cut, windows have their colours and names."""
    tr = scene.tr
    now, first = scene.of(name, 0)
    rows = [[cell(now[r][c], first[r][c], window=GRID.window_of_token(r, c)[0] if cut else None,
                  ring=SIDE * r + c == scene.token, framed=SIDE * r + c in frame,
                  token=SIDE * r + c if click else None,
                  label=tr("token in row {row}, column {column}", row=r, column=c))
             for c in range(SIDE)] for r in range(SIDE)]
    return windowed(title, rows, CUT, window_names(tr), arrows) if cut else grid(title, rows, across=46)


def by_window(scene: Scene, title: str, name: str, mean: str = "") -> str:
    """A tensor (b, p2, t, c): a row for each window, and its mean behind it."""
    tr = scene.tr
    now, first = scene.of(name, 0)
    window, token = scene.at
    rows = [[cell(now[i][n], first[i][n], window=i, ring=(i, n) == (window, token)) for n in range(CUT * CUT)]
            for i in range(N_WIN**2)]
    heads = [tr("token {n}", n=n) for n in range(CUT * CUT)]
    if mean:
        means, were = scene.of(mean, 0)
        rows = [[*row, cell(means[i], were[i], window=i, framed=True)] for i, row in enumerate(rows)]
        heads.append(SYMBOLS[mean])
    return grid(title, rows, window_names(tr), heads, across=50)


def matrix(title: str, rows: Sequence[Sequence[float]]) -> str:
    """Weights as a small grid."""
    return grid(title, [[Cell((number(value),)) for value in row] for row in rows], across=40)


def _tokens(s: Scene, tr: Tr) -> list[str]:
    return [as_map(s, f"<b>x</b> {tr('tokens')}", "x", cut=False, click=True), sign("→"),
            *(as_map(s, f"<b>{name}</b>", f"{name}_map", cut=False) for name in ("q", "k", "v"))]


def _windows(s: Scene, tr: Tr) -> list[str]:
    return [as_map(s, f"<b>x</b> {tr('in 2×2 windows')}", "x", click=True), sign("→"),
            by_window(s, "<b>q</b>", "q"), by_window(s, "<b>k</b>", "k")]


def _means(s: Scene, tr: Tr) -> list[str]:
    return [by_window(s, "<b>q</b>, <b>q̄</b>", "q", "q_mean"),
            by_window(s, "<b>k</b>, <b>k̄</b>", "k", "k_mean")]


def affinities(s: Scene, ranks: bool) -> str:
    """The routing logits; with `ranks` the chosen ones are framed and numbered."""
    tr = s.tr
    now, first = s.of("affinity", 0)
    chosen = s.now.r_idx[0].tolist()
    rows = [[cell(now[i][j], first[i][j], window=j, framed=ranks and j in chosen[i],
                  badge=RANKS[chosen[i].index(j)] if ranks and j in chosen[i] else "")
             for j in range(N_WIN**2)] for i in range(N_WIN**2)]
    names = window_names(tr)
    return grid(f"<b>A</b> {tr('row: asks, column: is asked')}", rows, names, names, across=62,
                row_ring=s.at[0])


def products(title: str, left: Sequence[Cell], top: Sequence[Cell], body: Sequence[Sequence[Cell]],
             left_heads: Sequence[str], top_heads: Sequence[str], ring: int | None, across: int = 58) -> str:
    """A table of products: one factor before each row, the other over each column."""
    corner = Cell(("×",))
    rows = [[corner, *top], *([factor, *row] for factor, row in zip(left, body, strict=True))]
    return grid(title, rows, ["", *left_heads], ["", *top_heads], across,
                None if ring is None else ring + 1)


def _affinity(s: Scene, tr: Tr) -> list[str]:
    (q, q0), (k, k0), (a, a0) = s.of("q_mean", 0), s.of("k_mean", 0), s.of("affinity", 0)
    names, every = window_names(tr), range(N_WIN**2)
    return [products(f"<b>A</b> = ½ <b>q̄</b> · <b>k̄</b> {tr('row: asks, column: is asked')}",
                     [cell(q[i], q0[i], window=i) for i in every], [cell(k[j], k0[j], window=j) for j in every],
                     [[cell(a[i][j], a0[i][j]) for j in every] for i in every], names, names, s.at[0], across=66)]


def _topk(s: Scene, tr: Tr) -> list[str]:
    now, first = s.of("r_idx", 0)
    was = [[*row, *[None] * len(now[0])] for row in first]
    routes = grid("<b>r_idx</b>", [[cell(j, was[i][n], window=j, framed=True) for n, j in enumerate(row)]
                                   for i, row in enumerate(now)], window_names(tr),
                  [RANKS[n] for n in range(len(now[0]))], across=36)
    return [affinities(s, ranks=True), sign("→"), routes, routed_map(s, every=len(now[0]) == 1)]


def routed_map(s: Scene, every: bool) -> str:
    """The map with arrows to the chosen windows: of every window, or of the token's."""
    tr = s.tr
    routes = s.now.r_idx[0].tolist()
    asks = range(N_WIN**2) if every else (s.at[0],)
    return as_map(s, tr("who reads whom") if every else tr("what window {n} reads", n=s.at[0]), "x", click=True,
                  arrows=[(i, j) for i in asks for j in routes[i]])


def gathered(s: Scene, title: str) -> str:
    """Gathered keys and values of the token's window, a column for each, under the window and token it came from."""
    rows = []
    for name in ("keys", "values"):
        now, first = s.of(name, 0, 0, s.at[0])
        first = [*first, *[None] * len(now)]
        rows.append([cell(now[n], first[n], window=window) for n, (window, _) in enumerate(s.sources)])
    return grid(title, rows, ["K", "V"], sources(s), across=46)


def sources(s: Scene) -> list[str]:
    """Names of the gathered keys: w window, t token in it."""
    return [f"w{window} t{token}" for window, token in s.sources]


def rows_of(s: Scene, title: str, name: str) -> str:
    """Scores or shares of the tokens of the token's window."""
    tr = s.tr
    window, token = s.at
    now, first = s.of(name, 0, 0, window)
    rows = [[cell(row[n], [*first[t], *[None] * len(row)][n], window=source) for n, (source, _) in enumerate(s.sources)]
            for t, row in enumerate(now)]
    return grid(title, rows, [tr("token {n}", n=n) for n in range(len(rows))], sources(s), across=46, row_ring=token)


def _gather(s: Scene, tr: Tr) -> list[str]:
    return [routed_map(s, every=False), sign("→"),
            gathered(s, tr("gathered for window {n}: w window, t token in it", n=s.at[0]))]


def _scores(s: Scene, tr: Tr) -> list[str]:
    window, token = s.at
    (q, q0), (keys, keys0) = s.of("q", 0, window), s.of("keys", 0, 0, window)
    now, first = s.of("scores", 0, 0, window)
    keys0 = [*keys0, *[None] * len(keys)]
    body = [[cell(row[n], [*first[t], *[None] * len(row)][n]) for n in range(len(row))] for t, row in enumerate(now)]
    return [products(f"<b>S</b> = ½ <b>q</b> · <b>K</b> {tr('of window {n}', n=window)}",
                     [cell(q[n], q0[n], window=window) for n in range(len(q))],
                     [cell(keys[n], keys0[n], window=source) for n, (source, _) in enumerate(s.sources)], body,
                     [tr("token {n}", n=n) for n in range(len(q))], sources(s), token)]


def _softmax(s: Scene, tr: Tr) -> list[str]:
    return [rows_of(s, "<b>S</b>", "scores"), sign("→"),
            rows_of(s, f"<b>P</b> {tr('each row sums to 1')}", "attention")]


def _output(s: Scene, tr: Tr) -> list[str]:
    window, token = s.at
    (shares, were), (values, values0) = ([side[token] for side in s.of("attention", 0, 0, window)],
                                         s.of("values", 0, 0, window))
    were, values0 = [*were, *[None] * len(shares)], [*values0, *[None] * len(values)]
    rows = [[cell(of[n], was[n], window=source) for n, (source, _) in enumerate(s.sources)]
            for of, was in ((shares, were), (values, values0))]
    return [grid(tr("shares P of token {n}, times values V", n=token), rows, ["P", "V"], sources(s), across=46),
            sign("→"), as_map(s, f"<b>O</b> {tr('their sum')}", "mixed", click=True)]


def _lepe(s: Scene, tr: Tr) -> list[str]:
    row, col = divmod(s.token, SIDE)
    near = [SIDE * r + c for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1))
            if 0 <= r < SIDE and 0 <= c < SIDE]
    kernels = [matrix(tr("filter of channel {n}", n=n + 1), kernel) for n, kernel in enumerate(LEPE)]
    return [as_map(s, "<b>v</b>", "v_map", click=True, frame=near), sign("∗"), *kernels, sign("→"),
            as_map(s, "<b>L</b>", "lepe")]


def _projection(s: Scene, tr: Tr) -> list[str]:
    return [as_map(s, "<b>O</b>", "mixed", click=True), sign("+"), as_map(s, "<b>L</b>", "lepe"), sign("→"),
            as_map(s, "<b>y</b>", "out")]


_FIGURES: Final = MappingProxyType({
    "tokens": _tokens, "windows": _windows, "means": _means, "affinity": _affinity, "topk": _topk, "gather": _gather,
    "scores": _scores, "softmax": _softmax, "output": _output, "lepe": _lepe, "projection": _projection})


# What the figures of the worked example are drawn of: its numbers now and at first, and the token looked at. --------

Tr = Callable[..., str]
"""Says an English text in the reader's language."""
GRID: Final = WindowGrid(SIDE, SIDE, N_WIN)
CUT: Final = SIDE // N_WIN
EPSILON: Final = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What is drawn of.

    Attributes:
        now: the numbers.
        first: the numbers before anything was changed.
        token: number of the token that is looked at.
        tr: says texts in the reader's language.
    """

    now: ExampleNumbers
    first: ExampleNumbers
    token: int
    tr: Tr

    @property
    def at(self) -> tuple[int, int]:
        """Window of the token, and its number in it."""
        return GRID.window_of_token(*divmod(self.token, SIDE))

    def of(self, name: str, *index: int) -> tuple[list[Any], list[Any]]:
        """Numbers of one tensor, now and at first; `index` picks along its first axes."""
        return self.now.__getattribute__(name)[index].tolist(), self.first.__getattribute__(name)[index].tolist()

    @property
    def chosen(self) -> list[int]:
        """Windows that the token's window is routed to."""
        found: list[int] = self.now.r_idx[0, self.at[0]].tolist()
        return found

    @property
    def sources(self) -> list[tuple[int, int]]:
        """Window and token of every gathered key."""
        return [(window, token) for window in self.chosen for token in range(CUT * CUT)]


def cell(values: Any, was: Any, **more: Any) -> Cell:
    """A cell of one number or of several, marked where one of them differs from what it was; None for nothing."""
    numbers, before = (of if isinstance(of, (list, tuple)) else [of] for of in (values, was))
    same = len(numbers) == len(before) and all(a is not None and b is not None and abs(a - b) <= EPSILON
                                               for a, b in zip(numbers, before, strict=True))
    return Cell(tuple(number(value) for value in numbers), changed=not same, **more)


def window_names(tr: Tr) -> list[str]:
    """Names of the four windows."""
    return [tr("window {n}", n=n) for n in range(N_WIN**2)]
