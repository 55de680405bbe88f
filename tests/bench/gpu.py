"""On a GPU: time and peak memory of attention written out, gathered and fused, and through a block mask.

Every form in turn in one process, on the same random q, k, v and routing of one layer; medians of CUDA's clock after
two calls to warm up. Peak memory is what a call adds to what was allocated before it. A form that runs out of memory or
does not compile says so in its place. Prints one line and nothing else where there is no GPU.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from bra import functional as BF
from bra.kernels import flex
from bra.kernels.dispatch import takes_flex

MAPS = ((64, 80, 7, 4), (128, 40, 7, 4), (256, 20, 7, 4), (192, 80, 7, 4), (64, 160, 8, 4), (64, 56, 7, 4))
"""Channels, side of the map in tokens, n_win, topk; 8 heads."""
BATCHES, HEADS, ROUNDS = (1, 8, 32), 8, 10
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def explicit(q: Any, k: Any, v: Any, r_idx: Any, scale: float, real_keys: Any = None) -> torch.Tensor:
    return BF.attend_explicit(q, BF.gather_keys(k, r_idx), BF.gather_keys(v, r_idx), scale)[0]


FORMS: dict[str, Callable[..., torch.Tensor]] = {
    "explicit": explicit, "gathered": BF.attend_gathered, "block mask": flex.attend}


def measured(form: Callable[..., torch.Tensor], inputs: dict[str, Any], backward: bool) -> tuple[float, float]:
    """ms of a call, and MiB that it adds at its peak."""
    def once() -> None:
        out = form(**inputs)
        if backward:
            torch.autograd.grad(out, [inputs[name] for name in "qkv"], torch.ones_like(out))

    times = []
    for n in range(2 + ROUNDS):
        if n == 2:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        once()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[2:]), (torch.cuda.max_memory_allocated() - before) / 2**20


def cell(form: Callable[..., torch.Tensor], shapes: flex.Shapes) -> tuple[float, float] | str:
    try:
        with torch.set_grad_enabled(shapes.learns):
            return measured(form, flex.example(shapes), shapes.learns)
    except torch.OutOfMemoryError:
        return "out of memory"
    except Exception as error:      # such as a compiler that is missing: the other columns still count
        return type(error).__name__
    finally:
        torch.cuda.empty_cache()


def line_of(shapes: flex.Shapes) -> str:
    """Every form on these shapes, with the times faster and times smaller than the first in brackets."""
    parts: list[str] = []
    base: tuple[float, float] | str | None = None
    for name, form in FORMS.items():
        found = cell(form, shapes)
        base = found if base is None else base
        if isinstance(found, str):
            parts.append(f"{name}: {found}")
            continue
        text = f"{name}: {found[0]:.3f} ms {found[1]:.0f} MiB"
        if not isinstance(base, str) and found is not base:
            text += f" ({base[0] / found[0]:.2f}×, {base[1] / max(found[1], 1e-9):.1f}×)"
        parts.append(text)
    q = torch.empty(shapes.q, device=shapes.device, dtype=shapes.dtype)
    return " | ".join((*parts, f"by itself: {'block mask' if takes_flex(q, None) else 'gathered'}"))


def main() -> None:
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}; (channels, side, n_win, topk) × batch, "
          f"{HEADS} heads; in brackets times faster and times smaller than explicit")
    for c, side, p, topk in MAPS:
        for batch in BATCHES:
            q = (batch, HEADS, p * p, (-(-side // p)) ** 2, c // HEADS)
            for dtype in DTYPES:
                for learns in (False, True):
                    line = line_of(flex.Shapes(device, dtype, q, q, q, topk, False, learns, q[-1]**-0.5))
                    kind = f"{str(dtype)[6:]:9}{'training' if learns else 'forward':9}"
                    print(f"({c}, {side}, {p}, {topk}) × {batch:<3}{kind}| {line}", flush=True)


if __name__ == "__main__":
    main()
