"""A visitor's own file as a frozen record; kept for this visitor's session alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)     # without slots: it is counted by a weak reference for as long as it is held
class Upload:
    """A file that a visitor uploaded.

    Attributes:
        name: the file's name, as the visitor's browser says it.
        data: its bytes.
        digest: their SHA-256, as hex.
    """

    name: str
    data: bytes
    digest: str


def uploaded(name: str, data: bytes) -> Upload:
    """A file with its digest."""
    return Upload(name, data, hashlib.sha256(data).hexdigest())
