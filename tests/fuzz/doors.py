"""The doors that strangers knock at, and what is asked of each: an answer, or one sentence, and soon."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl

import links
import numpy as np
import seeds
from checkpointfiles import checkpoint_files
from hypothesis import strategies as st
from modelfiles import model_files
from mutations import mutants
from recordingfiles import recording_files
from tablefiles import table_files
from timelinefiles import timeline_files
from weightfiles import weight_files

from bra.errors import BRAError
from bra.experiments.sweep_table import read_table
from bra.models.base import FileOptions
from bra.opening import open_file
from bra.photo import Photo
from bra.profiling import model_cost, variants
from bra.readers import checkpoint, parquet, sandbox
from bra.readers.child import parquet as child_parquet
from bra.readers.child.checkpoint import unpack
from bra.readers.timeline import read_timeline
from bra.reports.tables import sweep_html
from bra.reports.timeline import animation_webp, timeline_html
from dashboard.state.compare_view import Comparison
from dashboard.state.cost_view import CostView
from dashboard.state.example_view import ExampleView
from dashboard.state.learn_view import Lesson
from dashboard.state.view import Selection


class Find(AssertionError):
    """What no stranger may bring about."""


@dataclass(frozen=True)
class Door:
    """A way in.

    Attributes:
        name: for people.
        cases: what is handed in.
        enter: takes a case; raises BRAError for what it refuses.
        seconds: a case that takes longer is a find; a sound one takes a hundredth of it.
        suite: cases tried in the test suite.
    """

    name: str
    cases: st.SearchStrategy[Any]
    enter: Callable[[Any], object]
    seconds: float
    suite: int


def knock(door: Door, case: Any) -> bool:
    """Whether the case was let in; Find when the door does anything but open or say why not."""
    started = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door.enter(case)
        entered = True
    except BRAError as error:
        check_sentence(str(error))
        entered = False
    except Exception as error:
        raise Find(f"{door.name}: {type(error).__name__}: {str(error)[:300]}") from error
    if (took := time.monotonic() - started) > door.seconds:
        raise Find(f"{door.name}: took {took:.1f} s")
    return entered


def check_sentence(text: str) -> None:
    """Find unless the text is a short line of cause and cure; the two lines that record a model may follow it."""
    sentence, *lines = text.split("\n")
    recorded = len(lines) == 2 and lines[0].startswith("from bra_record import record") and \
        lines[1].startswith("record(")
    if not (sentence.endswith(".") and ": " in sentence and (recorded or not lines) and len(sentence) < 700):
        raise Find(f"this is no sentence of cause and cure: {text[:300]!r}")


def _enter_checkpoint(data: bytes) -> None:
    """As everywhere, but what the reading process does is done in this one, so that many can be tried."""

    def here(data: bytes, *_: object) -> bytes:
        with tempfile.TemporaryFile() as source:
            source.write(data)
            source.seek(0)
            out = io.BytesIO()
            unpack(source, out)
            return out.getvalue()

    with mock.patch.object(checkpoint, "_unpacked", here):
        open_file(data, "x.pt")


def _enter_table(data: bytes) -> None:
    """As everywhere, but what the reading process does is done in this one."""

    def here(_reader: str, data: bytes, wanted: object, *_: object) -> sandbox.Ended:
        out, words = io.BytesIO(), io.BytesIO()
        status = child_parquet.main(wanted, io.BytesIO(data), out, words)
        return sandbox.Ended(status, out.getvalue(), words.getvalue())

    with mock.patch.object(parquet, "run_reader", here):
        sweep_html(read_table(data))


def _enter_recording(data: bytes) -> None:
    """Opened, looked into, and asked for other windows, as the pages do."""
    model = open_file(data, "x.bra")
    photo = model.photo or Photo.from_array(np.full((40, 90, 3), 99, np.uint8))
    layers = model.look(photo, 96).trace.layers
    for name, layer in layers.items():
        if layer.attention_known:
            layer.attention_map(0)
        for n_win, topk in ((4, 3), (16, 1)):
            with contextlib.suppress(BRAError):  # a layer may have no such windows
                model.trace_with(name, n_win, topk)


def _enter_timeline(data: bytes) -> None:
    """Opened at its first and its last epoch, drawn as curves, and written as files, as the page does."""
    timeline = read_timeline(data)
    photo = Photo.from_array(np.full((40, 90, 3), 99, np.uint8))
    for epoch in (timeline.epochs[0].epoch, None):
        open_file(data, "x.bra", options=FileOptions(epoch=epoch)).look(timeline.photo or photo, 96)
    for layer in timeline.layers[:2]:
        moving = b"" if timeline.photo is None else animation_webp(timeline, data, layer, {"a": (5000, 5000)})
        timeline_html(timeline, moving, layer, timeline.epochs[-1].epoch, "x.bra")


def _enter_link(query: str) -> None:
    given = dict(parse_qsl(query, keep_blank_values=True, errors="replace"))  # as Streamlit reads it
    for record in (Selection, Comparison, CostView, ExampleView, Lesson):
        made = record.from_query(given)
        if record.from_query(made.to_query()) != made:
            raise Find(f"{made} does not survive its own link")


def _enter_model(case: tuple[str, str]) -> None:
    """Opened, looked into, and counted, as the pages do."""
    model = open_file(case[0].encode("utf-8", "surrogatepass"), case[1])
    photo = Photo.from_array(np.full((40, 90, 3), 99, np.uint8))
    for use in (
        lambda: model.look(photo, 96),
        lambda: model_cost.cost(model.module, (64, 160)),
        lambda: model_cost.cost(variants.without_bra(model.module), (64, 160)),
    ):
        try:
            use()
        except BRAError as error:  # one page may have an answer where another has none
            check_sentence(str(error))


DOORS = (
    Door("pictures", mutants(seeds.pictures()), Photo.from_bytes, 10, 1500),
    Door("model files", model_files(), _enter_model, 60, 100),
    Door("checkpoints", checkpoint_files(), _enter_checkpoint, 30, 400),
    Door("safetensors", weight_files(), lambda data: open_file(data, "x.safetensors"), 10, 300),
    Door("recordings", recording_files(), _enter_recording, 10, 300),
    Door("watched trainings", timeline_files(), _enter_timeline, 10, 300),
    Door("tables", table_files(), _enter_table, 20, 300),
    Door("links", links.queries(), _enter_link, 2, 1500),
)
