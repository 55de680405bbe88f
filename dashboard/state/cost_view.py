"""What the Cost page shows as one frozen record, and its part of the link. The model is the view's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bra.spec import MAX_N_WIN
from dashboard.state import link
from dashboard.state.view import N_WINS

TABS: Final = ("rows", "change", "places", "otherwise", "ultralytics")
MEASURES: Final = ("macs", "params", "peak_bytes", "ms")
ROWS: Final = range(200)
SIDES: Final = range(32, 1537, 32)
POOLS: Final = (1, 2, 4)
NARROW: Final = (1, 2, 4)
PROJECTIONS: Final = ("qkvo", "qkv", "none")


@dataclass(frozen=True, slots=True)
class CostView:
    """The image, what is drawn, and the second setting that the model is held against.

    Attributes:
        height: of the image in pixels.
        width: of the image in pixels.
        measure: what the bars show, of MEASURES.
        n_win: windows per side of the second setting.
        topk: its routed windows.
        narrow: what the channels of q and k are divided by.
        pool: pooling ratio of its k and v; 1 for none.
        projections: its `param_attention`.
        row: number among the rows with BRA of the one that advice is about.
        tried: windows per side that are looked at for it; 0 for the cheapest.
        after: number of the row after which a BRA row is tried.
        tab: which part of the page is open, of TABS.
    """

    height: int = 640
    width: int = 640
    measure: str = "macs"
    n_win: int = 10
    topk: int = 8
    narrow: int = 1
    pool: int = 1
    projections: str = "qkvo"
    row: int = 0
    tried: int = 0
    after: int = 0
    tab: str = "rows"

    @property
    def second(self) -> dict[str, Any]:
        """The second setting as options of `BRASpec`, but for qk_dim, which depends on the layer."""
        found: dict[str, Any] = {"n_win": self.n_win, "topk": self.topk, "param_attention": self.projections}
        if self.pool > 1:
            found |= {"kv_downsample_mode": "avgpool", "kv_downsample_ratio": self.pool}
        return found

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> CostView:
        """What a link asks for; whatever in it is unknown or out of range is left at its default."""
        found = link.read(cls(), _PARAMS, query)
        return replace(found, topk=min(found.topk, found.n_win**2))

    @staticmethod
    def refused(query: Mapping[str, str]) -> tuple[str, ...]:
        """Parameters of a link that `from_query` leaves at their defaults because they ask for what cannot be."""
        return link.refused(_PARAMS, query)

    def to_query(self) -> dict[str, str]:
        """What differs from the default. Inverse of `from_query`."""
        return link.write(self, CostView(), _PARAMS)


_WORDS: Final = {"tab": TABS, "measure": MEASURES, "projections": PROJECTIONS}
_NUMBERS: Final = {
    "height": SIDES, "width": SIDES, "n_win": N_WINS, "topk": range(1, N_WINS[-1] ** 2 + 1), "narrow": NARROW,
    "pool": POOLS, "row": ROWS, "tried": range(MAX_N_WIN + 1), "after": ROWS}
_PARAMS: Final = tuple(
    link.word(name, _WORDS[name], f"cost_{name}") if name in _WORDS else
    link.number(name, _NUMBERS[name], f"cost_{name}") for name in CostView.__slots__)
