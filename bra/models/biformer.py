"""BiFormer, the vision transformer that bi-level routing attention was made for.

Source: Zhu et al., BiFormer (arXiv:2303.08810), Table 1 and Section 4; names in the state dict are those of the
published checkpoints (github rayleizhu/BiFormer), so that these load. At 224 px: T 13.1 M parameters, 2.2 G
multiply-adds; S 25.5 M, 4.5 G; B 56.8 M, 9.8 G; STL, the Swin-T layout of the ablations, 28.4 M, 4.6 G.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from bra.attention import BiLevelRoutingAttention
from bra.errors import CheckpointError, ForeignModelError, SpecError, UnknownSettingsError
from bra.messages import message
from bra.models.biformer_state import FIRST_NORM, Layout, biformer_part, check_shapes, read_layout
from bra.models.full_attention import FullAttention
from bra.models.saved import attention_options, named_together, take_settings
from bra.readers.checkpoint import Checkpoint, label
from bra.spec import BRASpec

FULL_ATTENTION = -2
"""The place of topk in a stage that attends to everything, as the published settings write it."""
PUBLISHED_TOPKS = (1, 4, 16)
"""Of the first three stages of every published model; the fourth attends fully."""
HEAD_DIM = 32
MAX_PARAMETERS = 2**27
"""Numbers that `from_state` takes, 512 MiB of float32; BiFormer-B has 57 million."""
MOST = {"n_win": 16, "num_heads": 128, "kv_per_win": 16}
"""Of a saved layer's settings."""
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels per channel, by which the published models' input is normalised."""


def normalized(rgb: Tensor) -> Tensor:
    """(b, 3, H, W) RGB in 0 to 1 -> what a BiFormer reads."""
    return (rgb - rgb.new_tensor(MEAN)[:, None, None]) / rgb.new_tensor(SPREAD)[:, None, None]


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., arXiv:1603.09382): in training, whole samples skip the branch.

    Args:
        rate: share of samples that skip; the others are scaled so that the mean stays.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(b, …) -> (b, …)."""
        if not (self.training and self.rate):
            return x
        keep = 1 - self.rate
        return x * torch.empty(len(x), *(1,) * (x.ndim - 1), device=x.device).bernoulli_(keep) / keep


class Block(nn.Module):
    """x + position, x + attention(norm(x)), x + mlp(norm(x)).

    Args:
        dim: channels c.
        n_win: windows per side.
        topk: routed windows, or FULL_ATTENTION.
        mlp_ratio: hidden over outer width of the MLP.
        drop_path: share of samples whose branch is skipped in training.
        pos_embed: whether a 3×3 depthwise convolution is added first; the STL layout has none.
        spec: of its attention where it routes, in place of `n_win`, `topk` and what the published models have besides.
    """

    def __init__(self, dim: int, n_win: int, topk: int, mlp_ratio: int, drop_path: float, pos_embed: bool,
                 spec: BRASpec | None = None) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if pos_embed else None
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        if topk == FULL_ATTENTION:
            self.attn: nn.Module = FullAttention(dim, n_win=n_win)
        elif spec is not None:
            self.attn = BiLevelRoutingAttention.from_spec(spec)
        else:
            self.attn = BiLevelRoutingAttention(dim, n_win, dim // HEAD_DIM, topk=topk, side_dwconv=5)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        hidden = mlp_ratio * dim
        # The published block keeps a place for a convolution between the linears: it counts in the names.
        place: list[nn.Module] = [nn.Identity()] if pos_embed else []
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), *place, nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        if self.pos_embed is not None:
            x = x + self.pos_embed(x)
        x = x + self.drop_path(self.attn(self.norm1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2))
        return out


class Stack(nn.Module):
    """Blocks one after the other under the name `blocks`, as in the STL checkpoints."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        for block in self.blocks:
            x = block(x)
        return x


