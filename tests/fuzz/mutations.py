"""Bytes that nearly are a file of their kind: what a fuzzer hands in at a door."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from hypothesis import strategies as st

NUMBERS = (0, 1, 2, 7, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""What sizes, counts and offsets are overwritten with: the ends of their ranges."""
PNG = b"\x89PNG\r\n\x1a\n"


@st.composite
def mutants(draw: st.DrawFn, seeds: Mapping[str, bytes]) -> bytes:
    """A sound file after one to six changes: bits, numbers, cuts, repeats, and parts of another file."""
    names = sorted(seeds)
    data = bytearray(seeds[draw(st.sampled_from(names))])
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3, 6)))):
        kind = draw(st.sampled_from(("flip", "set", "number", "number", "cut", "drop", "repeat", "splice", "insert")))
        # Squared, mostly: the head of a file is where it can lie; not its first bytes, which say what it is.
        power = 1 if kind == "cut" else draw(st.sampled_from((1, 2, 3)))
        at = max(
            8 * draw(st.sampled_from((1, 1, 1, 0))), int(draw(st.floats(0, 1, exclude_max=True)) ** power * len(data))
        )
        size = draw(st.sampled_from((1, 2, 4, 8, 16, 64, 256)))
        if at >= len(data):
            continue
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at] = draw(st.integers(0, 255))
        elif kind == "number":
            form = draw(st.sampled_from(("<B", "<H", ">H", "<I", ">I", "<Q")))
            number = struct.pack(form, draw(st.sampled_from(NUMBERS)) & (256 ** struct.calcsize(form) - 1))
            data[at : at + len(number)] = number
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + size]
        elif kind == "repeat":
            data[at:at] = data[at : at + size] * draw(st.sampled_from((1, 2, 50)))
        elif kind == "splice":
            other = seeds[draw(st.sampled_from(names))]
            start = draw(st.integers(0, len(other)))
            data[at : at + size] = other[start : start + draw(st.sampled_from((size, len(other))))]
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
    made = bytes(data)
    return with_sums(made) if made.startswith(PNG) and draw(st.booleans()) else made


def with_sums(data: bytes) -> bytes:
    """A PNG with the checksum of every chunk put right, so that what is in the chunk reaches the decoder."""
    out, at = bytearray(data), len(PNG)
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)
