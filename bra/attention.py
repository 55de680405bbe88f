"""Bi-level routing attention as a torch module: weights here, arithmetic in `functional`.

Constructor order and state-dict keys are those of the YOLOv8 tutorial's module, so its YAML rows and checkpoints load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, cast, overload

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bra import functional as BF
from bra.errors import GridError
from bra.kernels.dispatch import attend_routed
from bra.kv_pool import check_window_fits, make_kv_pool, pool_kv, pool_real_kv
from bra.messages import message
from bra.recorder import Capture, active_recorder
from bra.spec import BRASpec, KVDownsampleMode, MulWeight, ParamAttention

if TYPE_CHECKING:
    from typing_extensions import Self


class TopkRouting(nn.Module):
    """Chooses, for each window, the k windows whose mean key fits its mean query best.

    Args:
        qk_dim: channels Q of the window means.
        topk: windows k to choose.
        qk_scale: factor on q·k; None means qk_dim**-0.5.
        param_routing: an extra linear on the means, key `emb` of the state dict.
        diff_routing: lets gradient through the logits.
    """

    def __init__(self, qk_dim: int, topk: int = 4, qk_scale: float | None = None, param_routing: bool = False,
                 diff_routing: bool = False) -> None:
        super().__init__()
        self.topk = topk
        self.qk_dim = qk_dim
        self.scale = qk_dim**-0.5 if qk_scale is None else qk_scale
        self.diff_routing = diff_routing
        self.emb = nn.Linear(qk_dim, qk_dim) if param_routing else nn.Identity()

    def affinity(self, query: Tensor, key: Tensor, real_windows: Tensor | None = None,
                 gradient: bool = False) -> Tensor:
        """(b, p2, Q), (b, p2, Q) -> (b, p2, p2) routing logits; `gradient` lets it through without diff_routing."""
        if not (self.diff_routing or gradient):
            query, key = query.detach(), key.detach()
        return BF.affinity(self.emb(query), self.emb(key), self.scale, real_windows)

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(b, p2, p2) routing logits -> weights (b, p2, k) that sum to 1, indices (b, p2, k), best first."""
        return BF.route(logits, self.topk)

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """(b, p2, Q), (b, p2, Q) -> weights (b, p2, k) that sum to 1, indices (b, p2, k), best first."""
        return self.choose(self.affinity(query, key))


class GivenRouting(TopkRouting):
    """A router whose windows are given, whatever its affinities say; these still make the weights.

    Args:
        router: the one it stands in for, whose parameters it shares.
        windows: (p2, k) routed windows of each window, the same for every image.
    """

    def __init__(self, router: TopkRouting, windows: Tensor) -> None:
        super().__init__(router.qk_dim, windows.shape[-1], router.scale, diff_routing=router.diff_routing)
        self.emb = router.emb
        self.register_buffer("windows", windows, persistent=False)

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(b, p2, p2) routing logits -> weights (b, p2, k) that sum to 1, the given windows (b, p2, k)."""
        windows = cast(Tensor, self.windows).expand(len(logits), -1, -1)
        return logits.gather(-1, windows).softmax(-1), windows


class KVGather(nn.Module):
    """Collects, for each window, the keys and values of the windows it was routed to.

    Args:
        mul_weight: "none"; "soft" multiplies by the routing weights; "hard" passes only their gradient.
    """

    def __init__(self, mul_weight: MulWeight = "none") -> None:
        super().__init__()
        self.mul_weight = mul_weight

    def forward(self, r_idx: Tensor, r_weight: Tensor, kv: Tensor) -> Tensor:
        """(b, p2, k), (b, p2, k), (b, p2, s, c) -> (b, p2, k, s, c)."""
        chosen = BF.gather(kv[:, None], r_idx)[:, 0]
        factor = BF.weight_factor(r_weight, self.mul_weight)
        return chosen if factor is None else chosen * factor[..., None, None]


class QKVLinear(nn.Module):
    """One linear for q, k and v; key `qkv` of the state dict.

    Args:
        dim: channels c of the map and of v.
        qk_dim: channels Q of q and k.
        bias: whether the linear has one.
    """

    def __init__(self, dim: int, qk_dim: int, bias: bool = True) -> None:
        super().__init__()
        self.dim = dim
        self.qk_dim = qk_dim
        self.qkv = nn.Linear(dim, qk_dim + qk_dim + dim, bias=bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(…, c) -> q (…, Q), k and v side by side (…, Q + c)."""
        q, kv = self.qkv(x).split([self.qk_dim, self.qk_dim + self.dim], dim=-1)
        return q, kv


