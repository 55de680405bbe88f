"""`routescope`: opens the app, from a checkout or from an installed package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import bra


def home() -> Path:
    """The folder that holds the app, its pictures and Streamlit's settings."""
    beside = Path(bra.__file__).parents[1]
    return beside / "routescope" if (beside / "routescope" / "dashboard").is_dir() else beside


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app until it is stopped; arguments are Streamlit's own, such as --server.port 8502."""
    given = list(sys.argv[1:] if argv is None else argv)
    # A process of its own, in that folder: Streamlit reads its settings from where it starts.
    command = [sys.executable, "-m", "streamlit", "run", str(home() / "dashboard" / "app.py"), *given]
    with subprocess.Popen(command, cwd=home()) as app:
        try:
            return app.wait()
        except KeyboardInterrupt:       # the app was told by the terminal too, and ends by itself
            return app.wait()
