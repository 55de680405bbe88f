"""The visitor's session: the records of what is looked at, the uploaded files, the link, and callbacks of widgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import streamlit as st
from streamlit.runtime.uploaded_file_manager import DeletedFile, UploadedFile

from bra.models.base import FileOptions
from bra.models.catalog import CATALOG, ModelSettings
from bra.viewer.pack import FULL, Place
from dashboard.i18n import chosen_language, key_in_language, tr_noop
from dashboard.state.compare_view import Comparison
from dashboard.state.cost_view import CostView
from dashboard.state.upload import Upload
from dashboard.state.view import LAYER_NAME, N_WINS, UPLOAD, Selection, inside, shows_of
from dashboard.state.widgets import heard_before

T = TypeVar("T")
REFUSED_SECONDS = 15
STAGE, STRIP, UPLOADER, WHOLE, RAIL, MODEL_UPLOADER = "stage", "strip", "uploader", "whole", "rail", "model_uploader"
GRID, PAIR, CHART, MASK = "multiples", "pair", "chart", "mask_layer"
COST_BARS, COST_TREE, COST_PLACES = "cost_bars", "cost_tree", "cost_places"
CHART_FORMAT, MATRIX, WHO_CHOSEN = "chart_format", "matrix", "who_chosen"
ELSEWHERE, REPLACED, INSTEAD = "elsewhere", "replaced", "instead"
MODEL_UPLOADER_B, SWEEP_UPLOADER = "model_uploader_b", "sweep_uploader"
"""Keys of the widgets whose callbacks stand here."""
ATTENTION_OF = (tr_noop("One token"), tr_noop("Mean over the window"))
"""What the attention is shown of, by `Selection.whole`."""


def current() -> Selection:
    """The view of this visitor; a new visit begins with what its link says."""
    return _record("selection", Selection.from_query)


def refused_of_link() -> tuple[str, ...]:
    """Of the link that a visit begins with the parameters that ask for what cannot be; nothing later on."""
    if "selection" in st.session_state:
        return ()
    query = st.query_params.to_dict()
    return Selection.refused(query) + Comparison.refused(query) + CostView.refused(query)


def on_refused_file() -> None:
    """Callback of the browser: a file was dropped or pasted that no field of the page takes."""
    told = st.session_state["browser"].refused
    if isinstance(told, (list, tuple)) and len(told) == 2 and all(isinstance(one, str) for one in told):
        st.session_state["refused_file"] = told[0][:200], told[1][:200], time.monotonic()


def refused_file() -> tuple[str, str]:
    """Name of the file that was just dropped and is of no kind that is taken, and the kinds that are; else "", ""."""
    name, kinds, since = st.session_state.get("refused_file", ("", "", 0.0))
    # Files that came with it make the page run again, too.
    return (name, kinds) if time.monotonic() - since < REFUSED_SECONDS else ("", "")


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


def shared_link() -> dict[str, str]:
    """The link's parameters for others: as they are, but never as a projected page."""
    return {name: value for name, value in st.query_params.to_dict().items() if name not in ("present", "scene")}


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


def linked_card(names: Sequence[str]) -> str:
    """The model card that the link asks for, or else the first."""
    wanted = st.query_params.get("card", "")
    return wanted if wanted in names else names[0]


def save_card(name: str) -> None:
    """Put the card into the link."""
    put_link({"card": name})


def cost_view() -> CostView:
    """What this visitor counts; a new visit begins with what its link says."""
    return _record("cost_view", CostView.from_query)


def save_cost_view(wanted: CostView) -> CostView:
    """Keep what is counted, and put it into the link."""
    return _keep("cost_view", wanted)


def weigh_layer(layer: str) -> None:
    """Weigh the settings of this layer on Compare next."""
    save(replace(current(), layer=layer if LAYER_NAME.fullmatch(layer) else current().layer))
    save_comparison(replace(comparison(), tab="grid"))
    for key in ("compare_layer", "tab"):
        st.session_state.pop(key, None)


