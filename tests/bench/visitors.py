"""A class at once: each visitor uploads an image of its own, explores it, and checks every number against the module.

The server is started here, and asked through Streamlit's own protocol (`raw_visitor`). A query is a pin that is moved:
the round trip until the attention of the new query has come. A setting is another n_win and topk, or another layer.
Beside the explorers, some visitors compare settings over and over, so that the line of heavy work is never empty.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from raw_visitor import Message, Visitor, serving  # noqa: E402, F401
from sent_figures import maps  # noqa: E402

from bra import opening  # noqa: E402
from bra.models.catalog import ModelSettings  # noqa: E402
from bra.photo import Photo  # noqa: E402
from bra.tracing import LayerTrace  # noqa: E402
from bra.viewer.pack import locate  # noqa: E402

SETTINGS = ((7, 4), (7, 2), (7, 8), (5, 4), (8, 6), (4, 3))
"""n_win and topk that visitors move between."""
COMPARES = "&".join(("tab=grid", "rows=2.3.4.5.6.7", "columns=1.2.3.4.6.8", "model=similarity"))


@dataclass
class LayerResult:
    """What happened to one visitor."""

    queries: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    heavy: list[float] = field(default_factory=list)
    first: float = 0.0
    checked: int = 0
    errors: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)


def image_of(number: int) -> bytes:
    """A PNG that no other number has."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 255, (5 + number % 5, 6 + number % 7, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()
LEAST = 3
"""Views that every explorer checks, however long they take."""


class Explorer:
    """One who looks at an image of its own, and knows beforehand what must come."""

    def __init__(self, number: int, host: str) -> None:
        self.number, self.host, self.seen = number, host, LayerResult()
        self.data = image_of(number)
        self.photo = Photo.from_bytes(self.data)
        looks = {one: opening.look(ModelSettings(n_win=one[0], topk=one[1]), self.photo) for one in SETTINGS[:4]}
        self.truth: dict[tuple[int, int], dict[str, LayerTrace]] = {
            one: dict(look.trace.layers) for one, look in looks.items()}
        self.setting, self.layer = SETTINGS[0], "layers.0"

    def check(self, visitor: Visitor) -> None:
        """The stage's numbers are those of this image, this setting and this layer."""
        header, _, arrays = visitor.component("stage")
        layer = self.truth[self.setting][self.layer]
        wanted, routed = layer.affinity[0].numpy(), arrays["r_idx"]
        if arrays["affinity"].shape != wanted.shape or not np.allclose(arrays["affinity"], wanted, atol=1e-4):
            self.seen.errors.append(f"visitor {self.number}: the affinities of {header['name']}, n_win "
                                    f"{self.setting[0]}, topk {self.setting[1]}, {self.layer} are another's")
        # Which of two equally near windows is chosen hangs on the last bit: the chosen are told by what they hold.
        elif routed.shape != layer.r_idx[0].shape or not np.allclose(np.take_along_axis(wanted, routed, 1),
                             np.take_along_axis(wanted, layer.r_idx[0].numpy(), 1), atol=1e-4) \
                or not np.array_equal(arrays["in_degree"], np.bincount(routed.ravel(), minlength=len(routed))):
            self.seen.errors.append(f"visitor {self.number}: the chosen windows are not the best of {header['name']}")
        if header["photo"] != self.photo.digest or header["name"] != f"image{self.number}.png":
            self.seen.errors.append(f"visitor {self.number} sees {header['name']}")
        self.seen.checked += 1

    def check_query(self, visitor: Visitor, place: tuple[int, int]) -> None:
        """The attention that came is that of the window at this place."""
        layer = self.truth[self.setting][self.layer]
        window, token = locate(layer.grid, self.photo, place)
        wanted = layer.attention_map(window, token).float().numpy()
        drawn = maps(visitor.figure())
        if visitor.queries()[0]["window"] != window or not np.allclose(drawn[0], wanted.mean(0), atol=1e-5):
            self.seen.errors.append(f"visitor {self.number}: the attention of window {window} is another's")
        self.seen.checked += 1

    def visit(self, until: float) -> None:
        """Explore until then."""
        rng, visitor = random.Random(self.number), None
        try:
            visitor = Visitor(self.host, "model=similarity")
            self.seen.first = visitor.run()
            status = visitor.upload("uploader", f"image{self.number}.png", self.data)
            if status != 204:
                self.seen.errors.append(f"upload: status {status}")
            visitor.run()
            visitor.draw_stage()
            self.check(visitor)
            while time.monotonic() < until or self.seen.checked < LEAST:
                time.sleep(rng.uniform(0.5, 2.0))
                what = rng.random()
                if what < 0.75:
                    place = (rng.randrange(10_000), rng.randrange(10_000))
                    visitor.set_state("stage", "pins", {"a": list(place)})
                    self.seen.queries.append(visitor.run(fragment=True))
                    self.check_query(visitor, place)
                elif what < 0.95:
                    self.setting = rng.choice(SETTINGS[:4])
                    visitor.slide("n_win", self.setting[0])
                    visitor.slide("topk", self.setting[1])
                    self.seen.changes.append(visitor.run())
                    self.check(visitor)
                else:
                    self.layer = "layers.1" if self.layer == "layers.0" else "layers.0"
                    visitor.set_state("rail", "picked", self.layer, trigger=True)
                    self.seen.changes.append(visitor.run())
                    self.check(visitor)
            self.seen.errors += visitor.errors
        except Exception as error:  # a visitor that fails is what is looked for
            self.seen.errors.append(f"visitor {self.number}: {type(error).__name__}: {error}")
            self.seen.errors += visitor.errors if visitor else []
        finally:
            if visitor is not None:
                visitor.close()


