"""Strangers' bytes -> a picture that is safe to compute on.

The order matters: size of the file, kind of the file, declared size of the picture, and only then decoding.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from bra.errors import PhotoError
from bra.messages import message

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class PhotoLimits:
    """What is refused, and what is made smaller."""

    max_bytes: int = 20 * 2**20  # of the file
    max_pixels: int = 40_000_000  # declared width × height, checked before decoding
    max_side: int = 2048  # px; a longer side is reduced to this
    min_side: int = 16  # px; a shorter side is refused
    max_ratio: float = 50.0  # longer side over shorter side


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
        return isinstance(other, Photo) and (self.digest, self.rgb.shape) == (other.digest, other.rgb.shape)

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
            PhotoError: another shape or another type of number.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
            raise PhotoError(message("This array is {kind} {shape}: pass uint8 of shape (height, width, 3).",
                                     kind=rgb.dtype, shape=rgb.shape))
        rgb = _frozen(rgb)
        digest = hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()
        return cls(digest, rgb, (rgb.shape[1], rgb.shape[0]))

    @classmethod
    def from_bytes(cls, data: bytes, limits: PhotoLimits | None = None) -> Photo:
        """The bytes of a PNG, JPEG, WebP, BMP, GIF or TIFF -> a photo.

        EXIF orientation is applied, alpha is laid over white, 16-bit and float values are stretched from
        their smallest to their largest, of an animation the first frame is taken.

        Raises:
            PhotoError: not such a file, damaged, or beyond the limits; one sentence with the cure.
        """
        limits = limits or PhotoLimits()
        if len(data) > limits.max_bytes:
            raise PhotoError(message("This file has {size:.1f} MB: reduce it to {most:g} MB.", size=len(data) / 2**20,
                                     most=limits.max_bytes / 2**20))
        try:
            image = reader_of(data)(io.BytesIO(data))
            _check_size(image, limits)
            rgb, size, notes = _decode(image, limits.max_side)
        except PhotoError:
            raise
        except (MemoryError, Image.DecompressionBombError) as error:
            raise PhotoError(message("This picture is too large to decode: save a smaller copy.")) from error
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
            raise PhotoError(message("This picture is damaged: save it again in a picture program.")) from error
        return cls(hashlib.sha256(data).hexdigest(), _frozen(rgb), size, tuple(notes))

    @classmethod
    def of(cls, given: Any) -> Photo:
        """A picture in any of its usual forms: a Photo, a file's path or bytes, (H, W, 3) uint8, or a PIL image.

        Raises:
            PhotoError: it is none of these, or not a picture that is read here.
        """
        if isinstance(given, Photo):
            return given
        if isinstance(given, (str, Path)):
            return cls.from_bytes(Path(given).read_bytes())
        if isinstance(given, bytes):
            return cls.from_bytes(given)
        rgb = np.asarray(given.convert("RGB")) if isinstance(given, Image.Image) else given
        if not isinstance(rgb, np.ndarray):
            raise PhotoError(message("{kind} is no picture: give a file, a Photo, or an array (height, width, 3) of "
                                     "uint8.", kind=type(given).__name__))
        return cls.from_array(np.ascontiguousarray(rgb))

    def size_at(self, longest: int) -> tuple[int, int]:
        """(width, height) of `resized(longest)`."""
        return _fitted((self.width, self.height), min(longest, max(self.width, self.height)))

    def resized(self, longest: int) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 with the longer side `longest` pixels, or the picture itself when it is not longer."""
        if longest >= max(self.width, self.height):
            return self.rgb
        size = self.size_at(longest)
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


def _check_size(image: Image.Image, limits: PhotoLimits) -> None:
    w, h = image.size
    if w * h > limits.max_pixels:
        raise PhotoError(message("This picture has {w:,} × {h:,} px: reduce it to {most:g} million px.", w=w, h=h,
                                 most=limits.max_pixels / 1e6))
    if tile_pixels(image) > limits.max_pixels:
        raise PhotoError(message("This TIFF has tiles far larger than itself: save it again without tiles."))
    if min(w, h) < limits.min_side:
        raise PhotoError(message("This picture has {w} × {h} px: choose one of at least {least} on each "
                                 "side.", w=w, h=h,
                                 least=limits.min_side))
    if max(w, h) > limits.max_ratio * min(w, h):
        raise PhotoError(message("This picture of {w:,} × {h:,} px is a strip: crop it to {most:g} : 1 or "
                                 "less.", w=w, h=h,
                                 most=limits.max_ratio))


