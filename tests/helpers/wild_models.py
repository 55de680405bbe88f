"""Small nets in the shape of models that people have, with bi-level routing attention of several makes in them.

Each class is written here as such classes are commonly built: its parts, their order and their memory layout, not
anybody's text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class PickWindows(nn.Module):
    """A router: softmax over the topk of scaled products of window means."""

    def __init__(self, qk_dim: int, topk: int, scale: float, learned: bool = False) -> None:
        super().__init__()
        self.topk, self.scale = topk, scale
        self.emb = nn.Linear(qk_dim, qk_dim) if learned else nn.Identity()

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        logits = (self.emb(query) * self.scale) @ self.emb(key).transpose(-2, -1)
        chosen, index = torch.topk(logits, self.topk, dim=-1)
        return chosen.softmax(-1), index


class TakeWindows(nn.Module):
    """Collects the chosen windows' tokens."""

    def __init__(self, mul_weight: str = "none") -> None:
        super().__init__()
        self.mul_weight = mul_weight

    def forward(self, r_idx: Tensor, r_weight: Tensor, kv: Tensor) -> Tensor:
        n, p2, s, c = kv.shape
        k = r_idx.size(-1)
        taken = torch.gather(kv[:, None].expand(-1, p2, -1, -1, -1), 2,
                             r_idx[..., None, None].expand(-1, -1, -1, s, c))
        return taken * r_weight[..., None, None] if self.mul_weight == "soft" else taken.view(n, p2, k, s, c)


class SplitLinear(nn.Module):
    """One linear, returned as q and as k and v side by side."""

    def __init__(self, dim: int, qk_dim: int, bias: bool = True) -> None:
        super().__init__()
        self.dim, self.qk_dim = dim, qk_dim
        self.qkv = nn.Linear(dim, 2 * qk_dim + dim, bias=bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).split([self.qk_dim, self.qk_dim + self.dim], -1)


