"""The view as one frozen record, and its link.

A place is (x, y) in ten-thousandths of the picture, so that it means the same under every grid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from bra.experiments.reroute import REROUTES
from bra.models.catalog import CATALOG, DEFAULT, ModelEntry, ModelSettings
from bra.spec import KVDownsampleMode
from bra.viewer.pack import FULL, SHOWS, Place
from dashboard.state import link
from dashboard.state.link import Param

UPLOAD = "upload"
N_WINS = range(2, 17)
HEADS = (1, 2, 4, 8, 16)
STRIDES = (4, 8, 16, 32)
SIDES = (224, 320, 384, 448, 640)
MAX_TOKENS = 112
"""Tokens along the longer side: full attention over 112×112 takes seconds on two cores, over 160×160 a minute."""
RATIOS = (2, 3, 4)
POOLS: tuple[KVDownsampleMode, ...] = get_args(KVDownsampleMode)
ELSEWHERE = ("swap", *(rule for rule in REROUTES if rule != "bra"))
"""What Explore can do to a layer's routing: one window of query A replaced, or another rule for all."""

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
        elsewhere: what the layer is routed by instead, one of ELSEWHERE; "" for its own choice.
        replaced: rank of the routed window of query A that "swap" replaces by the window of query B; 0 for the last.
    """

    picture: str = "animal"
    settings: ModelSettings = field(default_factory=lambda: ModelSettings(DEFAULT, side=CATALOG[DEFAULT].side))
    layer: str = ""
    whole: bool = False
    a: Place | None = None
    b: Place | None = None
    show: tuple[str, ...] = ()
    elsewhere: str = ""
    replaced: int = 0

    @property
    def pins(self) -> dict[str, Place]:
        """The pinned queries by role."""
        return {role: place for role, place in (("a", self.a), ("b", self.b)) if place is not None}

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Selection:
        """The view that a link asks for; whatever in it is unknown or out of range is left at its default."""
        entry = CATALOG.get(query.get("model", DEFAULT), CATALOG[DEFAULT])
        asked = link.read(ModelSettings(entry.key, side=entry.side), _settings_params(entry), query)
        settings = replace(asked, topk=min(asked.topk, asked.n_win**2))
        return link.read(cls(settings=settings), _VIEW_PARAMS, query)

    @staticmethod
    def refused(query: Mapping[str, str]) -> tuple[str, ...]:
        """Parameters of a link that `from_query` leaves at their defaults because they ask for what cannot be."""
        entry = CATALOG.get(query.get("model", DEFAULT), CATALOG[DEFAULT])
        return link.refused((*_settings_params(entry), *_VIEW_PARAMS), query)

    def to_query(self) -> dict[str, str]:
        """The link's parameters: what differs from the default view. Inverse of `from_query`."""
        usual, entry = Selection(), self.settings.entry
        return (link.write(self.settings, replace(usual.settings, side=entry.side), _settings_params(entry))
                | link.write(self, usual, _VIEW_PARAMS))


def shows_of(words: Sequence[str]) -> tuple[str, ...]:
    """Those of the words that are switches of the stage, in order."""
    return tuple(word for word in SHOWS if word in words)


def _settings_params(entry: ModelEntry) -> tuple[Param, ...]:
    """The model's settings in the link; which variants there are depends on the model."""
    variants = dict(zip(entry.variants, ("", *entry.variants[1:]), strict=True))        # "" is the usual one
    return (
        link.word("model", CATALOG), link.number("n_win", N_WINS), link.number("topk", range(1, N_WINS[-1] ** 2 + 1)),
        link.number("num_heads", HEADS), link.number("stride", STRIDES), link.word("kv_downsample_mode", POOLS),
        link.number("kv_downsample_ratio", RATIOS), link.switch("mask_padding"), link.number("side", SIDES),
        Param("variant", "variant", variants.get), link.switch("untrained"), link.switch("changed"))


def _read_place(text: str) -> Place | None:
    x, dot, y = text.partition(".")
    if not (dot and x.isdecimal() and y.isdecimal() and len(text) < 14):
        return None
    return inside(int(x), int(y))


def place_text(place: Place) -> str:
    """A place in a link: "2500.7600"."""
    return f"{place[0]}.{place[1]}"


def _read_layer(text: str) -> str | None:
    return text if LAYER_NAME.fullmatch(text) else None


_VIEW_PARAMS = (
    Param("picture", "picture", lambda text: text[:40]), Param("layer", "layer", _read_layer), link.switch("whole"),
    Param("show", "show", lambda text: shows_of(text.split(".")), ".".join),
    Param("a", "a", _read_place, place_text), Param("b", "b", _read_place, place_text),
    link.word("elsewhere", ELSEWHERE), link.number("replaced", range(1, N_WINS[-1] ** 2 + 1)))


def inside(x: int, y: int) -> Place:
    """A place moved onto the picture or its padding."""
    return min(max(x, 0), 2 * FULL), min(max(y, 0), 2 * FULL)
