"""One layer on one picture under many settings: how much of full attention each keeps, and what each costs.

The model runs once. What it gave the layer is kept, and the layer alone runs again under each grid, with its own
weights; settings that differ only in topk share the grid's affinities, and all grids share one dense attention.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bra import functional as BF
from bra.attention import BiLevelRoutingAttention
from bra.errors import BRAError
from bra.grid import WindowGrid
from bra.markup import table_html
from bra.messages import message
from bra.metrics import routing as bf
from bra.metrics.agreement import Shared, attention_recall, even_places, random_union_share, shared, windows_at
from bra.metrics.dense import dense_masses, layer_output
from bra.metrics.query_dependence import collapsed_by, query_dependence
from bra.metrics.routing import Floats
from bra.models.base import Change, OpenModel, Prepared, no_routing, on_photo, with_windows
from bra.models.recorded import OpenRecording
from bra.photo import Photo
from bra.profiling.formula import traced_cost
from bra.recorder import recording
from bra.tracing import LayerTrace, trace
from bra.units import quantity

CostName = Literal["macs", "peak_bytes", "seconds"]
MAX_SETTINGS = 400
MARGIN = 0.005
"""Share of full attention by which a setting must beat its controls before it is recommended."""


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """Windows of one layer.

    Attributes:
        n_win: windows per side.
        topk: windows each window is routed to.
    """

    n_win: int
    topk: int


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting of one layer on one picture. Shares are means over the windows on the map (and the heads), 0 to 1.

    Attributes:
        n_win: windows per side.
        topk: windows each window is routed to.
        windows: windows on the map.
        padding_share: share of the padded map's tokens that are padding.
        recall: share of dense attention that falls on the routed windows.
        chance: the same of topk windows at random.
        nearest: the same of the topk nearest windows.
        oracle: the same of the topk windows that would have been best, for all heads together.
        kept: share of the router's own softmax that fell on the chosen; says nothing of attention.
        macs: multiply-adds of the layer.
        peak_bytes: bytes alive at the layer's worst moment, beyond its input, float32.
        seconds: median time of the layer on this machine, where it was measured.
        shared_choices: share of all choices that fall on the topk windows chosen most; None where it is not known.
        query_dependence: share of the affinities' variance that depends on the query; None where all windows are
            wanted equally, or it is not known.
    """

    n_win: int
    topk: int
    windows: int
    padding_share: float
    recall: float
    chance: float
    nearest: float
    oracle: float
    kept: float
    macs: int
    peak_bytes: int
    seconds: float | None = None
    shared_choices: float | None = None
    query_dependence: float | None = None

    @property
    def collapsed(self) -> bool:
        """Whether its routing hardly depends on the query; False where that was not measured."""
        return collapsed_by(self.shared_choices, self.query_dependence, self.chance)

    @property
    def routed(self) -> bool:
        """Whether the layer routes; else its windows are only laid over it, and its bytes are not known."""
        return True

    @property
    def setting(self) -> Setting:
        """Which one it is."""
        return Setting(self.n_win, self.topk)

    def to_dict(self) -> dict[str, Any]:
        """All numbers by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AttendingRow(SettingRow):
    """The one row of a layer that does not route."""

    @property
    def routed(self) -> bool:
        """No."""
        return False


def amount(row: SettingRow, cost: CostName) -> str:
    """What a setting costs, with its unit; "–" where it was not measured."""
    value = getattr(row, cost)
    if value is None or (cost == "peak_bytes" and not row.routed):
        return "–"
    if cost == "seconds":
        return f"{1e3 * value:.3g} ms"
    return quantity(value) + ("B" if cost == "peak_bytes" else " MACs")


@dataclass(frozen=True, slots=True, eq=False)
class LayerInput:
    """What one layer was given when its model ran on a photo.

    Attributes:
        name: the layer's name in the model.
        layer: the layer; read, never written.
        x: (1, c, h, w) its input.
        prepared: the photo as the model read it.
    """

    name: str
    layer: BiLevelRoutingAttention = field(repr=False)
    x: Tensor = field(repr=False)
    prepared: Prepared

    @property
    def own(self) -> Setting:
        """The windows that it was built with."""
        return Setting(self.layer.n_win, self.layer.topk)


@dataclass(frozen=True, slots=True, eq=False)
class RecordedLayer:
    """One layer of a recording, whose q, k and v are in the file: nothing of its model runs.

    Attributes:
        name: the layer's name in the recorded model.
        model: the recording.
    """

    name: str
    model: OpenRecording

    @property
    def own(self) -> Setting:
        """The windows that it was recorded with."""
        heard = self.model.recording.layers[self.name]
        return Setting(heard.n_win, heard.topk)


@dataclass(frozen=True, slots=True, eq=False)
class AttendingLayer:
    """One layer that does not route, as it ran on the photo: there is one setting of it.

    Attributes:
        name: the layer's name in the model.
        trace: what it did.
    """

    name: str
    trace: LayerTrace

    @property
    def own(self) -> Setting:
        """The grid that is laid over it, and how many windows of it each reaches."""
        return Setting(self.trace.grid.n_win, self.trace.spec.topk)


GivenLayer = LayerInput | RecordedLayer | AttendingLayer


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Settings of one layer on one picture, in the order in which they were asked for."""

    rows: tuple[SettingRow, ...]
    traces: tuple[LayerTrace, ...]

    def __repr__(self) -> str:
        name = self.traces[0].name if self.traces else ""
        return f"Compared({len(self.rows)} settings of layer {name!r})"

    def _repr_html_(self) -> str:
        name = self.traces[0].name if self.traces else ""
        return rows_html(f"{len(self.rows)} settings of layer {name or 'attention'}", self.rows)


