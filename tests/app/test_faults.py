"""What breaks outside of us, on the real server: the visitor reads one sentence, and no file is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from raw_visitor import Visitor, serving
from torch_files import archive, saved

linux = pytest.mark.skipif(sys.platform != "linux", reason="children and open files are looked up in Linux's /proc")
SLOW = archive(b"]0" * 1_900_000 + b"N.")
"""A checkpoint whose reading takes seconds."""
PICTURE = (Path(__file__).parents[2] / "sample_images" / "animal.jpg").read_bytes()


def children(process: int) -> set[int]:
    """Processes that this one started and that run a program of their own, still. One that is stopped before it does
    holds up the thread that starts it, which nothing outside of this test does to it."""
    found: set[int] = set()
    neither = {b"", Path(f"/proc/{process}/cmdline").read_bytes()}
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError):      # a thread or a process that has ended meanwhile
            found |= {int(number) for number in tasks.read_text().split()
                      if Path(f"/proc/{number}/cmdline").read_bytes() not in neither}
    return found


def temporary_files(process: int) -> list[str]:
    """Files under the scratch folder that a process holds open, also those without a name."""
    found = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except OSError:
            continue
    return [name for name in found if "/scratch" in name]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, Path]]:
    """Its address, its process, and its scratch folder, which must be empty whenever a test ends."""
    base = tmp_path_factory.mktemp("faults")
    scratch = base / "scratch"
    scratch.mkdir()
    with serving(base / "log.txt", {"TMPDIR": str(scratch), "YOLO_CONFIG_DIR": str(base)}) as (host, process):
        Visitor(host, "model=similarity").run()
        yield host, process.pid, scratch


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        _, process, scratch = request.getfixturevalue("server")
        until = time.monotonic() + 10
        while (left := [*scratch.iterdir(), *temporary_files(process), *children(process)]) and \
                time.monotonic() < until:
            time.sleep(0.1)
        assert not left


def bring_model(visitor: Visitor, data: bytes, name: str = "best.pt") -> None:
    assert visitor.upload("model_uploader", name, data, "application/octet-stream") == 204
    visitor.send()


def reading(process: int, seconds: float = 30) -> int:
    """The process that reads a checkpoint, as soon as there is one."""
    until = time.monotonic() + seconds
    while not (found := children(process)):
        assert time.monotonic() < until, "nobody reads a checkpoint"
        time.sleep(0.005)
    return found.pop()


@linux
def test_a_reading_process_that_is_killed_is_one_sentence_and_the_page_stays(server: Any) -> None:
    host, process, _ = server
    visitor = Visitor(host, "model=own")
    visitor.run()
    bring_model(visitor, SLOW)
    os.kill(reading(process), signal.SIGKILL)
    visitor.wait_for("Reading this checkpoint was stopped")
    visitor.wait()
    assert [text for text in visitor.texts if "killed" in text]
    assert visitor.component("stage")[0]["photo"], "the usual model instead"
    assert not visitor.errors
    visitor.close()


@linux
def test_reading_that_is_called_off_ends_its_process(server: Any) -> None:
    host, process, _ = server
    visitor = Visitor(host, "model=own")
    visitor.run()
    bring_model(visitor, SLOW + b"\0")
    os.kill(child := reading(process), signal.SIGSTOP)      # as if it took for ever
    visitor.wait_for("Opening the model …")
    visitor.click("Call it off")
    visitor.wait_for("Called off: Opening the model")
    until = time.monotonic() + 5
    while child in children(process):
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.05)
    assert not visitor.errors
    visitor.close()


@linux
def test_a_visitor_who_leaves_ends_the_process_that_reads_for_them(server: Any) -> None:
    host, process, _ = server
    visitor = Visitor(host, "model=own")
    visitor.run()
    bring_model(visitor, SLOW + b"\0\0")
    os.kill(child := reading(process), signal.SIGSTOP)
    time.sleep(1)
    visitor.close()
    until = time.monotonic() + 10
    while child in children(process):
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.05)


@linux
def test_a_connection_that_breaks_in_an_upload_leaves_nothing(server: Any) -> None:
    host, process, _ = server
    visitor = Visitor(host, "model=similarity")
    visitor.run()
    for size in (100_000, 3_000_000):
        place = visitor.place_for("mine.png")
        head = (f"PUT {place.upload_url} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5000000\r\n"
                "Content-Type: multipart/form-data; boundary=edge\r\n"
                + "".join(f"{name}: {value}\r\n" for name, value in visitor.headers.items()) + "\r\n--edge\r\n"
                'Content-Disposition: form-data; name="file"; filename="mine.png"\r\n\r\n')
        with socket.create_connection(host.split(":")) as broken:
            broken.sendall(head.encode() + bytes(size))
            time.sleep(0.3)
    until = time.monotonic() + 10
    while temporary_files(process) and time.monotonic() < until:
        time.sleep(0.1)
    assert not temporary_files(process)
    assert visitor.upload("uploader", "mine.jpg", PICTURE, "image/jpeg") == 204
    visitor.run()
    assert visitor.component("stage")[0]["name"] == "mine.jpg"
    assert not visitor.errors
    visitor.close()


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose scratch folder has one megabyte, as a file system of its own."""
    base = tmp_path_factory.mktemp("full")
    scratch = base / "scratch"
    scratch.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(scratch)], capture_output=True,
                          check=False) if sys.platform == "linux" else None
    if done is None or done.returncode:
        pytest.skip("a small file system can only be mounted by root on Linux")
    try:
        (scratch / "others").write_bytes(bytes(900_000))
        with serving(base / "log.txt", {"TMPDIR": str(scratch), "YOLO_CONFIG_DIR": str(base)}) as (host, _):
            Visitor(host, "model=similarity").run()
            yield host
        assert [path.name for path in scratch.iterdir()] == ["others"]
    finally:
        subprocess.run(["umount", str(scratch)], check=True)


def test_a_full_disk_is_one_sentence_where_a_checkpoint_is_read(full_disk: str) -> None:
    visitor = Visitor(full_disk, "model=own")
    visitor.run()
    bring_model(visitor, saved({"w": torch.rand(100_000)}))
    visitor.wait_for("There is no room here to read this checkpoint")
    visitor.wait()
    assert not visitor.errors
    visitor.close()


def test_a_full_disk_does_not_keep_a_picture_out(full_disk: str) -> None:
    visitor = Visitor(full_disk, "model=similarity")
    visitor.run()
    large = PICTURE + random.Random(0).randbytes(3_000_000)     # what comes after a JPEG's end is not looked at
    assert visitor.upload("uploader", "large.jpg", large, "image/jpeg") == 204
    visitor.run()
    assert visitor.component("stage")[0]["name"] == "large.jpg"
    assert not visitor.errors
    visitor.close()