class HeadsFirst(nn.Module):
    """NHWC in and out, heads before windows, and maps that do not fit are refused unless padding is asked for."""

    def __init__(self, dim: int, num_heads: int = 8, n_win: int = 7, qk_dim: int | None = None, topk: int = 4,
                 side_dwconv: int = 5, auto_pad: bool = False, qkv_bias: bool = True, soft: bool = False,
                 kv_side: int = 0, learned: bool = False, output: bool = True) -> None:
        super().__init__()
        self.dim, self.num_heads, self.n_win, self.topk = dim, num_heads, n_win, topk
        self.qk_dim, self.auto_pad = qk_dim or dim, auto_pad
        self.scale = self.qk_dim**-0.5
        self.lepe = nn.Conv2d(dim, dim, side_dwconv, padding=side_dwconv // 2, groups=dim) if side_dwconv else \
            torch.zeros_like
        self.router = PickWindows(self.qk_dim, topk, self.scale, learned)
        self.kv_gather = TakeWindows("soft" if soft else "none")
        self.qkv = SplitLinear(dim, self.qk_dim, qkv_bias)
        self.wo = nn.Linear(dim, dim) if output else nn.Identity()
        self.kv_down = nn.AdaptiveAvgPool2d(kv_side) if kv_side else nn.Identity()

    def forward(self, x: Tensor, ret_attn_mask: bool = False) -> Any:
        h, w = x.shape[1:3]
        p, m = self.n_win, self.num_heads
        if self.auto_pad:
            x = F.pad(x, (0, 0, 0, -w % p, 0, -h % p))
        elif h % p or w % p:
            raise ValueError("this map does not fit")
        x = rearrange(x, "n (j h) (i w) c -> n (j i) h w c", j=p, i=p)
        q, kv = self.qkv(x)
        r_weight, r_idx = self.router(q.mean((2, 3)), kv[..., :self.qk_dim].mean((2, 3)))
        keys = rearrange(self.kv_down(rearrange(kv, "n g h w c -> (n g) c h w")), "(n g) c h w -> n g (h w) c", g=p * p)
        keys = self.kv_gather(r_idx=r_idx, r_weight=r_weight, kv=keys)
        k, v = keys.split([self.qk_dim, self.dim], -1)
        lepe = self.lepe(rearrange(kv[..., self.qk_dim:], "n (j i) h w c -> n c (j h) (i w)", j=p, i=p).contiguous())
        k = rearrange(k, "n g k s (m c) -> (n g) m c (k s)", m=m)
        v = rearrange(v, "n g k s (m c) -> (n g) m (k s) c", m=m)
        q = rearrange(q, "n g h w (m c) -> (n g) m (h w) c", m=m)
        attn = ((q * self.scale) @ k).softmax(-1)
        out = rearrange(attn @ v, "(n j i) m (h w) c -> n (j h) (i w) (m c)", j=p, i=p, h=x.shape[2])
        out = self.wo(out + lepe.permute(0, 2, 3, 1))[:, :h, :w]
        return (out, r_weight, r_idx, attn) if ret_attn_mask else out


class Pasted(HeadsFirst):
    """The widely copied class: NCHW in and out, windows before heads, padding by default."""

    def __init__(self, dim: int, n_win: int = 7, num_heads: int = 8, topk: int = 4, **more: Any) -> None:
        super().__init__(dim, num_heads, n_win, topk=topk, side_dwconv=3, auto_pad=True, **more)

    def forward(self, x: Tensor, ret_attn_mask: bool = False) -> Any:
        out = super().forward(x.permute(0, 2, 3, 1), ret_attn_mask)
        return out.permute(0, 3, 1, 2) if isinstance(out, Tensor) else out


class FlooredConv(nn.Module):
    """NCHW all through, with convolutions; windows of floor(side / n_win) tokens, and as many of them as it takes."""

    def __init__(self, dim: int, num_heads: int = 8, n_win: int = 7, topk: int = 4, side_dwconv: int = 3) -> None:
        super().__init__()
        self.dim, self.num_heads, self.n_win, self.topk = dim, num_heads, n_win, topk
        self.scale = dim**-0.5
        self.lepe = nn.Conv2d(dim, dim, side_dwconv, padding=side_dwconv // 2, groups=dim)
        self.qkv_linear = nn.Conv2d(dim, 3 * dim, 1)
        self.output_linear = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        side = h // self.n_win, w // self.n_win
        q, k, v = self.qkv_linear.forward(x).chunk(3, 1)        # past every hook, as such code does
        mean_q, mean_k = (F.avg_pool2d(t.detach(), side, ceil_mode=True, count_include_pad=False) for t in (q, k))
        logits = mean_q.flatten(2).transpose(1, 2) @ mean_k.flatten(2)
        index = logits.topk(self.topk, -1).indices
        grow = (0, -w % side[1], 0, -h % side[0])
        cut = [rearrange(F.pad(t, grow), "n (m c) (j h) (i w) -> n m (j i) (h w) c", m=self.num_heads, h=side[0],
                         w=side[1]) for t in (q, k, v)]
        at = torch.arange(len(x))[:, None, None]
        near, values = (t.transpose(1, 2)[at, index] for t in cut[1:])          # (n, g, k, m, s, c)
        near, values = (rearrange(t, "n g k m s c -> n m g (k s) c") for t in (near, values))
        attn = ((cut[0] * self.scale) @ near.transpose(-2, -1)).softmax(-1)
        out = rearrange(attn @ values, "n m (j i) (h w) c -> n (m c) (j h) (i w)", j=-(-h // side[0]), h=side[0])
        return self.output_linear(out[..., :h, :w] + self.lepe(v))


class Gated(Pasted):
    """A subclass that goes on after its parent."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 5, 4)
        self.gamma = nn.Parameter(torch.full((dim, 1, 1), 0.3))

    def forward(self, x: Tensor, ret_attn_mask: bool = False) -> Any:
        return x + self.gamma * super().forward(x)


class Wrapped(nn.Module):
    """Norm before, shortcut after; keeps n_win and topk of its own too."""

    def __init__(self, dim: int, n_win: int = 4, topk: int = 2) -> None:
        super().__init__()
        self.n_win, self.topk = n_win, topk
        self.norm, self.inner = nn.BatchNorm2d(dim), Pasted(dim, n_win, 2, topk)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(self.norm(x))


class HalfAttended(nn.Module):
    """A cross-stage block: half of the channels pass by, half go through attention and a feed-forward part."""

    def __init__(self, dim: int, n_win: int = 5) -> None:
        super().__init__()
        half = dim // 2
        self.cv1, self.cv2 = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.attn = Pasted(half, n_win, 4)
        self.ffn = nn.Sequential(nn.Conv2d(half, 2 * half, 1), nn.SiLU(), nn.Conv2d(2 * half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cv1(x).chunk(2, 1)
        b = b + self.attn(b)
        return self.cv2(torch.cat((a, b + self.ffn(b)), 1))


class FormerBlock(nn.Module):
    """A transformer block on NHWC inside, NCHW outside, with shortcuts that are added in place."""

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = HeadsFirst(dim, 4, auto_pad=True, **options)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed(x)
        x = x.permute(0, 2, 3, 1)
        x = x + self.attn(self.norm1(x))
        x += self.mlp(self.norm2(x))
        return x.permute(0, 3, 1, 2)


class Bent(nn.Module):
    """Routes as others do, and then attends to places that it moves about: not what a trace can compute."""

    def __init__(self, dim: int, n_win: int = 5, topk: int = 4) -> None:
        super().__init__()
        self.n_win, self.topk, self.num_heads, self.scale = n_win, topk, 4, dim**-0.5
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.offsets = nn.Conv2d(dim, 2, 3, padding=1)
        self.router, self.kv_gather = PickWindows(dim, topk, self.scale), TakeWindows()
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        p, (h, w) = self.n_win, x.shape[2:]
        q, k, v = self.qkv(x).chunk(3, 1)
        lines = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        place = torch.stack(lines[::-1], -1)[None] + 0.3 * self.offsets(q).tanh().permute(0, 2, 3, 1)
        k, v = (F.grid_sample(t, place, align_corners=True) for t in (k, v))
        q, k, v = (rearrange(t, "n c (j h) (i w) -> n (j i) (h w) c", j=p, i=p) for t in (q, k, v))
        weight, index = self.router(q.mean(2), k.mean(2))
        kv = self.kv_gather(index, weight, torch.cat((k, v), -1)).flatten(2, 3)
        k, v = kv.chunk(2, -1)
        out = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(rearrange(out, "n (j i) (h w) c -> n c (j h) (i w)", j=p, h=h // p))


class Delegates(HeadsFirst):
    """Routes, and then lets a few tokens stand between queries and keys."""

    def forward(self, x: Tensor, ret_attn_mask: bool = False) -> Any:
        p, m = self.n_win, self.num_heads
        cut = rearrange(x, "n (j h) (i w) c -> n (j i) h w c", j=p, i=p)
        q, kv = self.qkv(cut)
        weight, index = self.router(q.mean((2, 3)), kv[..., :self.dim].mean((2, 3)))
        k, v = self.kv_gather(index, weight, kv.flatten(2, 3)).chunk(2, -1)
        q, k, v = (rearrange(t.flatten(2, 3), "n g s (m c) -> n g m s c", m=m) for t in (q, k, v))
        few = F.adaptive_avg_pool2d(q.flatten(0, 1), (4, q.shape[-1])).unflatten(0, q.shape[:2])
        between = ((few * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        out = ((q * self.scale) @ few.transpose(-2, -1)).softmax(-1) @ between
        return self.wo(rearrange(out, "n (j i) m (h w) c -> n (j h) (i w) (m c)", j=p, h=cut.shape[2]))


class Sectors(nn.Module):
    """Other names for everything: regions, best, splits, a projection each for q and for k and v."""

    def __init__(self, dim: int, num_regions: int = 5, top_k: int = 3, heads: int = 2) -> None:
        super().__init__()
        self.num_regions, self.top_k, self.heads, self.scale = num_regions, top_k, heads, (dim // heads) ** -0.5
        self.to_q, self.to_kv = nn.Linear(dim, dim, bias=False), nn.Linear(dim, 2 * dim)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        p, m, x = self.num_regions, self.heads, x.permute(0, 2, 3, 1)
        q, kv = self.to_q(x), self.to_kv(x)
        q, k, v = (rearrange(t, "n (j h) (i w) c -> n (j i) (h w) c", j=p, i=p) for t in (q, *kv.chunk(2, -1)))
        index = (q.mean(2) @ k.mean(2).transpose(-2, -1)).topk(self.top_k, -1).indices
        at = torch.arange(len(x))[:, None, None]
        k, v = (rearrange(t[at, index], "n g k s (m c) -> n g m (k s) c", m=m) for t in (k, v))
        q = rearrange(q, "n g s (m c) -> n g m s c", m=m)
        out = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        out = rearrange(out, "n (j i) m (h w) c -> n (j h) (i w) (m c)", j=p, h=x.shape[1] // p)
        return self.to_out(out).permute(0, 3, 1, 2)


class TokenRows(nn.Module):
    """A layer that takes tokens in a row, (b, n, c), and returns them so."""

    def __init__(self, dim: int, side: int, n_win: int = 5, topk: int = 4) -> None:
        super().__init__()
        self.side, self.n_win, self.topk, self.num_heads = side, n_win, topk, 4
        self.scale = dim**-0.5
        self.router, self.qkv = PickWindows(dim, topk, self.scale), SplitLinear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        p = self.n_win
        q, kv = self.qkv(rearrange(x, "n (j h i w) c -> n (j i) h w c", j=p, i=p, w=self.side // p))
        k, v = kv.flatten(2, 3).chunk(2, -1)
        _, index = self.router(q.mean((2, 3)), k.mean(2))
        at = torch.arange(len(x))[:, None, None]
        k, v = (rearrange(t[at, index], "n g k s (m c) -> n g m (k s) c", m=4) for t in (k, v))
        q = rearrange(q, "n g h w (m c) -> n g m (h w) c", m=4)
        out = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(rearrange(out, "n (j i) m (h w) c -> n (j h i w) (m c)", j=p, h=self.side // p))


class OnRows(nn.Module):
    """`TokenRows` on a map."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.attn = TokenRows(dim, side)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.attn(rearrange(x, "n c h w -> n (h w) c")), "n (h w) c -> n c h w", h=x.shape[2])


class Swapped(nn.Module):
    """An NHWC layer on an NCHW map."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Stem(nn.Module):
    """An image, a stem of stride 8, some blocks, and class scores."""

    def __init__(self, *blocks: nn.Module, dim: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, dim, 8, stride=8), nn.BatchNorm2d(dim), nn.SiLU())
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(dim, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Segments(nn.Module):
    """An encoder whose maps no window fits, and a decoder: a class for every pixel."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, dim, 4, stride=4), nn.Conv2d(dim, 2 * dim, 2, stride=2)
        self.enter, self.deep = FormerBlock(dim, n_win=7, topk=4), FormerBlock(2 * dim, n_win=7, topk=16)
        self.up, self.classes = nn.Conv2d(2 * dim, dim, 1), nn.Conv2d(dim, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.enter(self.down1(x))
        coarse = F.interpolate(self.up(self.deep(self.down2(fine))), fine.shape[2:])
        return F.interpolate(self.classes(fine + coarse), x.shape[2:])


@dataclass(frozen=True)
class Kind:
    """One kind of wild model.

    Attributes:
        name: for people.
        make: builds it.
        size: of the picture that it reads, height and width.
        layers: BRA layers in it.
        known: whether its attention is that of a BRA layer.
    """

    name: str
    make: Callable[[], nn.Module]
    size: tuple[int, int] = (160, 160)
    layers: int = 1
    known: bool = True


KINDS = (
    Kind("pasted class", lambda: Stem(Pasted(32, 7, 8))),
    Kind("heads first, NHWC, no padding", lambda: Stem(Swapped(HeadsFirst(32, 8, 5)))),
    Kind("conv rewrite, windows fit", lambda: Stem(FlooredConv(32, 8, 5))),
    Kind("conv rewrite, floored windows", lambda: Stem(FlooredConv(32, 8, 7)), (168, 232)),
    Kind("subclass with a gate", lambda: Stem(Gated(32))),
    Kind("wrapper with norm and shortcut", lambda: Stem(Wrapped(32))),
    Kind("half of the channels attended", lambda: Stem(HalfAttended(64), HalfAttended(64), dim=64), layers=2),
    Kind("transformer block", lambda: Stem(FormerBlock(32, n_win=5), FormerBlock(32, n_win=4)), layers=2),
    Kind("segmentation net", Segments, (200, 264), layers=2),
    Kind("qkv without bias", lambda: Stem(Pasted(32, 7, 4, qkv_bias=False)), (200, 152)),
    Kind("moved places", lambda: Stem(Bent(32)), known=False),
    Kind("tokens between", lambda: Stem(Swapped(Delegates(32, 4, 5))), known=False),
    Kind("other names", lambda: Stem(Sectors(32))),
    Kind("tokens in a row", lambda: Stem(OnRows(32, 20))),
    Kind("pooled keys", lambda: Stem(Pasted(32, 4, 4, kv_side=3)), (192, 160)),
    Kind("soft and learned routing, small qk", lambda: Stem(Pasted(32, 5, 4, soft=True, learned=True, qk_dim=16))),
    Kind("no output linear", lambda: Stem(Pasted(32, 5, 4, output=False))),
    Kind("half precision", lambda: Stem(Pasted(32, 7, 8)).to(torch.bfloat16)),
    Kind("two layers of one class", lambda: Stem(*[Pasted(32, 7, 8)] * 2), layers=2),
)
"""What people have; the last is one layer that runs twice."""


def picture(kind: Kind, model: nn.Module) -> Tensor:
    """What it reads: blobs of colour in 0 to 1, in the model's type."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(3))
    return F.interpolate(coarse, kind.size, mode="bicubic").clamp(0, 1).to(next(model.parameters()))