def rows_html(title: str, rows: Sequence[SettingRow], names: Sequence[str] = ()) -> str:
    """Settings as a table for a notebook; `names` stand before them, where there are any."""
    head = ["n_win", "topk", "recall", "nearest", "chance", "padding", "M MACs", "peak MB"]
    lines = [[str(row.n_win), str(row.topk), *(f"{100 * share:.1f} %" for share in (
        row.recall, row.nearest, row.chance, row.padding_share)), f"{row.macs / 1e6:,.1f}",
        f"{row.peak_bytes / 1e6:,.1f}"] for row in rows]
    if names:
        head, lines = ["", *head], [[name, *line] for name, line in zip(names, lines, strict=True)]
    return table_html(title, head, lines, "recall: share of full attention that falls on the routed windows.")


def settings_of(n_wins: Sequence[int], topks: Sequence[int], equal_to: int | None = None) -> tuple[Setting, ...]:
    """Every n_win with every topk, row by row; a topk above n_win² is left out.

    Args:
        n_wins: windows per side.
        topks: routed windows.
        equal_to: the n_win for which the topks are meant; for others they are scaled with n_win², so that all settings
            of a column see about the same share of the map. None takes them as they are.
    """
    made = [Setting(n, k if equal_to is None else max(1, round(k * n * n / equal_to**2)))
            for n in n_wins for k in topks]
    return tuple(dict.fromkeys(one for one in made if one.topk <= one.n_win**2))


def layer_inputs(model: OpenModel, photo: Photo, side: int) -> Mapping[str, LayerInput]:
    """Run the model once on a photo, and keep what each of its routed layers was given the first time it ran.

    Raises:
        BRAError: the model has no routed layer, or the photo does not suit it.
    """
    if not model.runs:
        raise BRAError(message("a recording holds what its layers did, and no model that could run again: compare its "
                               "windows in the app, or give the model's own file."))
    names = {model.module.get_submodule(name): name for name in model.specs}
    prepared = model.prepare(photo, side)
    with model.running(prepared), torch.inference_mode(), recording(inputs=True) as recorder:
        model.module(prepared.x)
    found: dict[str, LayerInput] = {}
    for capture in recorder.captures:
        layer = capture.layer
        if isinstance(layer, BiLevelRoutingAttention) and capture.x is not None and names[layer] not in found:
            found[names[layer]] = LayerInput(names[layer], layer, capture.x.cpu(), prepared)
    if not found:
        raise BRAError(no_routing(model.label))
    return MappingProxyType(found)


