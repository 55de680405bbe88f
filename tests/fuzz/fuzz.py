"""`make fuzz`: new made-up cases at every door, round after round, until the time is over or Ctrl-C.

Each round has another seed, which is printed with a find; the case itself is kept in runs/fuzz/.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import conftest  # noqa: F401  where the tests' own modules are, and Ultralytics off the network
import torch
from doors import DOORS, Door, Find, knock
from hypothesis import HealthCheck, Phase, given, seed, settings

KEPT = Path(__file__).parents[2] / "runs" / "fuzz"


def cases(door: Door, number: int, try_one: Callable[[object], None]) -> None:
    """Hand a round's cases to a function."""
    every = given(door.cases)(try_one)
    quiet = settings(max_examples=door.suite, database=None, deadline=None, suppress_health_check=list(HealthCheck),
                     phases=[Phase.generate])
    seed(number)(quiet(every))()


def kept(door: Door, case: object) -> Path:
    """Write a case down."""
    data = case if isinstance(case, bytes) else repr(case).encode("utf-8", "surrogatepass")
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{door.name.replace(' ', '_')}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


class Tally:
    """What was tried at one door, and what came of it."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.tried = self.entered = 0
        self.finds: set[str] = set()
        self.slowest = 0.0

    def round(self, number: int, until: float) -> None:
        """As many cases as the test suite tries, or fewer where the time is over."""

        def try_one(case: object) -> None:
            if time.monotonic() > until:
                return
            self.tried += 1
            started = time.monotonic()
            try:
                self.entered += knock(self.door, case)
            except Find as find:
                if str(find) not in self.finds:
                    self.finds.add(str(find))
                    print(f"FIND (seed {number}) {find}\n     {kept(self.door, case)}", flush=True)
            self.slowest = max(self.slowest, time.monotonic() - started)

        cases(self.door, number, try_one)

    def __str__(self) -> str:
        return (f"{self.door.name:12} {self.tried:9,} cases, {self.entered:7,} let in, {len(self.finds)} finds, "
                f"slowest {self.slowest:.2f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--door", choices=[door.name for door in DOORS], action="append")
    args = parser.parse_args()
    # libtiff writes a line for every damaged line of a picture; what Python says still comes through.
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    until, number = time.monotonic() + 60 * args.minutes, args.seed
    tallies = [Tally(door) for door in DOORS if not args.door or door.name in args.door]
    try:
        while time.monotonic() < until:
            for tally in tallies:
                tally.round(number, until)
            number += 1
    except KeyboardInterrupt:
        print()
    print(*tallies, sep="\n")
    return int(any(tally.finds for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
