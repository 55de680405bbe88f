"""The settings of one BRA layer: frozen, hashable, and refused when impossible.

Names, order and defaults are those of the YOLOv8 tutorial's `BiLevelRoutingAttention`, which took them from the
authors' code (github rayleizhu/BiFormer), so that its YAML rows keep their meaning.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from bra.errors import SpecError
from bra.messages import message

KVDownsampleMode = Literal["identity", "maxpool", "avgpool", "ada_maxpool", "ada_avgpool", "fracpool", "conv"]
ParamAttention = Literal["qkvo", "qkv", "none"]
MulWeight = Literal["none", "soft", "hard"]

MAX_N_WIN = 64
"""Windows per side. 64 gives 4,096 windows and a routing matrix of 64 MiB; no published model goes beyond 16."""
MAX_DIM = 65_536
MAX_SIDE_DWCONV = 63


@dataclass(frozen=True, slots=True)
class BRASpec:
    """Settings of one bi-level routing attention layer; equal settings are equal and hash alike.

    `qk_dim` and `qk_scale` may be given as None; the made spec holds the number that None stands for.

    Args:
        dim: channels c of the map, also of v and of the output.
        n_win: windows per side p; the map is cut into p·p windows. 1 to 64.
        num_heads: heads m; divides `dim` and `qk_dim`.
        qk_dim: channels Q of q and k; None means `dim`.
        qk_scale: factor on q·k in routing and attention; None means qk_dim**-0.5 (not head_dim**-0.5).
        kv_per_win: side of the pooled k, v grid of a window, for the two `ada_` modes.
        kv_downsample_ratio: pooling ratio for maxpool, avgpool, fracpool and conv.
        kv_downsample_kernel: kernel side for fracpool and conv; None means the ratio.
        kv_downsample_mode: how k and v are pooled inside each window before they are attended.
        topk: windows k that each window is routed to. 1 to n_win².
        param_attention: "qkvo" linear q, k, v and output; "qkv" no output linear; "none" q = k = v = x.
        param_routing: an extra linear on the window means before routing; needs `diff_routing`.
        diff_routing: lets gradient reach q and k through the routing weights.
        soft_routing: multiplies the gathered k and v by the routing weights.
        side_dwconv: kernel side of the depthwise position convolution on v (LePE); odd, or 0 for none.
        auto_pad: zeros right and below until the windows fit; otherwise a map that does not fit is refused.
        mask_padding: padded tokens are left out of window means, of routing and of attention.

    Raises:
        SpecError: a value is out of range or of the wrong type; the message names value, range and cure.
    """

    dim: int
    n_win: int = 7
    num_heads: int = 8
    qk_dim: int | None = None
    qk_scale: float | None = None
    kv_per_win: int = 4
    kv_downsample_ratio: int = 4
    kv_downsample_kernel: int | None = None
    kv_downsample_mode: KVDownsampleMode = "identity"
    topk: int = 4
    param_attention: ParamAttention = "qkvo"
    param_routing: bool = False
    diff_routing: bool = False
    soft_routing: bool = False
    side_dwconv: int = 3
    auto_pad: bool = True
    mask_padding: bool = False

    def __post_init__(self) -> None:
        _check_types(self)
        _check_sizes(self)
        if self.qk_dim is None:
            object.__setattr__(self, "qk_dim", self.dim)
        if self.qk_scale is None:
            object.__setattr__(self, "qk_scale", self.qk_channels**-0.5)
        _check_heads(self)
        _check_routing(self)

    @property
    def qk_channels(self) -> int:
        """Channels Q of q and k, as a plain int."""
        return self.dim if self.qk_dim is None else self.qk_dim

    @property
    def scale(self) -> float:
        """Factor on q·k in routing and in attention."""
        return float(self.qk_channels**-0.5 if self.qk_scale is None else self.qk_scale)

    @property
    def n_windows(self) -> int:
        """p² windows in all."""
        return self.n_win * self.n_win

    @property
    def mul_weight(self) -> MulWeight:
        """What the routing weights do to the gathered k and v: nothing, multiply, or pass gradient only."""
        if self.soft_routing:
            return "soft"
        return "hard" if self.diff_routing else "none"

    @property
    def kernel(self) -> int:
        """Kernel side of fracpool and conv pooling."""
        return self.kv_downsample_ratio if self.kv_downsample_kernel is None else self.kv_downsample_kernel

    def to_dict(self) -> dict[str, Any]:
        """All settings by constructor name, in constructor order."""
        return asdict(self)


def _refuse(name: str, value: object, allowed: str, cure: str) -> SpecError:
    return SpecError(message("{name}={value!r} is not possible: {allowed}; {cure}.", name=name, value=value,
                             allowed=allowed, cure=cure))


def _check_types(s: BRASpec) -> None:
    ints = ("dim", "n_win", "num_heads", "kv_per_win", "kv_downsample_ratio", "topk", "side_dwconv")
    for name in (*ints, "qk_dim", "kv_downsample_kernel"):
        value = getattr(s, name)
        if value is None and name not in ints:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise _refuse(name, value, message("a whole number is needed"),
                          message("write {name}=4, without quotes or a decimal point", name=name))
    for name in ("param_routing", "diff_routing", "soft_routing", "auto_pad", "mask_padding"):
        if not isinstance(getattr(s, name), bool):
            raise _refuse(name, getattr(s, name), message("True or False is needed"), message(
                "positional arguments come in the order dim, n_win, num_heads, …; name the ones you mean"))
    scale = s.qk_scale
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, (int, float))
                              or not math.isfinite(scale) or scale <= 0):
        raise _refuse("qk_scale", scale, message("a finite number above 0, or None"),
                      message("use None for qk_dim**-0.5"))
    for name, options in (("kv_downsample_mode", get_args(KVDownsampleMode)),
                          ("param_attention", get_args(ParamAttention))):
        if getattr(s, name) not in options:
            raise _refuse(name, getattr(s, name), message("one of {options}", options=", ".join(options)),
                          message("choose one of these"))


def _check_sizes(s: BRASpec) -> None:
    if not 1 <= s.dim <= MAX_DIM:
        raise _refuse("dim", s.dim, message("1 to {most:,} channels", most=MAX_DIM), message("give the channels of the "
                                                                                             "map"))
    if s.qk_dim is not None and not 1 <= s.qk_dim <= MAX_DIM:
        raise _refuse("qk_dim", s.qk_dim, message("1 to {most:,} channels, or None", most=MAX_DIM),
                      message("use None for qk_dim = dim"))
    if not 1 <= s.n_win <= MAX_N_WIN:
        raise _refuse("n_win", s.n_win, message("1 to {most} windows per side", most=MAX_N_WIN),
                      message("a YOLO row starts at n_win, since dim is put in for you, so [256] asks for 256 windows "
                              "per side: write [] or [7]"))
    if not 1 <= s.topk <= s.n_windows:
        raise _refuse("topk", s.topk, message("1 to n_win² = {most}", most=s.n_windows),
                      message("lower topk, or raise n_win above {n_win}", n_win=s.n_win))
    for name in ("kv_per_win", "kv_downsample_ratio", "kv_downsample_kernel"):
        value = getattr(s, name)
        if value is not None and value < 1:
            raise _refuse(name, value, message("1 or more"), message("use kv_downsample_mode='identity' for no "
                                                                     "pooling"))
    if s.side_dwconv != 0 and (s.side_dwconv % 2 == 0 or not 0 < s.side_dwconv <= MAX_SIDE_DWCONV):
        raise _refuse("side_dwconv", s.side_dwconv,
                      message("an odd kernel side up to {most}, or 0 for none", most=MAX_SIDE_DWCONV),
                      message("an even kernel would change the size of the map: use 3 or 5"))


def _check_heads(s: BRASpec) -> None:
    for name in ("dim", "qk_dim"):
        channels = int(getattr(s, name))
        if s.num_heads >= 1 and channels % s.num_heads == 0:
            continue
        fitting = ", ".join(str(d) for d in range(1, min(channels, 32) + 1) if channels % d == 0)
        raise _refuse("num_heads", s.num_heads, message("it must divide {name}={channels}, for example {fitting}",
                                                        name=name, channels=channels, fitting=fitting),
                      message("positional arguments are (dim, n_win, num_heads), so a row [8, 7] means 8 windows per "
                              "side and 7 heads: for 7 windows per side and 8 heads write [7, 8]"))
    if s.param_attention == "none" and s.qk_channels != s.dim:
        raise _refuse("qk_dim", s.qk_dim, message("with param_attention='none' q = k = v = x, so it must be dim={dim}",
                                                  dim=s.dim), message("leave qk_dim out"))


def _check_routing(s: BRASpec) -> None:
    if s.param_routing and not s.diff_routing:
        raise _refuse("param_routing", True, message("its weights learn only with diff_routing=True"),
                      message("set diff_routing=True too"))