def attending_layer(model: OpenModel, photo: Photo, side: int, name: str) -> AttendingLayer:
    """A layer of the model that does not route, run on a photo; raises LayerNameError for any other."""
    return AttendingLayer(name, model.look(photo, side).trace.layers[name])


def recorded_layers(model: OpenRecording, photo: Photo) -> Mapping[str, RecordedLayer]:
    """The layers of a recording whose windows can be compared.

    Raises:
        BRAError: the photo is not the recording's, or of no layer the attention is known.
    """
    model.check_photo(photo)
    if not model.specs:
        raise BRAError(message("{model} holds no layer whose attention is known, so other windows cannot be compared: "
                               "look at its routing in Explore.", model=model.label))
    return MappingProxyType({name: RecordedLayer(name, model) for name in model.specs})


def layer_input(model: OpenModel, photo: Photo, side: int, name: str = "") -> LayerInput | AttendingLayer:
    """`layer_inputs` of one layer, "" for the first that routes; or one that does not route, as it ran.

    Raises:
        BRAError: there is no such layer.
    """
    if name in model.attending:
        return attending_layer(model, photo, side, name)
    found = layer_inputs(model, photo, side)
    wanted = name or next(iter(found))
    if wanted not in found:
        raise BRAError(message("layer {wanted!r} has no windows to compare: choose one of {layers}.", wanted=wanted,
                               layers=", ".join(found)))
    return found[wanted]


@torch.inference_mode()
def traces_of(given: GivenLayer, settings: Sequence[Setting]) -> tuple[LayerTrace, ...]:
    """The layer's trace under each setting, as if the model had been built with it there and its input were the same.

    Raises:
        BRAError: a setting cannot be.
    """
    if isinstance(given, AttendingLayer):
        raise BRAError(message("layer {layer!r} does not route: there are no windows of it to compare; choose one that "
                               "does.", layer=given.name))
    by_n_win: dict[int, LayerTrace] = {}
    made = []
    for n_win, topk in ((one.n_win, one.topk) for one in settings):
        if n_win not in by_n_win:
            # One routed window: attention itself is not wanted here, and costs least so.
            by_n_win[n_win] = _recorded(given, n_win) if isinstance(given, RecordedLayer) else _traced(given, n_win)
        base = by_n_win[n_win]
        spec = replace(base.spec, topk=topk)        # refuses what cannot be
        r_weight, r_idx = BF.route(base.affinity, topk)
        made.append(replace(base, spec=spec, r_weight=r_weight, r_idx=r_idx,
                            factor=BF.weight_factor(r_weight, spec.mul_weight)))
    return tuple(made)


def _traced(given: LayerInput, n_win: int) -> LayerTrace:
    """The layer with so many windows per side, and one of them routed."""
    alone = trace(with_windows(given.layer, Change("", n_win, 1)), given.x).layers[""]
    size, image = given.x.shape[-2:], given.prepared.x.shape[-2:]
    grid = WindowGrid.over_image(image[0], image[1], size[0], size[1], n_win)
    return on_photo(replace(alone, name=given.name, grid=grid), given.prepared)


def _recorded(given: RecordedLayer, n_win: int) -> LayerTrace:
    """The same from the recorded q, k and v.

    Raises:
        BRAError: as `OpenRecording.rerouted`, or there would be more windows across than down.
    """
    heard = given.model.rerouted(given.name, n_win, 1)
    if heard.windows[0] != heard.windows[1]:
        # The windows that fill them up to a square would take part in full attention, which is the measure here.
        raise BRAError(message("n_win={n_win} cuts the map of layer {layer!r} into {rows}×{columns} windows by its own "
                               "rule, and only as many across as down can be compared: choose another n_win.",
                               n_win=n_win, layer=given.name, rows=heard.windows[0], columns=heard.windows[1]))
    return given.model.on_own_photo(heard)


