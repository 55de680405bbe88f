"""Real files of every kind, made in memory, through the one door of `bra.photo`."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bra.errors import BRAError, PhotoError
from bra.photo import Photo, PhotoLimits, encode, to_tensor

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
Turn = Image.Transpose
# What a camera stores when its picture must be turned so: the inverse of each EXIF orientation.
STORED = {
    1: None,
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_90,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_270,
}


def file(image: Image.Image, fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def quadrants() -> Image.Image:
    image = Image.new("RGB", (48, 32), RED)
    for colour, corner in ((GREEN, (24, 0)), (BLUE, (0, 16)), (YELLOW, (24, 16))):
        image.paste(colour, (*corner, corner[0] + 24, corner[1] + 16))
    return image


def noise(w: int, h: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8))


def grey_tiff(values: np.ndarray, mode: str) -> bytes:
    return file(Image.frombytes(mode, values.shape[::-1], values.tobytes()), "TIFF")


def pixel(data: bytes) -> list[int]:
    return Photo.from_bytes(data).rgb[4, 4].tolist()


def refusal(data: bytes, limits: PhotoLimits | None = None) -> str:
    with pytest.raises(PhotoError) as caught:
        Photo.from_bytes(data, limits)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert ": " in sentence, "cause: cure"
    assert "\n" not in sentence
    return sentence


def png(w: int, h: int, pixels: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def tiled_tiff(side: int, tile: int) -> bytes:
    body = zlib.compress(bytes(64 * 64))
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 134, 325: len(body)}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(4) + body


def webp_canvas(w: int, h: int) -> bytes:
    frame = file(Image.new("RGB", (32, 32)), "WEBP", lossless=True)[12:]
    sides = struct.pack("<I", w - 1)[:3] + struct.pack("<I", h - 1)[:3]
    place = bytes(6) + struct.pack("<I", 31)[:3] * 2 + bytes([100, 0, 0, 0])
    body = b"WEBPVP8X" + struct.pack("<II", 10, 2) + sides + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(place) + len(frame)) + place + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def peak_growth(call: Callable[[], object]) -> int:
    """MiB by which the resident memory's high-water mark rose during the call."""

    def high_water() -> int:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the peak of resident memory can be set back on Linux only")
    before = high_water()
    call()
    return (high_water() - before) // 1024


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_files_keep_every_pixel(fmt: str) -> None:
    data = file(quadrants(), fmt, **({"lossless": True} if fmt == "WEBP" else {}))
    photo = Photo.from_bytes(data)
    assert np.array_equal(photo.rgb, np.asarray(quadrants()))
    assert (photo.width, photo.height, photo.original_size, photo.notes) == (48, 32, (48, 32), ())
    assert photo.digest == hashlib.sha256(data).hexdigest()
    assert photo.rgb.dtype == np.uint8
    assert photo.rgb.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        photo.rgb[0, 0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        photo.digest = ""  # type: ignore[misc]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_all_orientations_come_out_upright(fmt: str, orientation: int) -> None:
    stored = STORED[orientation]
    image = quadrants() if stored is None else quadrants().transpose(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(fmt, {})
    photo = Photo.from_bytes(file(image, fmt, exif=exif, **options))
    assert np.abs(photo.rgb.astype(int) - np.asarray(quadrants())).max() <= 4
    assert (photo.original_size, photo.notes) == ((48, 32), ())
    limits = PhotoLimits(max_side=24)
    small = Photo.from_bytes(file(image, fmt, exif=exif, **options), limits)
    assert (small.width, small.height, small.original_size) == (24, 16, (48, 32))
    assert small.notes == ("reduced from 48 × 32 px",)


def test_damaged_metadata_does_not_cost_the_picture() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\xff\xff\xff"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Photo.from_bytes(file(noise(32, 32), "JPEG", exif=exif)).original_size == (32, 32)
    exif_9 = Image.Exif()
    exif_9[0x0112] = 9
    assert Photo.from_bytes(file(noise(48, 32), "PNG", exif=exif_9)).width == 48


@pytest.mark.parametrize(
    ("mode", "fmt", "colour", "expected"),
    [
        ("1", "PNG", 1, (255, 255, 255)),
        ("1", "TIFF", 0, (0, 0, 0)),
        ("L", "PNG", 77, (77, 77, 77)),
        ("L", "JPEG", 77, (77, 77, 77)),
        ("LA", "PNG", (0, 128), (127, 127, 127)),
        ("RGBA", "PNG", (0, 0, 0, 128), (127, 127, 127)),
        ("RGBA", "TIFF", (255, 0, 0, 51), (255, 204, 204)),
        ("RGBA", "WEBP", (9, 9, 9, 0), (255, 255, 255)),
        ("PA", "TIFF", (0, 0), (255, 255, 255)),
        ("CMYK", "TIFF", (0, 255, 255, 0), RED),
        ("CMYK", "JPEG", (0, 255, 255, 0), RED),  # stored inverted, as Adobe does
        ("CMYK", "JPEG", (0, 0, 0, 255), (0, 0, 0)),
        ("LAB", "TIFF", (255, 0, 0), (255, 255, 255)),
        ("LAB", "TIFF", (0, 0, 0), (0, 0, 0)),
    ],
)
def test_modes(mode: str, fmt: str, colour: object, expected: tuple[int, int, int]) -> None:
    options = {"lossless": True} if fmt == "WEBP" else {}
    photo = Photo.from_bytes(file(Image.new(mode, (24, 20), colour), fmt, **options))
    assert np.abs(photo.rgb.astype(int) - expected).max() <= 1
    assert photo.notes == (("transparency shown on white",) if "A" in mode and mode != "LAB" else ())


def test_transparency_outside_an_alpha_channel() -> None:
    palette = Image.new("P", (24, 20))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert pixel(file(palette, "PNG", transparency=bytes([128]))) == [255, 127, 127]
    assert pixel(file(palette, "GIF", transparency=0)) == [255, 255, 255]
    assert pixel(file(palette, "GIF", transparency=1)) == [255, 0, 0]
    assert pixel(file(Image.new("RGB", (24, 20), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == [255, 255, 255]
    assert Photo.from_bytes(file(Image.new("RGBA", (24, 20), (1, 2, 3, 255)), "PNG")).notes == ()
