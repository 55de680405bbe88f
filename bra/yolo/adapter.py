"""A YOLO model as one that can be looked into: Ultralytics' letterbox before it, its non-maximum suppression after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import ultralytics
from torch import Tensor
from ultralytics.data.augment import LetterBox
from ultralytics.nn import tasks
from ultralytics.nn.modules.block import DFL
from ultralytics.utils import ops

from bra.attention import BiLevelRoutingAttention
from bra.errors import YoloError
from bra.messages import message
from bra.models.base import KEPT_CLASSES, UNTRAINED, Answer, Detection, OpenModel, Prepared
from bra.models.init import redraw
from bra.models.steps import Step
from bra.photo import Photo, to_tensor
from bra.readers.checkpoint import Checkpoint
from bra.yolo.build import assumed, build_checked, open_checkpoint
from bra.yolo.rows import OURS, notes_on_rows, other_reading, rows_of, with_rows
from bra.yolo.rows import heads_first as heads_first_in
from bra.yolo.validate import check_model, left_out, read_model

CONFIDENCE: Final = 0.25
OVERLAP: Final = 0.7
MOST: Final = 300
"""Ultralytics' own settings of predict."""
FORWARD: Final = ("forward", "predict", "_predict_once")
"""Methods that run a model; where one is not the usual, its rows may not be all that it does."""
BOXES: Final = ("Detect", "Segment", "Pose", "v10Detect")
"""Heads whose boxes are shown."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OpenYolo(OpenModel):
    """A model of Ultralytics' rows."""

    def prepare(self, photo: Photo, side: int) -> Prepared:
        """RGB in 0 to 1, fitted into side·side pixels and filled up with grey to whole strides, as predict does."""
        strides: Any = self.module.stride
        stride = max(32, int(max(strides)))
        side = -(-side // stride) * stride
        boxed = LetterBox((side, side), auto=True, stride=stride)(image=photo.rgb)
        scale = min(side / photo.height, side / photo.width)
        height, width = max(1, round(photo.height * scale)), max(1, round(photo.width * scale))
        # The odd row or column goes below or to the right.
        top, left = (boxed.shape[0] - height) // 2, (boxed.shape[1] - width) // 2
        return Prepared(to_tensor(boxed), top, left, height, width)

    def steps(self) -> tuple[Step, ...]:
        """Its rows, where its forward is the usual one over rows."""
        if any(getattr(type(self.module), name, None) is not getattr(tasks.BaseModel, name) for name in FORWARD):
            return ()
        rows: Any = self.module.model
        return tuple(Step(f"model.{at}", row, tuple(_source(f, at) for f in (
            row.f if isinstance(row.f, (list, tuple)) else [row.f])), isinstance(row.f, (list, tuple)))
            for at, row in enumerate(rows))

    def answer(self, out: Any, prepared: Prepared) -> Answer:
        """Boxes above Ultralytics' usual confidence, or of a classifier its first classes."""
        head = type(self._head).__name__
        predicted = out[0] if isinstance(out, (tuple, list)) else out
        if head == "Classify":
            best = predicted[0].float().topk(min(KEPT_CLASSES, predicted.shape[-1]))
            return Answer(classes=tuple((self._name(at), value) for value, at in
                                        zip(best.values.tolist(), best.indices.tolist(), strict=True)))
        if head not in BOXES:
            return Answer()
        return Answer(tuple(self._detection(row, prepared) for row in self._boxes(predicted).tolist()))

    @property
    def _head(self) -> Any:
        rows: Any = self.module.model
        return rows[-1]

    def _boxes(self, predicted: Tensor) -> Tensor:
        """(n, 6 or more): left, top, right, bottom in input pixels, score, class."""
        if getattr(self._head, "end2end", False):
            rows = predicted[0]             # such a head has suppressed already
            return rows[rows[:, 4] > CONFIDENCE]
        # The trace hands out inference tensors, and suppression writes in place.
        found: Tensor = _suppress(predicted.clone(), CONFIDENCE, OVERLAP, max_det=MOST, nc=len(self.classes))[0]
        return found

    def _detection(self, row: list[float], at: Prepared) -> Detection:
        x0, y0, x1, y1 = ((value - offset) / size for value, offset, size in
                          zip(row[:4], (at.left, at.top) * 2, (at.width, at.height) * 2, strict=True))
        box = tuple(min(max(share, 0.0), 1.0) for share in (x0, y0, x1, y1))
        return Detection(self._name(int(row[5])), row[4], (box[0], box[1], box[2], box[3]))

    def _name(self, at: int) -> str:
        return self.classes[at] if at < len(self.classes) else message("class {n}", n=at)


def _source(row: int, at: int) -> int:
    """Number of the row that row `at` names: -1 is the last before it, the image for the first."""
    return at + row if row < 0 else row


def open_named(name: str, label: str, provenance: str) -> OpenYolo:
    """A model file of this package or of Ultralytics, by name with its scale, with random weights.

    Raises:
        YoloError: there is no such file.
    """
    try:
        model = tasks.yaml_model_load(f"{name}.yaml")
    except FileNotFoundError as error:
        raise YoloError(message("{name} is no model file: give a name such as yolov8n-bra.", name=name)) from error
    return opened(built(model), label, provenance)


def open_rows(rows: Mapping[str, Any], state: Mapping[str, Tensor] | None, label: str, provenance: str,
              classes: tuple[str, ...]) -> OpenYolo:
    """A detection model of our own rows, with these weights, or with random ones."""
    return opened(built(rows, state), label, provenance, classes)


def open_text(text: bytes, name: str, still: Callable[[], object] = lambda: None,
              heads_first: bool = False) -> OpenYolo:
    """A stranger's model file with random weights, at the scale that its name says, as Ultralytics reads it.

    Args:
        text: the file.
        name: its name.
        still: called now and then during the dry run of the model; what it raises ends the work.
        heads_first: whether rows of BiLevelRoutingAttention begin with their heads, and not with their windows.

    Raises:
        YoloError: it may not be built.
    """
    given = read_model(text)
    content = check_model(with_rows(given, [heads_first_in(row) for row in rows_of(given)]) if heads_first else given)
    scale = tasks.guess_model_scale(name)
    module = build_checked(content, scale if scale in (content.get("scales") or {}) else None, still=still)
    _forget(module)
    assumptions, asks = _assumed(content, module, heads_first)
    return replace(opened(module, name, UNTRAINED), assumptions=assumptions, asks=asks, notes=left_out(given))


def _assumed(content: Mapping[str, Any], module: Any, swapped: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a model file leaves open about its attention layers: sentences, and the options that answer them."""
    rows = [row for row in rows_of(content) if row.name in OURS]
    open_rows = [row for row in rows if other_reading(row, [_width(module.model[row.index])])]
    said = notes_on_rows(rows)
    if open_rows or swapped:
        numbers = ", ".join(str(row.index) for row in (open_rows or rows))
        said = (*said, message("rows {rows} read with the heads first, as the authors' class", rows=numbers) if swapped
                else message("rows {rows} read with n_win first, as the tutorial's class; with the heads first they "
                             "would be other layers", rows=numbers))
    return said, ("heads_first",) if open_rows or swapped else ()


def _width(layer: Any) -> int:
    """Channels of an attention row, or of the first that it repeats."""
    return next((part.spec.dim for part in layer.modules() if isinstance(part, BiLevelRoutingAttention)), 1)


def open_saved(checkpoint: Checkpoint, name: str, still: Callable[[], object] = lambda: None) -> OpenYolo:
    """A stranger's checkpoint; `still` as for `open_text`.

    Raises:
        YoloError: it has no rows, they may not be built, or its tensors are not those of its rows.
    """
    module, facts = open_checkpoint(checkpoint, still=still)
    return replace(opened(module, name, message("weights from {name}", name=name)), assumptions=assumed(checkpoint),
                   notes=left_out(facts.yaml or {}))


def built(model: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> Any:
    """A detection model of these rows, in eval mode, with these weights, or the same random ones each time."""
    made = tasks.DetectionModel(dict(model), ch=3, verbose=False)
    if state is None:
        _forget(made)
    else:
        try:
            made.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        except RuntimeError as error:
            raise YoloError(message("ultralytics {version} builds these layers otherwise than the version that trained "
                                    "the weights: run pip install -U ultralytics.",
                                    version=ultralytics.__version__)) from error
    return made.eval().requires_grad_(False)


def _forget(module: Any) -> None:
    redraw(module, keep=(DFL,))
    head = module.model[-1]
    if hasattr(head, "bias_init"):
        head.bias_init()        # a detector that has learned nothing finds nothing


def opened(module: Any, label: str, provenance: str, classes: tuple[str, ...] = ()) -> OpenYolo:
    """A built model as one that can be looked into."""
    count = int(getattr(module.model[-1], "nc", 0))
    names = classes or tuple(str(module.names[at]) if at in module.names else message("class {n}", n=at)
                             for at in range(count))
    return OpenYolo(module, label, provenance, names)


def _suppression() -> Any:
    """Ultralytics' non-maximum suppression, which moved in 8.3.200 or so."""
    try:
        from ultralytics.utils.nms import non_max_suppression
    except ModuleNotFoundError:
        return ops.non_max_suppression
    return non_max_suppression


_suppress: Final = _suppression()
