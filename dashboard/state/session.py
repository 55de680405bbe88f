"""What the visitor is looking at and brought along: the only hand on the session and on the link."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import streamlit as st
from streamlit.runtime.uploaded_file_manager import DeletedFile

from bra.models.base import FileOptions
from bra.models.catalog import CATALOG, ModelSettings
from bra.viewer.pack import Place
from dashboard.i18n import chosen_language, key_in_language, tr_noop
from dashboard.runtime.server import server
from dashboard.runtime.uploads import Upload
from dashboard.state.compare_view import Comparison
from dashboard.state.cost_view import CostView
from dashboard.state.view import LAYER_NAME, N_WINS, UPLOAD, Selection, inside, shows_of
from dashboard.state.widgets import init_widget

T = TypeVar("T")
STAGE, STRIP, UPLOADER, WHOLE, RAIL, MODEL_UPLOADER = "stage", "strip", "uploader", "whole", "rail", "model_uploader"
GRID, VERSUS, CHART = "multiples", "versus", "chart"
MODEL_UPLOADER_B, SWEEP_UPLOADER = "model_uploader_b", "sweep_uploader"
"""Keys of the widgets whose callbacks stand here."""
ATTENTION_OF = (tr_noop("One token"), tr_noop("Mean over the window"))
"""What the attention is shown of, by `Selection.whole`."""


def current() -> Selection:
    """The view of this visitor; a new visit begins with what its link says."""
    return _record("selection", Selection.from_query)


def save(selection: Selection) -> Selection:
    """Keep the view, and put it into the link. Pins do not outlive their picture."""
    if selection.picture != current().picture:
        selection = replace(selection, a=None, b=None)
    st.session_state["selection"] = selection
    put_link(selection.to_query() | comparison().to_query() | cost_view().to_query())
    return selection


def put_link(parameters: Mapping[str, str]) -> None:
    """Make these parameters, and the language if one was chosen, the page's link."""
    chosen = chosen_language()
    link = dict(parameters) | ({"lang": chosen} if chosen else {})
    # The browser tells its address with each request, and that may be older than the last one that was set here.
    if link != st.session_state.get("link") or link != st.query_params.to_dict():
        st.query_params.from_dict(link)
        st.session_state["link"] = link


def _record(key: str, from_query: Callable[[Mapping[str, str]], T]) -> T:
    """One of the visitor's records; a new visit begins with what its link says."""
    if key not in st.session_state:
        st.session_state[key] = from_query(st.query_params.to_dict())
    found: T = st.session_state[key]
    return found


def _keep(key: str, wanted: T) -> T:
    """Keep a record, and put it into the link."""
    st.session_state[key] = wanted
    save(current())
    return wanted


def comparison() -> Comparison:
    """What this visitor compares; a new visit begins with what its link says."""
    return _record("comparison", Comparison.from_query)


def save_comparison(wanted: Comparison) -> Comparison:
    """Keep what is compared, and put it into the link."""
    return _keep("comparison", wanted)


def card(names: Sequence[str]) -> str:
    """Key of the choice of a model card, which begins with what the link says."""
    wanted = st.query_params.get("card", "")
    return init_widget("card", wanted if wanted in names else names[0], names)


def save_card(name: str) -> None:
    """Put the card into the link."""
    put_link({"card": name})


def cost_view() -> CostView:
    """What this visitor counts; a new visit begins with what its link says."""
    return _record("cost_view", CostView.from_query)


def save_cost_view(wanted: CostView) -> CostView:
    """Keep what is counted, and put it into the link."""
    return _keep("cost_view", wanted)


def use_setting(n_win: int, topk: int) -> None:
    """Make these windows the second setting of the Cost page, also in its widgets."""
    save_cost_view(replace(cost_view(), n_win=n_win, topk=topk))
    for key, value in {"cost_n_win": n_win, "cost_topk": topk}.items():
        st.session_state[key] = value


def take_multiples() -> None:
    """Callback of the small pictures: the query that was kept is query A of every page."""
    for key in (GRID, VERSUS):
        place = st.session_state[key_in_language(key)].place if key_in_language(key) in st.session_state else None
        if isinstance(place, (list, tuple)) and place != st.session_state.get(f"{key}_taken"):
            st.session_state[f"{key}_taken"] = place
            save(replace(current(), a=inside(int(place[0]), int(place[1]))))


def take_opened() -> None:
    """Callback of the small pictures: a setting that was clicked is looked into next."""
    _look_into(st.session_state[key_in_language(GRID)].opened)


def take_point() -> None:
    """Callback of the chart: a setting that was clicked is looked into next."""
    picked = st.session_state[CHART].selection.get("pick") or []
    if picked:
        _look_into([picked[0].get("n_win"), picked[0].get("topk")])


