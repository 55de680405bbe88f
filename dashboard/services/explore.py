"""One layer on one picture as Explore shows it and writes it to files: found again by the request that a page keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from torch import Tensor

from bra.experiments.reroute import Reroute, Rerouted, rerouting, why_not
from bra.figures.attention import Attended, attended
from bra.messages import Language
from bra.metrics.between_layers import LayerPair, consecutive, overlaps, routed_layers
from bra.models.base import Answer, ModelRun
from bra.models.catalog import ModelSettings
from bra.models.class_map import ClassMap, class_map, explains
from bra.photo import Photo
from bra.reports.files import routing_csv, trace_npz
from bra.reports.layer_html import report_html
from bra.tracing import LayerTrace
from bra.viewer.pack import Caption, Place, locate, rail_message, stage_message
from dashboard.i18n import tr_noop
from dashboard.runtime.jobs import Progress
from dashboard.runtime.server import AT_ONCE, HEAVY, QUICK
from dashboard.runtime.wait import prefetch, run_cached
from dashboard.services.models import (
    LoadedModel,
    RunKey,
    changed_run,
    load_model,
    model_run,
    photo_of,
    run_key,
    running_priority,
    sample,
)
from dashboard.services.server import server
from dashboard.state.upload import Upload

CLASS_MAP: Final = "class_map"
"""The switch of the stage that shows the class heat map."""
Queries = Sequence[tuple[str, Place, bool]]
"""Role, place, and whether the whole window is meant, as `attended` takes them."""


@dataclass(frozen=True, slots=True)
class LayerRequest:
    """What an open page shows: small, whatever it names.

    Attributes:
        settings: the model and its settings.
        model_file: the visitor's own model; its bytes, as those of a picture, are those that the session keeps anyway.
        sample: key of the built-in picture; "" where it is the visitor's own.
        picture_file: the visitor's own picture; not used where a built-in one is shown.
        layer: the layer that is shown.
        changed: the layer whose windows the settings change.
    """

    settings: ModelSettings
    model_file: Upload | None
    sample: str
    picture_file: Upload | None
    layer: str
    changed: str


@dataclass(frozen=True, slots=True)
class LayerKey:
    """One layer of a run."""

    run: RunKey
    layer: str


@dataclass(frozen=True, slots=True, eq=False)
class LayerResult:
    """What a request names: for the moment in which it is drawn, and not to be kept by a page.

    Attributes:
        key: what tells the layer on the picture from every other.
        loaded: the model.
        photo: the picture: a recording's own, or the one that was chosen.
        run: the model's forward on it.
    """

    key: LayerKey
    loaded: LoadedModel
    photo: Photo
    run: ModelRun

    @property
    def layer(self) -> LayerTrace:
        """What the layer did in the run."""
        return self.run.trace.layers[self.key.layer]

    @property
    def provenance(self) -> str:
        """Where the model's weights come from, in English, for files."""
        return str(self.loaded.model.provenance)

    @property
    def explained(self) -> bool:
        """Whether the model's answer has a class heat map."""
        return explains(self.loaded.model)


def result_of(request: LayerRequest) -> LayerResult:
    """What a request names, from the cache; what is not there any more is worked out again.

    Raises:
        BRAError: as `load_model` and `model_run`.
    """
    loaded, file = load_model(request.settings, request.model_file), request.picture_file
    if loaded.model.photo is not None:
        photo = loaded.model.photo
    elif request.sample or file is None:
        photo = sample(request.sample)
    else:
        photo = photo_of(file.data, file.digest)
    key = LayerKey(run_key(loaded, photo, request.changed), request.layer)
    return LayerResult(key, loaded, photo, model_run(loaded, photo, request.changed))


# The stage and the attention of queries. ------------------------------------------------------------------------------

FEW_WINDOWS, MANY_WINDOWS = 2**16, 2**21
"""Affinities, p2², that are ranked within some 10 ms, and within half a second: above, it is heavy work."""
FEW_WEIGHTS, MANY_WEIGHTS = 2**22, 2**27
"""Attention weights, m·t·k·s, whose mean takes some 10 ms, and some tenths of a second."""
Pins = tuple[tuple[str, Place], ...]
"""Role and place of each pinned query."""


@dataclass(frozen=True, slots=True)
class ClassMapKey:
    """The class heat map of a run."""

    run: RunKey


@dataclass(frozen=True, slots=True)
class StageKey:
    """The message of the stage."""

    layer: LayerKey
    caption: Caption
    focus: Place
    pins: Pins
    show: tuple[str, ...]
    answer: Answer
    follow: int = 0
    heat: ClassMapKey | None = None


@dataclass(frozen=True, slots=True)
class MapKey:
    """The mean attention map of a window's tokens."""

    layer: LayerKey
    window: int