def compare(given: GivenLayer, settings: Sequence[Setting], rounds: int = 0,
            progress: Callable[[int, int], None] = lambda done, todo: None) -> Compared:
    """What each setting keeps of dense attention, beside chance and nearest windows, and what it costs.

    Args:
        given: a layer and its input, or a recorded layer.
        settings: which to compare.
        rounds: forwards of the layer to time for each setting, after one to warm up; 0 for none. A recorded layer
            cannot be timed.
        progress: told (settings done, settings to do), again and again; what it raises ends the work.

    Raises:
        BRAError: none or too many settings, or one that cannot be.
    """
    if not 1 <= len(settings) <= MAX_SETTINGS:
        raise BRAError(message("{count} settings cannot be compared: 1 to {most}; choose others.", count=len(settings),
                               most=MAX_SETTINGS))
    if isinstance(given, AttendingLayer) and tuple(settings) == (given.own,):
        return Compared((_attending_row(given.trace),), (given.trace,))
    traces = traces_of(given, settings)
    firsts = {one.n_win: lt for one, lt in reversed([*zip(settings, traces, strict=True)])}
    masses = dict(zip(firsts, dense_masses([*firsts.values()], still=partial(progress, 0, len(settings))), strict=True))
    best = {n_win: np.argsort(-mass.mean(0), -1, kind="stable") for n_win, mass in masses.items()}
    rows = []
    # A picture's affinities do not depend on topk.
    dependences = {n_win: query_dependence(lt) for n_win, lt in firsts.items()}
    for one, lt in zip(settings, traces, strict=True):
        n_win, topk, mapped, grid = one.n_win, one.topk, bf.on_map(lt), lt.grid
        cost = traced_cost(lt.spec, grid)
        rows.append(SettingRow(
            n_win, topk, int(mapped.sum()), lt.grid.padding_share,
            recall=_mean_mass(masses[n_win], lt.r_idx[0].numpy(), mapped), chance=bf.chance(lt),
            nearest=_mean_mass(masses[n_win], bf.nearest_windows(lt), mapped),
            oracle=_mean_mass(masses[n_win], best[n_win][:, :topk], mapped),
            kept=float(bf.kept_share(lt)[mapped].mean()), macs=cost.macs, peak_bytes=cost.peak_bytes,
            seconds=_seconds(given, lt, rounds) if rounds and isinstance(given, LayerInput) else None,
            shared_choices=bf.shared_choices(lt),
            query_dependence=dependences[n_win] if math.isfinite(dependences[n_win]) else None))
        progress(len(rows), len(settings))
    return Compared(tuple(rows), traces)


def _attending_row(lt: LayerTrace) -> SettingRow:
    """A layer that does not route: it keeps all of its attention, since it leaves none out."""
    tokens, c, q = lt.grid.h * lt.grid.w, lt.spec.dim, lt.spec.qk_channels
    pairs = tokens * tokens
    if lt.areas is not None:
        inside = np.bincount(lt.areas[lt.areas >= 0].numpy())
        pairs = int((inside * (inside + len(lt.outside))).sum())
    beside = (0 if lt.lepe is None else tokens * c * lt.spec.side_dwconv**2) + (0 if lt.wo is None else tokens * c * c)
    macs = tokens * c * (2 * q + c) + pairs * (q + c) + beside
    share = lt.spec.topk / lt.grid.n_windows
    return AttendingRow(lt.grid.n_win, lt.spec.topk, int(bf.on_map(lt).sum()), lt.grid.padding_share, recall=1.0,
                      chance=share, nearest=share, oracle=1.0, kept=1.0, macs=macs, peak_bytes=0)


def _mean_mass(mass: bf.Floats, windows: bf.Ints, mapped: bf.Bools) -> float:
    """Mean share of dense attention that falls on (p2, k) windows, over heads and the windows on the map."""
    return float(np.take_along_axis(mass, windows[None], -1).sum(-1)[:, mapped].mean())


