"""What a recording costs and holds, for every kind of wild model: heard, proved, time over a bare forward, file, stage.

    python tests/bench/recordings.py

Time is processor time of one thread, the median of rounds that take turns, so that other work on the machine does not
count. "heard" is the forward with every layer listened to and proved, before anything is written; "recorded" is all of
`bra.record`. "to the stage" is what the app does with the file: open, lay on the picture, rank, pack.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from wild_models import KINDS, Kind, picture

from bra.bra_record import Listener, record
from bra.models.recorded import open_recording
from bra.viewer.pack import Caption, stage_message

MOST_RATIO, MOST_SECONDS = 1.5, 2.0


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def to_the_stage(data: bytes) -> None:
    opened = open_recording(data, "run.bra")
    photo = opened.photo
    assert photo is not None
    run = opened.look(photo, 640)
    name, layer = next(iter(run.trace.layers.items()))
    stage_message(photo, layer, Caption(opened.label, name, opened.origin, "run.bra"), (5000, 5000), {})


def measured(kind: Kind, side: int, rounds: int) -> str:
    torch.manual_seed(0)
    model = kind.make().eval()
    # One whose layer is told the sides of its map has a picture of that size alone.
    factor = 1 if kind.name == "tokens in a row" else side / max(kind.size)
    x = torch.nn.functional.interpolate(picture(kind, model), scale_factor=factor) if factor > 1 else \
        picture(kind, model)

    def heard() -> Listener:
        with Listener([model], table=True, sample=True) as listener:
            model(x)
        return listener

    with torch.no_grad(), tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "run.bra"
        took: dict[str, list[float]] = {"bare": [], "heard": [], "recorded": [], "stage": []}
        for _ in range(rounds + 1):     # the first warms up
            took["bare"].append(seconds(lambda: model(x)))
            took["heard"].append(seconds(heard))
            took["recorded"].append(seconds(lambda: record(model, x, path)))
            took["stage"].append(seconds(lambda: to_the_stage(path.read_bytes())))
        size, layers = path.stat().st_size, heard().heard
    median = {name: statistics.median(values[1:]) for name, values in took.items()}
    differences = [layer.difference for layer in layers if layer.known and layer.difference is not None]
    proved = f"{max(differences):.1e}" if differences else "routing only"
    return (f"{kind.name:38} {len(layers)}/{kind.layers} {proved:>13} {1e3 * median['bare']:8.1f} "
            f"{median['heard'] / median['bare']:8.2f} {1e3 * (median['recorded'] - median['heard']):9.1f} "
            f"{size / 1e6:8.2f} {median['stage']:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=640, help="longer side of the picture in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="part of a kind's name")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"picture of {args.side} px; at most {MOST_RATIO}× and {MOST_SECONDS} s are meant")
    print(f"{'kind':38} {'heard':>3} {'difference':>11} {'bare, ms':>8} {'heard, ×':>8} {'write, ms':>9} "
          f"{'file, MB':>8} {'stage, s':>8}")
    for kind in KINDS:
        if args.only in kind.name:
            print(measured(kind, args.side, args.rounds), flush=True)


if __name__ == "__main__":
    main()
