"""A stranger's Parquet file -> a table with exactly the columns that are asked for.

A few kilobytes of Parquet can stand for terabytes, so a process with limits decodes it (`bra.readers.child.parquet`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bra.readers.child.main import REFUSED
from bra.readers.sandbox import WITH_PACKAGES, Limits, run_reader

LIMITS: Final = Limits(memory=2**30, cpu_seconds=20, output=2**29, seconds=60)
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""One thread, and memory that is asked for when it is needed: otherwise most of the limit is reserved at the start."""


class ParquetError(Exception):
    """A file that is not read.

    Attributes:
        why: "damaged"; "schema": other columns; "rows": too many; "words": texts too long; "time" or "limits": reading
            it took too much; "room": there is no room here.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True, eq=False)
class ParquetTable:
    """What was read.

    Attributes:
        rows: the columns that were asked for. Missing values are 0, or NaN in a column of floats.
        about: what the file says of itself under the key that was asked for; strangers' words.
        gaps: missing values of each column.
    """

    rows: pa.Table
    about: Mapping[str, Any]
    gaps: Mapping[str, int]


def read_parquet(data: bytes, schema: pa.Schema, about: str, max_rows: int,
                 still: Callable[[], object]) -> ParquetTable:
    """Read a file within LIMITS.

    Args:
        data: the file.
        schema: its columns; of strings, 64-bit integers and floats.
        about: the metadata key under which the file describes itself in JSON.
        max_rows: beyond which it is refused.
        still: called ten times a second meanwhile; what it raises ends the reading process.

    Raises:
        ParquetError: it is not read.
    """
    wanted = {"columns": [[field.name, str(field.type)] for field in schema], "about": about, "rows": max_rows}
    try:
        ended = run_reader("parquet", data, wanted, LIMITS, still, WITH_PACKAGES, ENVIRONMENT)
    except OSError as error:
        raise ParquetError("room") from error
    if ended.status is None:
        raise ParquetError("time")
    if ended.status:
        raise ParquetError(ended.refusal.decode("ascii", "replace") if ended.status == REFUSED else "limits")
    raw = ended.out
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    count, columns = header["rows"], {}
    for at, field in enumerate(schema):
        kind = np.float64 if pa.types.is_floating(field.type) else np.int64
        values = np.frombuffer(raw, kind, count, start + 8 * count * at)
        if field.name in header["words"]:
            words = pa.array(header["words"][field.name] or [""], pa.string())
            columns[field.name] = words.take(pa.array(values))
        else:
            columns[field.name] = pa.array(values, field.type)
    return ParquetTable(pa.table(columns, schema), header["about"], header["gaps"])
