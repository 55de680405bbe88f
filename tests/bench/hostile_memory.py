"""Memory of a process before and after many hostile files: pictures, weights, tables, model files, checkpoints.

They go the way of a visitor's files: through the app's services, job queue and cache, which may keep 16 MB here.
Every file is another one: a catalogue of files made to harm, each changed a little, and sound files with changed bytes.
"""

from __future__ import annotations

import argparse
import collections
import gc
import io
import json
import logging
import os
import pickle
import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "helpers")]

from bra.errors import BRAError  # noqa: E402
from bra.models.catalog import ModelSettings  # noqa: E402
from dashboard.services import compare as compare_services  # noqa: E402
from dashboard.services import models as model_services  # noqa: E402
from dashboard.state.upload import uploaded  # noqa: E402

KEPT_MB = 16
QUIET = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_VERBOSE": "false", "ROUTESCOPE_KEEP_MB": str(KEPT_MB)}


def opened(name: str) -> Callable[[bytes], object]:
    return lambda data: model_services.load_model(ModelSettings("own"), uploaded(name, data))


ENTER: dict[str, Callable[[bytes], object]] = {
    "picture": model_services.photo_of, "weights": opened("x.safetensors"), "model file": opened("x.yaml"),
    "checkpoint": opened("x.pt"), "table": lambda data: compare_services.sweep_table(uploaded("x.parquet", data))}


class Runs:
    def __reduce__(self) -> object:
        return os.system, ("exit 1",)


def resident_mb() -> float:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def catalogue() -> dict[str, list[bytes]]:
    """By door, what its files are made from."""
    import hostile_files
    from model_files import TINY
    from torch_files import Small, Store, View, archive, saved

    found: dict[str, list[bytes]] = collections.defaultdict(list)
    for file in hostile_files.every():
        found[file.door].append(file.data)
    rows = TINY.encode()
    found["model file"] = [
        rows, rows.replace(b"Conv", b"os.system", 1), rows.replace(b"32", b"8192", 1), b"a: &a [*a]\n" * 99,
        b"[" * 9_000, b"x" * 2**20, rows + b"activation: __import__('os').system('exit 1')\n",
        rows.replace(b"2", b"100")]
    stream = io.BytesIO()
    pickle.dump(Runs(), stream)
    whole = saved(Small())
    found["checkpoint"] = [
        archive(stream.getvalue()), archive({"w": View(Store(4), (10**6, 10**6), (0, 0))}), whole, whole[:-400],
        archive({"w": View(Store(10**15), (10**15,), (1,))}), archive({"w": 1}, more={"../../evil": b"x"}),
        archive(b"\x80\2" + b"]" * 500_000 + b"."), b"PK\3\4" + bytes(9_999)]
    return found


def changed(data: bytes, rng: random.Random) -> bytes:
    """The same as it is, or with a few bytes of noise in it."""
    noisy = bytearray(data)
    for _ in range(rng.choice((0, 1, 3)) if data else 0):
        noisy[int(rng.random() ** 2 * len(noisy))] = rng.randrange(256)
    return bytes(noisy) + bytes(rng.randrange(8)) if rng.random() < 0.5 else bytes(noisy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()                                   # Streamlit warns of a page outside of its server
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)        # libtiff says a line for every damaged line of a picture
    os.environ.update(QUIET, YOLO_CONFIG_DIR=tempfile.mkdtemp(prefix="bra-bench-"))
    rng, slowest = random.Random(0), (0.0, "")
    ends: collections.Counter[str] = collections.Counter()
    found = catalogue()

    def enter(door: str, data: bytes) -> None:
        nonlocal slowest
        started = worked()
        try:
            ENTER[door](data)
            ends["taken"] += 1
        except BRAError:
            ends["refused"] += 1
        slowest = max(slowest, (worked() - started, door))

    for door, files in found.items():       # once each, so that what is loaded once is loaded
        for data in files:
            enter(door, data)
    ends.clear()
    slowest = (0.0, "")
    before, peak = settled(), 0.0
    doors = ["picture"] * 5 + ["weights"] * 2 + ["model file"] * 2 + ["checkpoint", "table"]
    for n in range(args.count):
        door = doors[n % len(doors)]
        enter(door, changed(rng.choice(found[door]), rng))
        peak = max(peak, resident_mb())
    result = {"files": args.count, **ends, "before_mb": round(before, 1), "after_mb": round(settled(), 1),
              "highest_between_mb": round(peak, 1), "slowest_s": round(slowest[0], 2), "slowest_door": slowest[1],
              "cache_mb": round(model_services.server().cache.size / 2**20, 1)}
    print(json.dumps(result) if args.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


def worked() -> float:
    """Seconds of a processor that this process and its children have had; the clock also tells of other work."""
    return sum(os.times()[:4])


def settled() -> float:
    """MB that are resident when nothing is left that a collection would free."""
    gc.collect()
    return resident_mb()


if __name__ == "__main__":
    main()
