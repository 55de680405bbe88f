"""Builds strangers' models: once without memory against a budget, then for real; and fills them from checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from ultralytics.nn import tasks
from ultralytics.nn.modules.head import Detect

from bra import attention
from bra.checkpoint import Checkpoint, Facts
from bra.errors import BRAError, YoloError
from bra.yolo.gate import HEADS, ModelLimits, check_model, quoted
from bra.yolo.handmade import KEPT
from bra.yolo.rows import DIM_FIRST, OPTIONS, Row, rows_of, with_rows

__all__ = ["ModelLimits", "build_untrusted", "check_model", "open_checkpoint"]

CLASSES: Final[Mapping[str, str]] = {
    "detect": "DetectionModel", "segment": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel",
    "classify": "ClassificationModel"}
STRIDE: Final = 32
SMALLEST_PICTURE: Final = 256       # px; what Ultralytics runs through every model that it builds
SHARE: Final = 16


class Budget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what torch is asked for on the meta device, and refuses before anything real is made.

    Attributes:
        calls: operators called.
        live: bytes of tensors alive, a sixteenth of the limit too high at most.
        macs: multiply-adds of convolutions, products and attention, and comparisons of max pooling.
    """

    def __init__(self, calls: int, live_bytes: int, macs: int, what: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limits = (calls, live_bytes, macs)
        self.what = what
        self.calls = self.live = self.macs = 0
        self.sweep_at = live_bytes // SHARE
        self.alive: dict[Any, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operator's result; YoloError when it is one too many."""
        out = func(*args, **(kwargs or {}))
        calls, live_bytes, macs = self.limits
        self.calls += 1
        packet = func._overloadpacket
        if packet in flop_registry:
            self.macs += flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
        elif packet is torch.ops.aten.max_pool2d_with_indices:
            self.macs += out[0].numel() * int(torch.Size([*args[1]] * (2 // len(args[1]))).numel())
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                ref = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._add(ref, storage.nbytes(), live_bytes)
        if self.calls > calls or self.macs > macs:
            raise YoloError(f"{self.what} takes more than {calls:,} steps of torch or {macs / 1e9:,.0f} GMACs: choose "
                            "a smaller scale, or fewer repeats.")
        return out

    def _add(self, storage: Any, size: int, limit: int) -> None:
        if storage in self.alive:
            return
        self.alive[storage] = size
        self.live += size
        if self.live > self.sweep_at:
            self.alive = {ref: size for ref, size in self.alive.items() if not ref.expired()}
            self.live = sum(self.alive.values())
            self.sweep_at = min(limit, self.live + limit // SHARE)
        if self.live > limit:
            raise YoloError(f"{self.what} takes more than {limit / 2**20:,.0f} MB at one time: choose a smaller scale, "
                            "or fewer channels.")


def build_untrusted(model: Mapping[str, Any], scale: str | None = None, limits: ModelLimits | None = None) -> nn.Module:
    """A stranger's model with random weights, float32, in eval mode, without gradients.

    Args:
        model: content of its file; checked here too, so that nothing gets past.
        scale: one of its `scales`; None takes the one it names, then its first.
        limits: what it may ask for.

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
    try:
        _rehearse(checked, limits)
        kind = "RTDETRDetectionModel" if head == "RTDETRDecoder" else CLASSES[HEADS[head]]
        built: Any = getattr(tasks, kind)(copy.deepcopy(checked), ch=3, verbose=False)
    except BRAError:
        raise
    except Exception as error:  # the parser's and torch's own, of any kind
        raise YoloError(f"Ultralytics cannot build or run this model ({type(error).__name__}: {quoted(error)}): bra "
                        "lint says which row is wrong.") from error
    built.task = HEADS[head]
    module: nn.Module = built.float().eval().requires_grad_(False)
    return module


def open_checkpoint(checkpoint: Checkpoint, limits: ModelLimits | None = None,
                    model: str | bytes | Mapping[str, Any] | None = None) -> tuple[nn.Module, Facts]:
    """The model of a checkpoint, built from its own rows and filled with its tensors as float32.

    Args:
        checkpoint: as read by `read_checkpoint`.
        limits: what its model may ask for.
        model: the model file's text or content, for a plain state_dict, which has no rows of its own.

    Returns:
        The model as from `build_untrusted`, its `names` those of the checkpoint, and the checkpoint's facts.

    Raises:
        YoloError: it has no rows, they may not be built, or its layers or tensors are not those of its rows.
    """
    limits, facts = limits or ModelLimits(), checkpoint.facts
    given = facts.yaml if model is None else model
    if given is None:
        raise YoloError("this checkpoint holds tensors without the rows of their model: give its model file too.")
    module: Any = build_untrusted(_as_saved(check_model(given, limits), checkpoint), None, limits)
    _same_layers(module, facts)
    if facts.fused:
        module.fuse(verbose=False)
    _fill(module, checkpoint.tensors)
    names = facts.names if len(facts.names) == module.yaml["nc"] else tuple(map(str, range(module.yaml["nc"])))
    module.names = dict(enumerate(names))
    return module.eval().requires_grad_(False), facts


def _rehearse(model: Mapping[str, Any], limits: ModelLimits) -> None:
    """Build and run the model on the meta device, where sizes are real and memory is not."""
    side = max(SMALLEST_PICTURE, -(-limits.imgsz // STRIDE) * STRIDE)
    with torch.device("meta"), torch.no_grad():      # inference_mode would hide convolutions from the count
        # Twice: our rows are resolved by building the model once more.
        with Budget(limits.calls, 2 * 4 * limits.parameters, limits.macs, "building this model"):
            layers, save = tasks.parse_model(copy.deepcopy(dict(model)), ch=3, verbose=False)
        count = sum(parameter.numel() for parameter in layers.parameters())
        if count > limits.parameters:
            raise YoloError(f"this model has {count:,} parameters: {limits.parameters:,} at most; choose a smaller "
                            "scale.")
        layers.eval()
        # A head that trains returns its maps; one that predicts reads strides, which only a real picture tells.
        layers[-1].training = isinstance(layers[-1], Detect)
        with Budget(limits.calls, limits.activation_bytes, limits.macs, f"this model, for a picture of {side} px,"):
            x: Any = torch.empty(1, 3, side, side)
            maps: list[Any] = []
            for layer in layers:
                if layer.f != -1:
                    x = maps[layer.f] if isinstance(layer.f, int) else [x if f == -1 else maps[f] for f in layer.f]
                x = layer(x)
                maps.append(x if layer.i in save else None)


def _as_saved(model: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """The model with the options that its attention layers were trained with.

    A row's numbers mean what the class meant that read them, and an edited installation may have had another order of
    them; the layer in the checkpoint says what it became.
    """
    held = checkpoint.facts.attention
    return with_rows(model, [Row(row.index, row.source, row.repeats, row.name, [_options(name, checkpoint)])
                             if row.name in DIM_FIRST and (name := _attention_of(row, held)) else row
                             for row in rows_of(model)])


def _attention_of(row: Row, held: Mapping[str, Any]) -> str:
    return next((name for name in (f"model.{row.index}", f"model.{row.index}.attn") if name in held), "")


def _options(name: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Options of the attention layer of that name, from what it kept and which tensors it has."""
    held, tensors = dict(checkpoint.facts.attention[name]), checkpoint.tensors
    if {*OPTIONS} <= {*held}:
        return {option: held[option] for option in OPTIONS}
    pooling = str(held.get("kv_downsample_mode"))
    sizes = ("kv_per_win",) if pooling.startswith("ada_") else ("kv_downsample_ratio",) if "pool" in pooling else ()
    options = {option: held[option] for option in (*KEPT, *sizes) if option in held}
    lepe, linear = tensors.get(f"{name}.lepe.weight"), f"{name}.qkv.qkv.weight" in tensors
    return options | ({"qk_scale": held["scale"]} if "scale" in held else {}) | {
        "side_dwconv": 0 if lepe is None else lepe.shape[-1],
        "param_attention": "none" if not linear else "qkvo" if f"{name}.wo.weight" in tensors else "qkv"}


def _same_layers(module: Any, facts: Facts) -> None:
    """Refuse when the checkpoint's layers are not what its rows made here, in kind or in options."""
    made = [type(layer).__name__ for layer in module.model]
    saved = [path.rpartition(".")[2] for path in facts.layers]
    for n, (ours, theirs) in enumerate(zip(made, saved, strict=False)):
        if ours != theirs:
            raise YoloError(f"layer {n} of this checkpoint is {quoted(theirs)}, and its row makes {ours}: give the "
                            "model file that it was trained with.")
    for name, part in module.named_modules():
        if isinstance(part, attention.BiLevelRoutingAttention):
            spec = part.spec.to_dict()
            for option, value in facts.attention.get(name, {}).items():
                if option in KEPT and value is not None and spec[option] != value:
                    raise YoloError(f"{name} of this checkpoint has {option}={quoted(value)}, and its row makes "
                                    f"{spec[option]!r}: write what it was trained with into the row.")


def _fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy every tensor into the one of its name, as float32; strictly all, and none of another shape."""
    state = module.state_dict()
    missing, foreign = [n for n in state if n not in tensors], [n for n in tensors if n not in state]
    if missing or foreign:
        words = [f"{word} {len(names)} tensors ({', '.join(name[:60] for name in names[:3])})"
                 for word, names in (("lacks", missing), ("has besides", foreign)) if names]
        raise YoloError(f"this checkpoint {' and '.join(words)}, so it is not of these rows: give the model file that "
                        "it was trained with.")
    for name, tensor in tensors.items():
        if tensor.shape != state[name].shape or tensor.is_floating_point() != state[name].is_floating_point():
            raise YoloError(f"{name} is {tuple(tensor.shape)} {tensor.dtype} in this checkpoint and "
                            f"{tuple(state[name].shape)} {state[name].dtype} by its rows: give the model file and "
                            "scale that it was trained with.")
        if not bool(torch.isfinite(tensor).all()):
            raise YoloError(f"{name} of this checkpoint holds numbers that are not finite: its training diverged; "
                            "choose an earlier checkpoint.")
    module.load_state_dict(dict(tensors))
