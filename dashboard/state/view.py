"""The view as one frozen record, and its link.

A place is (x, y) in ten-thousandths of the picture, so that it means the same under every grid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

from bra.models.catalog import CATALOG, ModelSettings
from bra.spec import KVDownsampleMode
from bra.viewer.pack import FULL, SHOWS, Place

UPLOAD = "upload"
FIRST = "flowers"
"""The model of the first visit: the one whose routing is best by the measure of its card."""
N_WINS = range(2, 17)
HEADS = (1, 2, 4, 8, 16)
STRIDES = (4, 8, 16, 32)
SIDES = (224, 320, 448, 640)
MAX_TOKENS = 112
"""Tokens along the longer side: full attention over 112×112 takes seconds on two cores, over 160×160 a minute."""
RATIOS = (2, 3, 4)
POOLS: tuple[KVDownsampleMode, ...] = get_args(KVDownsampleMode)

_NUMBERS: Mapping[str, Sequence[int]] = {
    "n_win": N_WINS, "topk": range(1, N_WINS[-1] ** 2 + 1), "num_heads": HEADS, "stride": STRIDES,
    "kv_downsample_ratio": RATIOS, "side": SIDES,
}
_SWITCHES = ("mask_padding", "untrained", "changed")
LAYER_NAME = re.compile(r"[\w.#]{0,80}", re.ASCII)
"""Names of modules; whether the model has such a layer is seen when it is open."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The whole view.

    Attributes:
        picture: key of a sample, or "upload".
        settings: the model and its settings.
        layer: name of the layer looked at; "" for the one that the model's entry names.
        whole: whether attention is the mean over the query's window instead of one token.
        a: place of query A, if pinned.
        b: place of query B, if pinned.
        show: what is switched on, on the stage: some of SHOWS.
    """

    picture: str = "animal"
    settings: ModelSettings = field(default_factory=lambda: ModelSettings(FIRST, side=CATALOG[FIRST].side))
    layer: str = ""
    whole: bool = False
    a: Place | None = None
    b: Place | None = None
    show: tuple[str, ...] = ()

    @property
    def pins(self) -> dict[str, Place]:
        """The pinned queries by role."""
        return {role: place for role, place in (("a", self.a), ("b", self.b)) if place is not None}

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Selection:
        """The view that a link asks for; whatever in it is unknown or out of range is left at its default."""
        settings: dict[str, Any] = {
            name: int(query[name]) for name, allowed in _NUMBERS.items()
            if query.get(name, "").isdecimal() and len(query[name]) < 6 and int(query[name]) in allowed}
        if query.get("model") in CATALOG:
            settings["model"] = query["model"]
        if query.get("kv_downsample_mode") in POOLS:
            settings["kv_downsample_mode"] = query["kv_downsample_mode"]
        settings |= {name: query.get(name) == "1" for name in _SWITCHES}
        settings.setdefault("model", FIRST)
        settings.setdefault("side", CATALOG[settings["model"]].side)
        made = ModelSettings(**settings)
        if query.get("variant") in made.entry.variants[1:]:
            made = replace(made, variant=query["variant"])
        made = replace(made, topk=min(made.topk, made.n_win**2))
        layer = query.get("layer", "")
        return cls(query.get("picture", cls().picture)[:40], made, layer if LAYER_NAME.fullmatch(layer) else "",
                   query.get("whole") == "1", _place(query.get("a")), _place(query.get("b")),
                   shows_of(query.get("show", "").split(".")))

    def to_query(self) -> dict[str, str]:
        """The link's parameters: what differs from the default view. Inverse of `from_query`."""
        usual, query = Selection(), {}
        same = replace(usual.settings, side=self.settings.entry.side)
        for part in fields(ModelSettings):
            if part.name == "file":     # a link does not carry the file that it is about
                continue
            value = getattr(self.settings, part.name)
            if value != getattr(same, part.name):
                query[part.name] = "1" if value is True else str(value)
        for name in ("picture", "layer"):
            if getattr(self, name) != getattr(usual, name):
                query[name] = getattr(self, name)
        if self.whole:
            query["whole"] = "1"
        if self.show:
            query["show"] = ".".join(self.show)
        return query | {role: f"{x}.{y}" for role, (x, y) in self.pins.items()}


def shows_of(words: Sequence[str]) -> tuple[str, ...]:
    """Those of the words that are switches of the stage, in order."""
    return tuple(word for word in SHOWS if word in words)


def _place(text: str | None) -> Place | None:
    x, dot, y = (text or "").partition(".")
    if not (dot and x.isdecimal() and y.isdecimal() and len(text or "") < 14):
        return None
    return inside(int(x), int(y))


def inside(x: int, y: int) -> Place:
    """A place moved onto the picture or its padding."""
    return min(max(x, 0), 2 * FULL), min(max(y, 0), 2 * FULL)
