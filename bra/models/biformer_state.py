"""Which BiFormer a state dict is from, read from its names and shapes alone.

Names are those of the published definition (github rayleizhu/BiFormer, models/biformer.py and biformer_stl.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bra.errors import CheckpointError, ForeignModelError
from bra.messages import message

Shapes = Mapping[str, tuple[int, ...]]
PUBLISHED: Final[dict[tuple[tuple[int, ...], tuple[int, ...], bool], str]] = {
    ((2, 2, 8, 2), (64, 128, 256, 512), False): "BiFormer-T",
    ((4, 4, 18, 4), (64, 128, 256, 512), False): "BiFormer-S",
    ((4, 4, 18, 4), (96, 192, 384, 768), False): "BiFormer-B",
    ((2, 2, 6, 2), (96, 192, 384, 768), True): "BiFormer-STL",
}
"""By depth, dims and whether the layout is Swin's."""
FIRST_NORM: Final = re.compile(r"(.*?)stages\.\d{1,4}\.(?:blocks\.)?\d{1,4}\.norm1\.weight")
HEAD_NORMS: Final = "extra_norms."
YOLO_ROW: Final = re.compile(r"(?:\w+\.)?model\.\d{1,3}\.")
MAX_BLOCKS = 256
"""The deepest published model has 30 blocks."""
MAX_CLASSES = 30_000
"""Each gets a name, of which a weights file of a few megabytes could ask for millions; ImageNet-21K has 21,843."""
MAX_AXIS = 2**22
"""An empty tensor may say any length; torch cannot even count the bytes of a layer made after one of 2**62."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What shapes tell about a BiFormer.

    Attributes:
        depth: blocks per stage.
        dims: channels per stage.
        mlp_ratio: hidden over outer width of the MLPs.
        full: per stage, whether its blocks attend to everything instead of routing.
        num_classes: 0 without a classifier.
        swin_layout: whether it is laid out as the STL model.
        last_norm: whether a norm follows the last stage; a backbone of other heads has none of that name.
    """

    depth: tuple[int, ...]
    dims: tuple[int, ...]
    mlp_ratio: int
    full: tuple[bool, ...]
    num_classes: int
    swin_layout: bool
    last_norm: bool = True

    @property
    def published(self) -> str:
        """The published model of this size, "BiFormer-T" for example, or "" when there is none."""
        return PUBLISHED.get((self.depth, self.dims, self.swin_layout), "")


def read_layout(shapes: Shapes) -> Layout:
    """The layout that a state dict's first blocks speak of; whether all the rest fits is for `check_shapes` to say.

    Raises:
        CheckpointError: no stages of blocks are named as BiFormer names them, or there are too many blocks or classes.
    """
    blocks: dict[int, set[int]] = {}
    swin = False
    for name in shapes:
        if found := re.match(r"stages\.(\d{1,4})\.(blocks\.)?(\d{1,4})\.", name):
            blocks.setdefault(int(found[1]), set()).add(int(found[3]))
            swin = swin or found[2] is not None
    if not blocks:
        if any(YOLO_ROW.match(name) for name in shapes):
            raise CheckpointError(message("these are the weights of a YOLO model without the rows that it is built "
                                          "from: choose the best.pt that training wrote, which holds both."))
        raise ForeignModelError(message("these weights are not a BiFormer's: none is named like "
                                        "stages.0.0.norm1.weight; choose a BiFormer checkpoint, and of a file that "
                                        "keeps them under 'model' pass that part."))
    depth = tuple(len(blocks[stage]) for stage in sorted(blocks))
    if sum(depth) > MAX_BLOCKS:
        raise CheckpointError(message("{count} blocks are too many: {most} at most; choose a smaller model.",
                                      count=sum(depth), most=MAX_BLOCKS))
    first = [f"stages.{stage}.{'blocks.' if swin else ''}0" for stage in range(len(depth))]
    dims = tuple(_first_axis(shapes, f"{block}.norm1.weight") for block in first)
    classes = _first_axis(shapes, "head.weight") if "head.weight" in shapes else 0
    if classes > MAX_CLASSES:
        raise CheckpointError(message("{n:,} classes are too many: {most:,} at most; choose a model that tells fewer "
                                      "apart.", n=classes, most=MAX_CLASSES))
    return Layout(
        depth, dims, mlp_ratio=max(1, _first_axis(shapes, f"{first[0]}.mlp.0.weight") // dims[0]),
        full=tuple(f"{block}.attn.qkv.weight" in shapes for block in first),
        num_classes=classes, swin_layout=swin, last_norm=classes > 0 or "norm.weight" in shapes)


def biformer_part(names: Iterable[str]) -> tuple[str, frozenset[str]]:
    """Where in a state dict the BiFormer is.

    Code bases keep it beside other parts ("backbone.", "encoder."), and an average of its weights beside it
    ("model_ema."), which predicts best and is taken.

    Returns:
        What stands before each of its names, and the names that are not of it; those that a BiFormer of such a code
        base has for its own heads ("extra_norms.") are none of it either.
    """
    given = list(names)
    found = dict.fromkeys(match[1] for name in given if (match := FIRST_NORM.fullmatch(name)))
    prefix = min(found, key=lambda one: "ema" not in re.split(r"[._]", one), default="")
    inside = {name for name in given if name.startswith(prefix) and not any(
        other != prefix and other.startswith(prefix) and name.startswith(other) for other in found)}
    own = {name for name in inside if not name.removeprefix(prefix).startswith(HEAD_NORMS)}
    return prefix, frozenset(given) - frozenset(own)


def check_shapes(found: Shapes, expected: Shapes) -> None:
    """Raise CheckpointError unless both have the same names, each with the same shape."""
    for name, shape in expected.items():
        if name not in found:
            raise ForeignModelError(message("{name!r} is missing: a BiFormer of these stages needs it; choose a whole "
                                            "checkpoint.", name=name))
        if found[name] != shape:
            raise ForeignModelError(message("{name!r} has shape {found} and a BiFormer of these stages has {shape}: "
                                            "only the published block (heads of 32 channels, qk_dim = dim, 5×5 "
                                            "position convolution) can be opened.", name=name,
                                            found=_text(found[name]), shape=_text(shape)))
    if extra := sorted(set(found) - set(expected)):
        raise ForeignModelError(message("{name} and {more} more do not belong to a BiFormer of these stages: options "
                                        "that no published model uses, and other heads, cannot be opened; remove them "
                                        "or choose another checkpoint.", name=_short(extra[0]), more=len(extra) - 1))


def _first_axis(shapes: Shapes, name: str) -> int:
    shape = shapes.get(name, ())
    if not shape or shape[0] < 1:
        raise CheckpointError(message("{name!r} is missing or empty: a BiFormer needs it; choose a whole checkpoint.",
                                      name=name))
    if shape[0] > MAX_AXIS:
        raise CheckpointError(message("{name!r} has {n:,} rows: {most:,} at most; choose a smaller model.", name=name,
                                      n=shape[0], most=MAX_AXIS))
    return shape[0]


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "()"


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:80] + "…")
