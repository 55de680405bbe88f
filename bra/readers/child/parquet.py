"""Reads one Parquet file in a process of its own: its columns go out as plain numbers.

A few kilobytes of Parquet can stand for terabytes, and only decoding them tells. So that is done here, with bounds on
memory and time, and a table that is handed on has words of ordinary length. It imports pyarrow and nothing of torch.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from bra.readers.child.main import REFUSED

BATCH: Final = 16_384       # rows decoded at a time
MAX_WORD: Final = 400       # bytes of a name
MAX_WORDS: Final = 2**26    # bytes of all names, each as often as it stands there
MAX_ABOUT: Final = 2**16    # bytes of what the file says of itself
KINDS: Final = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64()}


class RefusedError(Exception):
    """A table that is not handed on; its text is one of "schema", "rows", "words"."""


def main(wanted: Mapping[str, Any], source: IO[bytes], out: IO[bytes], words: IO[bytes]) -> int:
    """Read a file and write its columns; the exit status. The reason of a refusal is written as one word.

    Args:
        wanted: "columns" as [name, kind of KINDS], "about" the key of what the file says of itself, and "rows" at most.
        source: the file.
        out: gets the length of a header, the header as JSON, and the columns.
        words: gets the reason.
    """
    try:
        header, parts = unpack(source.read(), wanted)
    except RefusedError as error:
        words.write(str(error).encode())
        return REFUSED
    except MemoryError:         # Arrow's own is an ArrowException too
        raise
    except (pa.ArrowException, OSError, ValueError, RecursionError, OverflowError):
        words.write(b"damaged")
        return REFUSED
    text = json.dumps(header).encode()
    out.write(struct.pack("<Q", len(text)) + text)
    for part in parts:
        out.write(part)
    out.flush()
    return 0


def unpack(data: bytes, wanted: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """({"rows", "about", "gaps", "words": {column: its different words}}, per column 8 bytes a row).

    A column of words is numbers into its words; "gaps" counts the missing values of each column, which are 0 or NaN.

    Raises:
        RefusedError: other columns than those wanted, too many rows, or words too long.
    """
    schema = pa.schema([(name, KINDS[kind]) for name, kind in wanted["columns"]])
    if not pq.read_schema(io.BytesIO(data)).remove_metadata().equals(schema):
        raise RefusedError("schema")
    file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
    if not 0 <= file.metadata.num_rows <= wanted["rows"]:
        raise RefusedError("rows")
    words: dict[str, dict[str, int]] = {field.name: {} for field in schema if pa.types.is_string(field.type)}
    parts: dict[str, list[bytes]] = {name: [] for name in schema.names}
    gaps, count, spelt = dict.fromkeys(schema.names, 0), 0, 0
    for batch in file.iter_batches(BATCH, use_threads=False):
        count += batch.num_rows
        if count > wanted["rows"]:
            raise RefusedError("rows")
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            gaps[name] += column.null_count
            if name in words:
                column, more = _numbered(column, words[name])
                spelt += more
            parts[name].append(_bytes(column))
        if spelt > MAX_WORDS:
            raise RefusedError("words")
    header = {"rows": count, "about": _about(file, wanted["about"]), "gaps": gaps,
              "words": {name: list(known) for name, known in words.items()}}
    return header, [part for name in schema.names for part in parts[name]]


def _numbered(column: Any, known: dict[str, int]) -> tuple[Any, int]:
    """Words as numbers into `known`, which grows, and the bytes that they take written out."""
    column = column.dictionary_encode()
    sizes = pa.compute.binary_length(column.dictionary)
    if (pa.compute.max(sizes).as_py() or 0) > MAX_WORD:
        raise RefusedError("words")
    places = pa.array([known.setdefault(word, len(known)) for word in column.dictionary.to_pylist()], pa.int64())
    indices = column.indices.cast(pa.int64()).fill_null(0)
    if not len(places):         # nothing but gaps
        return pa.array([0] * len(column), pa.int64()), 0
    return places.take(indices), pa.compute.sum(sizes.take(indices)).as_py() or 0


def _bytes(column: Any) -> bytes:
    whole = pa.types.is_integer(column.type)
    values = column.fill_null(0 if whole else float("nan")).to_numpy(zero_copy_only=False)
    return bytes(values.astype("<i8" if whole else "<f8").tobytes())


def _about(file: Any, key: str) -> dict[str, Any]:
    message = (file.schema_arrow.metadata or {}).get(key.encode(), b"{}")
    with suppress(ValueError, RecursionError):
        found = json.loads(message) if len(message) <= MAX_ABOUT else {}
        return found if isinstance(found, dict) else {}
    return {}
