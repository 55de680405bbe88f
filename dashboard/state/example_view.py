"""What the worked example shows as one frozen record, and its part of the link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from bra.grid import WindowGrid
from bra.teaching.example import FIRST, HIGHEST, TOPKS, Tokens
from bra.viewer.pack import FULL, Place
from dashboard.state import link
from dashboard.state.link import Param
from dashboard.state.view import place_text

N_WINS: Final = range(2, 15)
CHANNELS: Final = range(256)
TOKENS: Final = range(len(FIRST))
NUDGED: Final = (8, 0, 3)
"""Token, channel and new value of the change that the handout's last question asks about."""


@dataclass(frozen=True, slots=True)
class ExampleView:
    """The small example, and the same steps on a photograph.

    Attributes:
        token: the token looked at, by number, row by row.
        topk: routed windows of the example.
        tokens: its input.
        n_win: windows per side on the photograph.
        k: routed windows there.
        channel: the channel shown there, from 0.
        place: the place looked at there; None for where the picture is best asked.
        lepe: whether LePE is added there.
    """

    token: int = 0
    topk: int = 1
    tokens: Tokens = FIRST
    n_win: int = 5
    k: int = 4
    channel: int = 0
    place: Place | None = None
    lepe: bool = True

    def with_number(self, token: int, channel: int, value: float) -> ExampleView:
        """The same with one number of a token changed."""
        made = [list(numbers) for numbers in self.tokens]
        made[token][channel] = min(max(round(value), -HIGHEST), HIGHEST)
        return replace(self, tokens=tuple((a, b) for a, b in made))

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> ExampleView:
        """What a link asks for; whatever in it is unknown or out of range is left at its default."""
        found = link.read(cls(), _PARAMS, query)
        return replace(found, k=min(found.k, found.n_win**2))

    def to_query(self) -> dict[str, str]:
        """What differs from the default. Inverse of `from_query`."""
        return link.write(self, ExampleView(), _PARAMS)


def _read_tokens(text: str) -> Tokens:
    """The first numbers with changes such as "8.0.3_2.1.-1": token, channel and value."""
    made = ExampleView()
    for change in text.split("_")[:2 * len(FIRST)]:
        match [link.number_in(part) for part in change.split(".")]:
            case [int(token), int(channel), int(value)] if token in TOKENS and channel in (0, 1):
                made = made.with_number(token, channel, value)
    return made.tokens


def _tokens_text(tokens: Tokens) -> str:
    return "_".join(f"{token}.{channel}.{value:g}" for token, numbers in enumerate(tokens)
                    for channel, value in enumerate(numbers) if value != FIRST[token][channel])


def _read_place(text: str) -> Place | None:
    match [link.number_in(part) for part in text.split(".")]:
        case [int(x), int(y)] if 0 <= x <= FULL and 0 <= y <= FULL:
            return x, y
    return None


_PARAMS: Final = (
    link.number("token", TOKENS, "w_token"), link.number("topk", TOPKS, "w_topk"),
    link.number("n_win", N_WINS, "w_n_win"), link.number("k", range(1, N_WINS[-1] ** 2 + 1), "w_k"),
    link.number("channel", CHANNELS, "w_channel"), Param("tokens", "w_x", _read_tokens, _tokens_text),
    Param("place", "w_place", _read_place, place_text), link.switch("lepe", "w_lepe", usual=True))


def place_of(grid: WindowGrid, window: int, token: int) -> Place:
    """The middle of a token, as a place on the picture; of one beyond its edge, the nearest place on it."""
    top, left, bottom, right = grid.box_of_token(*grid.token_of_window(window, token))
    height, width = grid.image or (grid.h, grid.w)
    x, y = (left + right) / 2 / width, (top + bottom) / 2 / height
    return min(round(FULL * x), FULL), min(round(FULL * y), FULL)
