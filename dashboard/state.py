"""What the visitor is looking at: one frozen record, its link, and the only hand on the session.

A place is (x, y) in ten-thousandths of the picture, so that it means the same under every grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, get_args

import streamlit as st

from bra.models.catalog import CATALOG, ModelSettings
from bra.spec import KVDownsampleMode
from bra.viewer.pack import FULL, SHOWS, Place

T = TypeVar("T")
STAGE, STRIP, UPLOADER, WHOLE = "stage", "strip", "uploader", "whole"
"""Keys of the widgets whose callbacks stand here."""
UPLOAD = "upload"
ATTENTION_OF = ("One token", "Mean over the window")
"""What the attention is shown of, by `Selection.whole`."""
N_WINS = range(2, 17)
HEADS = (1, 2, 4, 8, 16)
STRIDES = (4, 8, 16, 32)
SIDES = (320, 448, 640)
MAX_TOKENS = 112
"""Tokens along the longer side: full attention over 112×112 takes seconds on two cores, over 160×160 a minute."""
RATIOS = (2, 3, 4)
POOLS: tuple[KVDownsampleMode, ...] = get_args(KVDownsampleMode)

_NUMBERS: Mapping[str, Sequence[int]] = {
    "n_win": N_WINS, "topk": range(1, N_WINS[-1] ** 2 + 1), "num_heads": HEADS, "stride": STRIDES,
    "kv_downsample_ratio": RATIOS, "side": SIDES,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """The whole view.

    Attributes:
        picture: key of a sample, or "upload".
        settings: the model and its settings.
        layer: name of the layer looked at; "" for the first.
        whole: whether attention is the mean over the query's window instead of one token.
        a: place of query A, if pinned.
        b: place of query B, if pinned.
        show: what is switched on, on the stage: some of SHOWS.
    """

    picture: str = "animal"
    settings: ModelSettings = field(default_factory=ModelSettings)
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
        made = ModelSettings(**settings, mask_padding=query.get("mask_padding") == "1")
        made = replace(made, topk=min(made.topk, made.n_win**2))
        layer = query.get("layer", "")
        return cls(query.get("picture", cls().picture)[:40], made, layer if layer in made.entry.layers else "",
                   query.get("whole") == "1", _place(query.get("a")), _place(query.get("b")),
                   _shows(query.get("show", "").split(".")))

    def to_query(self) -> dict[str, str]:
        """The link's parameters: what differs from the default view. Inverse of `from_query`."""
        usual, query = Selection(), {}
        for part in fields(ModelSettings):
            value = getattr(self.settings, part.name)
            if value != getattr(usual.settings, part.name):
                query[part.name] = "1" if value is True else str(value)
        for name in ("picture", "layer"):
            if getattr(self, name) != getattr(usual, name):
                query[name] = getattr(self, name)
        if self.whole:
            query["whole"] = "1"
        if self.show:
            query["show"] = ".".join(self.show)
        return query | {role: f"{x}.{y}" for role, (x, y) in self.pins.items()}


def _shows(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in SHOWS if word in words)


def _place(text: str | None) -> Place | None:
    x, dot, y = (text or "").partition(".")
    if not (dot and x.isdecimal() and y.isdecimal() and len(text or "") < 14):
        return None
    return _inside(int(x), int(y))


def _inside(x: int, y: int) -> Place:
    return min(max(x, 0), 2 * FULL), min(max(y, 0), 2 * FULL)


def current() -> Selection:
    """The view of this visitor; a new visit begins with what its link says."""
    if "selection" not in st.session_state:
        st.session_state["selection"] = Selection.from_query(st.query_params.to_dict())
    selection: Selection = st.session_state["selection"]
    return selection


def save(selection: Selection) -> Selection:
    """Keep the view, and put it into the link. Pins do not outlive their picture."""
    if selection.picture != current().picture:
        selection = replace(selection, a=None, b=None)
    st.session_state["selection"] = selection
    link = selection.to_query()
    # The browser tells its address with each request, and that may be older than the last one that was set here.
    if link != st.session_state.get("link") or link != st.query_params.to_dict():
        st.query_params.from_dict(link)
        st.session_state["link"] = link
    return selection


def hold(key: str, value: T, allowed: Sequence[T]) -> str:
    """Give the widget `key` its value before it is drawn.

    It keeps what it had; where that is not possible any more, or it had nothing, it gets `value`, or of numbers the one
    nearest to it, or else the first.
    """
    if key not in st.session_state:
        st.session_state[key] = value
    had = st.session_state[key]
    offered = f"{key}_offered"
    if st.session_state.get(offered) != list(allowed):
        # To Streamlit, a widget with other options is a new one, which would begin at its own default.
        st.session_state[offered] = list(allowed)
        st.session_state[key] = had
    if had not in allowed:
        numbers = [a for a in allowed if isinstance(a, int) and isinstance(had, int)]
        st.session_state[key] = min(numbers, key=lambda a: abs(a - had), default=allowed[0])
    return key


def take_picked() -> None:
    """Callback of the gallery: the picture that was clicked becomes the visitor's."""
    picked = st.session_state[STRIP].picked
    if isinstance(picked, str):
        save(replace(current(), picture=picked[:40]))


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that this visitor brought; kept for this session alone."""

    name: str
    data: bytes
    digest: str


def _uploaded(name: str, data: bytes) -> Upload:
    return Upload(name, data, hashlib.sha256(data).hexdigest())


def take_upload() -> None:
    """Callback of the uploader: its file becomes the visitor's picture; without one, the default comes back."""
    file = st.session_state[UPLOADER]
    st.session_state["upload"] = None if file is None else _uploaded(file.name, file.getvalue())
    if file is None and current().picture != UPLOAD:
        return
    # Saved under another name first, so that pins on an earlier upload are dropped too.
    save(replace(current(), picture=Selection().picture, a=None, b=None))
    if file is not None:
        save(replace(current(), picture=UPLOAD))


def upload() -> Upload | None:
    """The visitor's file, also after a visit to another page."""
    return st.session_state.get("upload")


def take_whole() -> None:
    """Callback of the choice between one token and the whole window."""
    save(replace(current(), whole=st.session_state[WHOLE] == ATTENTION_OF[True]))


def take_pins() -> None:
    """Callback of the stage: its pins become the visitor's."""
    pins = st.session_state[STAGE].pins or {}
    save(replace(current(), **{
        role: _inside(int(pins[role][0]), int(pins[role][1])) if pins.get(role) else None for role in ("a", "b")}))


def take_show() -> None:
    """Callback of the stage: what is switched on there becomes part of the view."""
    words = st.session_state[STAGE].show
    save(replace(current(), show=_shows(words if isinstance(words, list) else [])))


def stage_opening(digest: str) -> tuple[dict[str, Place], tuple[str, ...]]:
    """The pins and switches to open a stage with: read once per picture and visit, then the stage keeps its own.

    A message that changed with every click would send the picture again with every click.
    """
    opened = st.session_state.get("stage_opened")
    if opened is None or opened[0] != digest or STAGE not in st.session_state:
        opened = st.session_state["stage_opened"] = (digest, current().pins, current().show)
    return opened[1], opened[2]
