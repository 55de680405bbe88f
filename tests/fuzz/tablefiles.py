"""Tables such as no sweep writes: changed bytes, other columns, impossible values, endless words."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import seeds
from checkpointfiles import VALUES
from hypothesis import strategies as st
from mutations import mutants

from bra.experiments.sweep_table import ABOUT, SCHEMA

WORDS = ("a", "", "layers.0", "x" * 3000, "\u202e", "<script>", "$x$", "a\nb", "\0", "🦆")
FLOATS = (0.5, 0.0, 1.0, -0.0, 1.1, -1e-12, 1e308, 5e-324, float("nan"), float("inf"), None)
WHOLE = (1, 2, 7, 0, -1, 2**31, 2**62, -(2**63), None)


@st.composite
def _made(draw: st.DrawFn) -> bytes:
    count, columns = draw(st.sampled_from((0, 1, 2, 20))), {}
    odd = draw(st.sets(st.sampled_from(SCHEMA.names), max_size=2))
    for field in SCHEMA:
        values: tuple[Any, ...] = (
            WORDS if pa.types.is_string(field.type) else (WHOLE if pa.types.is_integer(field.type) else FLOATS)
        )
        some = st.sampled_from(values if field.name in odd else values[:2])
        columns[field.name] = pa.array(draw(st.lists(some, min_size=count, max_size=count)), field.type)
    about = draw(
        st.binary(max_size=8)
        | VALUES.map(lambda value: json.dumps(value, default=str).encode())
        | VALUES.map(lambda value: json.dumps({"settings": {"model": value}, "name": value}).encode())
    )
    table = pa.table(columns, SCHEMA.with_metadata({ABOUT: about}))
    change = draw(st.sampled_from(("none", "none", "none", "drop", "rename", "cast", "reorder")))
    if change == "drop":
        table = table.drop_columns([draw(st.sampled_from(SCHEMA.names))])
    elif change == "rename":
        table = table.rename_columns([f"{name} " for name in SCHEMA.names])
    elif change == "cast":
        table = table.set_column(2, "n_win", pa.array([b"x"] * count, pa.binary()))
    elif change == "reorder":
        table = table.select(SCHEMA.names[::-1])
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression=draw(st.sampled_from(("zstd", "none", "gzip", "snappy"))),
        use_dictionary=draw(st.booleans()),
        store_schema=draw(st.booleans()),
    )
    return sink.getvalue()


def table_files() -> st.SearchStrategy[bytes]:
    """The file's bytes."""
    return _made() | mutants(seeds.tables())
