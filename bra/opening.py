"""Settings, or a stranger's file, -> a model that can be looked into. Ultralytics is imported only for YOLO models."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from torch import nn

from bra.errors import BRAError, CheckpointError, ForeignModelError, YoloError
from bra.messages import message, message_of
from bra.models import biformer
from bra.models.adapters import OpenClassifier, OpenPatches
from bra.models.base import UNTRAINED, FileOptions, ModelRun, OpenModel
from bra.models.biformer import FoundBiFormer, biformer_nano, biformer_photos, from_checkpoint, from_tensors
from bra.models.card import shipped
from bra.models.catalog import CATALOG, ModelSettings, build
from bra.models.init import redraw
from bra.models.recorded import open_recording
from bra.models.recording_hint import code_base, record_lines
from bra.models.watched import open_timeline
from bra.photo import Photo
from bra.profiling import model_cost
from bra.profiling.model_cost import Cost
from bra.profiling.timing import Progress
from bra.readers.checkpoint import read_checkpoint
from bra.readers.recording import is_recording
from bra.readers.safetensors import read_safetensors
from bra.readers.timeline import is_timeline

MODEL_TEXT: Final = 64 * 2**10
"""Bytes of a model file in which names of rows are looked for once it was refused."""
ROW_NAME: Final = re.compile(r"^[ \t]*(?:-[ \t]*)?\[[^\n]*?,[ \t]*\d{1,4}[ \t]*,[ \t]*([A-Za-z_]\w{0,80})",
                             re.MULTILINE)
ANCHORS: Final = re.compile(r"^anchors[ \t]*:", re.MULTILINE)


def open_model(settings: ModelSettings) -> OpenModel:
    """The model that settings name.

    Raises:
        BRAError: there is no such model, or its settings cannot be.
    """
    entry = settings.entry
    if entry.is_built_from_settings:
        return OpenPatches(build(settings), entry.label, entry.provenance)
    if entry.card:
        return _shipped(settings)
    if entry.is_biformer:
        made = getattr(biformer, settings.chosen_variant)()
        redraw(made)
        return OpenClassifier(made.eval().requires_grad_(False), settings.chosen_variant, UNTRAINED)
    if entry.needs_ultralytics:
        named: OpenModel = yolo().open_named(settings.chosen_variant, settings.chosen_variant, UNTRAINED)
        return named
    raise BRAError(message("a model of your own needs its file: choose one."))


def _shipped(settings: ModelSettings) -> OpenModel:
    """A model that was trained here, or the same layers with random weights."""
    entry = settings.entry
    card, tensors = shipped(entry.card)
    label = entry.untrained if settings.untrained else entry.label
    provenance = UNTRAINED if settings.untrained else entry.provenance
    if card.task == "detect":
        made: OpenModel = yolo().open_rows(card.rows, None if settings.untrained else tensors, label, provenance,
                                           card.classes)
        return made
    model = (biformer_photos if card.recipe["model"] == "biformer_photos" else biformer_nano)(len(card.classes))
    if settings.untrained:
        redraw(model)
    else:
        model.load_state_dict(tensors)
    return OpenClassifier(model.eval().requires_grad_(False), label, provenance,
                          () if settings.untrained else card.classes)


def open_file(data: bytes, name: str, progress: Callable[[int, int], None] = lambda done, todo: None,
              options: FileOptions | None = None) -> OpenModel:
    """A stranger's file: a YOLO model file, a checkpoint of Ultralytics, BiFormer weights, or a recording of one
    forward of any model. None of its code runs.

    Args:
        data: its bytes.
        name: its name, whose ending says what it is, and whose scale letter counts for a YOLO model file.
        progress: told (0, 0) again and again while a checkpoint is read and during the dry run of a YOLO model; what it
            raises ends the work.
        options: what the file cannot tell.

    Raises:
        BRAError: it is none of these, is damaged, or asks for too much.
    """
    options = options or FileOptions()
    ending, still = name.rpartition(".")[2].lower(), partial(progress, 0, 0)
    if ending in ("yaml", "yml"):
        try:
            made: OpenModel = yolo().open_text(data, name, still, options.heads_first)
        except YoloError as error:
            text = data[:MODEL_TEXT].decode("utf-8", "replace")
            raise _where_it_runs(error, name, "", ROW_NAME.findall(text), ANCHORS.search(text) is not None) from None
        return made
    if is_timeline(data):
        return open_timeline(data, name, options.epoch)
    if ending == "bra" or is_recording(data):
        return open_recording(data, name)
    if ending == "safetensors":
        return _biformer(from_tensors(read_safetensors(data), options.n_win, options.topks or None), name)
    checkpoint = read_checkpoint(data, still=still)
    still()
    facts = checkpoint.facts
    try:
        if facts.yaml is None:
            return _biformer(from_checkpoint(checkpoint, options.n_win, options.topks or None), name)
        saved: OpenModel = yolo().open_saved(checkpoint, name, still)
    except (YoloError, CheckpointError) as error:
        raise _where_it_runs(error, name, facts.root, [path.rpartition(".")[2] for path in facts.layers],
                             facts.yaml is not None and "anchors" in facts.yaml) from None
    return saved


def _where_it_runs(error: BRAError, name: str, root: str, rows: Sequence[str], anchors: bool) -> BRAError:
    """The error, with the lines that record the model where it runs if the code that is missing here is there.

    Args:
        error: why a file was refused.
        name: the file's.
        root: class of its model, for a checkpoint of a whole one.
        rows: names of its rows' layers.
        anchors: whether it has a key `anchors`, as YOLOv5's and YOLOv7's model files do.
    """
    base = code_base(root, rows, anchors)
    theirs = isinstance(error, YoloError) and base not in ("ultralytics", "rtdetr", "")
    if not (isinstance(error, ForeignModelError) or theirs):
        return error
    return ForeignModelError(message_of(error), record_lines(name, base))


def _biformer(found: FoundBiFormer, name: str) -> OpenModel:
    model = found.model.requires_grad_(False)
    count = model.head.out_features if isinstance(model.head, nn.Linear) else 0
    # The file tells how many classes there are, not what they are called.
    return OpenClassifier(model, name, message("weights from {name}", name=name),
                          tuple(message("class {n}", n=n) for n in range(count)), found.assumptions, found.notes,
                          ("n_win", "topks") if found.asks else ())


def model_and_variant(name: str) -> tuple[str, str]:
    """Key and variant of the model that a word on the command line names; "own" for a file.

    Raises:
        BRAError: it is neither.
    """
    if name in CATALOG and name != "own":
        return name, ""
    variant = name.removesuffix(".yaml")
    for entry in CATALOG.values():
        if variant and variant in entry.variants and not Path(name).is_file():
            return entry.key, variant
    if not Path(name).is_file():
        raise BRAError(message("{name} is neither a file nor a model: choose one of {names}, or give a "
                               "file.", name=name,
                               names=", ".join(key for key in CATALOG if key != "own")))
    return "own", ""


def opened(model: Any) -> Any:
    """The model that a name of the catalogue, a variant such as "yolov8n-bra", or a file's path stands for.

    Anything else is returned as it is: a module, a model that is open already.

    Raises:
        BRAError: the name is neither a model nor a file, or the file cannot be opened.
    """
    if not isinstance(model, (str, Path)):
        return model
    key, variant = model_and_variant(str(model))
    if key == "own":
        return open_file(Path(model).read_bytes(), Path(model).name)
    return open_model(ModelSettings(key, side=CATALOG[key].side, variant=variant))


def cost(model: Any, imgsz: int | tuple[int, int] = 640, channels: int | None = None, rounds: int = 0,
         progress: Progress | None = None, most_bytes: int | None = None) -> Cost:
    """`bra.profiling.model_cost.cost` of a model, or of what `opened` knows by name."""
    return model_cost.cost(opened(model), imgsz, channels, rounds, progress, most_bytes)


def look(settings: ModelSettings, photo: Photo, layer: str = "") -> ModelRun:
    """Open the model and run it on a photo; `layer` is the one whose windows the settings change, "" for the first."""
    model = open_model(settings)
    return model.look(photo, settings.side, settings.change_of(layer or next(iter(model.specs), "")))


def stay_offline() -> None:
    """Keep Ultralytics from looking for updates, fonts and packages, where nothing else was asked for.

    It reads these when it is imported: call this before.
    """
    os.environ.setdefault("YOLO_OFFLINE", "1")
    os.environ.setdefault("YOLO_AUTOINSTALL", "0")


def yolo() -> ModuleType:
    """What opens YOLO models; imported when asked for, since Ultralytics is optional and takes seconds.

    Raises:
        BRAError: Ultralytics is not installed.
    """
    try:
        from bra.yolo import adapter
    except ImportError as error:
        if "libGL" in str(error):
            raise BRAError(message("OpenCV, which Ultralytics needs, does not find libGL here: install it, on Debian "
                                   "with apt-get install libgl1 libglib2.0-0.")) from error
        if not isinstance(error, ModuleNotFoundError) or error.name != "ultralytics":
            raise
        raise BRAError(message("ultralytics is not installed, which this needs: run pip install 'bra[yolo]' or pip "
                               "install ultralytics.")) from error
    return adapter
