"""Where benchmarks leave their ratios, so that `make bench` can put them beside those of the last release."""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE = Path(os.environ.get("BENCH_RATIOS", "bench.jsonl"))


def note(name: str, ratio: float) -> float:
    """Append a ratio, of which more is better, to the file of this run; given back as it is."""
    with FILE.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, "ratio": ratio}) + "\n")
    return ratio
