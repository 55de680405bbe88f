"""A folder of pictures under many settings, into one table: by processes or a cluster, in one sitting or several.

Workers are given the bytes of pictures and give rows back; only this process reads the folder and writes. What is
finished lies in parts/ at once, each part whole or not there, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import joblib
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bra.errors import BRAError
from bra.experiments.compare import LayerInput, Setting, SettingRow, compare, layer_inputs
from bra.experiments.rules import RULE_SCHEMA, rules_of
from bra.experiments.sweep_table import SCHEMA, table_of, to_parquet
from bra.messages import to_plain
from bra.metrics.overlap import Boxes, LabelMap
from bra.metrics.rules import RuleRow
from bra.models.base import FileOptions, OpenModel
from bra.models.catalog import ModelSettings
from bra.opening import open_file, open_model
from bra.photo import Photo, PhotoLimits
from bra.training.labelled import labels_named, read_labels

ENDINGS: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
BATCH: Final = 4
"""Most pictures per task: a model is opened once for each, and so many are done again when a worker dies."""
TASKS: Final = 4
"""Tasks per worker, where there are pictures enough: with fewer, one works on while the others are done."""
Row = tuple[str, str, SettingRow | RuleRow]
Labels = Boxes | LabelMap | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with every picture.

    Attributes:
        settings: the model, and the longer side at which it reads pictures.
        windows: settings to compare; with rules none for each layer's own.
        layers: names of layers; none for all that are routed.
        file: bytes of a model of one's own, if it is one.
        name: that file's name.
        assumed: sentences about what was assumed of that file, for the report.
        rules: whether rules of routing are tried under each setting, in place of comparing settings.
        labels: name of the folder of labels that the rules are judged by; "" for none.
    """

    settings: ModelSettings
    windows: tuple[Setting, ...]
    layers: tuple[str, ...] = ()
    file: bytes = b""
    name: str = ""
    assumed: tuple[str, ...] = ()
    rules: bool = False
    labels: str = ""

    def open(self) -> OpenModel:
        """The model."""
        return open_file(self.file, self.name, options=self.settings.file) if self.file else \
            open_model(self.settings)

    def about(self) -> dict[str, Any]:
        """The plan as plain values, which decide whether a folder belongs to it."""
        settings = asdict(self.settings)
        if self.settings.file == FileOptions():     # as before there were any
            del settings["file"]
        return {"settings": settings, "windows": [[one.n_win, one.topk] for one in self.windows],
                "layers": list(self.layers), "file": sha256(self.file).hexdigest() if self.file else "",
                "name": self.name} | (
            {"assumed": [to_plain(sentence) for sentence in self.assumed]} if self.assumed else {}) | (
            {"rules": True, "labels": self.labels} if self.rules else {})

    @property
    def schema(self) -> pa.Schema:
        """Of its rows."""
        return RULE_SCHEMA if self.rules else SCHEMA


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is.

    Attributes:
        done: pictures finished, those of earlier sittings and the skipped ones too.
        of: pictures in all.
        per_second: pictures finished per second in this sitting.
        left: seconds until the end at this pace.
    """

    done: int
    of: int
    per_second: float
    left: float

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.left), 60)
        return f"{self.done} of {self.of} pictures, {self.per_second:.2f} a second, {minutes}:{seconds:02} left"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a batch.

    Attributes:
        pictures: names of all pictures in it.
        rows: found.
        skipped: (name, reason) of each picture that could not be used.
    """

    pictures: tuple[str, ...]
    rows: tuple[Row, ...]
    skipped: tuple[tuple[str, str], ...]


def run_batch(plan: Plan, batch: Sequence[tuple[str, bytes | str, Labels]]) -> Outcome:
    """What a worker does: every layer and setting on each (name, bytes, or why there are none, labels) of a batch."""
    torch.set_num_threads(1)        # processes share the machine, not threads
    model = plan.open()
    rows: list[Row] = []
    skipped = []
    for name, data, labels in batch:
        if isinstance(data, str):
            skipped.append((name, data))
            continue
        try:
            found = layer_inputs(model, Photo.from_bytes(data), plan.settings.side)
            for layer in plan.layers or tuple(found):
                if layer not in found:
                    raise BRAError(f"layer {layer!r} did not run: choose of {', '.join(found)}.")
            made: list[Row] = [(name, layer, row) for layer in plan.layers or found
                               for row in _rows(plan, found[layer], labels)]
        except BRAError as error:
            skipped.append((name, str(error)))
            continue
        rows += made
    return Outcome(tuple(name for name, _, _ in batch), tuple(rows), tuple(skipped))


def _rows(plan: Plan, given: LayerInput, labels: Labels) -> Sequence[SettingRow | RuleRow]:
    if not plan.rules:
        return compare(given, plan.windows).rows
    return [row for setting in plan.windows or (given.own,) for row in rules_of(given, setting, labels)]


