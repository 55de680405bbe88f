"""The table of a sweep: one row per picture, layer and setting, as Parquet; reading it back, a stranger's file too."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bra.compare import SettingRow
from bra.errors import BRAError
from bra.fidelity import Floats
from bra.wording import said

MAX_BYTES: Final = 200 * 2**20
MAX_ROWS: Final = 5_000_000
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
    listed = [{"picture": picture, "layer": layer, **row.to_dict()} for picture, layer, row in found]
    return pa.Table.from_pylist(listed, SCHEMA.with_metadata({ABOUT: json.dumps(about)}))


def to_parquet(table: pa.Table) -> bytes:
    """The bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_table(data: bytes) -> SweepTable:
    """The bytes of a sweep's Parquet file, checked as a stranger's.

    Raises:
        BRAError: it is too large, damaged, not a sweep's, or holds values that no sweep writes.
    """
    if len(data) > MAX_BYTES:
        raise BRAError(said("this table has {size:.0f} MB: {most:.0f} MB at most; sweep fewer pictures or settings.",
                            size=len(data) / 2**20, most=MAX_BYTES / 2**20))
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        schema, count = file.schema_arrow, file.metadata.num_rows
        size = sum(file.metadata.row_group(n).total_byte_size for n in range(file.metadata.num_row_groups))
        if not schema.remove_metadata().equals(SCHEMA):
            raise BRAError(said("this Parquet file is not the table of a sweep: choose rows.parquet of a folder that "
                                "bra sweep wrote."))
        if count > MAX_ROWS or size > 8 * MAX_BYTES:    # declared before anything is unpacked
            raise BRAError(said("this table has {count:,} rows: {most:,} at most; sweep fewer pictures or settings.",
                                count=count, most=MAX_ROWS))
        table = file.read()
        about = json.loads((schema.metadata or {}).get(ABOUT, b"{}"))
    except BRAError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, RecursionError) as error:
        raise BRAError(said("this table is damaged or no Parquet file: choose rows.parquet of a folder that bra sweep "
                            "wrote.")) from error
    if not isinstance(about, dict):
        about = {}
    _check(table)
    return SweepTable(table, about)


def _check(table: pa.Table) -> None:
    for name in SCHEMA.names:
        if name != "seconds" and table[name].null_count:
            raise BRAError(said("column {name!r} of this table has gaps, which no sweep leaves: sweep again.",
                                name=name))
    for name in SHARES:
        values = table[name].to_numpy()
        if not ((values >= -1e-9) & (values <= 1 + 1e-6)).all():
            raise BRAError(said("column {name!r} of this table holds values outside of 0 to 1: sweep again.",
                                name=name))
    for name in ("n_win", "topk", "windows", "macs", "peak_bytes"):
        if not (table[name].to_numpy() > 0).all():
            raise BRAError(said("column {name!r} of this table holds values below 1: sweep again.", name=name))


def summaries(table: pa.Table) -> tuple[Summary, ...]:
    """Every layer and setting, in the order in which they first appear."""
    columns = {name: np.asarray(table[name].to_pylist()) for name in
               ("layer", "n_win", "topk", "recall", "nearest", "chance", "oracle", "macs", "peak_bytes")}
    keys = list(zip(*(columns[name].tolist() for name in ("layer", "n_win", "topk")), strict=True))
    places: dict[tuple[str, int, int], list[int]] = {}
    for at, key in enumerate(keys):
        places.setdefault(key, []).append(at)
    made = []
    for (layer, n_win, topk), these in places.items():
        recall, nearest = columns["recall"][these], columns["nearest"][these]
        means = {name: float(columns[name][these].mean()) for name in
                 ("recall", "nearest", "chance", "oracle", "macs", "peak_bytes")}
        made.append(Summary(layer, n_win, topk, len(these), tuple(recall.tolist()), interval=interval(recall),
                            gain=interval(recall - nearest), **means))
    return tuple(made)


def interval(values: Floats) -> tuple[float, float]:
    """95 % bootstrap interval of the mean (percentile method, 1,000 resamples); NaN of a single value."""
    if len(values) < 2:
        return math.nan, math.nan
    drawn = np.random.default_rng(0).integers(0, len(values), (BOOTSTRAPS, len(values)))
    low, high = np.quantile(values[drawn].mean(-1), (0.025, 0.975))
    return float(low), float(high)
