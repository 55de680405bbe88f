"""What an answer of the app costs: another topk in forwards of the model, another query, what goes to the browser.

All in one process and in turn, medians; the browser's own work is in page.py. One picture of 640 px through yolov8n-bra
(three rows of attention in its neck), as a visitor would look into it. What a changed topk sends is told by the
messages that the components are given; Streamlit sends a component's script with each of them, which comes on top.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ratios import note

from bra.figures.attention import attended, attention
from bra.models.base import Change
from bra.models.catalog import ModelSettings
from bra.models.rerun import run_from
from bra.opening import open_model, stay_offline
from bra.photo import Photo
from bra.tracing import LayerTrace
from bra.viewer.pack import PICTURE_SIDE, TILE_SIDE, Caption, Place, picture_message, stage_message, traced_size

ROOT = Path(__file__).parents[2]
ROUNDS, SIDE = 5, 640
IMPORT = ("import time; a = time.perf_counter(); import torch; b = time.perf_counter(); import bra; "
          "print(b - a, time.perf_counter() - b)")


def drawn(photo: Photo, layer: LayerTrace, caption: Caption, queries: list[tuple[str, Place, bool]]) -> str:
    """The figure of what queries attend to, mean and maximum, as the browser gets it."""
    figure = attention(attended(layer, photo, queries), [0, 1], layer.grid, photo.encoded(TILE_SIDE),
                       traced_size(layer.grid, photo), caption=caption.line(layer))
    text: str = figure.to_json()
    return text


def medians(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each, in turn, after one round to warm up."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            took[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in took.items()}


def imports() -> None:
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [tuple(map(float, subprocess.check_output([sys.executable, "-c", IMPORT], env=here, text=True).split()))
            for _ in range(5)]
    base, own = (statistics.median(times) for times in zip(*runs, strict=True))
    print(f"import torch {base * 1e3:.0f} ms, then import bra {own * 1e3:.0f} ms")


def forwards() -> None:
    photo = Photo.from_bytes((ROOT / "sample_images" / "animal.jpg").read_bytes())
    model = open_model(ModelSettings("yolo", variant="yolov8n-bra"))
    x = model.prepare(photo, SIDE).x
    look, kept = run_from(model, photo, SIDE)
    ways: dict[str, Callable[[], object]] = {"bare forward": lambda: model.module(x),
                                             "first look, kept": lambda: run_from(model, photo, SIDE)}
    for name in model.specs:
        change = Change(name, 7, 8)
        ways[f"topk 8 in {name}, whole"] = lambda change=change: model.look(photo, SIDE, change)
        ways[f"topk 8 in {name}, gone on"] = lambda change=change: run_from(model, photo, SIDE, change, kept)
    layer = next(iter(look.trace.layers.values()))
    caption = Caption(model.label, layer.name, model.provenance, "Cat")
    place = [("a", (2500, 2500), False)]
    ways["another query, one token"] = lambda: drawn(photo, layer, caption, place)
    with torch.inference_mode():
        took = medians(ways)
    print(f"\n{'yolov8n-bra, ' + 'x'.join(map(str, x.shape[-2:])):36} {'ms':>8}  of a bare forward")
    for name, seconds in took.items():
        print(f"{name:36} {seconds * 1e3:8.1f}  {seconds / took['bare forward']:.2f}")
        note(f"app, a bare forward against: {name}", took["bare forward"] / seconds)
    picture = photo.encoded(PICTURE_SIDE)
    stage = stage_message(photo, layer, caption, place[0][1], {}, (), b"", look.answer.detections)
    figure = drawn(photo, layer, caption, place)
    print(f"\nbytes to the browser: the picture once {len(picture_message(photo, picture)):,}, 1/"
          f"{photo.rgb.nbytes / len(picture):.0f} of its pixels; a changed topk {len(stage):,} for the stage and "
          f"{len(figure):,} for the attention; another query {len(figure):,}")


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, Python "
          f"{platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    imports()
    stay_offline()
    try:
        import ultralytics
    except ImportError:
        print("ultralytics is not installed: the model of this measurement cannot be opened")
        return
    print(f"ultralytics {ultralytics.__version__}")
    forwards()


if __name__ == "__main__":
    main()
