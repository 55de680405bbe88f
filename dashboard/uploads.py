"""A visitor's file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)     # without slots: it is counted by a weak reference for as long as it is held
class Upload:
    """A file that this visitor brought; kept for this session alone."""

    name: str
    data: bytes
    digest: str


def uploaded(name: str, data: bytes) -> Upload:
    """A file with its digest."""
    return Upload(name, data, hashlib.sha256(data).hexdigest())
