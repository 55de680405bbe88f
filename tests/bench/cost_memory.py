"""Peak memory by formula and as the process pays for it: the rise of VmHWM, each case in a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from ratios import note

import bra
from bra.profiling.formula import layer_cost

CASES: dict[str, tuple[int, int, bool, dict[str, Any]]] = {    # side, channels, explicit, options
    "80×80×64": (80, 64, False, {}),
    "80×80×64 explicit": (80, 64, True, {}),
    "160×160×64": (160, 64, False, {}),
    "160×160×32 explicit": (160, 32, True, {"num_heads": 4}),
    "160×160×64 half as wide q, k": (160, 64, False, {"qk_dim": 32}),
    "160×160×64 masked": (160, 64, False, {"mask_padding": True}),
    "160×160×64 averaged": (160, 64, False, {"kv_downsample_mode": "avgpool", "kv_downsample_ratio": 2}),
    "40×40×256": (40, 256, False, {}),
}


def rise(side: int, dim: int, explicit: bool, options: dict[str, Any]) -> int:
    """Bytes that one forward adds to the process's peak."""
    def resident(field: str) -> int:
        return 1024 * int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])

    torch.set_num_threads(1)
    layer, x = bra.BiLevelRoutingAttention(dim, **options).eval(), torch.randn(1, dim, side, side)
    # What imports left free in the heap goes back: a tensor that came to lie there would seem to cost nothing.
    ctypes.CDLL(None).malloc_trim(0)
    with torch.no_grad():
        narrow = bra.BiLevelRoutingAttention(16, **options).eval()
        for small in (14, 42):      # kernels loaded, those of large windows too; too small to leave memory behind
            narrow(x[:, :16, :small, :small], ret_attn_mask=explicit)
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        kept = layer(x, ret_attn_mask=explicit)
    peak = resident("VmHWM") - before
    del kept
    return peak


def measured(name: str, times: int = 3) -> int:
    """The most of several fresh processes: a system that takes back pages of libraries meanwhile shows less."""
    # By a fixed threshold: glibc's own moves, and then keeps for itself some of what tensors give back.
    here = os.environ | {"PYTHONPATH": str(Path(bra.__file__).parents[1]), "MALLOC_MMAP_THRESHOLD_": "65536"}
    call = [sys.executable, __file__, json.dumps(CASES[name])]
    return max(int(subprocess.check_output(call, timeout=200, env=here)) for _ in range(times))


def main() -> None:
    for name, (side, dim, explicit, options) in CASES.items():
        cost = layer_cost(bra.BRASpec(dim, **options), side, side)
        formula = cost.explicit_peak_bytes if explicit else cost.peak_bytes
        paid = measured(name)
        note(f"cost, formula against measured memory: {name} (1 is meant)", formula / paid)
        print(f"{name:30} formula {formula / 1e6:8.1f} MB  measured {paid / 1e6:8.1f} MB  {formula / paid - 1:+.1%}")


if __name__ == "__main__":
    print(rise(*json.loads(sys.argv[1]))) if len(sys.argv) > 1 else main()