class BiFormer(nn.Module):
    """Four stages at strides 4, 8, 16 and 32, a norm, the mean over the map and a linear classifier.

    Args:
        depth: blocks per stage.
        dims: channels per stage, multiples of 32.
        mlp_ratio: of every block.
        n_win: windows per side in every stage.
        topks: routed windows per stage, or FULL_ATTENTION.
        num_classes: 0 for no classifier: the forward then returns the mean over the map.
        drop_path_rate: stochastic depth of the last block, rising to it from 0.
        swin_layout: the STL model: patchify stem, norm before downsampling, no position convolution.
        specs: of attention layers, by name, where they are not what n_win, topks and the published settings make them.
        last_norm: whether a norm follows the last stage.

    Raises:
        SpecError: dims that heads of 32 channels do not divide, or settings that a layer refuses.
    """

    def __init__(self, depth: Sequence[int], dims: Sequence[int], mlp_ratio: int = 3, n_win: int = 7,
                 topks: Sequence[int] = (*PUBLISHED_TOPKS, FULL_ATTENTION), num_classes: int = 1000,
                 drop_path_rate: float = 0.0, swin_layout: bool = False, specs: Mapping[str, BRASpec] | None = None,
                 last_norm: bool = True) -> None:
        super().__init__()
        if not specs and any(dim % HEAD_DIM for dim in dims):
            raise SpecError(message("dims={dims} is not possible: heads have {channels} channels; use multiples of "
                                    "{channels}.", dims=tuple(dims), channels=HEAD_DIM))
        self.downsample_layers = nn.ModuleList(_swin_steps(dims) if swin_layout else _conv_steps(dims))
        last = max(1, sum(depth) - 1)
        rates = (drop_path_rate * n / last for n in range(sum(depth)))
        self.stages = nn.ModuleList()
        for n, (blocks, dim, topk) in enumerate(zip(depth, dims, topks, strict=True)):
            stage = [Block(dim, n_win, topk, mlp_ratio, next(rates), not swin_layout,
                           (specs or {}).get(layer_name(n, at, swin_layout))) for at in range(blocks)]
            self.stages.append(Stack(stage) if swin_layout else nn.Sequential(*stage))
        self.norm: nn.Module = nn.BatchNorm2d(dims[-1]) if last_norm else nn.Identity()
        self.head = nn.Linear(dims[-1], num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, dims[-1], H / 32, W / 32), each side rounded up (down in the STL layout)."""
        for step, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(step(x))
        out: Tensor = self.norm(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised RGB -> (b, num_classes) logits."""
        logits: Tensor = self.head(self.forward_features(x).mean((2, 3)))
        return logits


def _conv_steps(dims: Sequence[int]) -> list[nn.Module]:
    def half(inside: int, outside: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.BatchNorm2d(outside)]

    stem = nn.Sequential(*half(3, dims[0] // 2), nn.GELU(), *half(dims[0] // 2, dims[0]))
    return [stem, *(nn.Sequential(*half(a, b)) for a, b in pairwise(dims))]


def _swin_steps(dims: Sequence[int]) -> list[nn.Module]:
    stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), nn.BatchNorm2d(dims[0]))
    return [stem, *(nn.Sequential(nn.BatchNorm2d(a), nn.Conv2d(a, b, 2, stride=2)) for a, b in pairwise(dims))]


def biformer_tiny(num_classes: int = 1000, drop_path_rate: float = 0.0) -> BiFormer:
    """BiFormer-T, with random weights."""
    return BiFormer((2, 2, 8, 2), (64, 128, 256, 512), num_classes=num_classes, drop_path_rate=drop_path_rate)


def biformer_small(num_classes: int = 1000, drop_path_rate: float = 0.0) -> BiFormer:
    """BiFormer-S, with random weights."""
    return BiFormer((4, 4, 18, 4), (64, 128, 256, 512), num_classes=num_classes, drop_path_rate=drop_path_rate)


def biformer_base(num_classes: int = 1000, drop_path_rate: float = 0.0) -> BiFormer:
    """BiFormer-B, with random weights."""
    return BiFormer((4, 4, 18, 4), (96, 192, 384, 768), num_classes=num_classes, drop_path_rate=drop_path_rate)


def biformer_stl(num_classes: int = 1000, drop_path_rate: float = 0.0) -> BiFormer:
    """BiFormer-STL, the Swin-T layout of the paper's ablations, with random weights."""
    return BiFormer((2, 2, 6, 2), (96, 192, 384, 768), 4, num_classes=num_classes, drop_path_rate=drop_path_rate,
                    swin_layout=True)


@dataclass(frozen=True, slots=True, eq=False)
class FoundBiFormer:
    """A BiFormer from a file.

    Attributes:
        model: in float32 and eval mode.
        assumptions: sentences about settings that the file does not hold.
        notes: sentences about what in the file was left out.
        asks: whether n_win and topks are such settings, which whoever trained it may know.
    """

    model: BiFormer
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]
    asks: bool


def from_state(tensors: Mapping[str, Tensor], n_win: int | None = None,
               topks: Sequence[int] | None = None) -> BiFormer:
    """The BiFormer that a state dict is from, with these weights, in float32 and eval mode; see `from_tensors`."""
    return from_tensors(tensors, n_win, topks).model


