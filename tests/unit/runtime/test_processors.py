"""Threads are as many as the process is given processors for, and OMP_NUM_THREADS is never exceeded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bra.models.base import Answer, OpenModel, Prepared
from bra.models.catalog import CATALOG, ModelSettings
from bra.photo import Photo
from dashboard.runtime import processors
from dashboard.runtime.server import HEAVY, QUICK
from dashboard.services import models as model_services
from dashboard.services import server
from dashboard.services.models import LoadedModel, ModelKey

ROOT = Path(__file__).parents[3]


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of sixteen, without control groups; their folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(processors, "CGROUPS", tmp_path)
    monkeypatch.setattr(processors, "OWN_CGROUP", tmp_path / "own")
    return tmp_path


def test_processors_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch, sixteen: Path) -> None:
    assert processors.processors() == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert processors.processors() == 2


@pytest.mark.parametrize(("quota", "count"), [
    ("max 100000", 16), ("400000 100000", 4), ("50000 100000", 1), ("9900000 100000", 16), ("", 16), ("nonsense", 16),
    ("100000 0", 16)])
def test_a_containers_quota_counts(sixteen: Path, quota: str, count: int) -> None:
    (sixteen / "cpu.max").write_text(quota)
    assert processors.processors() == count


def test_the_quota_of_a_service_and_of_what_it_stands_in_count(sixteen: Path) -> None:
    (sixteen / "own").write_text("0::/class.slice/routescope.service\n")
    (sixteen / "class.slice" / "routescope.service").mkdir(parents=True)
    (sixteen / "class.slice" / "routescope.service" / "cpu.max").write_text("800000 100000\n")
    assert processors.processors() == 8
    (sixteen / "class.slice" / "cpu.max").write_text("300000 100000\n")
    assert processors.processors() == 3


@pytest.mark.parametrize(("quota", "count"), [("-1", 16), ("250000", 2)])
def test_the_older_control_groups_count_too(sixteen: Path, quota: str, count: int) -> None:
    (sixteen / "cpu").mkdir()
    (sixteen / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (sixteen / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert processors.processors() == count


@pytest.mark.parametrize(("asked", "alone", "of_four"), [
    ("", 16, 4), ("1", 1, 1), ("6", 6, 4), ("4,2", 4, 4), ("99", 16, 4), ("0", 16, 4), ("many", 16, 4)])
def test_the_environment_bounds_the_threads(monkeypatch: pytest.MonkeyPatch, sixteen: Path, asked: str, alone: int,
                                            of_four: int) -> None:
    given: list[int] = []
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    for working in (1, 4, 99):
        server._share_processors(working)
    assert given == [alone, of_four, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in Linux's /proc")
def test_told_to_use_one_thread_workers_start_no_others() -> None:
    code = """
import os, threading, torch
from dashboard.services import server
os.sched_getaffinity = lambda _: set(range(8))
torch.rand(8)
def tasks(): return len(os.listdir("/proc/self/task"))
before, done, over = tasks(), threading.Barrier(5), threading.Event()
def worker():
    server._share_processors(1)
    torch.rand(64, 64, 64).sigmoid()
    done.wait()
    over.wait()         # as a worker who waits for more
for _ in range(4):
    threading.Thread(target=worker, daemon=True).start()
done.wait()
print(tasks() - before)
over.set()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
                         env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    assert int(ran.stdout.splitlines()[-1]) == 4


def model_of(parameters: int) -> OpenModel:
    class Small(OpenModel):
        def prepare(self, photo: Photo, side: int) -> Prepared:
            raise NotImplementedError

        def answer(self, out: object, prepared: Prepared) -> Answer:
            raise NotImplementedError

    return Small(torch.nn.Linear(parameters, 1, bias=False, device="meta"), "small", "untrained")


@pytest.mark.parametrize(("name", "parameters", "priority"), [
    ("own", 1, HEAVY), ("flowers", 1_600_000, QUICK), ("yolo", 3_000_000, QUICK), ("yolo", 40_000_000, HEAVY)])
def test_a_strangers_model_is_heavy_however_small(name: str, parameters: int, priority: str) -> None:
    assert name in CATALOG
    loaded = LoadedModel(ModelSettings(name), None, model_of(parameters), ModelKey(ModelSettings(name), ""))
    assert model_services.running_priority(loaded) == priority
