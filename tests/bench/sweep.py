"""A sweep of 200 pictures by one process and by two, in turn: pictures a second, and the ratio of both.

Each runs in a fresh process, as `bra sweep` does, so that the start of two workers counts. Where other programs use the
processors, wall time says little; the processor time of the work is printed, too.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from ratios import note

from bra.experiments.compare import Setting
from bra.experiments.sweep import Plan, sweep
from bra.models.catalog import ModelSettings

PICTURES = int(os.environ.get("SWEEP_PICTURES", "200"))
PLAN = Plan(ModelSettings(), (Setting(4, 2), Setting(7, 4), Setting(8, 8)))


def fill(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(PICTURES):
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((448, 336), Image.Resampling.BICUBIC).save(folder / f"{n:03}.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, seconds = Path(name, "in"), {}
        fill(folder)
        for jobs in (1, 2):
            before, start = os.times(), time.perf_counter()
            sweep(PLAN, folder, Path(name, f"out{jobs}"), jobs=jobs)
            seconds[jobs] = time.perf_counter() - start
            spent = sum(os.times()[:4]) - sum(before[:4])
            print(f"{jobs} process{'es' * (jobs > 1)}: {PICTURES / seconds[jobs]:.2f} pictures/s, "
                  f"{spent / PICTURES:.2f} s of processor time each, load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"two against one: {note('sweep, two processes against one', seconds[1] / seconds[2]):.2f}×")


if __name__ == "__main__":
    main()