class SharedQKV(nn.Module):
    """q = k = v = x, for param_attention="none"."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(…, c) -> q (…, c), k and v side by side (…, 2c)."""
        return x, torch.cat([x, x], -1)


class _Routed(NamedTuple):
    """What one forward routed, before it attends.

    Attributes:
        h: rows of the map before padding.
        w: its columns.
        q: (b, p2, H/p, W/p, Q).
        kv: (b, p2, H/p, W/p, Q + c), k and v side by side.
        real: (p2, H/p, W/p) bool, which tokens are no padding; None where padding is not masked.
        logits: (b, p2, p2).
        r_weight: (b, p2, k).
        r_idx: (b, p2, k).
        factor: (b, p2, k) that gathered k and v are multiplied by, or None.
    """

    h: int
    w: int
    q: Tensor
    kv: Tensor
    real: Tensor | None
    logits: Tensor
    r_weight: Tensor
    r_idx: Tensor
    factor: Tensor | None


class _Attended(NamedTuple):
    """What one forward attended.

    Attributes:
        q: (b, m, p2, t, Q/m).
        k: (b, m, p2, s, Q/m), pooled where the layer pools.
        v: (b, m, p2, s, c/m), likewise.
        real_keys: (p2, s) bool, or None.
        out: (b, H, W, c) on the padded map, without the position term.
        lepe: (b, H, W, c), or None.
        rows: (b, m, p2, t, k·s) attention weights where they were asked for.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    real_keys: Tensor | None
    out: Tensor
    lepe: Tensor | None
    rows: Tensor | None


class BiLevelRoutingAttention(nn.Module):
    """Bi-level routing attention (BRA) on a map of c channels; see `BRASpec` for the meaning of each argument.

    Raises:
        SpecError: an argument is impossible; the message names value, range and cure.

    Example:
        >>> y = BiLevelRoutingAttention(64, n_win=7, topk=4)(torch.rand(1, 64, 56, 56))
        >>> y.shape
        torch.Size([1, 64, 56, 56])
    """

    def __init__(self, dim: int, n_win: int = 7, num_heads: int = 8, qk_dim: int | None = None,
                 qk_scale: float | None = None, kv_per_win: int = 4, kv_downsample_ratio: int = 4,
                 kv_downsample_kernel: int | None = None, kv_downsample_mode: KVDownsampleMode = "identity",
                 topk: int = 4, param_attention: ParamAttention = "qkvo", param_routing: bool = False,
                 diff_routing: bool = False, soft_routing: bool = False, side_dwconv: int = 3,
                 auto_pad: bool = True, mask_padding: bool = False) -> None:
        super().__init__()
        self.spec = spec = BRASpec(
            dim, n_win, num_heads, qk_dim, qk_scale, kv_per_win, kv_downsample_ratio, kv_downsample_kernel,
            kv_downsample_mode, topk, param_attention, param_routing, diff_routing, soft_routing, side_dwconv,
            auto_pad, mask_padding)
        self.dim, self.n_win, self.num_heads, self.topk = dim, n_win, num_heads, topk
        self.qk_dim, self.scale = spec.qk_channels, spec.scale
        self.lepe = nn.Conv2d(dim, dim, side_dwconv, padding=side_dwconv // 2, groups=dim) if side_dwconv else None
        self.router = TopkRouting(self.qk_dim, topk, self.scale, param_routing, diff_routing)
        self.kv_gather = KVGather(spec.mul_weight)
        self.qkv = SharedQKV() if param_attention == "none" else QKVLinear(dim, self.qk_dim)
        self.wo = nn.Linear(dim, dim) if param_attention == "qkvo" else nn.Identity()
        self.kv_down = make_kv_pool(spec)

    @classmethod
    def from_spec(cls, spec: BRASpec) -> Self:
        """The module that a spec describes."""
        return cls(**spec.to_dict())

    def with_spec(self, spec: BRASpec, routing_scale: float | None = None) -> Self:
        """Another layer over the same parameters, with other settings; this one stays as it is.

        Args:
            spec: its settings; they may differ in those that have no weights, such as n_win, topk and mask_padding.
            routing_scale: factor on q·k between window means alone; None for that of the spec.

        Raises:
            RuntimeError: these settings need other weights.
        """
        with torch.device("meta"):      # so that nothing is drawn or filled that is replaced at once
            made = type(self).from_spec(spec)
        state = self.state_dict(keep_vars=True)
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(state[name].requires_grad if name in state else True)
        made.load_state_dict(state, assign=True)
        if routing_scale is not None:
            made.router.scale = routing_scale
        # What a parser noted on the layer goes along, such as Ultralytics' number and sources of a row.
        vars(made).update({name: value for name, value in vars(self).items() if name not in vars(made)})
        return made.train(self.training)

    @overload
    def forward(self, x: Tensor, ret_attn_mask: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, ret_attn_mask: Literal[True]) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...

    def forward(self, x: Tensor, ret_attn_mask: bool = False) -> Tensor | tuple[Tensor, Tensor, Tensor, Tensor]:
        """(b, c, h, w) -> (b, c, h, w).

        Args:
            x: the map.
            ret_attn_mask: also return r_weight (b, p2, k), r_idx (b, p2, k) and the attention weights
                (b·p2, m, t, k·s), which are written out in memory for it; the last axis is (rank, key in window).

        Raises:
            GridError: x is no map of `dim` channels, the map does not fit the windows and auto_pad is off, or a window
                is smaller than its pooling.
        """
        self._check_input(x)
        self._check_dtype(x)
        self._check_fits(*x.shape[-2:])
        routed = self._route(x)
        attended = self._attend(routed, explicit=ret_attn_mask)
        self._record(x, routed, attended)
        out, lepe, rows = attended.out, attended.lepe, attended.rows
        del attended        # so that each of them goes as soon as it was used
        out = out if lepe is None else out + lepe
        out = self.wo(out)                                                              # step: projection
        # Always sliced: a condition on the size would be frozen into exported graphs.
        out = out[:, :routed.h, :routed.w].permute(0, 3, 1, 2).contiguous()
        if rows is None:
            return cast(Tensor, out)
        return out, routed.r_weight, routed.r_idx, rearrange(rows, "b m n t l -> (b n) m t l")

    def _route(self, x: Tensor) -> _Routed:
        """(b, c, h, w) -> queries, keys and values by window, and the windows that every window chose."""
        h, w = x.shape[-2:]
        q, kv = self.qkv(BF.windows(x, self.n_win))                                     # step: tokens
        real = BF.real_tokens(h, w, q, self.n_win) if self.spec.mask_padding else None
        check_window_fits(self.spec, *q.shape[2:4])
        real_windows = None if real is None else real.flatten(1).any(-1)
        recorder = None if torch.compiler.is_compiling() else active_recorder()
        means = BF.pool(q, real), BF.pool(kv[..., :self.qk_dim], real)
        choosing = logits = self.router.affinity(*means, real_windows)
        if recorder is not None and recorder.gradient and not self.router.diff_routing:
            # A loss on the affinities must not open another way for the gradient of the output.
            logits = self.router.affinity(*means, real_windows, gradient=True)
        r_weight, r_idx = self.router.choose(choosing)
        factor = BF.weight_factor(r_weight, self.kv_gather.mul_weight)
        return _Routed(h, w, q, kv, real, logits, r_weight, r_idx, factor)

    def _attend(self, routed: _Routed, explicit: bool) -> _Attended:
        """Every query to the keys of its window's chosen windows; and the position term of v.

        Args:
            routed: what `_route` returned.
            explicit: write the attention weights out.
        """
        p, Q, m = self.n_win, self.qk_dim, self.num_heads
        r_idx, factor, kv = routed.r_idx, routed.factor, routed.kv
        window_h, window_w = routed.q.shape[2:4]
        keys, real_keys = (pool_kv(self.kv_down, kv), None) if routed.real is None else \
            pool_real_kv(self.kv_down, kv, routed.real)                                 # (b, p2, s, Q + c), (p2, s)
        # One split where that will do: each slice of its own costs the backward a map of zeros and a sum.
        keys_of, values = torch.split(keys, [Q, self.dim], -1)
        own_values = kv[..., Q:]
        if isinstance(self.kv_down, nn.Identity):
            own_values = rearrange(values, "b n (h w) c -> b n h w c", h=window_h, w=window_w)
        q = BF.by_head(routed.q, m)
        k = rearrange(keys_of, "b n s (m c) -> b m n s c", m=m)
        v = rearrange(values, "b n s (m c) -> b m n s c", m=m)
        rows = None
        if explicit:
            mask = BF.gather_mask(real_keys, r_idx)
            k_sel, v_sel = BF.gather_keys(k, r_idx, factor), BF.gather_keys(v, r_idx, factor)
            out, rows = BF.attend_explicit(q, k_sel, v_sel, self.scale, mask)
            del k_sel, v_sel        # the position term needs room too
        else:
            out = attend_routed(q, k, v, r_idx, self.scale, factor, real_keys)          # (b, m, p2, t, c/m)
        out = rearrange(out, "b m (j i) (h w) c -> b (j h) (i w) (m c)", j=p, i=p, h=window_h, w=window_w)
        return _Attended(q, k, v, real_keys, out, self._lepe(own_values, routed.h, routed.w), rows)

    def _record(self, x: Tensor, routed: _Routed, attended: _Attended) -> None:
        """Hand this forward to the recorder of this call, if there is one."""
        recorder = None if torch.compiler.is_compiling() else active_recorder()
        if recorder is None:
            return
        lepe = None if attended.lepe is None else BF.by_head(BF.partition(attended.lepe, self.n_win), self.num_heads)
        recorder.captures.append(Capture(
            layer=self, spec=self.spec, kv_pool=self.kv_down, wo=self.wo, size=(int(routed.h), int(routed.w)),
            q=attended.q, k=attended.k, v=attended.v, lepe=lepe, affinity=routed.logits, r_weight=routed.r_weight,
            r_idx=routed.r_idx, factor=routed.factor, real_keys=attended.real_keys,
            # A copy: a residual that is added in place would change it before anyone looks.
            x=x.detach().clone() if recorder.inputs else None))

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise GridError(message("this layer reads a tensor, and was given {kind}: pass a torch tensor of shape "
                                    "(batch, {dim}, height, width).", kind=type(x).__name__, dim=self.dim))
        # While a graph is traced sizes are tensors, and a comparison would be frozen into it.
        if x.ndim == 4 and (isinstance(x.shape[1], Tensor) or (x.shape[1] == self.dim and 0 not in x.shape[2:])):
            return
        shape = tuple(x.shape)
        if x.ndim == 4 and shape[-1] == self.dim:
            cure: str = message("it looks like channels last, so pass x.permute(0, 3, 1, 2)")
        elif x.ndim == 3 and shape[0] == self.dim:
            cure = message("the batch is missing, so pass x[None]")
        elif x.ndim == 4 and shape[1] != self.dim and min(shape[1:]) > 0:
            cure = message("make the layer with dim={channels}", channels=shape[1])
        else:
            cure = message("pass a map with a batch, channels, rows and columns")
        raise GridError(message("this layer reads maps of shape (batch, {dim}, height, width), and was given {shape}: "
                                "{cure}.", dim=self.dim, shape=shape, cure=cure))

    def _check_dtype(self, x: Tensor) -> None:
        """Refuse a map of another precision than the weights, unless autocast makes them meet."""
        weights = next(self.parameters(), None)
        if weights is None or weights.dtype == x.dtype or torch.is_autocast_enabled(x.device.type):
            return
        raise GridError(message("this layer's weights are {weights}, and the map that it was given is {map}: pass "
                                "x.to(torch.{weights}), or call the layer inside of torch.autocast.",
                                weights=str(weights.dtype).removeprefix("torch."),
                                map=str(x.dtype).removeprefix("torch.")))

    def _check_fits(self, h: int, w: int) -> None:
        if not self.spec.auto_pad and (h % self.n_win or w % self.n_win):
            raise GridError(message("a map of {h}×{w} tokens does not divide into {n_win}×{n_win} windows: set "
                                    "auto_pad=True, or choose an n_win that divides both sides.", h=h, w=w,
                                    n_win=self.n_win))

    def _lepe(self, v: Tensor, h: int, w: int) -> Tensor | None:
        """Depthwise convolution of v (b, p2, H/p, W/p, c), the local position encoding: (b, H, W, c)."""
        if self.lepe is None:
            return None
        v = BF.unpartition(v, self.n_win)
        if self.spec.mask_padding:
            v = F.pad(v[:, :h, :w], (0, 0, 0, v.shape[2] - w, 0, v.shape[1] - h))
        v = v.permute(0, 3, 1, 2)
        v = v if v.device.type == "cpu" else v.contiguous()     # a CPU likes channels last
        lepe: Tensor = self.lepe(v)                                                     # step: lepe
        return lepe.permute(0, 2, 3, 1)