def priority_of(size: int, few: int, many: int) -> str:
    """Priority of work of a size: by the page itself, quick or heavy."""
    return AT_ONCE if size <= few else QUICK if size <= many else HEAVY


def stage_priority(layer: LayerTrace) -> str:
    """Priority of ranking all windows of a layer."""
    return priority_of(layer.grid.n_windows**2, FEW_WINDOWS, MANY_WINDOWS)


def map_priority(layer: LayerTrace) -> str:
    """Priority of a window's mean map."""
    weights = layer.q.shape[1] * layer.q.shape[3] * layer.spec.topk * layer.k.shape[3]
    return priority_of(weights, FEW_WEIGHTS, MANY_WEIGHTS)


def stage_bytes(of: LayerResult, answer: Answer, caption: Caption, focus: Place, pins: Mapping[str, Place],
                show: tuple[str, ...], follow: int = 0, heat: ClassMap | None = None) -> bytes:
    """The message of the stage; `answer` is the run's in the words of the page, `follow` as for `stage_message`, and
    `heat` is the run's class heat map where it is shown."""
    photo, layer, offered = of.photo, of.layer, of.explained
    key = StageKey(of.key, caption, focus, tuple(pins.items()), show, answer, follow,
                   None if heat is None else ClassMapKey(of.key.run))
    return run_cached(
        server(), key, lambda _: stage_message(photo, layer, caption, focus, dict(pins), show, b"", answer.detections,
                                               follow, None if heat is None else heat.heat, offered),
        tr_noop("Ranking the windows …"), stage_priority(layer))


def prefetch_class_map(of: LayerResult, show: Sequence[str]) -> None:
    """Wait for the class heat map if it is shown and not cached; in front of the fragment that shows it."""
    if CLASS_MAP in show and of.explained:
        prefetch(server(), *_class_map_job(of))


def class_map_of(of: LayerResult, show: Sequence[str]) -> ClassMap | None:
    """The run's class heat map, worked out only where it is shown; None where it is not, or the model has none.

    Raises:
        BRAError: the model lets none be made of this picture.
    """
    return run_cached(server(), *_class_map_job(of)) if CLASS_MAP in show and of.explained else None


def _class_map_job(of: LayerResult) -> tuple[ClassMapKey, Callable[[Progress], ClassMap], str, str]:
    """Key, work, label and priority of a class heat map."""
    key, model, photo = of.key.run, of.loaded.model, of.photo       # alone: a job may outlive the visit
    return (ClassMapKey(key), lambda _: class_map(model, photo, key.side, key.change),
            tr_noop("Asking where the answer comes from …"), running_priority(of.loaded))


def attended_of(of: LayerResult, queries: Queries) -> tuple[Attended, ...]:
    """What queries attend to. One token's attention is worked out here and now, a whole window's in its turn."""
    return attended(of.layer, of.photo, queries, partial(window_map, of))


def prefetch_maps(of: LayerResult, queries: Queries) -> None:
    """Wait for the maps of whole windows, as far as they are not cached; in front of the fragment that shows them."""
    for _, place, whole in queries:
        if whole and of.layer.attention_known:
            window = locate(of.layer.grid, of.photo, place)[0]
            prefetch(server(), *_map_job(of, window))


def window_map(of: LayerResult, window: int) -> Tensor:
    """(heads, h, w) mean attention of a window's tokens."""
    return run_cached(server(), *_map_job(of, window))


def _map_job(of: LayerResult, window: int) -> tuple[MapKey, Callable[[Progress], Tensor], str, str]:
    """Key, work, label and priority of a window's mean map."""
    layer = of.layer
    return (MapKey(of.key, window), lambda _: layer.attention_map(window),
            tr_noop("Adding up the attention of all tokens of the window …"), map_priority(layer))


# Layers side by side. ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OverlapsKey:
    """How alike all layers of a run choose."""

    run: RunKey


@dataclass(frozen=True, slots=True)
class RailKey:
    """The message of the rail: all layers of a run, one of them chosen."""

    layer: LayerKey


@dataclass(frozen=True, slots=True)
class PairsKey:
    """Consecutive layers of a run."""

    run: RunKey


def rail_bytes(of: LayerResult) -> bytes:
    """The message of the rail, of every layer of the run at once; empty where the model has a single one."""
    layers = of.run.trace.layers
    if len(layers) < 2:
        return b""
    routed = routed_layers(layers)
    label = tr_noop("Comparing the layers …")
    pairs = sum(layer.grid.n_windows for layer in routed)**2
    alike = run_cached(server(), OverlapsKey(of.key.run), lambda _: overlaps(routed), label,
                       AT_ONCE if pairs <= FEW_WINDOWS else QUICK)
    return run_cached(server(), RailKey(of.key), lambda _: rail_message(layers, of.key.layer, alike), label, AT_ONCE)


