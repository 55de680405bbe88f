"""Strangers' bytes -> a picture that is safe to compute on.

The order matters: size of the file, kind of the file, declared size of the picture, and only then decoding.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bra.errors import PhotoError

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
READABLE = "PNG, JPEG, WebP, BMP, GIF or TIFF"


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


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded picture; two photos are equal when they come from the same bytes.

    Attributes:
        digest: SHA-256 of the file's bytes, as hex: the key of everything computed from it.
        rgb: (H, W, 3) uint8, read-only.
        original_size: (width, height) of the file in pixels, upright.
        notes: what was done that the viewer should know, one phrase each.
    """

    digest: str
    rgb: NDArray[np.uint8] = field(repr=False, compare=False)
    original_size: tuple[int, int] = field(compare=False)
    notes: tuple[str, ...] = field(compare=False, default=())

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
        """(H, W, 3) uint8 -> a photo whose digest is that of the pixels and their shape."""
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
            raise PhotoError(f"This file has {len(data) / 2**20:.1f} MB, and {limits.max_bytes / 2**20:.0f} MB is the "
                             "limit: save a smaller copy.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _open(data)
            _check_size(image, limits)
            try:
                rgb, size, notes = _decode(image, limits)
            except PhotoError:
                raise
            except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
                raise PhotoError("This picture is damaged and cannot be decoded: save it again in another program "
                                 "and use that copy.") from error
        return cls(hashlib.sha256(data).hexdigest(), _frozen(rgb), size, tuple(notes))

    def resized(self, longest: int) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 with the longer side `longest` pixels, or the picture itself when it is not longer."""
        scale = longest / max(self.width, self.height)
        if scale >= 1:
            return self.rgb
        size = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        small = Image.fromarray(self.rgb).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        return np.asarray(small)

    def encoded(self, longest: int, fmt: Literal["WEBP", "JPEG", "PNG"] = "WEBP", quality: int = 85) -> bytes:
        """The picture, its longer side at most `longest` pixels, as a compressed file."""
        return encode(self.resized(longest), fmt, quality)


def encode(rgb: NDArray[np.uint8], fmt: Literal["WEBP", "JPEG", "PNG"] = "WEBP", quality: int = 85) -> bytes:
    """(H, W, 3) uint8 -> the bytes of a compressed file."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, fmt, **({} if fmt == "PNG" else {"quality": quality}))
    return buffer.getvalue()


def to_tensor(rgb: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in 0 to 1."""
    import torch

    return torch.tensor(rgb).permute(2, 0, 1)[None].float() / 255


def _frozen(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb = np.array(rgb, dtype=np.uint8, order="C")
    rgb.flags.writeable = False
    return rgb


def _open(data: bytes) -> Image.Image:
    if not data:
        raise PhotoError(f"This file is empty: choose a {READABLE} picture.")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PhotoError("This picture declares far more pixels than a photograph has: save a smaller copy.") from error
    except Exception as error:  # see above: a damaged header raises nearly anything
        raise PhotoError(f"This is not a readable {READABLE} picture: open it in a picture program and save it as "
                         "PNG or JPEG.") from error


def _check_size(image: Image.Image, limits: PhotoLimits) -> None:
    w, h = image.size
    if w * h > limits.max_pixels:
        raise PhotoError(f"This picture has {w:,} × {h:,} pixels, and {limits.max_pixels / 1e6:.0f} million is the "
                         "limit: save a smaller copy.")
    if min(w, h) < limits.min_side:
        raise PhotoError(f"This picture has only {w} × {h} pixels: choose one of at least {limits.min_side} on each "
                         "side.")
    if max(w, h) > limits.max_ratio * min(w, h):
        raise PhotoError(f"This picture of {w:,} × {h:,} pixels is a strip: crop it to sides of at most "
                         f"{limits.max_ratio:.0f} to 1.")


def _decode(image: Image.Image, limits: PhotoLimits) -> tuple[NDArray[np.uint8], tuple[int, int], list[str]]:
    notes = []
    declared = image.size
    if getattr(image, "is_animated", False):
        # Counting the frames of a GIF reads all of them, so their number is not told.
        notes.append("first frame only")
        image.seek(0)
    image.draft("RGB", (limits.max_side, limits.max_side))  # a large JPEG is decoded at a fraction of its size
    image.load()
    turned = ImageOps.exif_transpose(image)
    size = declared if (turned.width >= turned.height) == (declared[0] >= declared[1]) else declared[::-1]
    rgb, more = _to_rgb(turned)
    if max(rgb.size) > limits.max_side:
        rgb.thumbnail((limits.max_side, limits.max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if rgb.size != size:
        more.append(f"reduced from {size[0]:,} × {size[1]:,} px")
    return np.asarray(rgb), size, [*notes, *more]


def _to_rgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    if image.mode == "F" or image.mode.startswith("I"):
        return _stretched(np.asarray(image).astype(np.float64))
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        flat = Image.alpha_composite(white, rgba).convert("RGB")
        opaque = rgba.getchannel("A").getextrema() == (255, 255)
        return flat, [] if opaque else ["transparency shown on white"]
    return image.convert("RGB"), []


def _stretched(values: NDArray[np.float64]) -> tuple[Image.Image, list[str]]:
    finite = np.isfinite(values)
    if not finite.any():
        raise PhotoError("This picture holds no finite value: export it again with ordinary pixel values.")
    low, high = float(values[finite].min()), float(values[finite].max())
    safe: NDArray[Any] = np.where(finite, values, low)
    grey = (safe / 2 - low / 2) / (high / 2 - low / 2) * 255 if high > low else np.full(values.shape, 127.0)
    notes = [f"values stretched from {low:g} to {high:g}"]
    if not finite.all():
        notes.append("non-finite values shown black")
    return Image.fromarray(np.round(grey).astype(np.uint8), "L").convert("RGB"), notes
