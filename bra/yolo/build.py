"""Builds strangers' models, after a dry run without memory, and fills them from strangers' checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from ultralytics.nn import tasks

from bra import attention
from bra.errors import BRAError, ForeignModelError, YoloError
from bra.messages import message
from bra.models.saved import KEPT, attention_options, named_together, take_settings
from bra.readers.checkpoint import Checkpoint, Facts
from bra.yolo.budget import dry_run
from bra.yolo.rows import DIM_FIRST, OURS, Row, rows_of, with_rows
from bra.yolo.validate import HEADS, ModelLimits, check_model, quoted

__all__ = ["ModelLimits", "build_checked", "check_model", "open_checkpoint"]

CLASSES: Final[Mapping[str, str]] = {
    "detect": "DetectionModel", "segment": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel",
    "classify": "ClassificationModel"}
THEIR_FILE: Final = message("give the model file and scale that it was trained with")
THEIR_CODE: Final = message("the rows are its own, so the code that makes its layers is not the one installed here; "
                            "look into it where it was trained, with bra.trace")


def build_checked(model: Mapping[str, Any], scale: str | None = None, limits: ModelLimits | None = None,
                  still: Callable[[], object] = lambda: None) -> nn.Module:
    """A stranger's model with random weights, float32, in eval mode, without gradients.

    Args:
        model: content of its file; checked here too, so that nothing gets past.
        scale: one of its `scales`; None takes the one it names, then its first.
        limits: what it may ask for.
        still: called now and then during the dry run; what it raises ends the work.

    Returns:
        Ultralytics' model of the head's task, for pictures (b, 3, h, w) in 0 to 1, h and w multiples of 32.

    Raises:
        YoloError: it cannot be built, or would take more than it may.
    """
    limits = limits or ModelLimits()
    checked = check_model({**model, "scale": scale or model.get("scale")}, limits)
    if "scales" in checked:
        checked.setdefault("scale", next(iter(checked["scales"])))
    head = checked["head"][-1][2]
    wanted = _Wanted(still)
    try:
        dry_run(checked, limits, wanted)
        kind = "RTDETRDetectionModel" if head == "RTDETRDecoder" else CLASSES[HEADS[head]]
        built: Any = getattr(tasks, kind)(copy.deepcopy(checked), ch=3, verbose=False)
    except BRAError:
        raise
    except Exception as error:  # the parser's and torch's own, of any kind
        if error is wanted.ended:
            raise
        raise YoloError(message("Ultralytics cannot build or run this model ({kind}: {error}): bra lint says which row "
                                "is wrong.", kind=type(error).__name__, error=quoted(error))) from error
    built.task = HEADS[head]
    module: nn.Module = built.float().eval().requires_grad_(False)
    return module


class _Wanted:
    """A caller's question whether the work is still wanted, and what it raised: no fault of the model."""

    def __init__(self, still: Callable[[], object]) -> None:
        self.still = still
        self.ended: Exception | None = None

    def __call__(self) -> None:
        """Ask."""
        try:
            self.still()
        except Exception as error:
            self.ended = error
            raise


def open_checkpoint(checkpoint: Checkpoint, limits: ModelLimits | None = None,
                    model: str | bytes | Mapping[str, Any] | None = None,
                    still: Callable[[], object] = lambda: None) -> tuple[nn.Module, Facts]:
    """The model of a checkpoint, built from its own rows and filled with its tensors as float32.

    Args:
        checkpoint: as read by `read_checkpoint`.
        limits: what its model may ask for.
        model: the model file's text or content, for a plain state_dict, which has no rows of its own.
        still: as for `build_checked`.

    Returns:
        The model as from `build_checked`, its `names` those of the checkpoint, and the checkpoint's facts.

    Raises:
        YoloError: it has no rows, they may not be built, or its layers or tensors are not those of its rows.
    """
    limits, facts = limits or ModelLimits(), checkpoint.facts
    given = facts.yaml if model is None else model
    if given is None:
        raise YoloError(message("this checkpoint holds tensors without the rows of their model: give its model file "
                                "too."))
    if isinstance(given, Mapping):
        given = _by_class(given, facts)
    module: Any = build_checked(_as_saved(check_model(given, limits), checkpoint), None, limits, still)
    cure = THEIR_CODE if model is None else THEIR_FILE
    _same_layers(module, facts, cure)
    if facts.fused:
        try:
            module.fuse(verbose=False)
        except Exception as error:  # Ultralytics' and torch's own, of any kind
            raise YoloError(message("this checkpoint was saved fused, and Ultralytics cannot fuse the layers that its "
                                    "rows make ({kind}: {error}): save it before it is fused, or exported.",
                                    kind=type(error).__name__, error=quoted(error))) from error
    _fill(module, checkpoint.tensors, cure)
    take_settings(module, facts.parts)
    names = facts.names if len(facts.names) == module.yaml["nc"] else tuple(map(str, range(module.yaml["nc"])))
    module.names = dict(enumerate(names))
    return module.eval().requires_grad_(False), facts


