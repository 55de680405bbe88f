"""Real files of every kind, made in memory, through the one door of `bra.photo`."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import warnings

import numpy as np
import pytest
from PIL import Image

from bra.errors import PhotoError
from bra.photo import Photo, PhotoLimits, encode, to_tensor

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
# How a camera stores a picture whose EXIF orientation is 2, 3, ... 8.
STORED = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]


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
    image = quadrants()
    if orientation > 1:
        image = image.transpose(Image.Transpose[STORED[orientation - 2]])
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
        ("LAB", "TIFF", (255, 128, 128), (255, 255, 255)),
        ("LAB", "TIFF", (0, 128, 128), (0, 0, 0)),
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


@pytest.mark.parametrize(("mode", "dtype"), [("I;16", "<u2"), ("I;16B", ">u2"), ("I", "<i4"), ("F", "<f4")])
def test_deep_grey_is_stretched_to_the_whole_range(mode: str, dtype: str) -> None:
    gradient = np.linspace(12, 4095, 30 * 20).reshape(20, 30).astype(dtype)
    photo = Photo.from_bytes(grey_tiff(gradient, mode))
    grey = photo.rgb[..., 0].ravel().astype(int)
    assert (grey[0], grey[-1]) == (0, 255)
    assert (np.diff(grey) >= 0).all()
    assert (photo.rgb == photo.rgb[..., :1]).all()
    assert photo.notes == (("16-bit " if mode.startswith("I;16") else "") + "values stretched from 12 to 4095",)


def test_stretching_by_hand() -> None:
    values = np.repeat(np.array([[100, 140, 200, 200]], np.uint16), 5, 1).repeat(16, 0)
    for data in (file(Image.fromarray(values), "PNG"), grey_tiff(values, "I;16")):
        # All values fit in a byte and are stretched all the same: 40 of 100 is 102 of 255.
        assert np.unique(Photo.from_bytes(data).rgb).tolist() == [0, 102, 255]
    wide = np.zeros((16, 20), np.float32)
    wide[0], wide[1] = 3e38, -3e38
    assert Photo.from_bytes(grey_tiff(wide, "F")).rgb[:3, 0, 0].tolist() == [255, 0, 128]


def test_constant_and_non_finite_values() -> None:
    flat = Photo.from_bytes(grey_tiff(np.full((16, 20), 7, np.uint16), "I;16"))
    assert (flat.rgb.max(), flat.notes) == (0, ("every value is 7, shown black",))
    holes = np.full((16, 20), 3, np.float32)
    holes[0], holes[1], holes[2], holes[3] = np.nan, np.inf, -np.inf, 1
    photo = Photo.from_bytes(grey_tiff(holes, "F"))
    assert photo.rgb[:5, 0, 0].tolist() == [0, 0, 0, 0, 255]
    assert photo.notes == ("values stretched from 1 to 3", "non-finite values shown black")
    with pytest.raises(PhotoError, match="no finite value: export"):
        Photo.from_bytes(grey_tiff(np.full((16, 20), np.nan, np.float32), "F"))


@pytest.mark.parametrize(
    ("fmt", "note"),
    [
        ("GIF", "first frame only"),
        ("TIFF", "first frame only"),
        ("PNG", "first of 3 frames"),
        ("WEBP", "first of 3 frames"),
    ],
)
def test_first_frame_of_several(fmt: str, note: str) -> None:
    first, *rest = (Image.new("RGB", (24, 20), colour) for colour in (RED, GREEN, BLUE))
    options = {"lossless": True} if fmt == "WEBP" else {}
    photo = Photo.from_bytes(file(first, fmt, save_all=True, append_images=rest, **options))
    assert photo.rgb[4, 4].tolist() == list(RED)
    assert photo.notes == (note,)


def test_a_preview_beside_a_photo_is_not_an_animation() -> None:
    data = file(noise(64, 48), "MPO", save_all=True, append_images=[noise(32, 24)])
    assert Photo.from_bytes(data).notes == ()


@pytest.mark.parametrize(
    ("mode", "fmt"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG")]
)
def test_large_pictures_are_reduced(mode: str, fmt: str) -> None:
    image = Image.new("L", (4500, 1500), 40)
    image.paste(200, (2250, 0, 4500, 1500))
    photo = Photo.from_bytes(file(image.convert(mode), fmt))
    assert (photo.width, photo.height, photo.original_size) == (2048, 683, (4500, 1500))
    assert photo.notes == ("reduced from 4,500 × 1,500 px",)
    assert np.abs(photo.rgb[300, [500, 1500]].astype(int) - [[40], [200]]).max() <= 3


def test_resized_keeps_the_shape_of_the_picture_and_never_enlarges() -> None:
    photo = Photo.from_bytes(file(quadrants(), "PNG"))
    small = photo.resized(24)
    assert (small.shape, small.dtype) == ((16, 24, 3), np.uint8)
    assert [small[y, x].tolist() for y, x in ((3, 3), (3, 20), (12, 3), (12, 20))] == [
        list(colour) for colour in (RED, GREEN, BLUE, YELLOW)
    ]
    assert photo.resized(48) is photo.rgb
    assert photo.resized(4096) is photo.rgb
    assert photo.resized(1).shape == (1, 1, 3)


@pytest.mark.parametrize("fmt", ["WEBP", "JPEG", "PNG"])
def test_encoded(fmt: str) -> None:
    photo = Photo.from_array(np.asarray(quadrants().resize((480, 320))))
    with Image.open(io.BytesIO(photo.encoded(240, fmt, quality=95))) as image:  # type: ignore[arg-type]
        assert (image.format, image.size) == (fmt, (240, 160))
        assert np.abs(np.asarray(image.convert("RGB"))[40, 40].astype(int) - RED).max() <= 4
    assert len(photo.encoded(480, "JPEG", 30)) < len(photo.encoded(480, "JPEG", 95))
    assert Photo.from_bytes(encode(photo.rgb, "PNG")).rgb.tolist() == photo.rgb.tolist()


def test_from_array() -> None:
    pixels = np.asarray(noise(12, 20))
    photo = Photo.from_array(pixels)
    assert photo == Photo.from_array(pixels.copy())
    assert photo.digest != Photo.from_array(pixels.reshape(12, 20, 3)).digest
    assert photo.rgb.tolist() == Photo.from_array(np.asfortranarray(pixels)).rgb.tolist()
    assert Photo.from_array(pixels[::2, ::2]).rgb.flags.c_contiguous
    own = pixels.copy()
    kept = Photo.from_array(own)
    own[:] = 0
    assert kept == photo
    assert kept.rgb.any()
    for wrong in (pixels.astype(float), pixels[..., 0], pixels[..., :2], pixels[:0]):
        with pytest.raises(PhotoError, match=r": pass uint8 of shape"):
            Photo.from_array(wrong)


def test_equal_means_same_bytes_at_the_same_size() -> None:
    data = file(noise(64, 48), "PNG")
    photo, again, small = (
        Photo.from_bytes(data),
        Photo.from_bytes(data),
        Photo.from_bytes(data, PhotoLimits(max_side=32)),
    )
    assert photo == again
    assert len({photo, again, small}) == 2
    assert photo != data
    assert "rgb" not in repr(photo)


def test_to_tensor() -> None:
    torch = pytest.importorskip("torch")
    x = to_tensor(Photo.from_bytes(file(quadrants(), "PNG")).rgb)
    assert (x.shape, x.dtype, x.is_contiguous()) == ((1, 3, 32, 48), torch.float32, True)
    assert x[0, :, 0, 0].tolist() == [1, 0, 0]
    assert x[0, :, 31, 47].tolist() == [1, 1, 0]