def use_setting(n_win: int, topk: int) -> None:
    """Make these windows the second setting of the Cost page, also in its widgets."""
    save_cost_view(replace(cost_view(), n_win=n_win, topk=topk))
    for key, value in {"cost_n_win": n_win, "cost_topk": topk}.items():
        st.session_state[key] = value


def on_multiples(multiples: str) -> None:
    """Callback of the small pictures with that key: the query that was kept is query A of every page."""
    place = st.session_state[multiples].place
    if isinstance(place, (list, tuple)) and not heard_before(multiples, place):
        save(replace(current(), a=inside(int(place[0]), int(place[1]))))


def on_setting(multiples: str) -> None:
    """Callback of the small pictures with that key: a setting that was clicked is looked into next."""
    _look_into(st.session_state[multiples].opened)


def on_chart_point() -> None:
    """Callback of the chart: a setting that was clicked is looked into next."""
    about = _clicked(CHART)
    if len(about) >= 2:     # the front and the lines of the controls tell nothing
        _look_into([int(about[0]), int(about[1])])


def _clicked(key: str) -> list[Any]:
    """`customdata` of the point that was clicked in a chart; a point without any gives []."""
    points = st.session_state[key].selection.get("points") or []
    found = points[0].get("customdata") if points else None
    return list(found) if isinstance(found, (list, tuple)) else []


def open_cost_tab(tab: str) -> None:
    """Show this part of the page Cost next."""
    save_cost_view(replace(cost_view(), tab=tab))
    st.session_state["cost_tab"] = tab


def on_cost_row(with_bra: Sequence[str], plain: Sequence[str], key: str) -> str:
    """Callback of the charts of Cost: the row that was clicked is the one that advice is about.

    Returns its name; "" where advice can be about no such row.

    Args:
        with_bra: names of the rows with BRA, in order.
        plain: names of the rows of the model without BRA, in order: a BRA row may stand after each.
        key: of the chart that was clicked.
    """
    points = st.session_state[key].selection.get("points") or []
    about = _clicked(key)
    # A bar carries its row's name; a cell of the tree is called by it, and its parts by it and their own.
    name = str(about[0] if about and isinstance(about[0], str) else points[0].get("id", "") if points else "")
    row = name.partition(" › ")[0]
    if row in with_bra:
        st.session_state["cost_row"] = with_bra.index(row)
        save_cost_view(replace(cost_view(), row=with_bra.index(row)))
        return row
    if row in plain:
        st.session_state["cost_after"] = plain.index(row)
        save_cost_view(replace(cost_view(), after=plain.index(row)))
        return row
    return ""


def chart_format() -> str:
    """What charts are saved as: "PNG" or "SVG"."""
    found: str = st.session_state.get("charts_saved_as", "PNG")
    return found


def on_chart_format() -> None:
    """Callback of the export menu: kept also for pages that draw no such menu."""
    st.session_state["charts_saved_as"] = st.session_state[CHART_FORMAT]


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


def on_gallery(gallery: str) -> None:
    """Callback of the gallery with that key: the picture that was clicked becomes the visitor's."""
    picked = st.session_state[gallery].picked
    if not isinstance(picked, str):
        return
    mine = own_picture(picked)
    if mine is not None:
        if mine != upload():        # pins on the last one are dropped
            save(replace(current(), picture=Selection().picture, a=None, b=None))
        st.session_state[f"{UPLOADER}_file"] = mine
    save(replace(current(), picture=UPLOAD if mine is not None else picked[:40]))
    st.session_state["picked_since"] = True


def uploaded_file(uploader: str) -> Upload | None:
    """The file that was given to an uploader, also after a visit to another page."""
    return st.session_state.get(f"{uploader}_file")


def file_options(key: str) -> FileOptions:
    """What the visitor said of a model file, kept on pages that do not ask for it."""
    kept: dict[str, FileOptions] = st.session_state.get("file_options", {})
    return kept.get(key, FileOptions())