class Comparer:
    """One who lets 36 settings be compared on one new image after the other."""

    def __init__(self, number: int, host: str) -> None:
        self.number, self.host, self.seen = number, host, LayerResult()

    def visit(self, until: float) -> None:
        """Compare until then."""
        visitor, turn = None, 0
        try:
            visitor = Visitor(self.host, COMPARES)
            visitor.page("Compare")
            while time.monotonic() < until:
                turn += 1
                visitor.upload("uploader", f"{turn}.png", image_of(1_000 * self.number + turn))
                self.seen.heavy.append(visitor.run(seconds=600))
                header = visitor.component("multiples")[0]
                if header["photo"] != Photo.from_bytes(image_of(1_000 * self.number + turn)).digest:
                    self.seen.errors.append(f"comparer {self.number} got another's picture")
                self.seen.checked += 1
            self.seen.errors += visitor.errors
            self.seen.places = {text.split("…")[-1].strip() for text in visitor.seen
                                if "before you" in text or "You are next" in text}
        except Exception as error:
            self.seen.errors.append(f"comparer {self.number}: {type(error).__name__}: {error}")
            self.seen.errors += visitor.errors if visitor else []
        finally:
            if visitor is not None:
                visitor.close()


def memory(process: int) -> float:
    """Resident MB of a process."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS"))) / 1024


def class_at_once(explorers: int, comparers: int, seconds: float,
                  log: Path) -> tuple[list[LayerResult], list[LayerResult], list[float]]:
    """What all of them saw, and the server's resident MB, each second."""
    with serving(log) as (host, server):
        started = time.perf_counter()
        first = Visitor(host)
        first.run()
        first.close()
        print(f"the first visitor of a cold server: {time.perf_counter() - started:.1f} s; "
              f"{memory(server.pid):.0f} MB", flush=True)
        people = [Explorer(n, host) for n in range(explorers)]
        busy = [Comparer(n, host) for n in range(comparers)]
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=one.visit, args=(until,)) for one in (*people, *busy)]
        for thread in threads:
            thread.start()
        taken = []
        while any(thread.is_alive() for thread in threads):
            taken.append(memory(server.pid))
            time.sleep(1)
        return [one.seen for one in people], [one.seen for one in busy], taken


def report(name: str, values: Sequence[float]) -> str:
    """Median and 95th percentile in ms."""
    if not values:
        return f"{name}: none"
    middle, late = (1e3 * np.percentile(values, share) for share in (50, 95))
    return f"{name}: {len(values)}, median {middle:.0f} ms, p95 {late:.0f} ms, longest {1e3 * max(values):.0f} ms"


def main() -> int:
    """Run it, and say what came out; 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--explorers", type=int, default=25)
    parser.add_argument("--comparers", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        seen, busy, taken = class_at_once(chosen.explorers, chosen.comparers, 60 * chosen.minutes, log)
        message = log.read_text()
    print(f"{chosen.explorers} explorers and {chosen.comparers} comparers for {chosen.minutes:g} minutes")
    print(report("first page", [one.first for one in seen]))
    print(report("query", [t for one in seen for t in one.queries]))
    print(report("change of setting or layer", [t for one in seen for t in one.changes]))
    print(report("comparing 36 settings, with the wait", [t for one in busy for t in one.heavy]))
    print("places seen in the line:", ", ".join(sorted({p for one in busy for p in one.places})) or "none")
    tenth = max(1, len(taken) // 10)
    tenths = [taken[at:at + tenth] for at in range(0, tenth * 10, tenth)]
    print("resident MB, median of each tenth:", " ".join(f"{np.median(part):.0f}" for part in tenths if part))
    print(f"numbers checked: {sum(one.checked for one in (*seen, *busy))}")
    errors = [error for one in (*seen, *busy) for error in one.errors]
    errors += [line for line in message.splitlines() if "Traceback" in line or "Error" in line]
    print(f"errors: {len(errors)}", *errors[:20], sep="\n  ")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
