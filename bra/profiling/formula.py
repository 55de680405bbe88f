"""What one BRA layer costs, by formula: parameters, multiply-adds and the bytes alive at once, part by part.

N tokens of the padded map, c channels, Q channels of q and k, p windows per side, k routed windows, m heads, s keys
per window, S = p²·s keys in all, L = k·s keys that a token attends to:

    qkv       N·c·(2Q + c)
    routing   p⁴·Q, and 2p²·Q² with param_routing
    pooling   S·(Q + c)·kernel², for "conv"; the other modes multiply nothing
    QKᵀ, AV   N·L·Q, N·L·c
    LePE      N·side²·c
    output    N·c²

Bytes are those of one forward of one map without gradients, beyond the map that the layer is given. They follow the
order in which `attention` and `functional` allocate and let go, so a change there is a change here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from bra.functional import GATHERED_ELEMENTS
from bra.grid import WindowGrid
from bra.kernels.cpu import chunk_bytes
from bra.kernels.dispatch import suits_chunked
from bra.kv_pool import check_window_fits
from bra.spec import BRASpec

Basis = Literal["formula", "measured"]
INDEX_BYTES = 8


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a BRA layer.

    Attributes:
        name: what it is.
        params: parameters.
        macs: multiply-adds.
        peak_bytes: bytes alive at its worst moment, beyond the map that the layer was given.
        basis: "formula", or "measured" from the operators that ran.
    """

    name: str
    params: int
    macs: int
    peak_bytes: int
    basis: Basis = "formula"


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One BRA layer on one map. Parameters and multiply-adds of the parts add up; of their bytes the largest counts.

    Attributes:
        name: the layer's name in its model; "" when it was asked for alone.
        spec: its settings.
        grid: its windows on the map.
        parts: in the order in which they run; a part that the settings leave out is not here.
        fill_macs: multiply-adds by zero that the fused kernel adds, since it wants q, k and v equally wide.
        explicit_peak_bytes: what `peak_bytes` is when the attention weights are written out (`ret_attn_mask=True`).
    """

    name: str
    spec: BRASpec
    grid: WindowGrid
    parts: tuple[Part, ...]
    fill_macs: int
    explicit_peak_bytes: int

    @property
    def params(self) -> int:
        """Parameters of all parts."""
        return sum(part.params for part in self.parts)

    @property
    def macs(self) -> int:
        """Multiply-adds of all parts."""
        return sum(part.macs for part in self.parts)

    @property
    def peak_bytes(self) -> int:
        """Bytes alive at the layer's worst moment."""
        return max(part.peak_bytes for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        grid = self.grid
        shape = {name: getattr(grid, name) for name in ("h", "w", "H", "W", "n_win", "padding_share")}
        return {"name": self.name, "spec": self.spec.to_dict(), "grid": shape, "fill_macs": self.fill_macs,
                "explicit_peak_bytes": self.explicit_peak_bytes, "parts": [asdict(part) for part in self.parts]}


def layer_cost(spec: BRASpec, h: int, w: int, itemsize: int = 4) -> LayerCost:
    """The cost of a layer on a map of h·w tokens.

    Args:
        spec: the layer's settings.
        h: rows of the map.
        w: columns of the map.
        itemsize: bytes per number, 4 for float32.

    Raises:
        GridError: the map is empty, or its windows are smaller than the pooling needs.
    """
    grid = WindowGrid(h, w, spec.n_win)
    check_window_fits(spec, grid.window_h, grid.window_w)
    c, Q, p2, N = spec.dim, spec.qk_channels, spec.n_windows, grid.H * grid.W
    s = keys_per_window(spec, grid)
    S, L, side = p2 * s, spec.topk * s, spec.side_dwconv
    linear, conv = spec.param_attention != "none", spec.kv_downsample_mode == "conv"
    bytes_of = _Bytes(spec, grid, s, itemsize)
    parts = [Part("qkv", (c + 1) * (2 * Q + c) * linear, N * c * (2 * Q + c) * linear, bytes_of.qkv()),
             Part("routing", (Q * Q + Q) * spec.param_routing, p2 * p2 * Q + 2 * p2 * Q * Q * spec.param_routing,
                  bytes_of.routing())]
    if is_pooled(spec):
        parts.append(Part("pooling", (Q + c) * (spec.kernel**2 + 1) * conv, S * (Q + c) * spec.kernel**2 * conv,
                          bytes_of.pooling()))
    attended = bytes_of.attended()
    parts += [Part("QKᵀ", 0, N * L * Q, attended), Part("AV", 0, N * L * c, attended)]
    if side:
        parts.append(Part("LePE", (side * side + 1) * c, N * side * side * c, bytes_of.lepe()))
    out = spec.param_attention == "qkvo"
    parts.append(Part("output", (c * c + c) * out, N * c * c * out, bytes_of.output()))
    explicit = max(*(part.peak_bytes for part in parts if part.name not in ("QKᵀ", "AV", "LePE", "output")),
                   *bytes_of.explicit())
    filled = 0 if suits_chunked(grid.n_tokens, itemsize) else N * L * abs(Q - c)
    return LayerCost("", spec, grid, tuple(parts), filled, explicit)


def traced_cost(spec: BRASpec, grid: WindowGrid) -> LayerCost:
    """`layer_cost` on the map of a trace: its own tokens, or the padded map where its windows follow another rule."""
    usual = WindowGrid(grid.h, grid.w, grid.n_win)
    if (usual.H, usual.W) == (grid.H, grid.W):
        return layer_cost(spec, grid.h, grid.w)
    return layer_cost(spec, grid.H, grid.W)


def is_pooled(spec: BRASpec) -> bool:
    """Whether keys are fewer than tokens, or made anew: any mode but "identity", and any ratio but 1."""
    mode = spec.kv_downsample_mode
    return mode in ("ada_avgpool", "ada_maxpool", "conv") or (mode != "identity" and spec.kv_downsample_ratio > 1)


def keys_per_window(spec: BRASpec, grid: WindowGrid) -> int:
    """s keys in a window: its tokens, or what pooling leaves of them."""
    sides, ratio = (grid.window_h, grid.window_w), spec.kv_downsample_ratio
    if not is_pooled(spec):
        left: tuple[int, ...] = sides
    elif spec.kv_downsample_mode in ("ada_avgpool", "ada_maxpool"):
        left = spec.kv_per_win, spec.kv_per_win
    elif spec.kv_downsample_mode == "conv":
        padding = max(0, spec.kernel - ratio + 1) // 2
        left = tuple((side + 2 * padding - spec.kernel) // ratio + 1 for side in sides)
    else:
        left = max(1, sides[0] // ratio), max(1, sides[1] // ratio)
    return left[0] * left[1]


class _Bytes:
    """Bytes alive at the worst moment of each part; names of tensors are those of `BiLevelRoutingAttention.forward`."""

    def __init__(self, spec: BRASpec, grid: WindowGrid, s: int, itemsize: int) -> None:
        self.spec, self.grid, self.s, self.item = spec, grid, s, itemsize
        self.N, self.p2 = grid.H * grid.W, spec.n_windows
        c, Q, N = spec.dim, spec.qk_channels, self.N
        self.x = N * c * itemsize
        self.windows = N * (2 * Q + c) * itemsize + N * spec.mask_padding
        self.routed = self.windows + (self.p2**2 + self.p2 * spec.topk) * itemsize + self.p2 * spec.topk * INDEX_BYTES
        self.keys = self.routed + is_pooled(spec) * self.p2 * s * (Q + c) * itemsize

    def qkv(self) -> int:
        """The padded map and its windows; then these and q, k, v, which hold them when nothing is projected."""
        projected = self.N * (2 * self.spec.qk_channels + self.spec.dim) * self.item
        return max(2 * self.x, projected + self.x * (self.spec.param_attention != "none"))

    def routing(self) -> int:
        means = 2 * self.p2 * self.spec.qk_channels * self.item
        masked = self.N * self.spec.qk_channels * self.item * self.spec.mask_padding     # tokens times their share
        return max(self.windows + means + self.p2**2 * self.item, self.windows + masked, self.routed)

    def pooling(self) -> int:
        """The modes that take the largest also write out where it was."""
        spec, wide = self.spec, self.spec.qk_channels + self.spec.dim
        S = self.p2 * self.s
        largest = spec.kv_downsample_mode in ("maxpool", "ada_maxpool", "fracpool")
        pooled = S * wide * (self.item + INDEX_BYTES * largest)
        if not spec.mask_padding:
            return self.routed + pooled
        tokens = self.N * wide * self.item
        if spec.kv_downsample_mode == "conv":
            return self.routed + tokens + pooled
        with_mask = tokens + self.N * self.item
        return self.routed + with_mask + (tokens + pooled if largest else max(tokens, pooled))

    def attended(self) -> int:
        """What came out, before and after it is laid out as a map; what it took to get there."""
        chunked = suits_chunked(self.grid.n_tokens, self.item)
        return self.keys + max(self._chunked() if chunked else self._gathered(), 2 * self.x)

    def _chunked(self) -> int:
        spec, t, m = self.spec, self.grid.n_tokens, self.spec.num_heads
        taken = chunk_bytes(m, self.p2, t, self.s, spec.qk_channels // m, spec.dim // m, spec.topk, self.item,
                            spec.soft_routing, spec.mask_padding)
        return taken + self.x + self.N * m * self.item

    def _gathered(self) -> int:
        """Query windows in groups: what is gathered for one, what came out of those before."""
        spec, s, item = self.spec, self.s, self.item
        c, Q, t, k, m = spec.dim, spec.qk_channels, self.grid.n_tokens, spec.topk, spec.num_heads
        wide = max(c, Q)
        group = max(1, min(self.p2, GATHERED_ELEMENTS // max(s * (Q + c) * k, 1)))
        worst = 0
        for start in range(0, self.p2, group):
            g = min(group, self.p2 - start)
            before = start * t * wide
            keys, values = g * k * s * Q, g * k * s * c
            soft = spec.soft_routing
            gather_k = keys + (keys if soft else self.p2 * s * Q)
            gather_v = keys + values + (values if soft else self.p2 * s * c)
            queries, filled = g * t * c * (c > Q), g * k * s * wide     # what attend_fused makes equally wide
            filling = keys + values + (queries + filled) * (c != Q)
            gathered = queries + 2 * filled
            out = gathered + g * t * wide + g * k * s * m * spec.mask_padding
            lse = g * t * m * 4
            worst = max(worst, (before + max(gather_k, gather_v, filling)) * item, (before + out) * item + lse)
        joined = (self.p2 * t * wide + self.N * c) * item if group < self.p2 else 0
        return max(worst, joined, self.N * (wide + c) * item)

    def explicit(self) -> tuple[int, int, int, int]:
        """While weights are made and used, while the result is laid out as a map, and later, beside the weights."""
        spec, item = self.spec, self.item
        L = spec.topk * self.s
        gathered = self.keys + self.p2 * L * (spec.dim + spec.qk_channels) * item
        weights = spec.num_heads * self.N * L * item
        apart = spec.num_heads > 1 and self.p2 > 1
        scaled = self.N * spec.qk_channels * item * (1 + apart)     # and once more, laid head by head
        twice = self.p2 * (L if spec.soft_routing else self.s) * spec.dim * item         # v once more while gathered
        made = gathered + max(weights + max(weights, scaled, self.x), twice)
        is_map = spec.n_win == 1 and spec.num_heads == 1        # already: no copy is made
        laid = self.keys + weights + (1 if is_map else 2) * self.x
        return made, laid, weights + self.lepe() * bool(spec.side_dwconv), weights + self.output()

    def lepe(self) -> int:
        """What attention gave, v as a map, and what becomes of it. One window is a map already."""
        return self.keys + (3 - (self.spec.n_win == 1 and not self.spec.mask_padding)) * self.x

    def output(self) -> int:
        """With LePE: attention, LePE and their sum; then LePE, the sum and what the linear makes of it."""
        alive = 1 + (2 if self.spec.side_dwconv else self.spec.param_attention == "qkvo")
        cropped = self.grid.h * self.grid.w * self.spec.dim * self.item
        return self.keys + max(alive * self.x, (1 + bool(self.spec.side_dwconv)) * self.x + cropped)
