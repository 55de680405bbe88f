"""What strangers send that is no photo: foreign, damaged and hostile files end in one sentence, and cost nothing."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from chinese import in_chinese
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bra.errors import BRAError, PhotoError
from bra.photo import Photo, PhotoLimits


def file(image: Image.Image, fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def dots(w: int, h: int) -> Image.Image:
    return Image.linear_gradient("L").resize((w, h)).convert("RGB")


def samples() -> dict[str, bytes]:
    image, exif = dots(40, 30), Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [image.rotate(9)]}
    return {
        "png": file(image, "PNG", exif=exif),
        "palette png": file(image.convert("P"), "PNG", transparency=bytes([0, 128])),
        "animated png": file(image, "PNG", **frames),
        "jpeg": file(image, "JPEG", exif=exif),
        "progressive jpeg": file(image, "JPEG", progressive=True),
        "cmyk jpeg": file(image.convert("CMYK"), "JPEG"),
        "mpo": file(image, "MPO", **frames),
        "webp": file(image, "WEBP", exif=exif),
        "lossless webp": file(image, "WEBP", lossless=True),
        "animated webp": file(image, "WEBP", **frames),
        "bmp": file(image, "BMP"),
        "gif": file(image, "GIF", **frames),
        "tiff": file(image, "TIFF"),
        "deflated tiff": file(image, "TIFF", compression="tiff_deflate"),
        "float tiff": file(image.convert("F"), "TIFF"),
    }


SAMPLES = samples()


def refusal(data: bytes, limits: PhotoLimits | None = None) -> str:
    with pytest.raises(PhotoError) as caught:
        Photo.from_bytes(data, limits)
    in_chinese(caught.value.args[0])
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


def survives(data: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Photo.from_bytes(data)
    except PhotoError:
        return False
    return True


def test_photo_errors_are_errors_of_this_package() -> None:
    assert issubclass(PhotoError, BRAError)
    assert issubclass(BRAError, ValueError)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"hello", "not a PNG, JPEG, WebP, BMP, GIF or TIFF"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not a PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?><svg/>", "an SVG drawing"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04\x14\0", "a ZIP archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC or AVIF picture"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "a HEIC or AVIF picture"),
    ],
)
def test_other_kinds_are_named(data: bytes, kind: str) -> None:
    assert refusal(data).startswith(f"This file is {kind}")


def test_readable_kinds_outside_the_list_are_refused() -> None:
    for fmt in ("PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "EPS"):
        assert "not a PNG" in refusal(file(dots(32, 32), fmt))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "head", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"BM", b"GIF89a", b"II*\0"]
)
def test_a_signature_alone_is_a_damaged_picture(head: bytes) -> None:
    for rest in (b"", bytes(500), b"\xff" * 500):
        assert "damaged" in refusal(head + rest) or "px" in refusal(head + rest)


def test_limits() -> None:
    limits = PhotoLimits(max_bytes=2**20, max_pixels=10_000, min_side=20, max_ratio=3)
    assert refusal(bytes(2**20 + 2**18), limits) == "This file has 1.2 MB: reduce it to 1 MB."
    assert (
        refusal(file(dots(101, 100), "PNG"), limits) == "This picture has 101 × 100 px: reduce it to 0.01 million px."
    )
    assert (
        refusal(file(dots(19, 21), "PNG"), limits)
        == "This picture has 19 × 21 px: choose one of at least 20 on each side."
    )
    assert (
        refusal(file(dots(61, 20), "PNG"), limits) == "This picture of 61 × 20 px is a strip: crop it to 3 : 1 or less."
    )
    for size in ((100, 100), (20, 20), (60, 20), (20, 60)):
        assert Photo.from_bytes(file(dots(*size), "PNG"), limits).original_size == size


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (png(20_000, 20_000, bytes(60_000)), "20,000 × 20,000 px"),
        (png(2**31 - 1, 2**31 - 1, b""), "px"),
        (webp_canvas(9_000, 9_000), "9,000 × 9,000 px"),
        (webp_canvas(2**24, 200), ""),
        (tiled_tiff(30_000, 64), "30,000 × 30,000 px"),
        (tiled_tiff(64, 40_000), "tiles"),
        (
            b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0),
            "30,000 × 30,000 px",
        ),
        (b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\2", "65,535"),
    ],
    ids=["png", "largest png", "webp", "long webp", "tiff", "tiff tile", "bmp", "gif"],
)
def test_bombs_are_refused_before_they_take_memory(data: bytes, cause: str) -> None:
    assert len(data) < 2_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cause in refusal(data)
    assert peak_growth(lambda: refusal(data)) < 16


def test_the_hand_made_bombs_are_sound_apart_from_their_size() -> None:
    assert survives(png(40, 30, (b"\0" + bytes(120)) * 30))
    assert survives(webp_canvas(40, 32))
    assert survives(tiled_tiff(64, 64))


def test_endless_scans_of_a_jpeg() -> None:
    data = SAMPLES["progressive jpeg"]
    last = data.rindex(b"\xff\xda")
    assert survives(data[:-2] + data[last:-2] * 20 + data[-2:])
    assert "scans" in refusal(data[:-2] + data[last:-2] * 200 + data[-2:])


def test_frames_of_a_long_animation_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    first = file(Image.new("P", (32, 32), 1), "GIF")
    frame = first[first.index(b",", 13) : -1]
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile.n_frames", property(lambda self: pytest.fail("counted")))
    assert Photo.from_bytes(first[:-1] + frame * 20_000 + b";").notes == ("first frame only",)


def test_memory_that_runs_out_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.Image.Image.thumbnail", no_memory)
    assert refusal(SAMPLES["png"]) == "This picture is too large to decode: save a smaller copy."


@pytest.mark.parametrize("name", SAMPLES)
def test_cut_off_files_decode_or_are_refused(name: str) -> None:
    data = SAMPLES[name]
    assert survives(data)
    whole = [cut for cut in range(0, len(data), max(1, len(data) // 200)) if survives(data[:cut])]
    assert not [cut for cut in whole if cut < len(data) // 4], "a quarter of a file is no picture"


@settings(max_examples=150)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=8),
)
def test_flipped_bits_decode_or_are_refused(name: str, flips: list[tuple[float, int]]) -> None:
    data = bytearray(SAMPLES[name])
    for place, bit in flips:
        data[int(place**2 * len(data))] ^= 1 << bit  # squared: the head of a file is where it can lie
    survives(bytes(data))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert not survives(data)
