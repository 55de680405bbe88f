"""What to change when a BRA layer costs too much: its place, its windows, its settings; in numbers, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bra.errors import BRAError
from bra.grid import WindowGrid
from bra.messages import message, message_of, semicolon_joined
from bra.profiling.formula import LayerCost, keys_per_window, layer_cost
from bra.profiling.model_cost import Cost
from bra.spec import MAX_N_WIN, BRASpec

EXPLOSION = 2**30
"""Bytes beyond which memory is said to explode: 1 GiB for one layer and one image."""
MANY_WINDOWS = 16


@dataclass(frozen=True, slots=True)
class Position:
    """A BRA row after one row of a model.

    Attributes:
        after: name of the row whose map it would read.
        dim: channels of that map.
        h: its rows.
        w: its columns.
        layer: what the layer costs there; None when it cannot be there.
        why: the reason for its cost, or why it cannot be there.
    """

    after: str
    dim: int
    h: int
    w: int
    layer: LayerCost | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        plain = {name: getattr(self, name) for name in ("after", "dim", "h", "w", "why")}
        return plain | {"layer": None if self.layer is None else self.layer.to_dict()}


def positions(base: Cost, itemsize: int = 4, **options: Any) -> tuple[Position, ...]:
    """The same BRA row after every row of a model that returns one map.

    Args:
        base: the model's cost, without the row.
        itemsize: bytes per number.
        options: of `BRASpec`, without `dim`, which is that of the map.
    """
    found = []
    for row in base.rows:
        if len(row.returned) != 1 or len(row.returned[0]) != 4:
            continue
        _, dim, h, w = row.returned[0]
        try:
            layer = layer_cost(BRASpec(dim, **options), h, w, itemsize)
            found.append(Position(row.name, dim, h, w, layer, _place_words(layer)))
        except BRAError as error:
            found.append(Position(row.name, dim, h, w, None, message_of(error)))
    return tuple(found)


def _place_words(layer: LayerCost) -> str:
    c, grid = layer.spec.dim, layer.grid
    words = message("{h}×{w} tokens of {channels} channels", h=grid.h, w=grid.w, channels=c)
    growth = sum(part.macs for part in layer.parts if part.name in ("QKᵀ", "AV"))
    if growth > layer.macs / 2:
        return message("{map}: attention, which grows with tokens², is {share:.0%} of the multiply-adds", map=words,
                       share=growth / layer.macs)
    return message("{map}: attention is {share:.0%}, the rest mostly projections, which grow with channels²", map=words,
                   share=growth / layer.macs)


@dataclass(frozen=True, slots=True)
class Choice:
    """One n_win for a map, with the topk that covers as much of it as the others do.

    Attributes:
        n_win: windows per side.
        topk: routed windows.
        coverage: share of the map that a token attends to, topk / n_win².
        equal: whether that is within a tenth of what was asked for.
        padding_share: share of tokens that are padding.
        layer: what it costs.
        relative_macs: multiply-adds over those of the cheapest choice of equal coverage.
        explodes: the backends, "explicit" and "fused", that take more than 1 GiB.
        why: the reasons in one sentence.
    """

    n_win: int
    topk: int
    coverage: float
    equal: bool
    padding_share: float
    layer: LayerCost
    relative_macs: float
    explodes: tuple[str, ...]
    why: str

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "layer"}
        return plain | {"layer": self.layer.to_dict()}


def choices(spec: BRASpec, h: int, w: int, n_wins: Sequence[int] | None = None,
            itemsize: int = 4) -> tuple[Choice, ...]:
    """Ways to cut a map of h·w tokens at the coverage of `spec`: those that meet it first, of these the cheapest.

    Args:
        spec: the settings; of n_win and topk only their coverage topk / n_win² counts.
        h: rows of the map.
        w: columns of the map.
        n_wins: windows per side to try; None tries 1 to 16, as far as there are tokens, and that of `spec`.
        itemsize: bytes per number.
    """
    wanted = spec.topk / spec.n_windows
    tried = sorted({*range(1, min(MANY_WINDOWS, h, w) + 1), spec.n_win}) if n_wins is None else n_wins
    layers = []
    for n_win in tried:
        try:
            candidate = replace(spec, n_win=n_win, topk=max(1, round(wanted * min(n_win, MAX_N_WIN) ** 2)))
            layers.append(layer_cost(candidate, h, w, itemsize))
        except BRAError:     # windows smaller than the pooling
            continue
    layers.sort(key=lambda layer: (not _meets(layer, wanted), layer.macs))
    return tuple(_choice(layer, layers[0].macs, wanted) for layer in layers)


def _meets(layer: LayerCost, wanted: float) -> bool:
    return abs(layer.spec.topk / layer.spec.n_windows / wanted - 1) <= 0.1


def _choice(layer: LayerCost, cheapest: int, wanted: float) -> Choice:
    spec, grid = layer.spec, layer.grid
    coverage, equal = spec.topk / spec.n_windows, _meets(layer, wanted)
    by_backend = {"explicit": layer.explicit_peak_bytes, "fused": layer.peak_bytes}
    explodes = tuple(name for name, size in by_backend.items() if size > EXPLOSION)
    reasons = [_padding_words(grid)]
    if not equal:
        reasons.append(message("{topk} of {n} windows is {coverage:.1%} of the map where {wanted:.1%} was asked for: "
                               "whole windows come no closer", topk=spec.topk, n=spec.n_windows, coverage=coverage,
                               wanted=wanted))
    reasons.append(message("the fewest multiply-adds at this coverage") if equal and layer.macs == cheapest
                   else message("{times:.2f} times the multiply-adds of the cheapest of equal coverage",
                                times=layer.macs / cheapest))
    if "explicit" in explodes:
        weights = spec.num_heads * grid.H * grid.W * spec.topk * keys_per_window(spec, grid)
        reasons.append(message("written out, {weights:,} attention weights take it to {memory:.1f} "
                               "GiB", weights=weights,
                               memory=layer.explicit_peak_bytes / 2**30))
    if "fused" in explodes:
        reasons.append(message("even fused it takes {memory:.1f} GiB, since the map itself is that large",
                               memory=layer.peak_bytes / 2**30))
    return Choice(spec.n_win, spec.topk, coverage, equal, grid.padding_share, layer, layer.macs / cheapest, explodes,
                  semicolon_joined(reasons))


def _padding_words(grid: WindowGrid) -> str:
    if not grid.padding_share:
        return message("pads nothing: {n_win} divides {h} and {w}", n_win=grid.n_win, h=grid.h, w=grid.w)
    sizes = {"h": grid.h, "w": grid.w, "H": grid.H, "W": grid.W, "share": grid.padding_share}
    if empty := int(grid.padding_windows.sum()):
        return message("{h}×{w} is padded to {H}×{W}: {share:.1%} of the tokens are padding, {empty} of {n} windows "
                       "nothing else", **sizes, empty=empty, n=grid.n_windows)
    return message("{h}×{w} is padded to {H}×{W}: {share:.1%} of the tokens are padding", **sizes)


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One setting changed, all else equal.

    Attributes:
        change: what was changed, such as "qk_dim=128".
        layer: what the layer then costs.
        params: parameters saved; below 0 when it needs more.
        macs: multiply-adds saved.
        peak_bytes: bytes saved at the worst moment.
        why: the reason.
    """

    change: str
    layer: LayerCost
    params: int
    macs: int
    peak_bytes: int
    why: str

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "layer"}
        return plain | {"layer": self.layer.to_dict()}


