"""Time and memory of one layer against three other forms of it, and against what this machine could do at best.

    python tests/bench/forward.py             # all rows below, some minutes
    python tests/bench/forward.py 1           # batch 1 alone, two threads
    python tests/bench/forward.py 1 alone     # one thread by its own processor time: for a machine that others use too
    python tests/bench/forward.py 1 busy      # two threads, while another process keeps one core busy
    python tests/bench/forward.py 1 yolo      # the maps of YOLOv8 n, s, m at P3, P4, P5 and imgsz 320, 640, 1280
    python tests/bench/forward.py 1 compiled  # and ours through torch.compile

ATEN_CPU_CAPABILITY=avx2 takes AVX-512 away from torch and from the compiled attention alike. All forms (`forms.py`)
share their weights and run in turn in one process; times are medians. Memory is the rise of the process's resident
peak (VmHWM), each in a process of its own. The limit of a shape is the time of its matrix products at the rate of a
large product, plus that of its exponentials at the rate of exp2 on numbers that a cache holds; compiled attention
takes exponentials faster than torch's exp2 does, so it may come below.
"""

from __future__ import annotations

import datetime
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from forms import FORMS, given, tutorial
from ratios import note
from torch import Tensor

import bra
from bra.kernels import native

THREADS, LEAST_ROUNDS, MOST_ROUNDS = 2, 5, 60
SECONDS, SECONDS_SHARED = 3.0, 20.0
"""Of all forms of a shape; beside another process single rounds scatter fourfold, so there are more of them."""
SHAPES = ((64, 80, 7, 4), (128, 40, 7, 4), (256, 20, 7, 4), (192, 80, 7, 4), (64, 160, 8, 4), (64, 56, 7, 4))
"""Channels, side, n_win, topk."""
YOLO = tuple((channels[level], size // (8 * 2**level), 7, 4) for size in (320, 640, 1280)
             for channels in ((64, 128, 256), (128, 256, 512), (192, 384, 576)) for level in range(3))
"""P3, P4, P5 of YOLOv8 n, s, m at three image sizes."""
LARGE = (64, 160, 7, 4)
Way = Callable[[], object]


def layer_and_map(shape: tuple[int, ...], batch: int) -> tuple[bra.BiLevelRoutingAttention, Tensor]:
    torch.manual_seed(0)
    c, side, n_win, topk = shape
    return bra.BiLevelRoutingAttention(c, n_win, topk=topk).eval(), torch.randn(batch, c, side, side)


def attention_weights(shape: tuple[int, ...], batch: int) -> int:
    """m·N·L: how many weights, which is how many exponentials."""
    _, side, n_win, topk = shape
    return 8 * batch * n_win**2 * topk * (-(-side // n_win)) ** 4


def medians(ways: list[Way], seconds: float = SECONDS) -> list[float]:
    """Seconds of each, run in turn after one round to warm up; of one thread alone, its processor time."""
    clock = time.perf_counter if torch.get_num_threads() > 1 else time.thread_time
    times: list[list[float]] = [[] for _ in ways]
    until = time.perf_counter() + seconds
    while len(times[0]) <= LEAST_ROUNDS or (time.perf_counter() < until and len(times[0]) < MOST_ROUNDS):
        for way, spent in zip(ways, times, strict=True):
            start = clock()
            way()
            spent.append(clock() - start)
    return [statistics.median(spent[1:]) for spent in times]


def forward(way: Callable[..., Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return way(x)


def step(way: Callable[..., Tensor], m: bra.BiLevelRoutingAttention, x: Tensor) -> None:
    m.zero_grad()
    way(x.detach().requires_grad_()).sum().backward()


def fits(shape: tuple[int, ...], batch: int, copies: int) -> bool:
    """Whether the explicit form's weights, in so many copies, are less than the memory that is free."""
    free = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    return copies * 4 * attention_weights(shape, batch) < 0.8 * free


def rates() -> tuple[float, float]:
    """Multiply-adds of a large product, and exponentials, per second."""
    a, out = torch.randn(2, 2048, 2048), torch.empty(2048, 2048)
    e = torch.zeros(2**18)
    with torch.no_grad():
        gemm, exp = medians([lambda: torch.mm(a[0], a[1], out=out), lambda: [torch.exp2(e, out=e) for _ in range(16)]])
    return 2048**3 / gemm, 16 * 2**18 / exp


def least_seconds(shape: tuple[int, ...], batch: int, gemm: float, exp: float) -> float:
    """What the layer takes at these rates: projections, both products of attention, exponentials."""
    c, side, n_win, _ = shape
    tokens = batch * (n_win * -(-side // n_win)) ** 2
    weights = attention_weights(shape, batch)
    return (4 * tokens * c * c + 2 * weights * (c // 8)) / gemm + weights / exp


def rise(name: str) -> float:
    """MiB that one call adds to the process's peak."""
    def resident(field: str) -> float:
        return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024

    m, x = layer_and_map(LARGE, 1)
    way = m if "ours" in name else lambda x: tutorial(m, x)
    call: Callable[[Tensor], object] = (lambda x: step(way, m, x)) if "step" in name else (lambda x: forward(way, x))
    call(x[..., :42, :42])                   # kernels loaded; too small to leave memory behind
    m.zero_grad()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    kept = call(x)
    peak = resident("VmHWM") - before
    del kept
    return peak


def measured(name: str) -> float:
    """`rise` in a fresh process, whose allocator gives back what tensors gave back."""
    here = os.environ | {"PYTHONPATH": str(Path(bra.__file__).parents[1]), "MALLOC_MMAP_THRESHOLD_": "65536"}
    return float(subprocess.check_output([sys.executable, __file__, name], timeout=600, env=here))


def mean_of(ratios: list[float]) -> str:
    return f"geometric mean {math.prod(ratios) ** (1 / len(ratios)):.2f}×, least {min(ratios):.2f}×"


def ways_of(m: bra.BiLevelRoutingAttention, x: Tensor, learns: bool, compiled: bool) -> dict[str, Way]:
    """Every form on the same map; ours last."""
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        name: lambda x, form=form: form(m, x) for name, form in FORMS.items()}
    if compiled:
        torch.compiler.reset()      # else it compiles no more after eight shapes
        forms["torch.compile"] = torch.compile(m, dynamic=False)
    forms["ours"] = m
    maps = {name: given(name, x) for name in forms}
    return {name: (lambda way=way, x=maps[name]: step(way, m, x)) if learns else
            (lambda way=way, x=maps[name]: forward(way, x)) for name, way in forms.items()}


def table(kind: str, shapes: tuple[tuple[int, ...], ...], batches: list[int], row: str, compiled: bool,
          rate: tuple[float, float], seconds: float) -> None:
    learns = kind == "training step"
    names = [*FORMS, *(["torch.compile"] if compiled else []), "ours"]
    print(f"\n{kind}, ms\n{'batch':>5} {'shape':>18} " + "".join(f"{name:>14}" for name in names)
          + "   tutorial  fastest  of the limit")
    ratios, fastest = [], []
    for batch in batches:
        for shape in shapes:
            if not fits(shape, batch, 4 if learns else 2):
                print(f"{batch:5} {shape!s:>18}  the other forms do not fit in memory", flush=True)
                continue
            m, x = layer_and_map(shape, batch)
            times = dict(zip(names, medians([*ways_of(m, x, learns, compiled).values()], seconds), strict=True))
            ours = times["ours"]
            ratios.append(times["tutorial"] / ours)
            fastest.append(min(times[name] for name in FORMS) / ours)
            note(f"{kind}, {row}: {shape} × {batch} against the tutorial's", ratios[-1])
            least = "" if learns else f"{ours / least_seconds(shape, batch, *rate):11.1f}×"
            print(f"{batch:5} {shape!s:>18} " + "".join(f"{1e3 * times[name]:14.2f}" for name in names)
                  + f" {ratios[-1]:9.2f}× {fastest[-1]:7.2f}× {least}", flush=True)
    if ratios:
        print(f"against the tutorial's: {mean_of(ratios)}; against the fastest other: {mean_of(fastest)}")
        note(f"{kind}, {row}: geometric mean against the tutorial's", math.prod(ratios) ** (1 / len(ratios)))


def main(batches: list[int], words: list[str]) -> None:
    threads = 1 if "alone" in words else THREADS
    torch.set_num_threads(threads)
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    rate = rates()
    row = f"{threads} thread{'s' * (threads > 1)}" \
        + ", a core shared" * ("busy" in words) + ", YOLO's maps" * ("yolo" in words)
    print(f"{cpu[1] if cpu else 'CPU'}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {row}, "
          f"load {os.getloadavg()[0]:.1f}, "
          f"attention {'compiled' if native.suits(4) else 'in torch operators'}, torch {torch.__version__}, "
          f"{datetime.date.today()}: {2 * rate[0] / 1e9:.0f} GFLOP/s, {rate[1] / 1e9:.1f} G exp2/s")
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if "busy" in words else None
    try:
        for kind in ("forward", "training step"):
            table(kind, YOLO if "yolo" in words else SHAPES, batches, row, "compiled" in words, rate,
                  SECONDS_SHARED if busy else SECONDS)
    finally:
        if busy is not None:
            busy.kill()
            busy.wait()


def memory() -> None:
    print(f"\nextra memory at {LARGE}, batch 1")
    for kind in ("forward", "step"):
        theirs, ours = measured(f"{kind} explicit"), measured(f"{kind} ours")
        note(f"memory of a {kind} at {LARGE}, the tutorial's against ours", theirs / ours)
        print(f"{kind:8} explicit {theirs:8.0f} MiB, ours {ours:6.0f} MiB: 1/{theirs / ours:.0f}")


ROWS = (("1", "8"), ("1", "alone", "avx2"), ("1", "busy"), ("1", "yolo"))

if __name__ == "__main__":
    if sys.argv[1:2] and " " in sys.argv[1]:
        print(rise(sys.argv[1]))
    elif len(sys.argv) > 1:
        main([int(word) for word in sys.argv[1:] if word.isdigit()] or [1, 8], sys.argv[1:])
    else:
        for words in ROWS:      # each in a process of its own: what a processor can do is asked once
            lowered = {"ATEN_CPU_CAPABILITY": "avx2"} if "avx2" in words else {}
            subprocess.run([sys.executable, __file__, *words], check=True, env=os.environ | lowered)
        memory()
