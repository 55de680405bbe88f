"""Entry file of the process that reads one stranger's file: sets its limits, then runs one reader of this folder.

    python -I -B main.py READER REQUEST

The stranger's file is on stdin; what was read goes to stdout, and why it was refused to stderr. A reader is a module
here with `main(wanted, source, out, words) -> exit status`. This file is run by its path, so it sets up an empty
package in place of `bra`, whose own start would import torch.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from contextlib import suppress

REFUSED = 3
OUT_OF_MEMORY = 4


def main(reader: str, request: str) -> int:
    """Run a reader; the exit status.

    Args:
        reader: name of a module of this folder.
        request: JSON of {"limits": the arguments of `limit`, "wanted": the reader's own}.
    """
    asked = json.loads(request)
    run = importlib.import_module(f"bra.readers.child.{reader}").main
    limit(**asked["limits"])
    try:
        status: int = run(asked["wanted"], sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer)
    except MemoryError:
        return OUT_OF_MEMORY
    return status


def limit(memory: int, cpu_seconds: int, output: int) -> None:
    """Bound what this process may use from now on.

    Args:
        memory: bytes of its address space, its libraries too.
        cpu_seconds: of a processor.
        output: bytes of any file that it writes.
    """
    with suppress(ImportError):                 # Windows has no such limits: the parent's timeout is left
        import resource

        for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, cpu_seconds),
                           (resource.RLIMIT_FSIZE, output), (resource.RLIMIT_CORE, 0)):
            with suppress(OSError, ValueError):     # a system may know a limit and refuse to set it
                hard = resource.getrlimit(what)[1]
                most = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.setrlimit(what, (most, most))


def make_package() -> None:
    """Put an empty package in place of `bra`, from which its modules are imported."""
    package = types.ModuleType("bra")
    package.__path__ = [os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))]
    sys.modules["bra"] = package


if __name__ == "__main__":
    make_package()
    sys.exit(main(*sys.argv[1:]))
