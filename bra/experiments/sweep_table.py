"""The table of a sweep, one row per picture, layer and setting: written as Parquet, read back, and summed up."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from bra.errors import BRAError
from bra.experiments.compare import SettingRow
from bra.messages import message
from bra.metrics.query_dependence import collapsed_by
from bra.metrics.routing import Floats
from bra.readers.parquet import LIMITS, ParquetError, ParquetTable, read_parquet

MAX_BYTES: Final = 200 * 2**20
MAX_ROWS: Final = 1_000_000
MAX_SETTINGS: Final = 5_000
MOST: Final = 1e18
"""Multiply-adds and bytes that no layer reaches, still whole numbers in every step here."""
KINDS: Final = {"int": pa.int64(), "float": pa.float64(), "float | None": pa.float64(), "str": pa.string()}


def schema_of(row: type[Any]) -> pa.Schema:
    """The columns of a table of pictures and layers, each with the fields of such a row."""
    return pa.schema([("picture", pa.string()), ("layer", pa.string()),
                      *((field.name, KINDS[str(field.type)]) for field in fields(row))])


SCHEMA: Final = schema_of(SettingRow)
SHARES: Final = ("recall", "chance", "nearest", "oracle", "kept", "padding_share", "shared_choices", "query_dependence")
GAPS: Final = ("seconds", "shared_choices", "query_dependence")
"""Columns that may have gaps: what was not measured, or has no value."""
LATER: Final = ("shared_choices", "query_dependence")
"""Columns that tables of earlier versions do not have."""
ABOUT: Final = b"routescope"
BOOTSTRAPS: Final = 1000


@dataclass(frozen=True, slots=True, eq=False)
class SweepTable:
    """What a sweep found.

    Attributes:
        rows: the columns of SCHEMA.
        about: the model and what was asked of it, by name.
    """

    rows: pa.Table
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """One layer under one setting over all pictures; intervals hold the mean with 95 % confidence.

    Attributes:
        layer: its name.
        n_win: windows per side.
        topk: routed windows.
        pictures: how many.
        values: recall of each picture.
        recall: its mean.
        interval: of the mean, from resampling pictures with replacement.
        nearest: mean recall of the nearest windows.
        gain: interval of the mean of recall less that of the nearest windows, picture by picture.
        chance: mean recall of random windows.
        oracle: mean recall of the best windows.
        macs: mean multiply-adds.
        peak_bytes: mean bytes.
        shared_choices: mean share of all choices on the topk windows chosen most; None in tables of earlier versions.
        query_dependence: mean share of the affinities' variance that depends on the query; None where no picture has
            one.
    """

    layer: str
    n_win: int
    topk: int
    pictures: int
    values: tuple[float, ...]
    recall: float
    interval: tuple[float, float]
    nearest: float
    gain: tuple[float, float]
    chance: float
    oracle: float
    macs: float
    peak_bytes: float
    shared_choices: float | None = None
    query_dependence: float | None = None

    @property
    def collapsed(self) -> bool:
        """Whether its routing hardly depends on the query; False where that was not measured."""
        return collapsed_by(self.shared_choices, self.query_dependence, self.chance)


def table_of(found: Sequence[tuple[str, str, Any]], about: Mapping[str, Any], schema: pa.Schema = SCHEMA) -> pa.Table:
    """(picture, layer, row)s -> a table of such rows that carries `about` along."""
    rows = [{"picture": picture, "layer": layer, **row.to_dict()} for picture, layer, row in found]
    return pa.Table.from_pylist(rows, schema.with_metadata({ABOUT: json.dumps(about)}))


def to_parquet(table: pa.Table) -> bytes:
    """The bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_table(data: bytes, still: Callable[[], object] = lambda: None) -> SweepTable:
    """The bytes of a sweep's Parquet file, checked as a stranger's.

    Args:
        data: the file.
        still: called ten times a second while it is read; what it raises ends the reading process.

    Raises:
        BRAError: it is too large, damaged, not a sweep's, or holds values that no sweep writes.
    """
    if len(data) > MAX_BYTES:
        raise BRAError(message("this table has {size:.0f} MB: {most:.0f} MB at most; sweep fewer pictures or settings.",
                               size=len(data) / 2**20, most=MAX_BYTES / 2**20))
    try:
        found = _read(data, still)
    except ParquetError as error:
        raise BRAError(_refusal(error.why)) from error
    rows, missing = found.rows, [SCHEMA.field(name) for name in SCHEMA.names if name not in found.rows.schema.names]
    for field in missing:
        rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    _check(rows, {**found.gaps, **dict.fromkeys((field.name for field in missing), 0)})
    for name in GAPS:       # which the reader hands on as NaN
        at = SCHEMA.get_field_index(name)
        rows = rows.set_column(at, SCHEMA.field(at), pa.array(rows[name].to_numpy(), SCHEMA.field(at).type,
                                                              from_pandas=True))
    return SweepTable(rows, found.about)


def _read(data: bytes, still: Callable[[], object]) -> ParquetTable:
    """The columns of SCHEMA, or of a table of an earlier version, all but LATER."""
    try:
        return read_parquet(data, SCHEMA, ABOUT.decode(), MAX_ROWS, still)
    except ParquetError as error:
        if error.why != "schema":
            raise
    return read_parquet(data, pa.schema([field for field in SCHEMA if field.name not in LATER]), ABOUT.decode(),
                        MAX_ROWS, still)


