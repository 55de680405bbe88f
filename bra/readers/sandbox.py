"""Runs a reader of `bra.readers.child` on a stranger's bytes, in a short-lived process with limits.

However the wait for it ends, the process is gone afterwards. The files that pass between it and us have no name, so
nothing is left behind either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

KEPT_ENVIRONMENT: Final = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
ENTRY: Final = Path(__file__).parent / "child" / "main.py"
"""The file that Python runs."""
STANDARD_LIBRARY_ONLY: Final = ("-I", "-S", "-B")
WITH_PACKAGES: Final = ("-I", "-B")
"""Options of Python: what its process may import."""
POLL_SECONDS: Final = 0.1
"""Between two looks at whether the result is still wanted."""
MAX_REFUSAL: Final = 8_000
"""Bytes that are read of why a file was refused."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the process may use.

    Attributes:
        memory: bytes of its address space, its libraries too.
        cpu_seconds: of a processor.
        output: bytes that it may write.
        seconds: by the clock, with the wait for a processor.
    """

    memory: int
    cpu_seconds: int
    output: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How a reader ended.

    Attributes:
        status: its exit status, the negative signal that killed it, or None when it ran out of time.
        out: what it wrote, where the status is 0.
        refusal: why it refused the file, where it did; MAX_REFUSAL bytes at most.
    """

    status: int | None
    out: bytes = field(default=b"", repr=False)
    refusal: bytes = b""


def run_reader(reader: str, data: bytes, wanted: Any, limits: Limits, still: Callable[[], object],
               options: Sequence[str] = STANDARD_LIBRARY_ONLY, environment: Mapping[str, str] | None = None) -> Ended:
    """Read a stranger's bytes in a process of their own.

    Args:
        reader: name of a module of `bra.readers.child`.
        data: the file.
        wanted: the reader's own arguments, as JSON can hold them.
        limits: beyond which the process ends.
        still: called ten times a second meanwhile; what it raises ends the process, and is raised.
        options: of Python.
        environment: variables beyond those that find libraries.

    Raises:
        OSError: there is no room for the files, or no process can be started.
    """
    asked = {"memory": limits.memory, "cpu_seconds": limits.cpu_seconds, "output": limits.output}
    command = [sys.executable, *options, str(ENTRY), reader, json.dumps({"limits": asked, "wanted": wanted})]
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as words:
        source.write(data)
        source.seek(0)
        status = _run(command, (source, out, words), limits.seconds, still, dict(environment or {}))
        out.seek(0)
        words.seek(0)
        return Ended(status, out.read() if status == 0 else b"", words.read(MAX_REFUSAL))


def _run(command: Sequence[str], files: tuple[IO[bytes], IO[bytes], IO[bytes]], seconds: float,
         still: Callable[[], object], more: Mapping[str, str]) -> int | None:
    """Start a process on stdin, stdout and stderr, and wait for it: its status, or None when it ran out of time."""
    environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ} | dict(more)
    source, out, words = files
    with subprocess.Popen(command, stdin=source, stdout=out, stderr=words, env=environment) as process:
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                still()
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(min(left, POLL_SECONDS))
            return None
        finally:
            process.kill()
