"""What to change when a BRA layer costs too much: its place, its windows, its settings; in numbers, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bra.costing import Cost
from bra.errors import BRAError
from bra.formula import LayerCost, keys_per_window, layer_cost
from bra.grid import WindowGrid
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
            found.append(Position(row.name, dim, h, w, None, str(error)))
    return tuple(found)


def _place_words(layer: LayerCost) -> str:
    c, grid = layer.spec.dim, layer.grid
    words = f"{grid.h}×{grid.w} tokens of {c} channels"
    growth = sum(part.macs for part in layer.parts if part.name in ("QKᵀ", "AV"))
    if growth > layer.macs / 2:
        return f"{words}: attention, which grows with tokens², is {growth / layer.macs:.0%} of the multiply-adds"
    return f"{words}: attention is {growth / layer.macs:.0%}, the rest mostly projections, which grow with channels²"


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
        reasons.append(f"{spec.topk} of {spec.n_windows} windows is {coverage:.1%} of the map where {wanted:.1%} was "
                       "asked for: whole windows come no closer")
    reasons.append("the fewest multiply-adds at this coverage" if equal and layer.macs == cheapest
                   else f"{layer.macs / cheapest:.2f} times the multiply-adds of the cheapest of equal coverage")
    if "explicit" in explodes:
        weights = spec.num_heads * grid.H * grid.W * spec.topk * keys_per_window(spec, grid)
        reasons.append(f"written out, {weights:,} attention weights take it to {_gib(layer.explicit_peak_bytes)}")
    if "fused" in explodes:
        reasons.append(f"even fused it takes {_gib(layer.peak_bytes)}, since the map itself is that large")
    return Choice(spec.n_win, spec.topk, coverage, equal, grid.padding_share, layer, layer.macs / cheapest, explodes,
                  "; ".join(reasons))


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _padding_words(grid: WindowGrid) -> str:
    if not grid.padding_share:
        return f"pads nothing: {grid.n_win} divides {grid.h} and {grid.w}"
    empty = int(grid.padding_windows.sum())
    windows = f", {empty} of {grid.n_windows} windows nothing else" if empty else ""
    share = f"{grid.padding_share:.1%} of the tokens are padding{windows}"
    return f"{grid.h}×{grid.w} is padded to {grid.H}×{grid.W}: {share}"


@dataclass(frozen=True, slots=True)
class Lever:
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


def levers(spec: BRASpec, h: int, w: int, itemsize: int = 4) -> tuple[Lever, ...]:
    """What each setting saves on a map of h·w tokens, those that save most parameters first.

    Its place in the model is a lever too, the largest: see `positions`. Half the channels are a quarter of the
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
        found.append(Lever(", ".join(f"{name}={value}" for name, value in changes.items()), after,
                           before.params - after.params, before.macs - after.macs,
                           before.peak_bytes - after.peak_bytes, why))
    return tuple(sorted(found, key=lambda lever: (-lever.params, -lever.macs)))


def _candidates(spec: BRASpec) -> list[tuple[dict[str, Any], str]]:
    c, m = spec.dim, spec.num_heads
    none = "windows and their number are no weights: no parameter depends on them"
    narrow = "q and k are narrower: 2·(c + 1) parameters for every channel less"
    pooled = "fewer keys per window to attend to; averaging has no weights"
    return [
        ({"param_attention": "none", "qk_dim": c}, "q = k = v = the map, and no output: LePE and routing are left"),
        ({"param_attention": "qkv"}, "no output projection: c² + c less"),
        *(({"qk_dim": Q}, narrow) for Q in (c // 2, c // 4) if Q and Q % m == 0),
        ({"side_dwconv": 0}, "no local position encoding"),
        ({"side_dwconv": 3}, "a smaller kernel of the local position encoding"),
        *(({"kv_downsample_mode": "avgpool", "kv_downsample_ratio": ratio}, pooled) for ratio in (2, 4)),
        ({"topk": max(1, spec.topk // 2)}, none),
        ({"n_win": spec.n_win + 3}, none),
        ({"num_heads": max(1, m // 2)}, "heads share out the same channels: no parameter depends on their number"),
    ]