def layer_pairs(of: LayerResult) -> tuple[LayerPair, ...]:
    """How alike consecutive routed layers of the run choose, and what sharing the choice would cost."""
    layers = of.run.trace.layers
    return run_cached(server(), PairsKey(of.key.run), lambda progress: consecutive(layers, progress=progress),
                      tr_noop("Comparing the layers …"), HEAVY)


# Another routing of the layer. ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RerouteKey:
    """A run with one layer's routing replaced."""

    run: RunKey
    reroute: Reroute


def why_not_elsewhere(of: LayerResult) -> str:
    """Why the layer cannot be made to look elsewhere; "" where it can."""
    return why_not(of.loaded.model, of.layer)


def rerouted(of: LayerResult, reroute: Reroute) -> Rerouted:
    """The model's answer as it is, and with the layer routed otherwise.

    Raises:
        BRAError: the layer cannot be routed so.
    """
    return run_cached(server(), *_reroute_job(of, reroute))


def prefetch_rerouted(of: LayerResult, reroute: Reroute) -> None:
    """Wait for it if it is not cached; in front of the fragment that shows it."""
    prefetch(server(), *_reroute_job(of, reroute))


def _reroute_job(of: LayerResult, reroute: Reroute) -> tuple[RerouteKey, Callable[[Progress], Rerouted], str, str]:
    """Key, work, label and priority of a run with another routing."""
    key, layer = of.key.run, of.run.trace.layers[reroute.layer]

    def work(_: Progress) -> Rerouted:
        other = changed_run(of.loaded, of.photo, rerouting(reroute, layer, key.change))
        return Rerouted.of(reroute, layer, of.run.answer, other.answer)

    return (RerouteKey(key, reroute), work, tr_noop("Running the model with other windows …"),
            running_priority(of.loaded))


# Downloads: made outside of the visit, when they are asked for. -----------------------------------------------------

CSV_LINES: Final = 2**16
"""Lines of a routing, p2·k, that are written within some tenths of a second."""
NPZ_BYTES: Final = 8 * 2**20
"""Bytes that are compressed within some tenths of a second."""
FILE_LABEL: Final = tr_noop("Writing the file …")


@dataclass(frozen=True, slots=True)
class CsvKey:
    """A layer's routing as CSV."""

    layer: LayerKey


@dataclass(frozen=True, slots=True)
class NpzKey:
    """A layer's trace as NPZ."""

    layer: LayerKey


@dataclass(frozen=True, slots=True)
class ReportKey:
    """A layer's report in a language."""

    stage: StageKey
    whole: bool
    language: str


def csv_priority(layer: LayerTrace) -> str:
    """Priority of writing a table of the routing."""
    return priority_of(layer.r_idx[0].numel(), 0, CSV_LINES)


def npz_priority(layer: LayerTrace) -> str:
    """Priority of compressing a trace."""
    return priority_of(sum(part[0].numel() * part.element_size() for part in (layer.q, layer.k, layer.affinity)), 0,
                       NPZ_BYTES)


def routing_file(request: LayerRequest) -> str:
    """Where each window is routed, as CSV."""
    of = result_of(request)
    layer, provenance = of.layer, of.provenance
    return run_cached(server(), CsvKey(of.key), lambda _: routing_csv(layer, 0, provenance), FILE_LABEL,
                      csv_priority(layer))


def trace_file(request: LayerRequest) -> bytes:
    """The layer's trace as NPZ."""
    of = result_of(request)
    layer, provenance = of.layer, of.provenance
    return run_cached(server(), NpzKey(of.key), lambda _: trace_npz(layer, 0, provenance), FILE_LABEL,
                      npz_priority(layer))


def report_file(request: LayerRequest, answer: Answer, caption: Caption, focus: Place, pins: Mapping[str, Place],
                whole: bool, show: tuple[str, ...], language: Language) -> str:
    """The view as one HTML file; arguments as for `report_html`."""
    of = result_of(request)
    places = (pins or {"a": focus}).values() if whole and of.layer.attention_known else ()
    # Before, since a job may wait for no other job.
    maps = {window: window_map(of, window) for window in
            {locate(of.layer.grid, of.photo, place)[0] for place in places}}
    found = class_map_of(of, show)
    heat = None if found is None else found.heat
    key = ReportKey(StageKey(of.key, caption, focus, tuple(pins.items()), show, answer), whole, language.code)
    photo, layer = of.photo, of.layer
    return run_cached(
        server(), key, lambda _: report_html(photo, layer, caption, focus, dict(pins), whole, show,
                                             answer.detections, language, maps.__getitem__, heat=heat),
        FILE_LABEL, priority_of(layer.grid.n_windows**2, 0, MANY_WINDOWS))