@torch.inference_mode()
def _seconds(given: LayerInput, lt: LayerTrace, rounds: int) -> float:
    layer = with_windows(given.layer, Change("", lt.spec.n_win, lt.spec.topk))
    marks = [time.perf_counter()]
    for _ in range(rounds + 1):
        layer(given.x)
        marks.append(time.perf_counter())
    return float(np.median(np.diff(marks)[1:]))


def pareto_front(rows: Sequence[SettingRow], cost: CostName) -> tuple[bool, ...]:
    """Pareto: whether no other setting keeps as much for less, or more for as little. A row without the cost is out."""
    at = [(value, -row.recall) if (value := getattr(row, cost)) is not None else None for row in rows]
    return tuple(one is not None and not any(
        other is not None and other != one and other[0] <= one[0] and other[1] <= one[1] for other in at) for one in at)


def beats_controls(row: SettingRow) -> bool:
    """Whether a setting keeps more of full attention than random windows and than the nearest ones, by MARGIN."""
    return row.recall > max(row.chance, row.nearest) + MARGIN


def cheapest(rows: Sequence[SettingRow], cost: CostName, share: float) -> SettingRow | None:
    """The setting of least cost that keeps at least `share` of dense attention, if one does; of equals, the best."""
    enough = [row for row in rows if row.recall >= share and getattr(row, cost) is not None]
    return min(enough, key=lambda row: (getattr(row, cost), -row.recall), default=None)


# Two settings, models or checkpoints on one picture: what both look at, what only one sees, what each costs. --------

@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One layer A against another B.

    Attributes:
        rows: what each keeps of its own full attention, and costs.
        traces: each one's trace.
        shared: areas for the query at each of `areas.even_places()`.
        chance: intersection over union that two random choices of such areas would have, mean over queries.
        difference: (h, w) norm of the difference of both outputs over the mean of their norms, 0 to 2, per token; None
            where their maps or channels differ.
        caught: where one does not route and the other does, share of the first one's attention that falls on what the
            other is routed to; None for other pairs.
    """

    rows: tuple[SettingRow, SettingRow]
    traces: tuple[LayerTrace, LayerTrace]
    shared: Shared
    chance: float
    difference: Floats | None
    caught: float | None = None

    def __repr__(self) -> str:
        a, b = self.traces
        return f"Pair({a.name!r} keeps {100 * self.rows[0].recall:.1f} %, {b.name!r} {100 * self.rows[1].recall:.1f} %)"

    def _repr_html_(self) -> str:
        return rows_html("A against B", self.rows, [f"{side}: {lt.name or 'attention'}" for side, lt in
                                                    zip("AB", self.traces, strict=True)])


def compare_pair(a: Compared, b: Compared) -> Pair:
    """Compare two layers on one picture: the first setting of each."""
    trace_a, trace_b = a.traces[0], b.traces[0]
    places = even_places()
    areas = shared(trace_a, windows_at(trace_a.grid, places), trace_b, windows_at(trace_b.grid, places))
    in_a, in_b = areas.both + areas.only_a, areas.both + areas.only_b
    return Pair((a.rows[0], b.rows[0]), (trace_a, trace_b), areas, float(random_union_share(in_a, in_b).mean()),
                difference(trace_a, trace_b), _caught(trace_a, trace_b))


def _caught(a: LayerTrace, b: LayerTrace) -> float | None:
    if a.routed == b.routed:
        return None
    return attention_recall(b, a) if a.routed else attention_recall(a, b)


def difference(a: LayerTrace, b: LayerTrace) -> Floats | None:
    """(h, w): see `Pair.difference`; 0 where both outputs are 0."""
    y_a, y_b = layer_output(a).double().numpy(), layer_output(b).double().numpy()
    if y_a.shape != y_b.shape:
        return None
    size = (np.linalg.norm(y_a, axis=-1) + np.linalg.norm(y_b, axis=-1)) / 2
    return np.asarray(np.divide(np.linalg.norm(y_a - y_b, axis=-1), size, out=np.zeros_like(size), where=size > 0))
