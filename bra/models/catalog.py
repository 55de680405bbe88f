"""What can be opened, by name, and what a visitor may choose about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from bra.errors import BRAError
from bra.grid import WindowGrid
from bra.messages import message
from bra.models.base import UNTRAINED, Change, FileOptions
from bra.models.patches import PatchModel, PatchSpec, Projection
from bra.photo import Photo
from bra.spec import BRASpec, KVDownsampleMode

Family = Literal["patches", "biformer", "yolo", "own"]
DIM: Final = 64
DEPTH: Final = 2
SIDE: Final = 448
DEFAULT: Final = "photos"
"""The model that is looked at first, by its key in CATALOG."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of the catalog.

    Attributes:
        key: its name in links and on the command line.
        label: its name for people.
        family: what opens it.
        about: what it is, in one or two sentences.
        provenance: where its weights come from, in the words that stand under every figure.
        side: longer side of the photo in pixels that suits it.
        variants: what it comes as; the first is the usual one.
        card: name of the shipped weights and their model card, for a trained one.
        layer: the one that is looked at first; "" for its first.
        untrained: its name for people when its weights are random ones, for a trained one.
    """

    key: str
    label: str
    family: Family
    about: str
    provenance: str = UNTRAINED
    side: int = SIDE
    variants: tuple[str, ...] = ("",)
    card: str = ""
    layer: str = ""
    untrained: str = ""

    @property
    def is_built_from_settings(self) -> bool:
        """Whether windows, heads, stride and pooling are the settings' own; other models have their own in each layer,
        of which one may be given others."""
        return self.family == "patches"

    @property
    def needs_file(self) -> bool:
        """Whether it is opened from a visitor's file, of which nothing is known before."""
        return self.family == "own"

    @property
    def needs_ultralytics(self) -> bool:
        """Whether Ultralytics builds it."""
        return self.family == "yolo"

    @property
    def is_biformer(self) -> bool:
        """Whether it is a BiFormer of this package."""
        return self.family == "biformer"


YOLO_FILES: Final = (*(f"{base}{{}}-bra{place}" for base in ("yolov8", "yolo11")
                       for place in ("", "-residual", "-c2f", "-p3", "-p5")), "yolo11{}-bra-c2psa")