def save_file_options(key: str, options: FileOptions) -> None:
    """Keep what was said of a model file; of the last few files."""
    kept = {name: one for name, one in st.session_state.get("file_options", {}).items() if name != key}
    st.session_state["file_options"] = dict([*kept.items(), (key, options)][-4:])


def upload() -> Upload | None:
    """The visitor's own picture."""
    return uploaded_file(UPLOADER)


def model_upload() -> Upload | None:
    """The visitor's own model file."""
    return uploaded_file(MODEL_UPLOADER)


def refusal(uploader: str) -> str:
    """Why the last file of an uploader was not taken; "" where it was."""
    why: str = st.session_state.get(f"{uploader}_refused", "")
    return why


def refused_picture() -> bool:
    """Whether the visitor's own picture was refused and no other one was chosen since."""
    refused = bool(refusal(UPLOADER)) and bool(st.session_state.get(UPLOADER))
    return refused and not st.session_state.get("picked_since", False)


def widget_file(uploader: str) -> UploadedFile | DeletedFile | None:
    """The file that the widget itself holds, for its callback."""
    found: UploadedFile | DeletedFile | None = st.session_state[uploader]
    return found


def keep_upload(uploader: str, file: Upload | None, refusal: str) -> None:
    """Keep what became of an uploader's file: the file as it was taken, or why it was not."""
    st.session_state[f"{uploader}_file"], st.session_state[f"{uploader}_refused"] = file, refusal
    if uploader == UPLOADER:
        st.session_state["picked_since"] = False


def own_pictures() -> tuple[Upload, ...]:
    """The visitor's own pictures that are held, the last one first."""
    found: tuple[Upload, ...] = st.session_state.get("own_pictures", ())
    return found


def keep_own_pictures(files: Sequence[Upload], known: Mapping[str, str]) -> None:
    """Hold these of the visitor's own pictures; `known` are digests of what the field holds, by its files' ids."""
    st.session_state["own_pictures"], st.session_state["known_pictures"] = tuple(files), dict(known)


def known_pictures() -> dict[str, str]:
    """Digests of the pictures that the field itself still holds, by its files' ids: on another page it is empty."""
    here = st.session_state.get("drawn_pictures", frozenset())
    known: dict[str, str] = st.session_state.get("known_pictures", {})
    return {name: digest for name, digest in known.items() if name in here}


def widget_pictures(drawn: bool = False) -> list[UploadedFile | DeletedFile]:
    """What the field for pictures holds; `drawn` where that is what a visitor sees now."""
    found: list[UploadedFile | DeletedFile] = st.session_state.get(UPLOADER) or []
    if drawn:
        st.session_state["drawn_pictures"] = frozenset(file.file_id for file in found)
    return found


def own_picture(key: str) -> Upload | None:
    """The one of them that a thumbnail with this key is of."""
    return next((one for one in own_pictures() if key == own_key(one)), None)


def own_key(file: Upload) -> str:
    """Key of the thumbnail of one of the visitor's own pictures."""
    return f"own_{file.digest[:16]}"


def open_model(key: str) -> None:
    """Look into a model of the catalog next, at what suits it; the picture stays."""
    made = ModelSettings(key, side=CATALOG[key].side)
    st.session_state["selection"] = replace(current(), settings=made, layer="")


def mask_widget(on: bool) -> str:
    """Key of the switch beside a layer's padding, which is set to what the view says."""
    st.session_state[MASK] = on
    return MASK


def on_mask() -> None:
    """Callback of the switch beside the padding of a layer whose windows are not the settings' own."""
    save(replace(current(), settings=replace(current().settings, mask_padding=st.session_state[MASK])))


def on_layer(rail: str) -> None:
    """Callback of the rail with that key: the layer that was clicked is the one looked at."""
    picked = st.session_state[rail].picked
    if isinstance(picked, str) and LAYER_NAME.fullmatch(picked):
        save(replace(current(), layer=picked))


def on_whole() -> None:
    """Callback of the choice between one token and the whole window."""
    save(replace(current(), whole=st.session_state[WHOLE] == ATTENTION_OF[True]))


