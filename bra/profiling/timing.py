"""How long every row of a model takes on this machine: warm, the median of several forwards."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bra.errors import CostError
from bra.messages import message
from bra.profiling.meter import OUTSIDE, Shape, reporting_copy

WARM_UP = 2
Progress = Callable[[int, int], None]


class Clock:
    """Seconds per path of one forward after the other."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._wait = wait
        self._began = 0.0

    def begin(self, path: str, given: Any) -> None:
        """A row begins."""
        self._wait()
        self._began = time.perf_counter()

    def end(self, path: str, out: Any) -> None:
        """A row ended; rows are not inside one another."""
        self._wait()
        self.seconds[path] = self.seconds.get(path, 0.0) + time.perf_counter() - self._began


def timed(model: nn.Module, paths: Sequence[str], shape: Shape, weight: Tensor, rounds: int,
          progress: Progress | None = None) -> dict[str, float]:
    """Median milliseconds of every row, and under OUTSIDE of what runs outside of them.

    Args:
        model: read, never written.
        paths: rows, none inside another.
        shape: of the input.
        weight: whose dtype and device the input gets.
        rounds: forwards, after two to warm up; each runs every row once, so that a slow moment hits all alike.
        progress: told (forwards done, forwards to do).

    Raises:
        CostError: `rounds` is below 1.
    """
    if rounds < 1:
        raise CostError(message("rounds={rounds} is not possible: 0 for no time, or some forwards, such as 10.",
                                rounds=rounds))
    wait = torch.cuda.synchronize if weight.is_cuda else _no_wait
    clock, whole = Clock(wait), Clock(wait)
    private = reporting_copy(model, paths, clock)
    x = torch.rand(shape, dtype=weight.dtype, device=weight.device)
    taken: dict[str, list[float]] = {path: [] for path in dict.fromkeys([*paths, OUTSIDE])}
    with torch.inference_mode():
        for done in range(-WARM_UP, rounds):
            clock.seconds, whole.seconds = {}, {}
            whole.begin(OUTSIDE, None)
            private(x)
            whole.end(OUTSIDE, None)
            if done >= 0:
                for path in paths:
                    taken[path].append(clock.seconds.get(path, 0.0))
                if OUTSIDE not in paths:
                    taken[OUTSIDE].append(whole.seconds[OUTSIDE] - sum(clock.seconds.values()))
            if progress is not None:
                progress(done + WARM_UP + 1, rounds + WARM_UP)
    return {path: 1e3 * statistics.median(seconds) for path, seconds in taken.items()}


def _no_wait() -> None:
    """A CPU has finished when it returns."""
