"""A short-lived process that reads a stranger's file: whatever ends the wait for it, it is gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

KEPT_ENVIRONMENT: Final = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
PACKAGE: Final = str(Path(__file__).parents[1])
START: Final = ("import sys, types; package = types.ModuleType('bra'); package.__path__ = [sys.argv[1]]; "
                "sys.modules['bra'] = package; ")
"""How the code begins: an empty package in place of `bra`, whose own start would import torch."""
LOOK: Final = 0.1
"""Seconds between two looks at whether it is still wanted."""


def ran(options: Sequence[str], code: str, arguments: Sequence[str], files: tuple[IO[bytes], IO[bytes], IO[bytes]],
        seconds: float, still: Callable[[], object], more: Mapping[str, str] | None = None) -> int | None:
    """Run Python on `code`, and wait for it.

    Args:
        options: of Python.
        code: what it runs; it begins with START, if it imports from this package.
        arguments: what the code finds in sys.argv, after the folder of this package.
        files: its stdin, stdout and stderr.
        seconds: for which it may run by the clock.
        still: called ten times a second meanwhile; what it raises ends the process, and is raised.
        more: its environment, beyond what finds libraries.

    Returns:
        Its exit status, the negative signal that killed it, or None when it ran out of time.
    """
    command = [sys.executable, *options, "-c", code, PACKAGE, *arguments]
    environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ} | dict(more or {})
    source, out, words = files
    with subprocess.Popen(command, stdin=source, stdout=out, stderr=words, env=environment) as process:
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                still()
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(min(left, LOOK))
            return None
        finally:
            process.kill()
