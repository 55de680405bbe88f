"""Files that were made to harm: each small, each for one door, each with the words that its refusal must hold."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bra.experiments.sweep_table import SCHEMA

FULL = (6_300, 6_300)
"""Just under the 40 million pixels that are taken."""


@dataclass(frozen=True)
class Hostile:
    """A file, the door it is for, and what its refusal says; "" where it is taken and must do no harm."""

    name: str
    door: str
    data: bytes
    words: str


def written(image: Image.Image, fmt: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(w: int, h: int, rows: bytes, before: bytes = b"", more: bytes = b"") -> bytes:
    """8-bit RGB of deflated rows, with chunks before them, and `more` after their deflated bytes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", zlib.compress(rows, 9) + more) + chunk(b"IEND", b"")


def tiff(tags: dict[int, tuple[int, int, int]], body: bytes) -> bytes:
    """A little-endian TIFF of one directory: tag -> (type, count, value); the body lies at byte 8."""
    rows = b"".join(struct.pack("<HHII", tag, *field) for tag, field in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + rows + bytes(4)


def grey_tiff(w: int, h: int, body: bytes, **changed: tuple[int, int, int]) -> bytes:
    """8-bit grey, deflated, in one strip; a tag is changed as t259=(type, count, value)."""
    tags = {
        256: (4, 1, w),
        257: (4, 1, h),
        258: (3, 1, 8),
        259: (3, 1, 8),
        262: (3, 1, 1),
        273: (4, 1, 8),
        277: (3, 1, 1),
        278: (4, 1, h),
        279: (4, 1, len(body)),
    }
    return tiff(tags | {int(name[1:]): field for name, field in changed.items()}, body)


def with_exif(body: bytes) -> bytes:
    """A sound JPEG whose EXIF part holds these bytes."""
    jpeg = written(Image.linear_gradient("L").resize((48, 32)).convert("RGB"), "JPEG")
    part = b"Exif\0\0" + body
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part + jpeg[2:]


def exif_entries(*entries: tuple[int, int, int, int], after: int = 0) -> bytes:
    """EXIF of one directory: (tag, type, count, value) each, then the place of the next directory."""
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + struct.pack("<I", after)


def pictures() -> Iterator[Hostile]:
    """Pictures, and what pretends to be one."""

    def one(name: str, data: bytes, words: str) -> Hostile:
        return Hostile(name, "picture", data, words)

    black, palette = Image.new("RGB", FULL), Image.new("P", FULL)
    yield one("bomb within the limit, png", written(black, "PNG"), "")
    yield one("bomb within the limit, gif", written(palette, "GIF"), "")
    yield one("bomb within the limit, webp", written(black, "WEBP", lossless=True), "")
    yield one("bomb within the limit, tiff", written(black, "TIFF", compression="tiff_deflate"), "")
    yield one(
        "float bomb within the limit, tiff", written(Image.new("F", FULL), "TIFF", compression="tiff_deflate"), ""
    )
    yield one("bomb beyond, png", png(30_000, 30_000, bytes(10**6)), "30,000 × 30,000 px")
    yield one(
        "bomb beyond, bmp",
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 30_000, -30_000, 1, 24, *(0,) * 6),
        "30,000 × 30,000 px",
    )
    yield one("bomb beyond, tiff", grey_tiff(60_000, 60_000, zlib.compress(bytes(10**6))), "60,000 × 60,000 px")
    yield one("bomb beyond, webp", lossless_webp(16_383, 16_383), "too large to decode")
    yield one("a gigabyte behind a small png", png(32, 32, bytes(2**27)), "")
    yield one("gigabytes after the rows", png(32, 32, bytes(32 * 97), more=zlib.compress(bytes(2**26)) * 20), "")
    endless = zlib.compress(bytes(2**27), 9)
    yield one("a text of gigabytes, png", png(32, 32, bytes(32 * 97), chunk(b"zTXt", b"a\0\0" + endless)), "damaged")
    yield one(
        "many texts, png",
        png(32, 32, bytes(32 * 97), 2000 * chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))),
        "damaged",
    )
    yield one(
        "a colour profile of gigabytes, png", png(32, 32, bytes(32 * 97), chunk(b"iCCP", b"a\0\0" + endless)), "damaged"
    )
    yield one("a strip of a gigabyte, tiff", grey_tiff(32, 32, endless), "")
    yield one("no bits, tiff", grey_tiff(32, 32, zlib.compress(bytes(1024)), t258=(3, 1, 0)), "damaged")
    yield one("a billion samples, tiff", grey_tiff(32, 32, zlib.compress(bytes(1024)), t277=(3, 1, 65_535)), "damaged")
    yield one("a strip elsewhere, tiff", grey_tiff(32, 32, b"x", t273=(4, 1, 2**31)), "damaged")
    yield one("tags without end, tiff", grey_tiff(32, 32, zlib.compress(bytes(1024)), t273=(4, 2**31, 8)), "damaged")
    yield one("every side nought, png", png(0, 0, b""), "damaged")
    yield one(
        "the largest sides, gif",
        b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\2\0;",
        "65,535 × 65,535 px",
    )
    first = written(Image.new("P", (64, 64), 1), "GIF")
    frame = first[first.index(b",", 13) : -1]
    yield one("20,000 frames, gif", first[:-1] + frame * 20_000 + b";", "")
    for name, values in (("not finite", (np.nan, np.inf, -np.inf)), ("hardly finite", (3e38, -3e38, 1e-45))):
        floats = np.resize(np.array(values, np.float32), (32, 32))
        yield one(f"{name}, tiff", written(Image.fromarray(floats), "TIFF"), "no finite value" if "not" in name else "")
    yield from (
        one(f"{name} named .png", data, words)
        for name, data, words in (
            ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "an SVG drawing"),
            ("SVG behind a comment", b"\n<!-- x --><svg/>", "an SVG drawing"),
            (
                "XML with entities",
                b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'x'>]><a>&b;</a>",
                "an SVG drawing or other XML",
            ),
            ("HTML", b"<!doctype html><script>alert(1)</script>", "a web page"),
            ("ZIP", b"PK\3\4" + bytes(99), "a ZIP archive"),
            ("empty ZIP", b"PK\5\6" + bytes(18), "not a PNG"),
            ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a PNG"),
            ("nothing", b"", "empty"),
            ("noughts", bytes(4096), "not a PNG"),
            ("a program", b"\x7fELF" + bytes(99), "not a PNG"),
        )
    )
    lies = {
        "orientation 99": exif_entries((0x0112, 3, 1, 99)),
        "orientation of text": exif_entries((0x0112, 2, 4, 0x41414141)),
        "a million by a million": exif_entries((0xA002, 4, 1, 10**6), (0xA003, 4, 1, 10**6)),
        "a directory in itself": exif_entries((0x8769, 4, 1, 8), (0x0112, 3, 1, 1), after=8),
        "four gigabytes of text": exif_entries((0x010E, 2, 2**32 - 1, 0)),
        "elsewhere": exif_entries((0x010E, 2, 100, 2**31)),
        "no directory": b"II*\0\xff\xff\xff\xff",
        "a count of all": b"II*\0" + struct.pack("<IH", 8, 65_535) + b"\x12\1\3\0" * 50,
        "noise": b"\xff" * 200,
    }
    yield from (one(f"EXIF: {name}", with_exif(body), "") for name, body in lies.items())


