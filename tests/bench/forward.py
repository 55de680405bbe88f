"""Time and memory of one layer against the tutorial's explicit form, and against what this machine could do at best.

    python tests/bench/forward.py           # both batches, two threads, some minutes
    python tests/bench/forward.py 1         # batch 1 alone
    python tests/bench/forward.py 1 alone   # one thread by its own processor time: for a machine that others use too

Both forms share their weights and run in turn in one process; times are medians. Memory is the rise of the process's
resident peak (VmHWM), each in a process of its own. The limit of a shape is the time of its matrix products at the
rate of a large product, plus that of its exponentials at the rate of exp2 on numbers that a cache holds.
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
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

import bra

THREADS, SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 2, 3.0, 5, 60
SHAPES = ((64, 80, 7, 4), (128, 40, 7, 4), (256, 20, 7, 4), (192, 80, 7, 4), (64, 160, 8, 4), (64, 56, 7, 4))
"""Channels, side, n_win, topk."""
LARGE = (64, 160, 7, 4)
Way = Callable[[], object]


def explicit(m: bra.BiLevelRoutingAttention, x: Tensor) -> Tensor:
    """The layer in the tutorial's way: windows first, `torch.gather` on an expanded k and v, softmax, products."""
    p, Q, heads, (h, w) = m.n_win, m.qk_dim, m.num_heads, x.shape[-2:]
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -w % p, 0, -h % p))
    x = rearrange(x, "b (j h) (i w) c -> b (j i) h w c", j=p, i=p)
    q, kv = m.qkv.qkv(x).split([Q, Q + m.dim], -1)
    lepe = m.lepe(rearrange(kv[..., Q:], "b (j i) h w c -> b c (j h) (i w)", j=p).contiguous())
    logits = (q.mean((2, 3)) * m.scale) @ kv[..., :Q].mean((2, 3)).mT
    r_idx = logits.topk(m.topk).indices                                                     # (b, p2, k)
    kv = kv.flatten(2, 3)                                                                   # (b, p2, s, Q + c)
    every = kv[:, None].expand(-1, p * p, -1, -1, -1)
    chosen = torch.gather(every, 2, r_idx[..., None, None].expand(-1, -1, -1, *kv.shape[2:]))
    k, v = chosen.split([Q, m.dim], -1)
    k = rearrange(k, "b n k s (m c) -> (b n) m c (k s)", m=heads)
    v = rearrange(v, "b n k s (m c) -> (b n) m (k s) c", m=heads)
    queries = rearrange(q, "b n h w (m c) -> (b n) m (h w) c", m=heads)
    out = ((queries * m.scale) @ k).softmax(-1) @ v
    out = rearrange(out, "(b j i) m (h w) c -> b (j h) (i w) (m c)", j=p, i=p, h=q.shape[2])
    return m.wo(out + rearrange(lepe, "b c h w -> b h w c"))[:, :h, :w].permute(0, 3, 1, 2).contiguous()


def layer_and_map(shape: tuple[int, ...], batch: int) -> tuple[bra.BiLevelRoutingAttention, Tensor]:
    torch.manual_seed(0)
    c, side, n_win, topk = shape
    return bra.BiLevelRoutingAttention(c, n_win, topk=topk).eval(), torch.randn(batch, c, side, side)


def attention_weights(shape: tuple[int, ...], batch: int) -> int:
    """m·N·L: how many weights, which is how many exponentials."""
    _, side, n_win, topk = shape
    return 8 * batch * n_win**2 * topk * (-(-side // n_win)) ** 4


def medians(ways: list[Way]) -> list[float]:
    """Seconds of each, run in turn after one round to warm up; of one thread alone, its processor time."""
    clock = time.perf_counter if torch.get_num_threads() > 1 else time.thread_time
    times: list[list[float]] = [[] for _ in ways]
    until = time.perf_counter() + SECONDS
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
    way = m if "ours" in name else lambda x: explicit(m, x)
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


def table(title: str, batches: list[int], copies: int, run: Callable[..., list[Way]],
          rate: tuple[float, float]) -> None:
    print(f"\n{title}\n{'batch':>5} {'shape':>18} {'explicit':>10} {'ours':>10} {'ratio':>7} {'of the limit':>13}")
    ratios = []
    for batch in batches:
        for shape in SHAPES:
            if not fits(shape, batch, copies):
                print(f"{batch:5} {shape!s:>18}  the explicit form does not fit in memory", flush=True)
                continue
            theirs, ours = medians(run(*layer_and_map(shape, batch)))
            ratios.append(theirs / ours)
            least = f"{ours / least_seconds(shape, batch, *rate):12.1f}×" if title == "forward" else ""
            print(f"{batch:5} {shape!s:>18} {theirs * 1e3:7.1f} ms {ours * 1e3:7.1f} ms {ratios[-1]:6.2f}× {least}",
                  flush=True)
    print(mean_of(ratios))


def main(batches: list[int], threads: int) -> None:
    torch.set_num_threads(threads)
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    rate = rates()
    print(f"{cpu[1] if cpu else 'CPU'}, {os.cpu_count()} cores, {threads} thread{'s' * (threads > 1)}, load {os.getloadavg()[0]:.1f}, "
          f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, {datetime.date.today()}: "
          f"{2 * rate[0] / 1e9:.0f} GFLOP/s, {rate[1] / 1e9:.1f} G exp2/s")
    table("forward", batches, 2, lambda m, x: [lambda: forward(lambda x: explicit(m, x), x),
                                               lambda: forward(m, x)], rate)
    table("training step", batches, 4, lambda m, x: [lambda: step(lambda x: explicit(m, x), m, x),
                                                     lambda: step(m, m, x)], rate)
    print(f"\nextra memory at {LARGE}, batch 1")
    for kind in ("forward", "step"):
        theirs, ours = measured(f"{kind} explicit"), measured(f"{kind} ours")
        print(f"{kind:8} explicit {theirs:8.0f} MiB, ours {ours:6.0f} MiB: 1/{theirs / ours:.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] and " " in sys.argv[1]:
        print(rise(sys.argv[1]))
    else:
        batches = [int(word) for word in sys.argv[1:] if word.isdigit()]
        main(batches or [1, 8], 1 if "alone" in sys.argv else THREADS)
