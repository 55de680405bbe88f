"""How many processors this process may use, and threads for each piece of work: not what the machine has, but what its
affinity, control groups and OMP_NUM_THREADS give."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUP: Final = Path("/proc/self/cgroup")


def processors() -> int:
    """Those that this process may run on, and no more than its container or service is given time of; 1 at least."""
    on = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([on, *(int(share) for share in _quotas())]))


def threads(working: int, environment: Mapping[str, str]) -> int:
    """Threads for each of so many pieces of work that are done at once; never more than OMP_NUM_THREADS, if given.

    OpenMP keeps the threads of each thread that ever computed: where their number is bounded, as in a container, a
    process that is told to use one and uses more of them is ended.
    """
    share = max(1, processors() // max(1, working))
    asked = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()     # the first of nested ones
    return min(share, int(asked)) if asked.isascii() and asked.isdecimal() and int(asked) > 0 else share


def _quotas() -> Iterator[float]:
    """Processors' worth of time that control groups give to this process, in each that bounds it."""
    version_1 = CGROUPS / "cpu"
    yield from _share(_text(version_1 / "cpu.cfs_quota_us"), _text(version_1 / "cpu.cfs_period_us"))
    name = next((line[3:] for line in _text(OWN_CGROUP).splitlines() if line.startswith("0::")), "/")
    group = CGROUPS / name.lstrip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(CGROUPS) and ".." not in folder.parts:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
            yield from _share(quota, period)


def _share(quota: str, period: str) -> Iterator[float]:
    if quota.strip().isdecimal() and period.strip().isdecimal() and int(period):      # "max", "-1": as much as there is
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:     # not there: another system, or another version
        return ""
