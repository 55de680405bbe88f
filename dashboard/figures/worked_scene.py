"""What the figures of the worked example are drawn of: its numbers now and at first, and the token looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bra.grid import WindowGrid
from bra.teaching.example import N_WIN, SIDE, Worked
from dashboard.figures.worked import Cell, number

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

    now: Worked
    first: Worked
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