def _look_into(setting: object) -> None:
    if not (isinstance(setting, (list, tuple)) and len(setting) == 2 and all(isinstance(n, int) for n in setting)):
        return
    n_win, topk = setting
    if n_win in N_WINS and 1 <= topk <= n_win**2:
        settings = replace(current().settings, n_win=n_win, topk=topk,
                           changed=current().settings.entry.family != "patches")
        save(replace(current(), settings=settings))
        for key, value in {"n_win": n_win, "topk": topk, "changed": True}.items():
            st.session_state[key] = value       # the widgets of Explore keep what they had
        st.session_state["leaving"] = True


def leaving() -> bool:
    """Whether a setting was asked for, which Explore shows; said once."""
    return bool(st.session_state.pop("leaving", False))


def opening_place(key: str, digest: str, focus: Place) -> Place:
    """The query to open the small pictures `key` with: read once per picture and visit, then they keep their own."""
    opened = st.session_state.get(f"{key}_opened")
    if opened is None or opened[0] != digest or key_in_language(key) not in st.session_state:
        opened = st.session_state[f"{key}_opened"] = (digest, current().a or focus)
    place: Place = opened[1]
    return place


def take_picked() -> None:
    """Callback of the gallery: the picture that was clicked becomes the visitor's."""
    picked = st.session_state[key_in_language(STRIP)].picked
    if isinstance(picked, str):
        save(replace(current(), picture=picked[:40]))


def take_upload() -> None:
    """Callback of the uploader: its file becomes the visitor's picture; without one, the default comes back."""
    if not _take(UPLOADER, "upload") or (upload() is None and current().picture != UPLOAD):
        return
    # Saved under another name first, so that pins on an earlier upload are dropped too.
    save(replace(current(), picture=Selection().picture, a=None, b=None))
    if upload() is not None:
        save(replace(current(), picture=UPLOAD))


def file_options(key: str) -> FileOptions:
    """What the visitor said of a model file, kept on pages that do not ask for it."""
    kept: dict[str, FileOptions] = st.session_state.get("file_options", {})
    return kept.get(key, FileOptions())


def save_file_options(key: str, options: FileOptions) -> None:
    """Keep what was said of a model file; of the last few files."""
    kept = {name: one for name, one in st.session_state.get("file_options", {}).items() if name != key}
    st.session_state["file_options"] = dict([*kept.items(), (key, options)][-4:])


def upload() -> Upload | None:
    """The visitor's picture, also after a visit to another page."""
    return st.session_state.get("upload")


def take_model() -> None:
    """Callback of the uploader of models: its file becomes the visitor's model; layers of the last are forgotten."""
    if _take(MODEL_UPLOADER, "model_upload"):
        save(replace(current(), layer=""))


def model_upload() -> Upload | None:
    """The visitor's own model file, also after a visit to another page."""
    return st.session_state.get("model_upload")


def take_file(uploader: str) -> None:
    """Callback of an uploader whose file changes nothing but what its own part of a page shows."""
    _take(uploader, f"{uploader}_file")


def _take(uploader: str, into: str) -> bool:
    """Put the file of an uploader into the session, or that there is none; whether it came or went."""
    file = st.session_state[uploader]
    if isinstance(file, DeletedFile):       # one of many, which the server let go; what was taken of it stays
        return False
    st.session_state[into], st.session_state[f"{uploader}_refused"] = (
        (None, "") if file is None else server().uploads.take(file, picture=uploader == UPLOADER))
    return True


def brought(uploader: str) -> Upload | None:
    """The file that was given to such an uploader, also after a visit to another page."""
    return st.session_state.get(f"{uploader}_file")


def open_model(key: str) -> None:
    """Look into a model of the catalog next, at what suits it; the picture stays."""
    made = ModelSettings(key, side=CATALOG[key].side)
    st.session_state["selection"] = replace(current(), settings=made, layer="")


def take_layer() -> None:
    """Callback of the rail: the layer that was clicked is the one looked at."""
    picked = st.session_state[key_in_language(RAIL)].picked
    if isinstance(picked, str) and LAYER_NAME.fullmatch(picked):
        save(replace(current(), layer=picked))


def take_whole() -> None:
    """Callback of the choice between one token and the whole window."""
    save(replace(current(), whole=st.session_state[WHOLE] == ATTENTION_OF[True]))


def take_pins() -> None:
    """Callback of the stage: its pins become the visitor's."""
    pins = st.session_state[key_in_language(STAGE)].pins or {}
    save(replace(current(), **{
        role: inside(int(pins[role][0]), int(pins[role][1])) if pins.get(role) else None for role in ("a", "b")}))


def take_show() -> None:
    """Callback of the stage: what is switched on there becomes part of the view."""
    words = st.session_state[key_in_language(STAGE)].show
    save(replace(current(), show=shows_of(words if isinstance(words, list) else [])))


def stage_opening(digest: str) -> tuple[dict[str, Place], tuple[str, ...]]:
    """The pins and switches to open a stage with: read once per picture and visit, then the stage keeps its own.

    A message that changed with every click would send the picture again with every click.
    """
    opened = st.session_state.get("stage_opened")
    if opened is None or opened[0] != digest or key_in_language(STAGE) not in st.session_state:
        opened = st.session_state["stage_opened"] = (digest, current().pins, current().show)
    return opened[1], opened[2]
