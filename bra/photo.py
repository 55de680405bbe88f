"""Strangers' bytes -> a picture that is safe to compute on.

The order matters: size of the file, kind of the file, declared size of the picture, and only then decoding.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base as ExifTag
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from bra.errors import PhotoError

if TYPE_CHECKING:
    from torch import Tensor

READABLE = "PNG, JPEG, WebP, BMP, GIF or TIFF"

# Chosen here and not by Image.open, which warns of a large picture through the process-wide warnings filter:
# that filter cannot be changed for one thread only, and _check_size asks the question anyway.
_READERS: tuple[tuple[bytes, Callable[[io.BytesIO], ImageFile.ImageFile]], ...] = (
    (rb"\x89PNG\r\n\x1a\n", PngImageFile),
    (rb"\xff\xd8\xff", jpeg_factory),
    (rb"RIFF....WEBP", WebPImageFile),
    (rb"BM", BmpImageFile),
    (rb"GIF8[79]a", GifImageFile),
    (rb"II[*+]\0|MM\0[*+]", TiffImageFile),
)
_OTHER_KINDS = (
    (rb"....ftyp(hei|hev|mif|msf)", "a HEIC photo"),
    (rb"....ftypavi[fs]", "an AVIF picture"),
    (rb"....ftyp", "a film"),
    (rb"%PDF", "a PDF document"),
    (rb"PK\x03\x04", "a ZIP archive or an office document"),
    (rb"8BPS", "a Photoshop document"),
    (rb"(\xef\xbb\xbf)?\s*<!doctype html|\s*<html", "a web page"),
    (rb"(\xef\xbb\xbf)?\s*<(\?xml|svg|!doctype svg)", "an SVG drawing"),
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_MAX_SCANS = 100  # a progressive JPEG has about ten


@dataclass(frozen=True, slots=True)
class PhotoLimits:
    """What is refused, and what is made smaller.

    Attributes:
        max_bytes: size of the file.
        max_pixels: declared width × height, checked before decoding.
        max_side: the longer side is reduced to this many pixels.
        min_side: the shorter side must have this many pixels.
        max_ratio: longer side over shorter side.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 40_000_000
    max_side: int = 2048
    min_side: int = 16
    max_ratio: float = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A decoded picture; two photos are equal when they hold the same bytes at the same size.

    Attributes:
        digest: SHA-256 of the file's bytes, as hex: the key of everything computed from it.
        rgb: (H, W, 3) uint8, C-contiguous, read-only.
        original_size: (width, height) of the file in pixels, upright.
        notes: what was done that the viewer should know, one phrase each.
    """

    digest: str
    rgb: NDArray[np.uint8] = field(repr=False)
    original_size: tuple[int, int]
    notes: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Photo):
            return NotImplemented
        return self.digest == other.digest and self.rgb.shape == other.rgb.shape

    def __hash__(self) -> int:
        return hash((self.digest, self.rgb.shape))

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.rgb.shape[1])

    @classmethod
    def from_array(cls, rgb: NDArray[np.uint8]) -> Photo:
        """(H, W, 3) uint8 -> a photo whose digest is that of the pixels and their shape.

        Raises:
            PhotoError: another shape or type of numbers.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
            raise PhotoError(
                f"This array is {rgb.dtype} of shape {rgb.shape}: pass uint8 values of shape (height, width, 3)."
            )
        rgb = _frozen(rgb)
        digest = hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()
        return cls(digest, rgb, (rgb.shape[1], rgb.shape[0]))

    @classmethod
    def from_bytes(cls, data: bytes, limits: PhotoLimits | None = None) -> Photo:
        """The bytes of a PNG, JPEG, WebP, BMP, GIF or TIFF -> a photo.

        EXIF orientation is applied, alpha is laid over white, 16-bit and float values are stretched from their
        smallest to their largest, of an animation the first frame is taken.

        Raises:
            PhotoError: not such a file, damaged, or beyond the limits; one sentence with the cure.
        """
        limits = limits or PhotoLimits()
        if len(data) > limits.max_bytes:
            raise PhotoError(
                f"This file has {len(data) / 2**20:.1f} MB, and {limits.max_bytes / 2**20:.0f} MB is the limit: "
                "save a smaller copy."
            )
        try:
            image = _reader(data)(io.BytesIO(data))
            _check_size(image, limits)
            rgb, size, notes = _decode(image, limits)
        except PhotoError:
            raise
        except MemoryError as error:
            raise PhotoError("This picture does not fit into memory: save a smaller copy.") from error
        except Image.DecompressionBombError as error:
            raise PhotoError(
                "This picture declares far more pixels than a photo has: save a smaller copy."
            ) from error
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
            raise PhotoError(
                "This picture is damaged and cannot be decoded: save it again in a picture program and use that copy."
            ) from error
        return cls(hashlib.sha256(data).hexdigest(), _frozen(rgb), size, tuple(notes))

    def size_at(self, longest: int) -> tuple[int, int]:
        """(width, height) of `resized(longest)`."""
        scale = min(1.0, longest / max(self.width, self.height))
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    def resized(self, longest: int) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 with the longer side `longest` pixels, or the picture itself when it is not longer."""
        size = _fitted((self.width, self.height), longest)
        if size == (self.width, self.height):
            return self.rgb
        return np.asarray(Image.fromarray(self.rgb).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))

    def encoded(self, longest: int, fmt: Literal["WEBP", "JPEG", "PNG"] = "WEBP", quality: int = 85) -> bytes:
        """The picture, its longer side at most `longest` pixels, as a compressed file."""
        return encode(self.resized(longest), fmt, quality)


def encode(rgb: NDArray[np.uint8], fmt: Literal["WEBP", "JPEG", "PNG"] = "WEBP", quality: int = 85) -> bytes:
    """(H, W, 3) uint8 -> the bytes of a compressed file."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, fmt, **({} if fmt == "PNG" else {"quality": quality}))
    return buffer.getvalue()


