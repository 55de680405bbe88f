"""What the modules of a checkpoint were made with, which no tensor tells: options, activations, epsilons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from bra.errors import CheckpointError
from bra.messages import message
from bra.readers.checkpoint import Checkpoint, Part, label
from bra.spec import BRASpec

KEPT: Final = ("n_win", "num_heads", "qk_dim", "kv_downsample_mode", "topk", "param_routing", "diff_routing",
               "soft_routing", "auto_pad")
"""Constructor arguments that the pasted class keeps under their own names."""
OPTIONS: Final = tuple(BRASpec.__dataclass_fields__)[1:]
NEEDED: Final = ("n_win", "num_heads", "topk")
"""Options that neither tensors nor anything else tell where a layer does not keep them."""
ACTIVATIONS: Final[Mapping[str, type[nn.Module]]] = {kind.__name__: kind for kind in (
    nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.Mish, nn.Hardswish, nn.Sigmoid, nn.Tanh,
    nn.Identity)}
"""Layers without tensors that one model has where another has none or another of these."""
SAME: Final = ({"Identity", "Dropout", "Dropout2d"}, {"BatchNorm2d", "SyncBatchNorm"})
"""Kinds that compute the same once training is over."""
CURVE: Final = ("negative_slope", "alpha", "approximate")
FIXED: Final = ("stride", "padding", "dilation", "groups", "kernel_size", "scale_factor", "mode", "align_corners",
                "ceil_mode", "add", "d", "num_heads", "scale")
"""Settings that must be what they are here."""
POOLING: Final = ".kv_down"
"""The pooling of an attention layer is a module here and elsewhere, and made from its options."""


def attention_options(name: str, checkpoint: Checkpoint) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Options of the attention layer of that name, from what it kept and which tensors it has.

    Returns:
        The options, and sentences about those that the file does not hold.
    """
    held, tensors = dict(checkpoint.facts.attention[name]), checkpoint.tensors
    part = checkpoint.facts.parts.get(name)
    said = []
    if part is not None and part.kind not in ("BiLevelRoutingAttention", "TutorialBRA"):
        said.append(message("{layer} is their class {path}, read as bi-level routing attention by what it keeps",
                            layer=name, path=label(part.path)))
    if {*OPTIONS} <= {*held}:
        return {option: held[option] for option in OPTIONS}, tuple(said)
    if missing := [option for option in NEEDED if option not in held]:
        usual = {field.name: field.default for field in BRASpec.__dataclass_fields__.values()}
        said.append(message("{layer} keeps no {names}: the tutorial's defaults are assumed ({values})", layer=name,
                            names=", ".join(missing), values=", ".join(f"{one}={usual[one]}" for one in missing)))
    pooling = str(held.get("kv_downsample_mode"))
    sizes = ("kv_per_win",) if pooling.startswith("ada_") else \
        ("kv_downsample_ratio", "kv_downsample_kernel") if pooling in ("fracpool", "conv") else \
        ("kv_downsample_ratio",) if "pool" in pooling else ()
    options = {option: held[option] for option in (*KEPT, *sizes) if option in held}
    lepe, linear = tensors.get(f"{name}.lepe.weight"), f"{name}.qkv.qkv.weight" in tensors
    return options | ({"qk_scale": held["scale"]} if "scale" in held else {}) | {
        "side_dwconv": 0 if lepe is None else lepe.shape[-1],
        "param_attention": "none" if not linear else "qkvo" if f"{name}.wo.weight" in tensors else "qkv"}, tuple(said)


def take_settings(model: nn.Module, parts: Mapping[str, Part]) -> None:
    """Give a model that was just built, and is nobody's yet, the activations and epsilons of the saved one.

    Libraries change them between releases, and forks change them too, while names and shapes stay: Ultralytics' SPPF
    has an activation fewer since 8.4, and a checkpoint from before computes with it.

    Args:
        model: built from the checkpoint's rows or shapes, without any saved code.
        parts: modules of the checkpoint, by name.

    Raises:
        CheckpointError: a module of torch is of another kind, or set otherwise, in a way that is not taken over.
    """
    for name, module in list(model.named_modules(remove_duplicate=False)):      # one activation may serve many layers
        part, ours = parts.get(name), type(module).__name__
        if part is None or name.endswith(POOLING) or not type(module).__module__.startswith("torch.nn.") or next(
                module.children(), None):
            continue
        theirs = part.kind
        if any({theirs, ours} <= kinds for kinds in SAME):
            continue
        if ours not in ACTIVATIONS:
            if theirs != ours:
                raise _other(name, theirs, ours)
            continue
        if not part.path.startswith("torch.nn.") or theirs not in ACTIVATIONS:
            raise _other(name, theirs, ours)
        curve = {setting: part.settings[setting] for setting in CURVE if setting in part.settings}
        if theirs != ours or any(getattr(module, one) != value for one, value in curve.items()):
            model.set_submodule(name, ACTIVATIONS[theirs](**curve))
    for name, module in model.named_modules(remove_duplicate=False):
        part = parts.get(name)
        eps = part.settings.get("eps") if part is not None else None
        if isinstance(eps, float) and 0 < eps < 1 and "eps" in vars(module):
            module.eps = eps
        for setting, theirs in part.settings.items() if part is not None and not name.endswith(POOLING) else ():
            ours = vars(module).get(setting)
            if setting in FIXED and ours is not None and theirs is not None and _plain(ours) != _plain(theirs):
                raise CheckpointError(message(
                    "{layer} of this checkpoint has {setting}={theirs}, and the layer made here {ours}: its code is "
                    "not what is installed here, so it cannot be shown as its author's.", layer=name, setting=setting,
                    theirs=label(theirs), ours=label(ours)))


def _other(name: str, theirs: str, ours: str) -> CheckpointError:
    return CheckpointError(message("{layer} of this checkpoint is {theirs}, and the layer made here {ours}: its code "
                                   "is not what is installed here, so it cannot be shown as its author's.", layer=name,
                                   theirs=label(theirs), ours=ours))


def _plain(value: Any) -> Any:
    """A setting so that two of them can be compared: torch writes 3, (3, 3) and [3, 3] for the same."""
    if isinstance(value, (tuple, list)):
        values = [*value]
        return values[0] if values and values.count(values[0]) == len(values) else values
    return round(value, 9) if isinstance(value, float) else value


def named_together(sentences: tuple[str, ...], most: int = 3) -> tuple[str, ...]:
    """The first few sentences, and how many more there are."""
    if len(sentences) <= most:
        return sentences
    return (*sentences[:most], message("{n} more like these", n=len(sentences) - most))
