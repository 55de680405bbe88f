"""The table of a sweep: one row per picture, layer and setting, as Parquet; reading it back, a stranger's file too."""

from __future__ import annotations

import io
import json
import math
import tempfile
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
from bra.metrics.routing import Floats
from bra.readers import sandbox
from bra.readers.child.parquet import REFUSED

MAX_BYTES: Final = 200 * 2**20
MAX_ROWS: Final = 1_000_000
MAX_SETTINGS: Final = 5_000
MOST: Final = 1e18
"""Multiply-adds and bytes that no layer reaches, still whole numbers in every step here."""
MEMORY: Final = 2**30
SECONDS: Final = 20
OUTPUT: Final = 2**29
"""Of the reading process: bytes, those of its libraries too, seconds of a processor, and bytes that it writes."""
START: Final = sandbox.START + (
    "import json; from bra.readers.child.parquet import limit, main; limit(*map(int, sys.argv[3:])); "
    "sys.exit(main(json.loads(sys.argv[2]), sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer))")
ALONE: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""One thread, and memory that is asked for when it is needed: otherwise most of the bound is reserved at the start."""
KINDS: Final = {"int": pa.int64(), "float": pa.float64(), "float | None": pa.float64()}
SCHEMA: Final = pa.schema([("picture", pa.string()), ("layer", pa.string()),
                           *((field.name, KINDS[str(field.type)]) for field in fields(SettingRow))])
SHARES: Final = ("recall", "chance", "nearest", "oracle", "kept", "padding_share")
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


def table_of(found: Sequence[tuple[str, str, SettingRow]], about: Mapping[str, Any]) -> pa.Table:
    """(picture, layer, row)s -> a table of SCHEMA that carries `about` along."""
    comma_joined = [{"picture": picture, "layer": layer, **row.to_dict()} for picture, layer, row in found]
    return pa.Table.from_pylist(comma_joined, SCHEMA.with_metadata({ABOUT: json.dumps(about)}))


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
    raw = _unpacked(data, still)
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    count, columns = header["rows"], {}
    for at, field in enumerate(SCHEMA):
        kind = np.float64 if pa.types.is_floating(field.type) else np.int64
        values = np.frombuffer(raw, kind, count, start + 8 * count * at)
        if field.name in header["words"]:
            words = pa.array(header["words"][field.name] or [""], pa.string())
            columns[field.name] = words.take(pa.array(values))
        else:       # a time that was not measured is a gap
            columns[field.name] = pa.array(values, field.type, from_pandas=field.name == "seconds")
    table = pa.table(columns, SCHEMA)
    _check(table, header["gaps"])
    return SweepTable(table, header["about"])


def _unpacked(data: bytes, still: Callable[[], object]) -> bytes:
    """What `bra.unpack_table` makes of the file, in a process with bounds."""
    columns = [[field.name, str(field.type)] for field in SCHEMA]
    wanted = json.dumps({"columns": columns, "about": ABOUT.decode(), "rows": MAX_ROWS})
    try:
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as words:
            source.write(data)
            source.seek(0)
            status = sandbox.ran(("-I", "-B"), START, [wanted, *map(str, (MEMORY, SECONDS, OUTPUT))],
                                 (source, out, words), 3 * SECONDS, still, ALONE)
            made = out if status == 0 else words
            made.seek(0)
            found = made.read()
    except OSError as error:
        raise BRAError(message("there is no room here to read this table: try again later, or sweep fewer pictures or "
                               "settings.")) from error
    if status is None:
        raise BRAError(message("reading this table took more than {n} seconds: try again, or sweep fewer pictures or "
                               "settings.", n=3 * SECONDS))
    if status == 0:
        return found
    why = found.decode("ascii", "replace") if status == REFUSED else ""
    if why == "damaged":
        raise BRAError(message("this table is damaged or no Parquet file: choose rows.parquet of a folder that bra "
                               "sweep wrote."))
    if why == "schema":
        raise BRAError(message("this Parquet file is not the table of a sweep: choose rows.parquet of a folder that "
                               "bra sweep wrote."))
    if why == "words":
        raise BRAError(message("this table names pictures or layers at a length that no sweep does: choose "
                               "rows.parquet of a folder that bra sweep wrote."))
    if why == "rows":
        raise BRAError(message("this table has more than {most:,} rows: sweep fewer pictures or settings.",
                               most=MAX_ROWS))
    raise BRAError(message("reading this table took more than {memory:,.0f} MB of memory or {n} seconds: choose "
                           "rows.parquet of a folder that bra sweep wrote.", memory=MEMORY / 2**20, n=SECONDS))


def _check(table: pa.Table, gaps: Mapping[str, int]) -> None:
    for name in SCHEMA.names:
        if name != "seconds" and gaps[name]:
            raise BRAError(message("column {name!r} of this table has gaps, which no sweep leaves: sweep again.",
                                   name=name))
    for name in SHARES:
        values = table[name].to_numpy()
        if not ((values >= -1e-9) & (values <= 1 + 1e-6)).all():
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
               ("n_win", "topk", "recall", "nearest", "chance", "oracle", "macs", "peak_bytes")}
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
                           gain=interval(recall - nearest, drawn), **means)
    return tuple(made[int(at)] for at in np.argsort(first, kind="stable"))


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
