"""Ultralytics' own command line, in a process that knows our rows."""

from __future__ import annotations

from collections.abc import Sequence

from ultralytics.cfg import ARGV, entrypoint


def ultralytics_command(mode: str, arguments: Sequence[str]) -> int:
    """Ultralytics' own command line, in a process that knows our rows.

    Args:
        mode: "train" or "predict".
        arguments: Ultralytics' own, such as model=yolov8n-bra.yaml data=coco8.yaml.
    """
    # It reads the list it found in sys.argv when it was imported; its parameter is cut at every space.
    before = list(ARGV)
    ARGV[:] = ["yolo", mode, *arguments]
    try:
        entrypoint()
    finally:
        ARGV[:] = before
    return 0