def lossless_webp(w: int, h: int) -> bytes:
    """The head of a lossless WebP of that size, and nothing after it."""
    body = b"\x2f" + struct.pack("<I", (w - 1) | (h - 1) << 14) + bytes(20)
    return b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


def weights() -> Iterator[Hostile]:
    """Files of safetensors."""

    def one(name: str, header: Any, words: str, body: bytes = b"", message: int | None = None) -> Hostile:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return Hostile(name, "weights", struct.pack("<Q", len(text) if message is None else message) + text + body,
                       words)

    def tensor(shape: Any, size: int = 0, kind: Any = "F32", at: int = 0) -> dict[str, Any]:
        return {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}

    yield Hostile("nothing", "weights", b"", "cut off")
    yield one("a header of exabytes", {}, "cut off", message=2**63)
    yield one("a header longer than the file", {"a": tensor([1], 4)}, "cut off", message=500)
    yield one("no header", b"PK\3\4", "cannot be read")
    yield one("a header a hundred thousand deep", b'{"a":' + b"[" * 100_000, "cannot be read")
    yield one("a header that is a list", [1], "cannot be read")
    yield one("a header of megabytes", {f"a{n}": tensor([0]) for n in range(80_000)}, "4,194,304 at most")
    yield one("thirty thousand tensors", {f"a{n}": tensor([0]) for n in range(30_000)}, "20,000 at most")
    yield one("more numbers than bytes", {"a": tensor([10**6], 4 * 10**6)}, "bytes that its header says", bytes(16))
    yield one("numbers of no size", {"a": tensor([4], 4, "F4")}, "of type 'F4'", bytes(4))
    yield one("numbers of a size to come", {"a": tensor([0], 0, "F8_E8M0")}, "of type 'F8_E8M0'")
    yield one("a shape that overflows", {"a": tensor([2**32, 2**32], 0)}, "bytes that its header says")
    yield one("a shape below nought", {"a": tensor([-1, -4], 16)}, "bytes that its header says", bytes(16))
    yield one(
        "an empty tensor of any length",
        {name: tensor([2**30, 0]) for name in ("stages.0.0.norm1.weight", "stages.0.0.mlp.0.weight")},
        "1,073,741,824 rows",
    )
    yield one("two in one place", {"a": tensor([4], 16), "b": tensor([4], 16)}, "damaged", bytes(16))
    yield one("bytes of nobody", {"a": tensor([1], 4)}, "damaged", bytes(4096))
    yield one("names with control characters", {"a\x1b[2J\n": tensor([0])}, "ordinary characters")
    yield one("other weights", {"conv.weight": tensor([1], 4)}, "not a BiFormer's", bytes(4))
    yield one(
        "a model of ten thousand blocks", {f"stages.0.{n}.norm1.weight": tensor([0]) for n in range(9_999)}, "too many"
    )