def opened_elsewhere() -> bool:
    """Whether this visit began with a link to a layer that is routed otherwise, whose tab is then open at first."""
    found: bool = st.session_state.setdefault("opened_elsewhere", bool(current().elsewhere))
    return found


def on_elsewhere() -> None:
    """Callback of the choice of what the layer is routed by."""
    save(replace(current(), elsewhere=st.session_state[ELSEWHERE]))


def on_replaced() -> None:
    """Callback of the choice of the routed window that is replaced."""
    save(replace(current(), replaced=st.session_state[REPLACED]))


def instead_widget(window: int | None) -> str:
    """Key of the choice of the window that takes its place, which is set to that of query B."""
    st.session_state[INSTEAD] = window
    return INSTEAD


def on_instead(a: Place, places: Sequence[Place]) -> None:
    """Callback of that choice: the window becomes query B, and the stage follows.

    Args:
        a: place of query A.
        places: the centre of every window.
    """
    window = st.session_state[INSTEAD]
    _pin(a, None if window is None else places[window])


def on_pins(stage: str) -> None:
    """Callback of the stage with that key: its pins become the visitor's."""
    pins = st.session_state[stage].pins or {}
    if heard_before(stage, pins.get("sent")):
        return
    a, b = (inside(int(pins[role][0]), int(pins[role][1])) if pins.get(role) else None for role in ("a", "b"))
    save(replace(current(), a=a, b=b))


def on_show(stage: str) -> None:
    """Callback of the stage with that key: what is switched on there becomes part of the view."""
    words = st.session_state[stage].show
    save(replace(current(), show=shows_of(words if isinstance(words, list) else [])))


def on_box(places: Sequence[Place], key: str) -> None:
    """Callback of the routing matrix: the first and the last query in the box are pinned, and the stage follows.

    Args:
        places: the centre of every window.
        key: of the chart.
    """
    boxes = st.session_state[key].selection.get("box") or []
    rows = boxes[0].get("y") if boxes else None
    if isinstance(rows, (list, tuple)) and rows and places:
        low, high = (min(max(round(float(row)), 0), len(places) - 1) for row in (min(rows), max(rows)))
        _pin(places[low], places[high] if high > low else None)


def on_picture_box(places: Sequence[Place], size: tuple[float, float], key: str) -> None:
    """Callback of a chart over the picture: the window under the middle of the box is pinned, and the stage follows.

    Args:
        places: the centre of every window.
        size: (height, width) of the picture in the pixels of the chart's axes.
        key: of the chart.
    """
    boxes = st.session_state[key].selection.get("box") or []
    if not boxes or not places:
        return
    x, y = (sum(map(float, boxes[0][axis])) / len(boxes[0][axis]) for axis in ("x", "y"))
    at = FULL * x / size[1], FULL * y / size[0]
    _pin(min(places, key=lambda place: (place[0] - at[0])**2 + (place[1] - at[1])**2), current().b)


def _pin(a: Place, b: Place | None) -> None:
    save(replace(current(), a=inside(*a), b=None if b is None else inside(*b)))
    opened = st.session_state.get("stage_opened")
    if opened is not None:
        st.session_state["stage_opened"] = (opened[0], current().pins, current().show)
        st.session_state["stage_follow"] = stage_follow() + 1


def stage_follow() -> int:
    """How often pins were set from elsewhere than the stage, which then takes them over."""
    found: int = st.session_state.get("stage_follow", 0)
    return found


def stage_opening(digest: str) -> tuple[dict[str, Place], tuple[str, ...]]:
    """The pins and switches to open a stage with: read once per picture and visit, then the stage keeps its own.

    A message that changed with every click would send the picture again with every click.
    """
    opened = st.session_state.get("stage_opened")
    if opened is None or opened[0] != digest or key_in_language(STAGE) not in st.session_state:
        opened = st.session_state["stage_opened"] = (digest, current().pins, current().show)
    return opened[1], opened[2]