def _decode(image: ImageFile.ImageFile, max_side: int) -> tuple[NDArray[np.uint8], tuple[int, int], list[str]]:
    notes: list[str] = []
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a photo and previews of it
        count = getattr(image, "n_frames", 0) if image.format in ("PNG", "WEBP") else 0  # others must read them all
        notes.append(message("first of {count:,} frames", count=count) if count else message("first frame only"))
    w, h = image.size
    image.draft("RGB", _fitted((w, h), max_side))  # a large JPEG is decoded at a fraction of its size
    image.load()
    turn = 1
    with suppress(Exception):  # damaged metadata must not cost sound pixels
        turn = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    whole, more = _stretched(image) if image.mode[0] in "FI" else _in_colour(image)
    # Reduced before it is laid over white and turned: each copy of 40 million pixels costs 160 MB.
    whole.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    whole = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole) if whole.mode == "RGBA" else whole
    rgb = np.asarray(whole.convert("RGB"))
    if turn in (5, 6, 7, 8):
        rgb, w, h = rgb.swapaxes(0, 1), h, w
    rgb = rgb[:, ::-1] if turn in (2, 3, 6, 7) else rgb
    rgb = rgb[::-1] if turn in (3, 4, 7, 8) else rgb
    if rgb.shape[:2] != (h, w):
        more.append(message("reduced from {w:,} × {h:,} px", w=w, h=h))
    return rgb, (w, h), notes + more


def _in_colour(image: Image.Image) -> tuple[Image.Image, list[str]]:
    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert("RGB"), []
    rgba = image.convert("RGBA")
    return rgba, [] if rgba.getchannel("A").getextrema() == (255, 255) else [message("transparency shown on white")]


def _stretched(image: Image.Image) -> tuple[Image.Image, list[str]]:
    values = np.array(image, np.float64)  # (H, W)
    finite = np.isfinite(values)
    if not finite.any():
        raise PhotoError(message("This picture holds no finite value: export it again with ordinary pixel values."))
    low, high = values.min(where=finite, initial=np.inf), values.max(where=finite, initial=-np.inf)
    values[~finite] = low
    values -= low
    values *= 255 / (high - low or 1)
    depth = message("16-bit values") if image.mode.startswith("I;16") else message("values")
    note = message("{depth} stretched from {low:g} to {high:g}", depth=depth, low=float(low), high=float(high)) \
        if high > low else message("every value is {low:g}, shown black", low=float(low))
    notes: list[str] = [note] if finite.all() else [note, message("non-finite values shown black")]
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8)), notes


# Which kind of picture a stranger's bytes are, and what their header says of its size; nothing is decoded. ----------

# Chosen here and not by Image.open, which warns of a large picture through the process-wide warnings filter: that
# filter cannot be changed for one thread only, and `Photo` asks the question anyway.
_READERS: tuple[tuple[bytes, Callable[[io.BytesIO], ImageFile.ImageFile]], ...] = (
    (rb"\x89PNG\r\n\x1a\n", PngImageFile),
    (rb"\xff\xd8\xff", jpeg_factory),
    (rb"RIFF....WEBP", WebPImageFile),
    (rb"BM", BmpImageFile),
    (rb"GIF8[79]a", GifImageFile),
    (rb"II[*+]\0|MM\0[*+]", TiffImageFile),
)
_OTHER_KINDS = (
    (rb"....ftyp(hei|hev|mif|msf|avi)", message("a HEIC or AVIF picture")),
    (rb"%PDF", message("a PDF document")),
    (rb"PK\x03\x04", message("a ZIP archive or an office document")),
    (rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html)", message("a web page")),
    (rb"(\xef\xbb\xbf)?\s*<(\?xml|!--|!doctype svg|svg)", message("an SVG drawing or other XML")),
)
# Eighty bytes ask a JPEG decoder to pass over every pixel once more: 20 MB of them would keep it busy for hours.
_JPEG_SCAN = re.compile(rb"\xff\xda\0[\x08\x0a\x0c\x0e][\x01-\x04]")
_MAX_SCANS = 100  # an ordinary progressive JPEG has about ten


def reader_of(data: bytes) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    """What reads these bytes; raises PhotoError, which says what they are, where nothing does."""
    for signature, reader in _READERS:
        if re.match(signature, data, re.DOTALL):
            if reader is jpeg_factory and len(_JPEG_SCAN.findall(data)) > _MAX_SCANS:
                raise PhotoError(message("This JPEG has more than {most} scans: save it again as a baseline JPEG.",
                                         most=_MAX_SCANS))
            return reader
    kinds = (kind for signature, kind in _OTHER_KINDS if re.match(signature, data[:256], re.DOTALL | re.IGNORECASE))
    kind = next(kinds, message("not a PNG, JPEG, WebP, BMP, GIF or TIFF") if data else message("empty"))
    raise PhotoError(message("This file is {kind}: save the picture as PNG or JPEG and choose that file.", kind=kind))


def tile_pixels(image: Image.Image) -> int:
    """Pixels of one tile of a TIFF, 0 without tiles: a few bytes can declare one of gigabytes in a small picture."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(TILEWIDTH, 0) * tags.get(TILELENGTH, 0))


def declared_pixels(data: bytes) -> int:
    """Pixels that decoding these bytes would have in memory at once, by their header; 0 for what cannot be read."""
    with suppress(Exception):       # whatever Pillow raises on damaged files, reading the picture raises again
        image = reader_of(data)(io.BytesIO(data))
        return max(image.width * image.height, tile_pixels(image))
    return 0
