"""What is compared as one frozen record, and its part of the link. The picture, A and the query are the view's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, get_args

from bra.experiments.compare import CostName, Setting, settings_of
from bra.models.catalog import ModelSettings
from dashboard.state import link
from dashboard.state.view import Selection

TABS: Final = ("grid", "versus", "rules", "probes", "sweeps")
N_WIN_CHOICES: Final = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
TOPK_CHOICES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
MOST: Final = 6
EQUAL_TO: Final = 7
"""The n_win for which topk is meant where coverage is kept equal: that of the published models."""
COSTS: Final[tuple[CostName, ...]] = get_args(CostName)
USUAL_B: Final = Selection(settings=ModelSettings("untrained"))
_B: Final = "b_"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is set side by side.

    Attributes:
        tab: which part of the page is open, of TABS.
        n_wins: rows of the small multiples, ascending, 1 to 6 of N_WIN_CHOICES.
        topks: columns, ascending, 1 to 6 of TOPK_CHOICES.
        equal: whether topk is scaled with n_win², so that a column covers about the same share of the map.
        cost: what recall is weighed against.
        b: model, settings and layer of side B; the rest of it is not used.
    """

    tab: str = "grid"
    n_wins: tuple[int, ...] = (4, 7, 8)
    topks: tuple[int, ...] = (1, 2, 4, 8)
    equal: bool = False
    cost: CostName = "macs"
    b: Selection = USUAL_B

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Every setting of the small multiples, row by row."""
        return settings_of(self.n_wins, self.topks, EQUAL_TO if self.equal else None)

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Comparison:
        """What a link asks for; whatever in it is unknown or out of range is left at its default."""
        usual = cls()
        b = {name.removeprefix(_B): value for name, value in query.items() if name.startswith(_B)}
        return replace(link.read(usual, _PARAMS, query), b=side_b(Selection.from_query(b)) if b else usual.b)

    @staticmethod
    def refused(query: Mapping[str, str]) -> tuple[str, ...]:
        """Parameters of a link that `from_query` leaves at their defaults because they ask for what cannot be."""
        b = {name.removeprefix(_B): value for name, value in query.items() if name.startswith(_B)}
        return link.refused(_PARAMS, query) + tuple(f"{_B}{name}" for name in Selection.refused(b) if b)

    def to_query(self) -> dict[str, str]:
        """What differs from the default. Inverse of `from_query`."""
        usual = Comparison()
        query = link.write(self, usual, _PARAMS)
        if self.b != usual.b:
            # The model is always said: without a word of B the link would mean the usual one.
            query |= {f"{_B}{name}": value for name, value in
                      {"model": self.b.settings.model, **self.b.to_query()}.items()}
        return query


_PARAMS: Final = (link.word("tab", TABS), link.word("cost", COSTS), link.numbers("n_wins", N_WIN_CHOICES, MOST, "rows"),
                  link.numbers("topks", TOPK_CHOICES, MOST, "columns"), link.switch("equal"))


def side_b(selection: Selection) -> Selection:
    """Of a view, what side B is: model, settings and layer."""
    return Selection(settings=selection.settings, layer=selection.layer)


def most(numbers: Sequence[int]) -> tuple[int, ...]:
    """At most six, ascending, each once."""
    return tuple(sorted(set(numbers)))[:MOST]
