"""Whether the installed Ultralytics is new enough. Imports nothing of it but its version, so that it can say so."""

from __future__ import annotations

from typing import Final

import ultralytics

from bra.errors import YoloError
from bra.messages import message

OLDEST: Final = (8, 3)


def check_version() -> None:
    """Raise YoloError when Ultralytics is older than `OLDEST`: its modules lie elsewhere, or are not there at all."""
    version = tuple(int(part) for part in ultralytics.__version__.split(".")[:2])
    if version < OLDEST:
        raise YoloError(message("ultralytics {version} is too old: 8.3 or newer is needed; run pip install -U "
                                "ultralytics.", version=ultralytics.__version__))
