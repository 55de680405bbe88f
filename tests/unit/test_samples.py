"""The pictures that come with the app: listed, readable, small, and made again by their script."""

from __future__ import annotations

import re

import numpy as np
import pytest
from make_samples import DRAWN, OUT, PACKAGED

from bra.photo import Photo

FILES = sorted(path for path in OUT.iterdir() if path.name != "SOURCES.md")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (OUT / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]


def test_every_picture_is_listed_and_every_listed_picture_is_there() -> None:
    assert [path.name for path in FILES] == sorted(row[0].strip("`") for row in ROWS)
    assert {path.stem for path in FILES} == {*DRAWN, *PACKAGED}
    assert len(FILES) == 10


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_every_row_is_complete(row: list[str]) -> None:
    name, what, origin, licence, why, changes = row
    assert all((what, origin, why, changes))
    assert licence in ("CC0", "public domain")
    stem = name.strip("`").removesuffix(".jpg")
    expected = f"`{DRAWN[stem].__name__}()`" if stem in DRAWN else f"`skimage.data.{PACKAGED[stem][0]}`"
    assert expected in origin


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_picture_opens_as_it_is(path) -> None:  # type: ignore[no-untyped-def]
    photo = Photo.from_bytes(path.read_bytes())
    assert photo.notes == ()
    assert 450 <= max(photo.width, photo.height) <= 768
    assert min(photo.width, photo.height) >= 300
    assert photo.rgb.std() > 10, "a blank picture"


def test_together_they_are_small_and_of_several_shapes() -> None:
    assert sum(path.stat().st_size for path in FILES) < 1_200_000
    sizes = [Photo.from_bytes(path.read_bytes()).original_size for path in FILES]
    assert {(w > h) - (w < h) for w, h in sizes} == {-1, 0, 1}


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_pictures_are_those_of_the_script(name: str) -> None:
    drawn = np.asarray(DRAWN[name]()).astype(int)
    stored = Photo.from_bytes((OUT / f"{name}.jpg").read_bytes()).rgb
    assert stored.shape == drawn.shape
    assert np.abs(stored - drawn).mean() < 4  # what JPEG loses, and little more


def test_pictures_carry_no_metadata() -> None:
    for path in FILES:
        assert not re.search(rb"Exif\0|http://ns.adobe.com|ICC_PROFILE", path.read_bytes())