def sweep(plan: Plan, folder: Path, out: Path, jobs: int = 1, backend: str = "loky", cluster: str = "",
          tell: Callable[[Progress], None] | None = None, labels: Path | None = None) -> pa.Table:
    """Run the plan on every picture under a folder, or go on with a run that was cut off.

    Args:
        plan: what to do.
        folder: of pictures; those in folders inside it too.
        out: gets parts/, plan.json and in the end rows.parquet and skipped.json.
        jobs: tasks at once; -1 for as many as there are processors, or the cluster has.
        backend: joblib's: "loky" for processes on this machine, "dask" for a cluster that runs already.
        cluster: address of Dask's scheduler, such as tcp://10.0.0.1:8786; "" for the client that is open.
        tell: told after every batch.
        labels: folder with a mask or boxes of the same stem for each picture, in the same folders inside it; pictures
            without are swept too.

    Returns:
        The whole table, sorted by picture.

    Raises:
        BRAError: no picture is there, the plan cannot be, or `out` holds another plan's run.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                   if path.suffix.lower() in ENDINGS and path.is_file())
    if not names:
        raise BRAError(f"no picture lies under {folder}: give a folder with {', '.join(ENDINGS)} files.")
    if not plan.windows and not plan.rules:
        raise BRAError("the plan holds no settings to compare: give some n_win and a topk of at most n_win².")
    model = plan.open()
    if unknown := [layer for layer in plan.layers if layer not in model.specs]:
        raise BRAError(f"layer {unknown[0]!r} is not routed: choose of {', '.join(model.specs)}.")
    for spec in [spec for name, spec in model.specs.items() if not plan.layers or name in plan.layers]:
        for one in plan.windows:
            replace(spec, n_win=one.n_win, topk=one.topk)       # refuses here what every worker would refuse
    parts = _claim(out, plan)
    finished, skipped = _finished(parts)
    todo = [name for name in names if name not in finished]
    began, done, of = time.monotonic(), 0, len(names)
    with _on(backend, cluster):
        workers = joblib.effective_n_jobs(jobs)
        size = BATCH if workers == 1 else max(1, min(BATCH, len(todo) // (TASKS * workers)))
        run = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
        try:
            for outcome in run(joblib.delayed(run_batch)(plan, batch)
                               for batch in _batches(folder, todo, labels, size)):
                _write(parts, outcome, plan)
                skipped |= dict(outcome.skipped)
                done += len(outcome.pictures)
                if tell is not None:
                    pace = done / max(1e-9, time.monotonic() - began)
                    tell(Progress(of - len(todo) + done, of, pace, (len(todo) - done) / pace))
        except BrokenProcessPool as error:
            raise BRAError(f"a worker process died after {of - len(todo) + done} of {of} pictures, which are kept: run "
                           "the same command again, with fewer --jobs if memory was short.") from error
    tables = [pq.read_table(path) for path in sorted(parts.glob("*.parquet"))]
    table = pa.concat_tables(tables, promote_options="default")      # parts of an earlier version lack columns
    wanted = pa.array(names)
    table = table.filter(pa.compute.is_in(table["picture"], wanted)).sort_by([("picture", "ascending")])
    _put(out / "rows.parquet", to_parquet(table))
    _put(out / "skipped.json", json.dumps(skipped, indent=1, ensure_ascii=False).encode())
    return table


def _on(backend: str, cluster: str) -> AbstractContextManager[Any]:
    options = {"scheduler_host": cluster} if cluster else {}
    try:
        made: AbstractContextManager[Any] = joblib.parallel_config(backend=backend, **options)
    except (ValueError, ImportError, OSError) as error:
        raise BRAError(f"backend {backend!r} cannot be used ({error}): use loky, or start its cluster.") from error
    return made


def _batches(folder: Path, names: Sequence[str], labels: Path | None,
             size: int) -> Iterator[list[tuple[str, bytes | str, Labels]]]:
    """Pictures with their bytes and labels, read when a worker is about to want them."""
    for start in range(0, len(names), size):
        yield [_item(folder, name, labels) for name in names[start : start + size]]


def _item(folder: Path, name: str, labels: Path | None) -> tuple[str, bytes | str, Labels]:
    file = None if labels is None else labels_named((labels / name).parent, Path(name).stem)
    try:
        return name, _read(folder / name), None if file is None else read_labels(file)
    except BRAError as error:
        return name, str(error), None


def _read(path: Path) -> bytes | str:
    """A file's bytes, or why it cannot be read. Of one that is too large, as many as show that it is."""
    try:
        with path.open("rb") as file:
            return file.read(PhotoLimits().max_bytes + 1)
    except OSError as error:
        return f"{error.strerror}: check the file."


def _claim(out: Path, plan: Plan) -> Path:
    """The folder of parts, which belongs to one plan."""
    about, parts = plan.about(), out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    path = out / "plan.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(about)):
        raise BRAError(f"{out} holds a sweep with other settings: give another -o, or the settings in {path}.")
    _put(path, json.dumps(about, indent=1).encode())
    return parts


def _finished(parts: Path) -> tuple[set[str], dict[str, str]]:
    """Names of the pictures in parts that are there, and why some of them were skipped."""
    names: set[str] = set()
    skipped: dict[str, str] = {}
    for path in parts.glob("*.json"):
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names |= set(found["pictures"])
        skipped |= found["skipped"]
    return names, skipped


def _write(parts: Path, outcome: Outcome, plan: Plan) -> None:
    """The rows first: a part counts as finished once its list of pictures is there."""
    stem = sha256("\n".join(outcome.pictures).encode()).hexdigest()[:20]
    _put(parts / f"{stem}.parquet", to_parquet(table_of(outcome.rows, plan.about(), plan.schema)))
    _put(parts / f"{stem}.json", json.dumps({"pictures": outcome.pictures, "skipped": dict(outcome.skipped)},
                                            ensure_ascii=False).encode())


def _put(path: Path, data: bytes) -> None:
    """Write a file such that it is whole or not there."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