def from_tensors(tensors: Mapping[str, Tensor], n_win: int | None = None,
                 topks: Sequence[int] | None = None) -> FoundBiFormer:
    """The BiFormer that a state dict is from, and what had to be assumed.

    Depth, dims, MLP ratio, classes, layout and which stages attend fully are read from names and shapes;
    `read_layout` tells them, and which published model they are. What shapes cannot tell is asked for.

    Args:
        tensors: the state dict; published files keep it under "model". What stands before every name ("module.",
            "backbone.") is taken off, and what belongs to other parts of a larger model is left out.
        n_win: windows per side in every stage; None means the published 7.
        topks: routed windows per stage, FULL_ATTENTION where the weights say so; None means the published
            1, 4, 16 for the first three stages as far as they route.

    Raises:
        CheckpointError: names, shapes, numbers or `topks` are not those of a BiFormer that can be built here.
        SpecError: a layer refuses the settings.
    """
    tensors, notes, _ = _own_part(tensors)
    layout = read_layout(_shapes(tensors))
    chosen, windows = _topks(layout, topks), 7 if n_win is None else n_win
    model = _built(layout, tensors, windows, chosen)
    routed = ", ".join(str(topk) for topk in chosen if topk != FULL_ATTENTION)
    given = {"n_win": windows, "topks": routed, "channels": HEAD_DIM}
    said = message("n_win {n_win} and topk {topks} as given, the rest as published ({channels} channels a head, no "
                   "pooling): the file holds tensors only", **given) if n_win is not None and topks is not None else \
        message("settings assumed as published (n_win {n_win}, topk {topks}, {channels} channels a head, no pooling): "
                "the file holds tensors only", **given)
    return FoundBiFormer(model, (said,) if routed else (), notes, bool(routed))


def from_checkpoint(checkpoint: Checkpoint, n_win: int | None = None,
                    topks: Sequence[int] | None = None) -> FoundBiFormer:
    """The BiFormer in a checkpoint: with its layers' own settings where it was saved whole, else as `from_tensors`.

    Raises:
        CheckpointError: as for `from_tensors`, or its modules are not those of the published definition.
        SpecError: a layer refuses the settings.
    """
    held = checkpoint.facts.attention
    if not any(FIRST_NORM.fullmatch(f"{name.removesuffix('.attn')}.norm1.weight") for name in held):
        return from_tensors(checkpoint.tensors, n_win, topks)
    tensors, notes, prefix = _own_part(checkpoint.tensors)
    layout = read_layout(_shapes(tensors))
    parts = {name.removeprefix(prefix): part for name, part in checkpoint.facts.parts.items()
             if name.startswith(prefix)}
    specs: dict[str, BRASpec] = {}
    said: list[str] = []
    padded = False
    for stage, blocks in enumerate(layout.depth):
        for at in range(blocks) if not layout.full[stage] else ():
            name = layer_name(stage, at, layout.swin_layout)
            if f"{prefix}{name}" not in held:
                raise ForeignModelError(message(
                    "{layer} of this checkpoint is {theirs}, and the layer made here {ours}: its code is not what is "
                    "installed here, so it cannot be shown as its author's.", layer=name,
                    ours="BiLevelRoutingAttention", theirs=label(parts[name].path) if name in parts else "?"))
            options, assumed = attention_options(f"{prefix}{name}", checkpoint)
            padded |= options.get("auto_pad") is False
            specs[name] = _bounded(name, BRASpec(layout.dims[stage], **{**options, "auto_pad": True}))
            said += assumed
    for name, part in parts.items():
        if part.settings.get("pre_norm") is False:
            raise ForeignModelError(message("{layer} of this checkpoint has its norm after the attention (pre_norm "
                                            "False): only the published order can be opened.", layer=name))
    windows = next(iter(specs.values())).n_win if specs else 7
    model = _built(layout, tensors, windows, tuple(FULL_ATTENTION if full else 1 for full in layout.full), specs)
    take_settings(model, parts)
    if padded:
        notes = (*notes, message("Its layers refuse maps that their windows do not divide; here such maps are padded "
                                 "with zeros."))
    return FoundBiFormer(model, named_together(tuple(said)), notes, asks=False)