def to_tensor(rgb: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in 0 to 1, contiguous."""
    import torch

    return torch.tensor(rgb).permute(2, 0, 1)[None].contiguous().float() / 255


def _frozen(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb = np.array(rgb, order="C")
    rgb.flags.writeable = False
    return rgb


def _fitted(size: tuple[int, int], longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _reader(data: bytes) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    if not data:
        raise PhotoError(f"This file is empty: choose a {READABLE} picture.")
    for signature, reader in _READERS:
        if re.match(signature, data, re.DOTALL):
            if reader is jpeg_factory:
                _check_scans(data)
            return reader
    for signature, kind in _OTHER_KINDS:
        if re.match(signature, data[:256], re.DOTALL | re.IGNORECASE):
            raise PhotoError(f"This file is {kind}: save it as PNG or JPEG and choose that file.")
    raise PhotoError(f"This is not a readable {READABLE} picture: save it as PNG or JPEG and choose that file.")


def _check_scans(data: bytes) -> None:
    # Eighty bytes can ask for one more pass over every pixel: 20 MB of them keep a decoder busy for hours.
    at, scans = 2, 0
    while (found := _JPEG_MARKER.search(data, at)) and found[1] != b"\xd9":
        scans += found[1] == b"\xda"
        if scans > _MAX_SCANS:
            raise PhotoError(f"This JPEG has more than {_MAX_SCANS} scans: save it again as an ordinary JPEG.")
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")


def _check_size(image: Image.Image, limits: PhotoLimits) -> None:
    w, h = image.size
    if w * h > limits.max_pixels:
        raise PhotoError(
            f"This picture has {w:,} × {h:,} pixels, and {limits.max_pixels / 1e6:.0f} million is the limit: "
            "save a smaller copy."
        )
    if min(w, h) < limits.min_side:
        raise PhotoError(
            f"This picture has only {w} × {h} pixels: choose one of at least {limits.min_side} on each side."
        )
    if max(w, h) > limits.max_ratio * min(w, h):
        raise PhotoError(
            f"This picture of {w:,} × {h:,} pixels is a strip: crop it to sides of at most {limits.max_ratio:.0f} to 1."
        )


def _decode(image: ImageFile.ImageFile, limits: PhotoLimits) -> tuple[NDArray[np.uint8], tuple[int, int], list[str]]:
    notes = _frame_notes(image)
    w, h = image.size
    image.draft("RGB", _fitted((w, h), limits.max_side))  # a large JPEG is decoded at a fraction of its size
    image.load()
    turn = _orientation(image)
    if turn >= 5:
        w, h = h, w
    whole, more = _stretched(image) if image.mode == "F" or image.mode.startswith("I") else _with_colour(image)
    # Reduced before it is laid over white and turned: every copy of a full-size picture counts.
    whole.thumbnail((limits.max_side, limits.max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if whole.mode == "RGBA":
        whole = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    if turn in _TURNS:
        whole = whole.transpose(_TURNS[turn])
    if whole.size != (w, h):
        more.append(f"reduced from {w:,} × {h:,} px")
    return np.asarray(whole.convert("RGB")), (w, h), notes + more


def _frame_notes(image: ImageFile.ImageFile) -> list[str]:
    if not getattr(image, "is_animated", False) or image.format == "MPO":  # MPO: a photo and its own previews
        return []
    if image.format in ("PNG", "WEBP"):
        return [f"first of {image.n_frames:,} frames"]  # type: ignore[attr-defined]
    return ["first frame only"]  # counting the frames of a GIF or TIFF reads all of them


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTag.Orientation, 1))
    except Exception:  # damaged metadata, sound pixels
        return 1


def _with_colour(image: Image.Image) -> tuple[Image.Image, list[str]]:
    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert("RGB"), []
    rgba = image.convert("RGBA")
    opaque = rgba.getchannel("A").getextrema() == (255, 255)
    return rgba, [] if opaque else ["transparency shown on white"]


def _stretched(image: Image.Image) -> tuple[Image.Image, list[str]]:
    values = np.asarray(image)
    blocks = [slice(y, y + 256) for y in range(0, len(values), 256)]  # float64 of 40 million pixels is 320 MB
    kept = [block[np.isfinite(block)] for block in (values[rows] for rows in blocks)]
    count = sum(block.size for block in kept)
    if not count:
        raise PhotoError("This picture holds no finite value: export it again with ordinary pixel values.")
    low = min(float(block.min()) for block in kept if block.size)
    high = max(float(block.max()) for block in kept if block.size)
    grey = np.zeros(values.shape, np.uint8)
    for rows in blocks:
        block = values[rows].astype(np.float64)
        finite = np.isfinite(block)
        share = (block[finite] - low) / (high - low) if high > low else 0.5
        grey[rows][finite] = np.round(share * 255)
    depth = "16-bit values" if image.mode.startswith("I;16") else "values"
    notes = [f"{depth} stretched from {low:g}–{high:g}" if high > low else f"every value is {low:g}, shown grey"]
    if count < values.size:
        notes.append("non-finite values shown black")
    return Image.fromarray(grey), notes
