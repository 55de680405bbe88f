"""Large pictures are read one at a time, by what their header declares, and hold up no small one."""

from __future__ import annotations

import threading
import time
from typing import Any

import hostile_files
import numpy as np
import pytest
from PIL import Image

from bra.photo import Photo, declared_pixels
from dashboard.runtime.server import LARGE, QUICK
from dashboard.services import models as model_services

WIDE = hostile_files.written(Image.new("F", (2_100, 2_000)), "TIFF", compression="tiff_deflate")
SMALL = hostile_files.written(Image.new("RGB", (64, 48)), "PNG")


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_header_says_the_pixels(fmt: str) -> None:
    assert declared_pixels(hostile_files.written(Image.new("L", (64, 48)), fmt)) == 64 * 48


def test_a_tile_that_is_larger_than_its_picture_counts() -> None:
    data = hostile_files.grey_tiff(32, 32, b"x", t322=(4, 1, 6_000), t323=(4, 1, 6_000))
    assert declared_pixels(data) == 36_000_000


@pytest.mark.parametrize("data",
                            [b"", b"PK\3\4", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"II*\0\xff\xff\xff\xff", b"GIF89a"])
def test_what_is_no_picture_declares_nothing(data: bytes) -> None:
    assert declared_pixels(data) == 0


def test_priorities_by_size() -> None:
    assert model_services.picture_priority(WIDE) == LARGE
    assert model_services.picture_priority(SMALL) == QUICK
    assert model_services.picture_priority(WIDE + bytes(21 * 2**20)) == QUICK, "refused by its bytes alone"


def test_large_pictures_are_read_one_at_a_time_and_small_ones_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    now, most, small = [0, 0], [0, 0], threading.Event()
    guard = threading.Lock()

    def read(data: bytes, limits: Any = None) -> Photo:
        large = len(data) > len(SMALL) + 20
        with guard:
            now[large] += 1
            most[large] = max(most[large], now[large])
        if large:
            small.wait(5)       # until a small one was read beside it
            time.sleep(0.1)
        else:
            small.set()
        with guard:
            now[large] -= 1
        return Photo.from_array(np.zeros((20, 20, 3), np.uint8))

    monkeypatch.setattr(model_services.Photo, "from_bytes", read)
    files = [WIDE + bytes([n]) for n in range(4)] + [SMALL + bytes([n]) for n in range(2)]
    done: list[Photo] = []
    people = [threading.Thread(target=lambda data=data: done.append(model_services.photo_of(data))) for data in files]
    started = time.monotonic()
    for one in people:
        one.start()
    for one in people:
        one.join(20)
    assert len(done) == 6
    assert most[True] == 1
    assert small.is_set()
    assert time.monotonic() - started < 4, "the small ones did not wait"
