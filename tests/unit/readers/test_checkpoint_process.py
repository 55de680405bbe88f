"""The process that reads a checkpoint: bounded, gone with all its files, and never ending in anything but words."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_files import Small, archive, refusal, saved

from bra.errors import BRAError, CheckpointError
from bra.readers import checkpoint, sandbox
from bra.readers.checkpoint import CheckpointLimits, read_checkpoint
from bra.readers.child.checkpoint import unpack


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that is looked into while the test runs, and must be empty after it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = children()
    yield tmp_path
    assert not list(tmp_path.iterdir())
    assert not children() - before


def children() -> set[int]:
    """Processes that this one started; other tests' browsers and servers may still be among them."""
    found: set[int] = set()
    for tasks in Path("/proc/self/task").glob("*/children"):
        found |= set(map(int, tasks.read_text().split()))
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and children of a process are Linux's here")
BUSY = b"]0" * 4_000_000 + b"N."


@pytest.fixture
def endless_pickles(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The reading process without its own bound on steps, so that only the system's bounds are left."""
    loosened = tmp_path_factory.mktemp("entry") / "loosened.py"
    loosened.write_text(f"""import functools, runpy, sys
entry = runpy.run_path({str(sandbox.ENTRY)!r})
entry["make_package"]()
import bra.readers.child.torch_archive as archive
archive.values = functools.partial(archive.values, max_steps=2**40)
sys.exit(entry["main"](*sys.argv[1:]))
""")
    monkeypatch.setattr(sandbox, "ENTRY", loosened)


@linux
@pytest.mark.usefixtures("nothing_left", "endless_pickles")
def test_the_bounds_of_the_reading_process() -> None:
    data = archive(b"]" * 8_000_000 + b".")
    assert "256 MB of memory" in refusal(data, CheckpointLimits(memory=2**28))
    assert "out of processor time" in refusal(archive(BUSY), CheckpointLimits(cpu_seconds=1))
    started = time.monotonic()
    assert "more than 0.3 seconds" in refusal(archive(BUSY), CheckpointLimits(seconds=0.3))
    assert time.monotonic() - started < 3


@linux
@pytest.mark.usefixtures("endless_pickles")
def test_a_reading_process_that_is_killed(nothing_left: Path) -> None:
    seen: list[Any] = []
    before = children()

    def kill() -> None:
        while not (found := children() - before):
            time.sleep(0.01)
        time.sleep(0.2)
        seen.append(list(nothing_left.iterdir()))
        os.kill(found.pop(), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert "killed" in refusal(archive(BUSY))
    thread.join()
    assert seen == [[]], "not even while it reads has a file a name"


@linux
@pytest.mark.usefixtures("nothing_left")
def test_no_more_is_written_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved({"w": torch.zeros(2**16)})
    monkeypatch.setattr(checkpoint, "SPARE_OUTPUT", 1000 - 2 * len(data))
    assert "stopped" in refusal(data)


def test_the_reading_process_has_the_standard_library_only() -> None:
    code = ("import runpy, sys; entry = runpy.run_path(sys.argv[1]); entry['make_package'](); "
            "import bra.readers.child.checkpoint; print(*sys.modules, sep=chr(10))")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(sandbox.ENTRY)],
                          capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in done.stdout.split()}
    assert "bra" in names
    assert names - {"bra", "__main__"} <= sys.stdlib_module_names
    assert not names & {"pickle", "_pickle", "ctypes", "subprocess", "socket"}


def test_flipped_bytes_are_read_or_refused(tmp_path: Path) -> None:
    data, rng, ends = saved(Small()), random.Random(0), {"read": 0, "refused": 0}
    head = data.index(b"data/0")
    for n in range(300):
        flipped = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            # The pickle and the archive's list are where a flip can lie; the numbers have a checksum.
            place = rng.randrange(head) if n % 2 else rng.randrange(len(data))
            flipped[place] ^= 1 << rng.randrange(8)
        path = tmp_path / "flipped.pt"
        path.write_bytes(flipped)
        try:
            if n % 6:
                with path.open("rb") as file:
                    unpack(file, io.BytesIO())
            else:
                read_checkpoint(bytes(flipped))
            ends["read"] += 1
        except BRAError:
            ends["refused"] += 1
    assert ends["refused"] > 200


def test_a_pickle_of_any_bytes_is_read_or_refused(tmp_path: Path) -> None:
    """The checksum stops most flips of a whole file before they reach the machine; here each one does."""
    with zipfile.ZipFile(io.BytesIO(saved(Small()))) as whole:
        names = whole.namelist()
        inside = {name.partition("/")[2]: whole.read(name) for name in names}
    rng, refused = random.Random(1), 0
    for _ in range(300):
        value = bytearray(inside["data.pkl"])
        for _ in range(rng.randint(1, 3)):
            value[rng.randrange(len(value))] = rng.randrange(256)
        path = tmp_path / "any.pt"
        path.write_bytes(archive(bytes(value), {key[5:]: part for key, part in inside.items() if key[:5] == "data/"}))
        try:
            with path.open("rb") as file:
                unpack(file, io.BytesIO())
        except CheckpointError:
            refused += 1
    assert 30 < refused < 300
