"""Extra memory and time of one layer on a 160×160×64 map: forward, trace, and the forward that returns its weights.

Memory is the rise of the process's resident peak (VmHWM) over what was resident before the call, each in a process of
its own; time is the median of five calls taken in turn.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from ratios import note

import bra

SIDE, DIM, ROUNDS = 160, 64, 5
WAYS = {
    "explicit, ret_attn_mask": lambda m, x: m(x, ret_attn_mask=True),
    "forward": lambda m, x: m(x),
    "trace": lambda m, x: bra.trace(m, x),
    "trace and one window's rows": lambda m, x: next(iter(bra.trace(m, x).layers.values())).attention(24),
}


def layer_and_map() -> tuple[bra.BiLevelRoutingAttention, torch.Tensor]:
    torch.manual_seed(0)
    return bra.BiLevelRoutingAttention(DIM).eval(), torch.randn(1, DIM, SIDE, SIDE)


def peak_mib(name: str) -> float:
    layer, x = layer_and_map()

    def resident(field: str) -> int:
        return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])

    with torch.inference_mode():
        layer(x[..., :14, :14])
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        kept = WAYS[name](layer, x)
    rise = resident("VmHWM") - before
    del kept
    return rise / 1024


def main() -> None:
    layer, x = layer_and_map()
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            for name, way in WAYS.items():
                start = time.perf_counter()
                way(layer, x)
                times[name].append(time.perf_counter() - start)
    print(f"{SIDE}×{SIDE}×{DIM}, n_win 7, topk 4, torch {torch.__version__}, {torch.get_num_threads()} threads")
    baseline: tuple[float, float] | None = None
    for name in WAYS:
        mib = float(subprocess.check_output([sys.executable, __file__, name]))
        seconds = statistics.median(times[name][1:])
        baseline = baseline or (mib, seconds)
        print(f"{name:28} {mib:8.0f} MiB extra  1/{baseline[0] / mib:<5.1f} {seconds * 1e3:8.0f} ms  "
              f"{baseline[1] / seconds:4.1f}×")
        note(f"trace_memory, memory of the first against: {name}", baseline[0] / mib)
        note(f"trace_memory, time of the first against: {name}", baseline[1] / seconds)


if __name__ == "__main__":
    print(peak_mib(sys.argv[1])) if len(sys.argv) > 1 else main()
