"""Files made to harm are refused with their cause, or taken without harm; soon, and without keeping memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import hostile_files
import numpy as np
import pytest
from hostile_files import Hostile

from bra.errors import BRAError
from bra.experiments.sweep_table import read_table, summaries
from bra.opening import open_file
from bra.photo import Photo

ROOT = Path(__file__).parents[3]
SECONDS = 20
"""Generous: the slowest takes two on a quiet machine."""
ENTER = {
    "picture": Photo.from_bytes,
    "weights": lambda data: open_file(data, "x.safetensors"),
    "table": lambda data: summaries(read_table(data).rows),
}


def refused(file: Hostile) -> str:
    """The sentence, or "" where the file is taken."""
    started = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ENTER[file.door](file.data)
        message = ""
    except BRAError as error:
        message = str(error)
        assert message.endswith(".")
        assert ": " in message, "cause: cure"
        assert "\n" not in message
        assert len(message) < 500
    assert time.monotonic() - started < SECONDS
    return message


def case(file: Hostile) -> str:
    return f"{file.door}, {file.name}"


@pytest.mark.parametrize("file", hostile_files.every(), ids=case)
def test_a_file_made_to_harm_gets_one_sentence(file: Hostile) -> None:
    assert len(file.data) < 10 * 2**20
    if file.words:
        assert file.words in refused(file)
    else:
        assert refused(file) == ""


def test_exif_that_lies_changes_no_pixel() -> None:
    plain = Photo.from_bytes(hostile_files.with_exif(b""))
    lies = [file for file in hostile_files.every() if file.name.startswith("EXIF")]
    assert len(lies) > 8
    for file in lies:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_array_equal(Photo.from_bytes(file.data).rgb, plain.rgb)


def test_memory_is_given_back() -> None:
    script = ROOT / "tests" / "bench" / "hostile_memory.py"
    done = subprocess.run(
        [sys.executable, str(script), "--count", "100", "--json"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["files"] == 100
    assert found["refused"] > 60
    assert found["after_mb"] - found["before_mb"] < 50