def layer_name(stage: int, block: int, swin_layout: bool) -> str:
    """Name of a block's attention."""
    return f"stages.{stage}.{'blocks.' if swin_layout else ''}{block}.attn"


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _own_part(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """The tensors of the BiFormer under its own names, sentences about those left out, and what stood before."""
    prefix, others = biformer_part(tensors)
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name not in others}
    if (size := sum(tensor.numel() for tensor in own.values())) > MAX_PARAMETERS:
        raise CheckpointError(message("{size:,} numbers are too many: {most:,} at most; choose a smaller model.",
                                      size=size, most=MAX_PARAMETERS))
    notes: list[str] = []
    if others:
        notes.append(message("Opened is the BiFormer in this file ({count} tensors under {prefix!r}); {others} other "
                             "tensors are left out, such as {name!r}.", count=len(own), prefix=prefix,
                             others=len(others), name=min(others)[:80]))
    if "norm.weight" not in own and "head.weight" not in own:
        notes.append(message("The file has no norm after the last stage, so none is applied, and there is no answer."))
    return own, tuple(notes) if own else (), prefix


def _built(layout: Layout, tensors: Mapping[str, Tensor], n_win: int, topks: Sequence[int],
           specs: Mapping[str, BRASpec] | None = None) -> BiFormer:
    with torch.device("meta"):              # no memory is spent before every shape has been compared
        model = BiFormer(layout.depth, layout.dims, layout.mlp_ratio, n_win, topks, layout.num_classes,
                         swin_layout=layout.swin_layout, specs=specs, last_norm=layout.last_norm)
    check_shapes(_shapes(tensors), _shapes(model.state_dict()))
    state = {name: _checked(name, tensor) for name, tensor in tensors.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def _bounded(layer: str, spec: BRASpec) -> BRASpec:
    """The settings, if they are such as anybody trains and a page can show."""
    for name, most in MOST.items():
        if getattr(spec, name) > most:
            raise CheckpointError(message("{layer} has {name}={value}: {most} at most in a model that is opened here.",
                                          layer=layer, name=name, value=getattr(spec, name), most=most))
    return spec


def _topks(layout: Layout, asked: Sequence[int] | None) -> tuple[int, ...]:
    if asked is None:
        if not all(layout.full[len(PUBLISHED_TOPKS):]):
            raise UnknownSettingsError(message(
                "how many windows the fourth stage routes to cannot be read from weights: give the topk of each stage "
                "as it was trained, for example 1, 4, 16, 16 (--topks 1,4,16,16 on the command line)."))
        return tuple(FULL_ATTENTION if full else PUBLISHED_TOPKS[stage] for stage, full in enumerate(layout.full))
    if [topk == FULL_ATTENTION for topk in asked] != [*layout.full]:
        wanted = ", ".join(str(FULL_ATTENTION) if full else "1 or more" for full in layout.full)
        raise CheckpointError(message("topks={topks} does not suit these weights: they need "
                                      "{wanted}.", topks=tuple(asked),
                                      wanted=wanted))
    return tuple(asked)


def _checked(name: str, tensor: Tensor) -> Tensor:
    """The tensor in memory of its own, floats as float32."""
    if name.endswith("num_batches_tracked"):
        return tensor.detach().clone().long()
    if not tensor.is_floating_point():
        raise CheckpointError(message("{name!r} holds {kind}: floats are needed; choose weights that are not "
                                      "quantised.",
                                      name=name, kind=tensor.dtype))
    own = tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
    if not own.isfinite().all():
        raise CheckpointError(message("{name!r} holds values that are not finite: choose a checkpoint of a healthy "
                                      "training.", name=name))
    return own


# BiFormer small enough to learn on two cores: 1.6 M parameters at strides 4, 8, 16 and 32. --------------------------

N_WIN = 5
"""A picture of 160 px has maps of 40, 20, 10 and 5 tokens a side, which 5 windows divide without padding."""


def biformer_nano(num_classes: int, drop_path_rate: float = 0.0) -> BiFormer:
    """A four-stage BiFormer of our own layout, with random weights; no published model has it."""
    return BiFormer((1, 1, 3, 1), (32, 64, 128, 256), n_win=N_WIN, topks=(1, 4, 8, FULL_ATTENTION),
                    num_classes=num_classes, drop_path_rate=drop_path_rate)


def biformer_photos(num_classes: int = 0, drop_path_rate: float = 0.0) -> BiFormer:
    """Three stages down to stride 16, every layer routing to 4 of 8×8 windows; 0.9 M parameters, random weights.

    A picture of 256 px has maps of 64, 32 and 16 tokens a side.
    """
    return BiFormer((1, 1, 4), (32, 64, 128), n_win=8, topks=(4, 4, 4), num_classes=num_classes,
                    drop_path_rate=drop_path_rate)
