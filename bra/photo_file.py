"""Which kind of picture a stranger's bytes are, and what their header says of its size; nothing is decoded."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import suppress

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from bra.errors import PhotoError
from bra.wording import said

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
    (rb"....ftyp(hei|hev|mif|msf|avi)", said("a HEIC or AVIF picture")),
    (rb"%PDF", said("a PDF document")),
    (rb"PK\x03\x04", said("a ZIP archive or an office document")),
    (rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html)", said("a web page")),
    (rb"(\xef\xbb\xbf)?\s*<(\?xml|!--|!doctype svg|svg)", said("an SVG drawing or other XML")),
)
# Eighty bytes ask a JPEG decoder to pass over every pixel once more: 20 MB of them would keep it busy for hours.
_JPEG_SCAN = re.compile(rb"\xff\xda\0[\x08\x0a\x0c\x0e][\x01-\x04]")
_MAX_SCANS = 100  # an ordinary progressive JPEG has about ten


def reader_of(data: bytes) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    """What reads these bytes; raises PhotoError, which says what they are, where nothing does."""
    for signature, reader in _READERS:
        if re.match(signature, data, re.DOTALL):
            if reader is jpeg_factory and len(_JPEG_SCAN.findall(data)) > _MAX_SCANS:
                raise PhotoError(said("This JPEG has more than {most} scans: save it again as a baseline JPEG.",
                                      most=_MAX_SCANS))
            return reader
    kinds = (kind for signature, kind in _OTHER_KINDS if re.match(signature, data[:256], re.DOTALL | re.IGNORECASE))
    kind = next(kinds, said("not a PNG, JPEG, WebP, BMP, GIF or TIFF") if data else said("empty"))
    raise PhotoError(said("This file is {kind}: save the picture as PNG or JPEG and choose that file.", kind=kind))


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
