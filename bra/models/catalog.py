"""What can be opened, by name: the only place that knows every model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import nn

from bra.errors import BRAError
from bra.grid import WindowGrid
from bra.models.patches import PatchModel, PatchSpec, Projection
from bra.photo import Photo, to_tensor
from bra.spec import BRASpec, KVDownsampleMode
from bra.tracing import ModelTrace, trace

DIM: Final = 64
DEPTH: Final = 2


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of the catalog.

    Attributes:
        key: its name in links and on the command line.
        label: its name for people.
        provenance: where its weights come from, in the words that stand under every figure.
        about: what it is, in one or two sentences.
        layers: names of its attention layers, in order.
        projection: which patch model it is.
    """

    key: str
    label: str
    provenance: str
    about: str
    layers: tuple[str, ...]
    projection: Projection


_LAYERS = tuple(f"layers.{n}" for n in range(DEPTH))
CATALOG: Final = {entry.key: entry for entry in (
    ModelEntry(
        "similarity", "Content similarity", "content similarity, not learned",
        "Compares patches by colour, texture and, weakly, place, by fixed rules. Nothing was learned, so what you see "
        "is likeness, not meaning.", _LAYERS, "similarity"),
    ModelEntry(
        "untrained", "Untrained weights", "untrained, random weights",
        "The same patches under weights as they are before any training. Its choices mean nothing: it is here to "
        "show how convincing nothing can look.", _LAYERS, "random"),
)}


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model and its settings: hashable, and all that is needed to build it again.

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
    """

    model: str = "similarity"
    n_win: int = 7
    topk: int = 4
    num_heads: int = 8
    stride: int = 8
    kv_downsample_mode: KVDownsampleMode = "identity"
    kv_downsample_ratio: int = 2
    mask_padding: bool = False
    side: int = 448

    def __post_init__(self) -> None:
        if not 32 <= self.side <= 2048:
            raise BRAError(f"side={self.side} is not possible: 32 to 2048 pixels; use 448.")

    @property
    def entry(self) -> ModelEntry:
        """The catalog's line; raises BRAError for an unknown model."""
        if self.model not in CATALOG:
            raise BRAError(f"model={self.model!r} is not known: choose one of {', '.join(CATALOG)}.")
        return CATALOG[self.model]


def grid_on(settings: ModelSettings, photo: Photo) -> WindowGrid:
    """The windows that the model will lay over a photo, known before it runs."""
    width, height = photo.size_at(settings.side)
    h, w = (-(-side // settings.stride) for side in (height, width))
    return WindowGrid.over_image(height, width, h, w, settings.n_win)


def look(settings: ModelSettings, photo: Photo) -> ModelTrace:
    """Build the model, run it on the photo, and keep what its attention layers did."""
    return trace(build(settings), to_tensor(photo.resized(settings.side)))


def build(settings: ModelSettings) -> nn.Module:
    """The model, in eval mode, (b, 3, H, W) RGB in 0 to 1 -> (b, c, h, w).

    Raises:
        BRAError: the settings cannot be; the message says which and what to do.
    """
    attention = BRASpec(
        DIM, settings.n_win, settings.num_heads, topk=settings.topk, kv_per_win=settings.kv_downsample_ratio,
        kv_downsample_ratio=settings.kv_downsample_ratio, kv_downsample_mode=settings.kv_downsample_mode,
        mask_padding=settings.mask_padding)
    return PatchModel(PatchSpec(attention, settings.stride, DEPTH, projection=settings.entry.projection))
