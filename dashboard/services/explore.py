"""What Explore shows of one layer, found again by keys: an open page keeps these, and the shelf what they name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from torch import Tensor

from bra.messages import Language
from bra.models.base import Answer, ModelRun
from bra.models.catalog import ModelSettings
from bra.photo import Photo
from bra.reports.files import routing_csv, trace_npz
from bra.reports.layer_html import report_html
from bra.tracing import LayerTrace
from bra.viewer.pack import Caption, Place, locate, stage_message, tiles_message
from dashboard.i18n import tr_noop
from dashboard.runtime.server import server
from dashboard.runtime.uploads import Upload
from dashboard.runtime.wait import AT_ONCE, HEAVY, QUICK, worked
from dashboard.samples import GALLERY
from dashboard.services import models as model_services

Queries = Sequence[tuple[str, Place, bool]]
"""Role, place, and whether the whole window is meant, as `tiles_message` takes them."""


@dataclass(frozen=True, slots=True)
class LayerRequest:
    """What an open page shows: small, whatever it names.

    Attributes:
        settings: the model and its settings.
        sample: the built-in picture; "" where it is the visitor's own.
        upload: the visitor's own picture; its bytes are those that the visit keeps anyway.
        changed: the layer whose windows the settings change, as for `services.look`.
        layer: the layer that is shown.
        file: the visitor's own model.
    """

    settings: ModelSettings
    sample: str
    upload: Upload | None
    changed: str
    layer: str
    file: Upload | None


@dataclass(frozen=True, slots=True, eq=False)
class LayerResult:
    """What was found: for the moment in which it is drawn, and not to be kept by a page.

    Attributes:
        key: what tells the layer on the picture from every other.
        photo: the picture.
        layer: the layer.
        look: what the model made of the picture.
    """

    key: Hashable
    photo: Photo
    layer: LayerTrace
    look: ModelRun


def shown(settings: ModelSettings, photo: Photo, upload: Upload | None, changed: str, layer: str,
          file: Upload | None) -> LayerRequest:
    """The keys of what is looked at; `upload` is the visitor's picture, whether or not it is the one looked at."""
    sample = next((key for key in GALLERY if model_services.sample(key).digest == photo.digest), "")
    return LayerRequest(settings, sample, None if sample else upload, changed, layer, file)


def seen(of: LayerRequest) -> LayerResult:
    """What the keys name, from the shelf; what is not there any more is worked out again.

    Raises:
        BRAError: as `services.look`.
    """
    photo = (model_services.sample(of.sample) if of.upload is None
             else model_services.photo_of(of.upload.data, of.upload.digest))
    look = model_services.look(of.settings, photo, of.changed, of.file)
    key = (of.settings.opens, model_services.file_key(of.settings, of.file), of.settings.side,
           of.settings.change_of(of.changed), photo.digest, of.layer)
    return LayerResult(key, photo, look.trace.layers[of.layer], look)


# the stage and the tiles ----------------------------------------------------------------------------------

FEW_WINDOWS, MANY_WINDOWS = 2**16, 2**21
"""Affinities, p2², that are ranked within some 10 ms, and within half a second: above, it is heavy work."""
FEW_WEIGHTS, MANY_WEIGHTS = 2**22, 2**27
"""Attention weights, m·t·k·s, whose mean takes some 10 ms, and some tenths of a second."""


def priority_of(size: int, few: int, many: int) -> str:
    """Where work of a size is done: by the page itself, among the quick or among the heavy."""
    return AT_ONCE if size <= few else QUICK if size <= many else HEAVY


def stage_priority(key: Hashable, caption: Caption, focus: Place, pins: Hashable, show: Hashable, photo: Photo,
                   layer: LayerTrace, answer: Answer) -> str:
    """Where the numbers of all windows are worked out."""
    return priority_of(layer.grid.n_windows**2, FEW_WINDOWS, MANY_WINDOWS)


def map_priority(key: Hashable, window: int, layer: LayerTrace) -> str:
    """Where a window's mean map is worked out."""
    weights = layer.q.shape[1] * layer.q.shape[3] * layer.spec.topk * layer.k.shape[3]
    return priority_of(weights, FEW_WEIGHTS, MANY_WEIGHTS)


def stage_bytes(of: LayerResult, answer: Answer, caption: Caption, focus: Place, pins: Mapping[str, Place],
                show: tuple[str, ...]) -> bytes:
    """The message of the stage; `answer` is the look's in the words of the page."""
    return _stage(of.key, caption, focus, tuple(pins.items()), show, of.photo, of.layer, answer)


