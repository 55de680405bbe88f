"""What the worked example shows as one frozen record, and its part of the link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from bra.grid import WindowGrid
from bra.teaching.example import FIRST, HIGHEST, TOPKS, Tokens
from bra.viewer.pack import FULL, Place

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
        made, usual = cls(), cls()
        for name, allowed in {"token": TOKENS, "topk": TOPKS, "n_win": N_WINS, "k": range(1, N_WINS[-1] ** 2 + 1),
                              "channel": CHANNELS}.items():
            number = _number(query.get(f"w_{name}", ""))
            if number is not None and number in allowed:
                made = replace(made, **{name: number})
        for change in query.get("w_x", "").split("_")[:2 * len(FIRST)]:
            parts = [_number(part) for part in change.split(".")]
            if len(parts) == 3 and None not in parts and parts[0] in TOKENS and parts[1] in (0, 1):
                made = made.with_number(*(int(part or 0) for part in parts))
        place = [_number(part) for part in query.get("w_place", "").split(".")]
        if len(place) == 2 and all(at is not None and 0 <= at <= FULL for at in place):
            made = replace(made, place=(int(place[0] or 0), int(place[1] or 0)))
        return replace(made, k=min(made.k, made.n_win**2), lepe=query.get("w_lepe", "1") != "0" and usual.lepe)

    def to_query(self) -> dict[str, str]:
        """What differs from the default. Inverse of `from_query`."""
        usual = ExampleView()
        query = {f"w_{name}": str(getattr(self, name)) for name in ("token", "topk", "n_win", "k", "channel")
                 if getattr(self, name) != getattr(usual, name)}
        changed = [f"{token}.{channel}.{value:g}" for token, numbers in enumerate(self.tokens)
                   for channel, value in enumerate(numbers) if value != FIRST[token][channel]]
        if changed:
            query["w_x"] = "_".join(changed)
        if self.place is not None:
            query["w_place"] = f"{self.place[0]}.{self.place[1]}"
        return query if self.lepe else query | {"w_lepe": "0"}


def place_of(grid: WindowGrid, window: int, token: int) -> Place:
    """The middle of a token, as a place on the picture; of one beyond its edge, the nearest place on it."""
    top, left, bottom, right = grid.box_of_token(*grid.token_of_window(window, token))
    height, width = grid.image or (grid.h, grid.w)
    x, y = (left + right) / 2 / width, (top + bottom) / 2 / height
    return min(round(FULL * x), FULL), min(round(FULL * y), FULL)


def _number(text: str) -> int | None:
    """A whole number of few digits, or None."""
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and digits.isascii() and len(digits) < 6 else None
