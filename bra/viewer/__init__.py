"""The pictures one points at: one drawing code for the app and for the stand-alone report.

The scripts are plain functions in several files that are joined into one module, since a page without a network can
import nothing: `core.js` and then the parts of one view, the last of which exports its `mount`.
"""

from __future__ import annotations

from importlib.resources import files

STAGE = ("core", "draw", "rank", "maps", "stage")
TILES = ("core", "tiles")
RAIL = ("core", "rail")
MULTIPLES = ("core", "draw", "multiples")


def script(*parts: str) -> str:
    """The named script files joined into one ES module."""
    return "\n".join((files(__name__) / f"{part}.js").read_text(encoding="utf-8") for part in parts)


def text(name: str) -> str:
    """One of the style sheets or page skeletons beside this file."""
    return (files(__name__) / name).read_text(encoding="utf-8")