@worked(server, tr_noop("Ranking the windows …"), stage_priority)
def _stage(key: Hashable, caption: Caption, focus: Place, pins: tuple[tuple[str, Place], ...], show: tuple[str, ...],
           _photo: Photo, _layer: LayerTrace, answer: Answer) -> bytes:
    return stage_message(_photo, _layer, caption, focus, dict(pins), show, b"", answer.detections)


def tiles_bytes(of: LayerResult, caption: Caption, queries: Queries) -> bytes:
    """The message of the tiles. One token's attention is worked out here and now, a whole window's in its turn."""
    return tiles_message(of.photo, of.layer, caption, queries, b"", partial(_map_of, of))


def beforehand(of: LayerRequest, queries: Queries) -> None:
    """Wait for the maps of whole windows, as far as they are not at hand; in front of the fragment that shows them."""
    found = seen(of)
    for _, place, whole in queries:
        if whole:
            _map.beforehand(found.key, locate(found.layer.grid, found.photo, place)[0], found.layer)


def _map_of(of: LayerResult, window: int) -> Tensor:
    return _map(of.key, window, of.layer)


@worked(server, tr_noop("Adding up the attention of all tokens of the window …"), map_priority)
def _map(key: Hashable, window: int, _layer: LayerTrace) -> Tensor:
    return _layer.attention_map(window)


# downloads: made outside of the visit, when they are asked for --------------------------------------------

CSV_LINES: Final = 2**16
"""Lines of a routing, p2·k, that are written within some tenths of a second."""
NPZ_BYTES: Final = 8 * 2**20
"""Bytes that are compressed within some tenths of a second."""


def csv_priority(key: Hashable, layer: LayerTrace) -> str:
    """Where a table of the routing is written."""
    return priority_of(layer.r_idx[0].numel(), 0, CSV_LINES)


def npz_priority(key: Hashable, layer: LayerTrace) -> str:
    """Where a trace is compressed."""
    return priority_of(sum(part[0].numel() * part.element_size() for part in (layer.q, layer.k, layer.affinity)), 0,
                       NPZ_BYTES)


def report_priority(key: Hashable, caption: Caption, focus: Place, pins: Hashable, whole: bool, show: Hashable,
                    language: str, of: LayerResult, *rest: object) -> str:
    """Where a report is written; the maps in it are at hand by then."""
    return priority_of(of.layer.grid.n_windows**2, 0, MANY_WINDOWS)


def routing_file(of: LayerRequest) -> str:
    """Where each window is routed, as CSV."""
    found = seen(of)
    return _routing_file(found.key, found.layer)


@worked(server, tr_noop("Writing the file …"), csv_priority)
def _routing_file(key: Hashable, _layer: LayerTrace) -> str:
    return routing_csv(_layer)


def trace_file(of: LayerRequest) -> bytes:
    """The layer's trace as NPZ."""
    found = seen(of)
    return _trace_file(found.key, found.layer)


@worked(server, tr_noop("Writing the file …"), npz_priority)
def _trace_file(key: Hashable, _layer: LayerTrace) -> bytes:
    return trace_npz(_layer)


def report_file(of: LayerRequest, answer: Answer, caption: Caption, focus: Place, pins: Mapping[str, Place],
                whole: bool,
                show: tuple[str, ...], language: Language) -> str:
    """The view as one HTML file; arguments as for `report_html`."""
    found = seen(of)
    places = (pins or {"a": focus}).values() if whole else ()
    # Before, since work in the line may ask for no other work.
    maps = {window: _map_of(found, window) for window in
            {locate(found.layer.grid, found.photo, place)[0] for place in places}}
    return _report_file(found.key, caption, focus, tuple(pins.items()), whole, show, language.code, found, answer,
                        language, maps)


@worked(server, tr_noop("Writing the file …"), report_priority)
def _report_file(key: Hashable, caption: Caption, focus: Place, pins: tuple[tuple[str, Place], ...], whole: bool,
                 show: tuple[str, ...], language: str, _of: LayerResult, answer: Answer, _language: Language,
                 _maps: Mapping[int, Tensor]) -> str:
    return report_html(_of.photo, _of.layer, caption, focus, dict(pins), whole, show, answer.detections, _language,
                       _maps.__getitem__)