def _refusal(why: str) -> str:
    """The sentence with the cure for a reason of `ParquetError`."""
    if why == "room":
        return message("there is no room here to read this table: try again later, or sweep fewer pictures or "
                       "settings.")
    if why == "time":
        return message("reading this table took more than {n} seconds: try again, or sweep fewer pictures or "
                       "settings.", n=f"{LIMITS.seconds:g}")
    if why == "damaged":
        return message("this table is damaged or no Parquet file: choose rows.parquet of a folder that bra sweep "
                       "wrote.")
    if why == "schema":
        return message("this Parquet file is not the table of a sweep: choose rows.parquet of a folder that bra sweep "
                       "wrote without --rules; what it wrote with it is shown by report.html there.")
    if why == "words":
        return message("this table names pictures or layers at a length that no sweep does: choose rows.parquet of a "
                       "folder that bra sweep wrote.")
    if why == "rows":
        return message("this table has more than {most:,} rows: sweep fewer pictures or settings.", most=MAX_ROWS)
    return message("reading this table took more than {memory:,.0f} MB of memory or {n} seconds: choose rows.parquet "
                   "of a folder that bra sweep wrote.", memory=LIMITS.memory / 2**20, n=LIMITS.cpu_seconds)


def _check(table: pa.Table, gaps: Mapping[str, int]) -> None:
    for name in SCHEMA.names:
        if name not in GAPS and gaps[name]:
            raise BRAError(message("column {name!r} of this table has gaps, which no sweep leaves: sweep again.",
                                   name=name))
    for name in SHARES:
        values = table[name].to_numpy()
        inside = (values >= -1e-9) & (values <= 1 + 1e-6)
        if not (inside | np.isnan(values) if name in GAPS else inside).all():
            raise BRAError(message("column {name!r} of this table holds values outside of 0 to 1: sweep again.",
                                   name=name))
    for name in ("n_win", "topk", "windows", "macs", "peak_bytes"):
        values = table[name].to_numpy()
        if not ((values > 0) & (values < MOST)).all():
            raise BRAError(message("column {name!r} of this table holds values outside of 1 to {most:.0e}: sweep "
                                   "again.",
                                   name=name, most=MOST))


def summaries(table: pa.Table, still: Callable[[], object] = lambda: None) -> tuple[Summary, ...]:
    """Every layer and setting, in the order in which they first appear.

    Args:
        table: the rows of a sweep.
        still: called before each of them; what it raises ends the work.

    Raises:
        BRAError: so many of them that no page could show them.
    """
    layers = pa.compute.dictionary_encode(table["layer"].combine_chunks())
    columns = {name: table[name].to_numpy() for name in
               ("n_win", "topk", "recall", "nearest", "chance", "oracle", "macs", "peak_bytes", *LATER)}
    settings = np.stack([layers.indices.to_numpy(), columns["n_win"], columns["topk"]], 1)
    _, first, group = np.unique(settings, axis=0, return_index=True, return_inverse=True)
    if len(first) > MAX_SETTINGS:
        raise BRAError(message("this table has {n:,} layers and settings: {most:,} at most; sweep fewer of them.",
                               n=len(first), most=MAX_SETTINGS))
    order = np.argsort(group.reshape(-1), kind="stable")
    places = np.split(order, np.cumsum(np.bincount(group.reshape(-1), minlength=len(first)))[:-1])
    drawn: dict[int, Floats] = {}       # how often each picture is drawn, the same for all of one number of pictures
    made: dict[int, Summary] = {}
    for at in sorted(range(len(first)), key=lambda at: len(places[at])):      # of which one is kept at a time
        still()
        these, name = places[at], layers.dictionary[layers.indices[int(first[at])].as_py()].as_py()
        recall, nearest = columns["recall"][these], columns["nearest"][these]
        means = {name: float(columns[name][these].mean()) for name in
                 ("recall", "nearest", "chance", "oracle", "macs", "peak_bytes")}
        made[at] = Summary(name, int(columns["n_win"][these[0]]), int(columns["topk"][these[0]]), len(these),
                           tuple(recall.tolist()), interval=interval(recall, drawn),
                           gain=interval(recall - nearest, drawn), **means,
                           shared_choices=_mean(columns["shared_choices"][these]),
                           query_dependence=_mean(columns["query_dependence"][these]))
    return tuple(made[int(at)] for at in np.argsort(first, kind="stable"))


def _mean(values: Floats) -> float | None:
    """Of those that are there; None where none is."""
    return None if np.isnan(values).all() else float(np.nanmean(values))


def interval(values: Floats, drawn: dict[int, Floats] | None = None) -> tuple[float, float]:
    """95 % interval of the mean; NaN of a single value.

    By bootstrap (percentile method, 1,000 resamples) for up to 1,000 values; above, where both agree, from the
    standard error.

    Args:
        values: one per picture.
        drawn: shares with which each value is drawn, for the last number of them; filled here and used again.
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    if n > BOOTSTRAPS:
        half = 1.96 * float(values.std(ddof=1)) / math.sqrt(n)
        return float(values.mean()) - half, float(values.mean()) + half
    drawn = {} if drawn is None else drawn
    if n not in drawn:
        drawn.clear()
        at = np.random.default_rng(0).integers(0, n, (BOOTSTRAPS, n)) + n * np.arange(BOOTSTRAPS)[:, None]
        drawn[n] = np.bincount(at.reshape(-1), minlength=BOOTSTRAPS * n).reshape(BOOTSTRAPS, n) / n
    low, high = np.quantile(drawn[n] @ values, (0.025, 0.975))
    return float(low), float(high)
