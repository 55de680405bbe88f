"""`make fuzz`: new made-up cases at every door, round after round, until the time is over or Ctrl-C.

Each round has another seed, which is printed with a find; the case itself is kept in runs/fuzz/.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "yolo"), str(ROOT)]
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0", YOLO_CONFIG_DIR=tempfile.mkdtemp(prefix="bra-fuzz-"))

import torch
from doors import DOORS, Door, Find, knock
from hypothesis import HealthCheck, Phase, given, seed, settings

KEPT = ROOT / "runs" / "fuzz"
ROUND = 200


def cases(door: Door, number: int, try_one: Callable[[object], None]) -> None:
    """Hand a round's cases to a function."""
    every = given(door.cases)(try_one)
    quiet = settings(max_examples=ROUND, database=None, deadline=None, suppress_health_check=list(HealthCheck),
                     phases=[Phase.generate])
    seed(number)(quiet(every))()


def kept(door: Door, case: object) -> Path:
    """Write a case down."""
    data = case if isinstance(case, bytes) else repr(case).encode("utf-8", "surrogatepass")
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{door.name.replace(' ', '_')}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--door", choices=[door.name for door in DOORS], action="append")
    args = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * args.minutes
    tried: collections.Counter[str] = collections.Counter()
    entered: collections.Counter[str] = collections.Counter()
    finds: dict[str, set[str]] = collections.defaultdict(set)
    slowest: dict[str, float] = collections.defaultdict(float)
    number = args.seed
    try:
        while time.monotonic() < until:
            for door in DOORS:
                if args.door and door.name not in args.door:
                    continue

                def try_one(case: object, door: Door = door, number: int = number) -> None:
                    if time.monotonic() > until:
                        return
                    tried[door.name] += 1
                    started = time.monotonic()
                    try:
                        entered[door.name] += knock(door, case)
                    except Find as find:
                        if str(find) not in finds[door.name]:
                            finds[door.name].add(str(find))
                            print(f"FIND (seed {number}) {find}\n     {kept(door, case)}", flush=True)
                    slowest[door.name] = max(slowest[door.name], time.monotonic() - started)

                cases(door, number, try_one)
            number += 1
    except KeyboardInterrupt:
        print()
    for door in DOORS:
        print(f"{door.name:12} {tried[door.name]:9,} cases, {entered[door.name]:7,} let in, "
              f"{len(finds[door.name])} finds, slowest {slowest[door.name]:.2f} s")
    return int(any(finds.values()))


if __name__ == "__main__":
    sys.exit(main())