def table(rows: int, **columns: Any) -> pa.Table:
    """A table of a sweep's columns; words are numbered, so that many long ones take nothing here."""
    usual = {
        field.name: pa.array(["x"]).dictionary_encode().take(pa.array([0] * rows))
        if pa.types.is_string(field.type)
        else pa.array(np.full(rows, 1 if pa.types.is_integer(field.type) else 0.5), field.type)
        for field in SCHEMA
    }
    return pa.table({name: columns.get(name, column) for name, column in usual.items()})


def parquet(rows: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd", store_schema=False, **options)
    return sink.getvalue()


def tables() -> Iterator[Hostile]:
    """Parquet and what pretends to be."""

    def one(name: str, data: bytes, words: str) -> Hostile:
        return Hostile(name, "table", data, words)

    def repeated(word: str, rows: int) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [word])

    yield one("nothing", b"", "damaged")
    yield one("CSV", b"picture,layer,recall\na.png,layers.0,0.5\n", "damaged")
    yield one("a formula in CSV", b'=cmd|"/c calc"!A1', "damaged")
    yield one("a ZIP", b"PK\3\4" + bytes(99), "damaged")
    yield one("only its signature", b"PAR1PAR1", "damaged")
    yield one("a footer of gigabytes", b"PAR1" + bytes(20) + struct.pack("<I", 2**32 - 1) + b"PAR1", "damaged")
    yield one(
        "a terabyte of one word",
        parquet(table(900_000, layer=repeated("x" * 2**20, 900_000)), dictionary_pagesize_limit=2**30),
        "memory",
    )
    yield one("long words", parquet(table(50, layer=repeated("x" * 5_000, 50))), "at a length that no sweep")
    yield one("two million rows", parquet(table(2_000_000)), "more than 1,000,000 rows")
    yield one("six thousand settings", parquet(table(6_000, topk=pa.array(np.arange(1, 6_001)))), "5,000 at most")
    yield one("other columns", parquet(pa.table({"a": [1]})), "not the table of a sweep")
    yield one("a column too few", parquet(table(3).drop_columns(["recall"])), "not the table of a sweep")
    yield one(
        "a column too many", parquet(table(3).append_column("y", pa.array([1, 2, 3]))), "not the table of a sweep"
    )
    yield one("words for numbers", parquet(table(2, recall=pa.array(["0.5", "x"]))), "not the table of a sweep")
    yield one("a list in each cell", parquet(table(2, recall=pa.array([[0.5], [0.5] * 9]))), "not the table of a sweep")
    for name, value in (("no number", np.nan), ("without end", np.inf), ("below nought", -0.5)):
        yield one(f"a share {name}", parquet(table(2, recall=pa.array([0.5, value]))), "outside of 0 to 1")
    yield one("a gap", parquet(table(2, nearest=pa.array([0.5, None]))), "gaps")
    yield one("windows below one", parquet(table(2, n_win=pa.array([4, -(2**62)]))), "outside of 1 to")
    yield one("more bytes than are", parquet(table(2, peak_bytes=pa.array([1, 2**62]))), "outside of 1 to")
    yield one("words that are no text", parquet(table(2)).replace(b"x", b"\xff"), "damaged")


@cache
def every() -> tuple[Hostile, ...]:
    """All of them."""
    return (*pictures(), *weights(), *tables())