"""Model files of `bra.yolo.cfg`, by name, with a place for the scale."""
STOCK_FILES: Final = ("yolo11{}", "yolo12{}")
"""Model files of Ultralytics' own, likewise, whose attention does not route."""
YOLO_SCALES: Final = "nsmlx"
BIFORMERS: Final = ("biformer_tiny", "biformer_small", "biformer_base", "biformer_stl")
CATALOG: Final = {entry.key: entry for entry in (
    ModelEntry(
        "photos", message("Photographs, taught to route (BiFormer)"), "biformer",
        message("A small BiFormer whose router was taught here, without labels, by a network that knows photographs. "
                "Point at two things: it looks in two places."), message("taught on photographs, without "
                                                                         "labels"), side=384,
        card="photos", layer="stages.2.3.attn", untrained=message("Photographs, untrained (BiFormer)")),
    ModelEntry(
        "flowers", message("Flowers, trained (BiFormer)"), "biformer",
        message("A small BiFormer that learned five kinds of flowers from photographs, here. Try other photographs "
                "too; the Models page says what its routing is worth."), message("trained on flower "
                                                                                 "photographs"), side=320,
        card="flowers", layer="stages.2.2.attn", untrained=message("Flowers, untrained (BiFormer)")),
    ModelEntry(
        "cells", message("Blood cells, trained (YOLO)"), "yolo",
        message("YOLOv8n with residual attention in its neck, trained here on micrographs of blood. Choose the picture "
                "“Smear”, or one of your own."), message("trained on blood cells"), side=224, card="cells",
        untrained=message("Blood cells, untrained (YOLO)")),
    ModelEntry(
        "vehicles", message("Vehicles, trained (YOLO)"), "yolo",
        message("A small YOLO with residual attention at its finest level, trained here on cars seen from a plane. "
                "Choose the picture “Street”, or one of your own."), message("trained on aerial pictures"), side=640,
        card="vehicles", untrained=message("Vehicles, untrained (YOLO)")),
    ModelEntry(
        "similarity", message("Content similarity"), "patches",
        message("Compares patches by colour, texture and, weakly, place, by fixed rules. Nothing was learned, so what "
                "you see is likeness, not meaning."), message("content similarity, not learned")),
    ModelEntry(
        "untrained", message("Untrained patches"), "patches",
        message("The same patches under weights as they are before any training. Its choices mean nothing: it is here "
                "to show how convincing nothing can look.")),
    ModelEntry(
        "yolo", message("YOLO with BRA, untrained"), "yolo",
        message("The model files of this package, at every scale, with random weights: their layers, grids and costs "
                "are real, their choices mean nothing."), side=640,
        variants=tuple(name.format(scale) for name in YOLO_FILES for scale in YOLO_SCALES)),
    ModelEntry(
        "stock", message("YOLO11 and YOLO12 as they come, untrained"), "yolo",
        message("Ultralytics' own attention with random weights: full attention in YOLO11's C2PSA, attention within "
                "stripes in YOLO12's A2C2f. Neither routes. For trained weights, give your yolo11n.pt under “Your own "
                "model”."), side=640, variants=tuple(name.format(scale) for name in STOCK_FILES
                                                      for scale in YOLO_SCALES)),
    ModelEntry(
        "biformer", message("BiFormer, untrained"), "biformer",
        message("The published architectures with random weights. For the published weights, give their file under "
                "“Your own model”."), variants=BIFORMERS),
    ModelEntry(
        "own", message("Your own model"), "own",
        message("A YOLO model file (YAML), a checkpoint of Ultralytics (.pt), BiFormer weights (.pth, .safetensors), "
                "or a recording (.bra) of any other model. Nothing in the file is run: it is read as numbers and "
                "built here."), side=640),
)}


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model and its settings: hashable, and all that is needed to open it again.

    A patch model takes its windows, heads, stride and pooling from here. Any other model has windows of its own, which
    `n_win` and `topk` replace in one layer when `changed` says so.

    Attributes:
        model: a key of CATALOG.
        n_win: windows per side.
        topk: windows each window is routed to.
        num_heads: heads.
        stride: pixels per token.
        kv_downsample_mode: pooling of k and v.
        kv_downsample_ratio: its ratio; also the side of the pooled grid in the `ada_` modes.
        mask_padding: whether padded tokens are left out.
        side: the longer side of the picture in pixels when the model reads it.
        variant: which of the entry's variants; "" for the first.
        untrained: random weights in place of trained ones.
        changed: whether n_win and topk replace those of the layer looked at.
        file: what the file of a model of one's own cannot tell.
    """

    model: str = "similarity"
    n_win: int = 7
    topk: int = 4
    num_heads: int = 8
    stride: int = 8
    kv_downsample_mode: KVDownsampleMode = "identity"
    kv_downsample_ratio: int = 2
    mask_padding: bool = False
    side: int = SIDE
    variant: str = ""
    untrained: bool = False
    changed: bool = False
    file: FileOptions = field(default_factory=FileOptions)

    def __post_init__(self) -> None:
        if not 32 <= self.side <= 2048:
            raise BRAError(message("side={side} is not possible: 32 to 2048 pixels; use 448.", side=self.side))

    @property
    def entry(self) -> ModelEntry:
        """The catalog's line; raises BRAError for an unknown model."""
        if self.model not in CATALOG:
            raise BRAError(message("model={model!r} is not known: choose one of {names}.", model=self.model,
                                   names=", ".join(CATALOG)))
        return CATALOG[self.model]

    @property
    def chosen_variant(self) -> str:
        """The variant, spelled out; raises BRAError for an unknown one."""
        variants = self.entry.variants
        if self.variant and self.variant not in variants:
            raise BRAError(message("{model} does not come as {variant!r}: choose one of {names}.", model=self.model,
                                   variant=self.variant, names=", ".join(variants)))
        return self.variant or variants[0]

    @property
    def opens(self) -> ModelSettings:
        """What decides which model is opened, everything else at its default: equal for equal models."""
        if self.entry.is_built_from_settings:
            return replace(self, side=SIDE, variant="", untrained=False, changed=False, file=FileOptions())
        return ModelSettings(self.model, variant=self.chosen_variant, untrained=self.untrained, file=self.file)

    @property
    def layers(self) -> ModelSettings:
        """The same, whichever epoch of a watched training: equal for models with the same layers."""
        return replace(self.opens, file=replace(self.opens.file, epoch=None))

    def change_of(self, layer: str) -> Change | None:
        """The other windows that `layer` gets, and the mask over its padding, if any."""
        if self.entry.is_built_from_settings or not (self.changed or self.mask_padding):
            return None
        n_win, topk = (self.n_win, self.topk) if self.changed else (None, None)
        return Change(layer, n_win, topk, self.mask_padding or None)


def grid_on(settings: ModelSettings, photo: Photo) -> WindowGrid:
    """The windows that a patch model will lay over a photo, known before it runs."""
    width, height = photo.size_at(settings.side)
    h, w = (-(-side // settings.stride) for side in (height, width))
    return WindowGrid.over_image(height, width, h, w, settings.n_win)


def build(settings: ModelSettings) -> PatchModel:
    """A patch model in eval mode, (b, 3, H, W) RGB in 0 to 1 -> (b, c, h, w).

    Raises:
        BRAError: the settings cannot be; the message says which and what to do.
    """
    attention = BRASpec(
        DIM, settings.n_win, settings.num_heads, topk=settings.topk, kv_per_win=settings.kv_downsample_ratio,
        kv_downsample_ratio=settings.kv_downsample_ratio, kv_downsample_mode=settings.kv_downsample_mode,
        mask_padding=settings.mask_padding)
    projection: Projection = "random" if settings.model == "untrained" else "similarity"
    return PatchModel(PatchSpec(attention, settings.stride, DEPTH, projection=projection))