def assumed(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Sentences about settings of its attention layers that a checkpoint does not hold, or holds in another class."""
    return named_together(tuple(said for name in checkpoint.facts.attention
                                for said in attention_options(name, checkpoint)[1]))


def _by_class(model: Mapping[str, Any], facts: Facts) -> Mapping[str, Any]:
    """The rows with the class that the checkpoint holds for each: names are what some import called them.

    Raises:
        ForeignModelError: a row has one of our names, and its layer in the checkpoint is another's class.
    """
    try:
        rows = rows_of(model)
    except YoloError:
        return model        # `check_model` says what is wrong with it
    named = []
    for row in rows:
        path = facts.layers[row.index] if row.index < len(facts.layers) else ""
        if row.name in OURS[1:] and path.rpartition(".")[2] == row.name and not path.startswith("bra."):
            raise ForeignModelError(message("{row} is their class {path} in this checkpoint, and not the {name} of "
                                            "this package: a model with it cannot be opened here.", row=row.words,
                                            path=quoted(path), name=row.name))
        if row.name != DIM_FIRST[0] and _attention_of(replace(row, name=DIM_FIRST[0]), facts.attention):
            row = Row(row.index, row.source, row.repeats, DIM_FIRST[0], [])
        named.append(row)
    return with_rows(model, named)


def _as_saved(model: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """The model with the options that its attention layers were trained with.

    A row's numbers mean what the class meant that read them, and an edited installation may have had another order of
    them; the layer in the checkpoint says what it became.
    """
    held = checkpoint.facts.attention
    return with_rows(model, [Row(row.index, row.source, row.repeats, row.name, [attention_options(name, checkpoint)[0]])
                             if row.name in DIM_FIRST and (name := _attention_of(row, held)) else row
                             for row in rows_of(model)])


def _attention_of(row: Row, held: Mapping[str, Any]) -> str:
    """Name of a row's attention layer, the first of those that it repeats; "" where it has none."""
    inside = ".attn" if row.name in OURS[1:] else ""
    return next((name for repeat in ("", ".0") if (name := f"model.{row.index}{repeat}{inside}") in held), "")


def _same_layers(module: Any, facts: Facts, cure: str) -> None:
    """Refuse when the checkpoint's layers are not what its rows made here, in kind or in options."""
    made = [type(layer).__name__ for layer in module.model]
    saved = [path.rpartition(".")[2] for path in facts.layers]
    for n, (ours, theirs) in enumerate(zip(made, saved, strict=False)):
        if ours != theirs and f"model.{n}" not in facts.attention:
            raise _refusal(cure)(message("layer {n} of this checkpoint is {theirs}, and its row makes {ours}: {cure}.",
                                         n=n, theirs=quoted(theirs), ours=ours, cure=cure))
    for name, part in module.named_modules():
        if not isinstance(part, attention.BiLevelRoutingAttention):
            continue
        if facts.parts and name not in facts.attention:
            theirs = facts.parts[name].path if name in facts.parts else "nothing"
            raise _refusal(cure)(message("layer {n} of this checkpoint is {theirs}, and its row makes {ours}: {cure}.",
                                         n=name, theirs=quoted(theirs), ours=type(part).__name__, cure=cure))
        spec = part.spec.to_dict()
        for option, value in facts.attention.get(name, {}).items():
            if option in KEPT and value is not None and spec[option] != value:
                raise YoloError(message("{name} of this checkpoint has {option}={value}, and its row makes "
                                        "{wanted!r}: write what it was trained with into the row.", name=name,
                                        option=option, value=quoted(value), wanted=spec[option]))


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], cure: str) -> None:
    """Copy every tensor into the one of its name, as float32; strictly all, and none of another shape."""
    state = module.state_dict()
    missing, foreign = [n for n in state if n not in tensors], [n for n in tensors if n not in state]
    if missing or foreign:
        faults = []
        if missing:
            faults.append(message("lacks {count} tensors ({names})", count=len(missing), names=_few(missing)))
        if foreign:
            faults.append(message("has besides {count} tensors ({names})", count=len(foreign), names=_few(foreign)))
        both = message("{one} and {other}", one=faults[0], other=faults[1]) if len(faults) > 1 else faults[0]
        raise _refusal(cure)(message("this checkpoint {faults}, so it is not of these rows: {cure}.", faults=both,
                                     cure=cure))
    for name, tensor in tensors.items():
        if tensor.shape != state[name].shape or tensor.is_floating_point() != state[name].is_floating_point():
            raise _refusal(cure)(message("{name} is {shape} {kind} in this checkpoint and {wanted} {wanted_kind} by "
                                         "its rows: {cure}.", name=name, cure=cure, shape=tuple(tensor.shape),
                                         kind=tensor.dtype, wanted=tuple(state[name].shape),
                                         wanted_kind=state[name].dtype))
        if not bool(torch.isfinite(tensor).all()):
            raise YoloError(message("{name} of this checkpoint holds numbers that are not finite: its training "
                                    "diverged; choose an earlier checkpoint.", name=name))
    module.load_state_dict(dict(tensors))


def _refusal(cure: str) -> type[YoloError]:
    """The error for layers that are not those of the rows: those of a checkpoint's own rows are made by other code."""
    return ForeignModelError if cure is THEIR_CODE else YoloError


def _few(names: list[str]) -> str:
    return ", ".join(name[:60] for name in names[:3])
