"""Comparisons of settings, layers and probed pictures, and a sweep's table; each computed once for all visitors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from bra.experiments.compare import Compared, GivenLayer, Pair, Setting, compare, compare_pair
from bra.experiments.probes import ProbeRow, probe
from bra.experiments.rules import rules_of
from bra.experiments.sweep_table import Summary, SweepTable, read_table, summaries
from bra.messages import Language
from bra.metrics.rules import RuleRow
from bra.photo import Photo
from bra.reports.tables import sweep_html
from dashboard.i18n import tr_noop
from dashboard.runtime.jobs import Progress
from dashboard.runtime.server import HEAVY
from dashboard.runtime.wait import run_cached
from dashboard.services.models import LoadedModel, ModelKey
from dashboard.services.server import server
from dashboard.state.upload import Upload


@dataclass(frozen=True, slots=True)
class ComparedKey:
    """Settings of one layer of a model on a picture.

    Attributes:
        model: the model.
        side: longer side of the picture in pixels when the model reads it.
        photo: digest of the picture.
        layer: name of the layer.
        windows: the settings.
        rounds: forwards of each that are timed.
    """

    model: ModelKey
    side: int
    photo: str
    layer: str
    windows: tuple[Setting, ...]
    rounds: int


@dataclass(frozen=True, slots=True)
class PairKey:
    """One layer against another."""

    a: ComparedKey
    b: ComparedKey


@dataclass(frozen=True, slots=True)
class RulesKey:
    """Rules of routing in one layer under its windows."""

    of: ComparedKey


@dataclass(frozen=True, slots=True)
class ProbesKey:
    """The probes of a model on a picture."""

    model: ModelKey
    side: int
    photo: str


@dataclass(frozen=True, slots=True)
class SweepTableKey:
    """A sweep's table by the digest of its file."""

    digest: str


@dataclass(frozen=True, slots=True)
class SweepFileKey:
    """A sweep's report in a language."""

    digest: str
    language: str


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One side of a comparison.

    Attributes:
        loaded: the model.
        given: what its layer was given.
        windows: the windows that the layer gets.
    """

    loaded: LoadedModel
    given: GivenLayer
    windows: Setting


def compared(loaded: LoadedModel, photo: Photo, given: GivenLayer, windows: tuple[Setting, ...],
             rounds: int) -> Compared:
    """Settings of one layer side by side; `rounds` forwards of each are timed."""
    return run_cached(server(), _compared_key(loaded, photo, given, windows, rounds),
                      lambda progress: compare(given, windows, rounds, progress), tr_noop("Comparing …"), HEAVY)


def _compared_key(loaded: LoadedModel, photo: Photo, given: GivenLayer, windows: tuple[Setting, ...],
                  rounds: int) -> ComparedKey:
    return ComparedKey(loaded.key, loaded.settings.side, photo.digest, given.name, windows, rounds)


def pair(photo: Photo, a: Side, b: Side) -> Pair:
    """One layer against another on a picture."""
    one, two = (compared(side.loaded, photo, side.given, (side.windows,), 0) for side in (a, b))
    keys = (_compared_key(side.loaded, photo, side.given, (side.windows,), 0) for side in (a, b))
    return run_cached(server(), PairKey(*keys), lambda _: compare_pair(one, two), tr_noop("Comparing …"), HEAVY)


def ruled(loaded: LoadedModel, photo: Photo, given: GivenLayer, windows: Setting) -> tuple[RuleRow, ...]:
    """Rules of routing in one layer under its windows, without training."""
    return run_cached(server(), RulesKey(_compared_key(loaded, photo, given, (windows,), 0)),
                      lambda progress: rules_of(given, windows, progress=progress),
                      tr_noop("Trying rules of routing …"), HEAVY)


def probed(loaded: LoadedModel, photo: Photo) -> tuple[ProbeRow, ...]:
    """What of each layer's routing survives the probes."""
    side = loaded.settings.side
    return run_cached(server(), ProbesKey(loaded.key, side, photo.digest),
                      lambda progress: probe(loaded.model, photo, side, progress=progress),
                      tr_noop("Changing the picture and looking again …"), HEAVY)


def sweep_table(file: Upload) -> tuple[SweepTable, tuple[Summary, ...]]:
    """A sweep's table that the visitor uploaded, and its summaries; raises BRAError for any other file."""
    return run_cached(server(), SweepTableKey(file.digest), lambda progress: read_sweep(file.data, progress),
                      tr_noop("Reading the table …"), HEAVY)


def read_sweep(data: bytes, progress: Progress) -> tuple[SweepTable, tuple[Summary, ...]]:
    """The table in the bytes of a Parquet file, and its summaries; ends where `progress` says so."""
    still = partial(progress, 0, 0)
    table = read_table(data, still)
    return table, summaries(table.rows, still)


def sweep_file(file: Upload, language: Language) -> str:
    """That table as one HTML file."""
    table = sweep_table(file)[0]
    return run_cached(server(), SweepFileKey(file.digest, language.code),
                      lambda _: sweep_html(table, language=language), tr_noop("Writing the file …"), HEAVY)
