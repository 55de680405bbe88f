"""Secrets in any state of any file that the repository ever held; part of `make audit`, beside detect-secrets."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST = 2_000_000
"""Bytes; what is larger is a picture or weights."""


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout


def texts() -> Iterator[tuple[str, bytes]]:
    """(object, content) of every text in the history, and all messages of commits."""
    names = b"\n".join(line.split()[0] for line in git("rev-list", "--objects", "--all").splitlines())
    comma_joined = subprocess.run(["git", "cat-file", "--batch-check=%(objecttype) %(objectname) "
                                                      "%(objectsize)"], cwd=ROOT,
                                  input=names, capture_output=True, check=True).stdout.decode()
    for kind, name, size in (line.split() for line in comma_joined.splitlines()):
        if kind == "blob" and int(size) < LARGEST:
            data = git("cat-file", "blob", name)
            if b"\0" not in data[:8_000]:
                yield name, data
    yield "messages", git("log", "--all", "--format=%H%n%B")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        count = 0
        for name, data in texts():
            (Path(folder) / name).write_bytes(data)
            count += 1
        scan = Path(sys.executable).with_name("detect-secrets")
        done = subprocess.run([scan, "scan", "--all-files", "."], cwd=folder, capture_output=True, check=True)
        found = json.loads(done.stdout)["results"]
    for name, secrets in found.items():
        for one in secrets:
            print(f"{name} line {one['line_number']}: {one['type']}")
    print(f"{count} texts of the history, {len(found)} with a secret")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