def setting_changes(spec: BRASpec, h: int, w: int, itemsize: int = 4) -> tuple[SettingChange, ...]:
    """What each setting saves on a map of h·w tokens, those that save most parameters first.

    Its place in the model changes most: see `positions`. Half the channels are a quarter of the
    parameters.
    """
    before = layer_cost(spec, h, w, itemsize)
    found = []
    for changes, why in _candidates(spec):
        try:
            after = layer_cost(replace(spec, **changes), h, w, itemsize)
        except BRAError:     # not possible together with the other settings, or on this map
            continue
        if after.spec == spec:
            continue
        found.append(SettingChange(", ".join(f"{name}={value}" for name, value in changes.items()), after,
                                   before.params - after.params, before.macs - after.macs,
                                   before.peak_bytes - after.peak_bytes, why))
    return tuple(sorted(found, key=lambda one: (-one.params, -one.macs)))


def _candidates(spec: BRASpec) -> list[tuple[dict[str, Any], str]]:
    c, m = spec.dim, spec.num_heads
    none = message("windows and their number are no weights: no parameter depends on them")
    narrow = message("q and k are narrower: 2·(c + 1) parameters for every channel less")
    pooled = message("fewer keys per window to attend to; averaging has no weights")
    return [
        ({"param_attention": "none", "qk_dim": c},
         message("q = k = v = the map, and no output: LePE and routing are left")),
        ({"param_attention": "qkv"}, message("no output projection: c² + c less")),
        *(({"qk_dim": Q}, narrow) for Q in (c // 2, c // 4) if Q and Q % m == 0),
        ({"side_dwconv": 0}, message("no local position encoding")),
        ({"side_dwconv": 3}, message("a smaller kernel of the local position encoding")),
        *(({"kv_downsample_mode": "avgpool", "kv_downsample_ratio": ratio}, pooled) for ratio in (2, 4)),
        ({"topk": max(1, spec.topk // 2)}, none),
        ({"n_win": spec.n_win + 3}, none),
        ({"num_heads": max(1, m // 2)},
         message("heads share out the same channels: no parameter depends on their number")),
    ]
