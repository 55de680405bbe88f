"""Attention of every token to every token, as in BiFormer's last stages, laid out in windows when someone looks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bra import functional as BF
from bra.recorder import Capture, active_recorder
from bra.spec import BRASpec


class FullAttention(nn.Module):
    """Attention of every token to every token, with a depthwise convolution of the input as position encoding.

    Args:
        dim: channels c.
        num_heads: heads; the published last stages have 8 of whatever width.
        side_dwconv: kernel side of the convolution.
        n_win: windows per side that a trace lays over the map; fewer on a map with fewer tokens. The forward itself
            knows no windows.
    """

    def __init__(self, dim: int, num_heads: int = 8, side_dwconv: int = 5, n_win: int = 7) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.n_win = n_win
        self.scale = (dim // num_heads)**-0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.lepe = nn.Conv2d(dim, dim, side_dwconv, padding=side_dwconv // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        h, w = x.shape[-2:]
        q, k, v = self.qkv(x.permute(0, 2, 3, 1)).chunk(3, -1)                  # each (b, h, w, c)
        heads = (rearrange(t, "b h w (m c) -> b m (h w) c", m=self.num_heads) for t in (q, k, v))
        out = rearrange(F.scaled_dot_product_attention(*heads), "b m (h w) c -> b h w (m c)", h=h, w=w)
        lepe = self.lepe(x).permute(0, 2, 3, 1)
        recorder = None if torch.compiler.is_compiling() else active_recorder()
        if recorder is not None:
            recorder.captures.append(self._capture(q, k, v, lepe))
        projected: Tensor = self.proj(out + lepe)
        return projected.permute(0, 3, 1, 2)

    def _capture(self, *maps: Tensor) -> Capture:
        """q, k, v, LePE (b, h, w, c) as a BRA layer that routes all to all and masks padding would hand them over."""
        h, w, c = maps[0].shape[1:]
        p, m = min(self.n_win, h, w), self.num_heads
        spec = BRASpec(c, p, m, qk_scale=(c // m)**-0.5, topk=p * p, side_dwconv=self.lepe.kernel_size[0],
                       mask_padding=True)
        q, k, v, lepe = (BF.windows(x.permute(0, 3, 1, 2), p) for x in maps)        # (b, p2, H/p, W/p, c)
        real = BF.real_tokens(h, w, q, p)
        affinity = BF.affinity(BF.pool(q, real), BF.pool(k, real), spec.scale, real.flatten(1).any(-1))
        r_weight, r_idx = BF.route(affinity, spec.topk)
        return Capture(
            layer=self, spec=spec, kv_pool=nn.Identity(), wo=self.proj, size=(h, w), q=BF.by_head(q, m),
            k=BF.by_head(k, m), v=BF.by_head(v, m), lepe=BF.by_head(lepe, m), affinity=affinity, r_weight=r_weight,
            r_idx=r_idx, factor=None, real_keys=real.flatten(1), routed=False)
