"""Files of visitors on the real server: what is too large or too much is said on the page, and none of it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_visitor import Visitor, serving

ROOT = Path(__file__).parents[2]
PICTURE = (ROOT / "sample_images" / "animal.jpg").read_bytes()
MODEL = (ROOT / "bra" / "yolo" / "cfg" / "yolov8-bra-p5.yaml").read_bytes()
MB = 2**20


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("bounded") / "log.txt"
    sizes = {"ROUTESCOPE_UPLOADS_MB": "5", "ROUTESCOPE_UPLOAD_MB": "2", "ROUTESCOPE_PICTURE_MB": "1"}
    with serving(log, {**sizes, "YOLO_CONFIG_DIR": str(log.parent)}) as (address, _):
        yield address
    message = log.read_text()
    assert "Traceback" not in message, message


def message(visitor: Visitor) -> str:
    return "\n".join(visitor.texts).replace("\\", "")


def test_a_picture_that_is_too_large_is_said_and_another_one_is_shown(host: str) -> None:
    visitor = Visitor(host, "model=similarity")
    visitor.run()
    assert visitor.upload("uploader", "large.jpg", PICTURE + bytes(MB), "image/jpeg") == 204
    for _ in range(2):      # as long as it stands in its place
        visitor.run()
        assert "This picture's file has more than the 1 MB that this server takes (ROUTESCOPE_PICTURE_MB)" in \
            message(visitor)
    assert visitor.component("stage")[0]["name"] != "large.jpg"
    assert visitor.upload("uploader", "mine.jpg", PICTURE, "image/jpeg") == 204
    visitor.run()
    assert "ROUTESCOPE_PICTURE_MB" not in message(visitor)
    assert visitor.component("stage")[0]["name"] == "mine.jpg"
    assert not visitor.errors
    visitor.close()


def test_a_model_file_that_is_too_large_is_said(host: str) -> None:
    visitor = Visitor(host, "model=own")
    visitor.run()
    assert visitor.upload("model_uploader", "mine.yaml", MODEL + b"#" * 2 * MB, "text/yaml") == 204
    visitor.run()
    assert "This file has more than the 2 MB that this server takes (ROUTESCOPE_UPLOAD_MB)" in message(visitor)
    assert not visitor.errors
    visitor.close()


def test_one_visitors_many_pictures_push_out_their_own_files_and_not_the_model_that_is_open(host: str) -> None:
    visitor = Visitor(host, "model=own")
    visitor.run()
    assert "Drop a model file" in message(visitor)
    assert visitor.upload("model_uploader", "yolov8n-mine.yaml", MODEL, "text/yaml") == 204
    visitor.run()
    for n in range(12):
        assert visitor.upload("uploader", f"{n}.jpg", PICTURE + bytes([n]) * (MB // 2), "image/jpeg") == 204
        visitor.run()
        assert visitor.component("stage")[0]["name"] == f"{n}.jpg"
        assert "Drop a model file" not in message(visitor)
    assert not visitor.errors
    visitor.close()


def test_a_server_that_is_full_says_so_to_the_next_and_goes_on(host: str) -> None:
    people = [Visitor(host, "model=own") for _ in range(4)]
    full = 0
    for n, visitor in enumerate(people):
        visitor.run()
        data = MODEL + b"#%d" % n + b"#" * (2 * MB - len(MODEL) - 9)
        assert visitor.upload("model_uploader", "yolov8n-mine.yaml", data, "text/yaml") == 204
        visitor.run()
        full += "This server holds 5 MB of its visitors' files, the most that it may (ROUTESCOPE_UPLOADS_MB)" in \
            message(visitor)
    assert full >= 2
    assert people[-1].component("stage")[0]["photo"], "the page is there, with the usual model"
    assert not [error for visitor in people for error in visitor.errors]
    for visitor in people:
        visitor.close()
