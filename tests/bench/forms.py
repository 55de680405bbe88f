"""Three other forms of the same layer, over the weights of ours: what its forward is measured against.

    tutorial      the YOLOv8 tutorial's module: NCHW in and out, k and v laid out for a pooling and back, then as below
    gather        the authors' first form: NHWC in and out, one `torch.gather` of k and v side by side
    NCHW          the authors' later form: a 1×1 convolution for q, k, v, window means by average pooling, tokens by
                  head and window in one axis each, k and v gathered apart

Written from the paper's Algorithm 1 and from what those modules do with their tensors, step for step; routing weights
do not enter, as by default. The NHWC form is given and gives NHWC, as its users have it, so no change of layout counts
against it. `tests/unit/kernels/test_other_forms.py` holds all of them equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

import bra

Form = Callable[[bra.BiLevelRoutingAttention, Tensor], Tensor]


def _gathered(m: bra.BiLevelRoutingAttention, x: Tensor, pooled_way: bool) -> Tensor:
    """(b, H, W, c) -> (b, H, W, c), a map that n_win windows divide."""
    p, Q, heads = m.n_win, m.qk_dim, m.num_heads
    x = rearrange(x, "b (j h) (i w) c -> b (j i) h w c", j=p, i=p)
    q, kv = m.qkv.qkv(x).split([Q, Q + m.dim], -1)
    queries = rearrange(q, "b n h w c -> b n (h w) c")
    tokens = rearrange(kv, "b n h w c -> b n (h w) c")
    if pooled_way:          # kv_down is an identity, between two changes of layout
        tokens = m.kv_down(rearrange(kv, "b n h w c -> (b n) c h w"))
        tokens = rearrange(tokens, "(b j i) c h w -> b (j i) (h w) c", j=p, i=p)
    means = q.mean((2, 3)), kv[..., :Q].mean((2, 3))
    lepe = m.lepe(rearrange(kv[..., Q:], "b (j i) h w c -> b c (j h) (i w)", j=p, i=p).contiguous())
    lepe = rearrange(lepe, "b c (j h) (i w) -> b (j h) (i w) c", j=p, i=p)
    logits = (means[0].detach() * m.scale) @ means[1].detach().mT
    weights, r_idx = logits.topk(m.topk)                                                    # (b, p2, k)
    weights.softmax(-1)
    every = tokens[:, None].expand(-1, p * p, -1, -1, -1)
    chosen = torch.gather(every, 2, r_idx[..., None, None].expand(-1, -1, -1, *tokens.shape[2:]))
    k, v = chosen.split([Q, m.dim], -1)
    k = rearrange(k, "b n k s (m c) -> (b n) m c (k s)", m=heads)
    v = rearrange(v, "b n k s (m c) -> (b n) m (k s) c", m=heads)
    queries = rearrange(queries, "b n t (m c) -> (b n) m t c", m=heads)
    out = ((queries * m.scale) @ k).softmax(-1) @ v
    out = rearrange(out, "(b j i) m (h w) c -> b (j h) (i w) (m c)", j=p, i=p, h=q.shape[2])
    return m.wo(out + lepe)


def _padded(x: Tensor, p: int) -> Tensor:
    """(b, h, w, c) -> (b, H, W, c)."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % p, 0, -x.shape[1] % p))


def tutorial(m: bra.BiLevelRoutingAttention, x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, c, h, w)."""
    h, w = x.shape[-2:]
    out = _gathered(m, _padded(rearrange(x, "b c h w -> b h w c"), m.n_win), pooled_way=True)
    return rearrange(out[:, :h, :w].contiguous(), "b h w c -> b c h w")


def gather(m: bra.BiLevelRoutingAttention, x: Tensor) -> Tensor:
    """(b, h, w, c) -> (b, h, w, c)."""
    return _gathered(m, _padded(x, m.n_win), pooled_way=False)[:, : x.shape[1], : x.shape[2]].contiguous()


def nchw(m: bra.BiLevelRoutingAttention, x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, c, h, w)."""
    p, Q, heads, (h, w) = m.n_win, m.qk_dim, m.num_heads, x.shape[-2:]
    x = F.pad(x, (0, -w % p, 0, -h % p))
    region = x.shape[2] // p, x.shape[3] // p
    linear = m.qkv.qkv
    q, k, v = F.conv2d(x, linear.weight[..., None, None], linear.bias).split([Q, Q, m.dim], 1)
    means = [F.avg_pool2d(t.detach(), region).flatten(2) for t in (q, k)]                   # (b, Q, p2)
    r_idx = (means[0].mT @ means[1]).topk(m.topk).indices
    r_idx = r_idx[:, None].expand(-1, heads, -1, -1)                                        # (b, m, p2, k)
    tokens = [rearrange(t, "b (m c) (j h) (i w) -> b m (j i) (h w) c", m=heads, j=p, i=p) for t in (q, k, v)]
    k_sel, v_sel = (torch.gather(t[:, :, None].expand(-1, -1, p * p, -1, -1, -1), 3,
                                 r_idx[..., None, None].expand(-1, -1, -1, -1, *t.shape[3:])).flatten(3, 4)
                    for t in tokens[1:])
    out = ((tokens[0] * m.scale) @ k_sel.mT).softmax(-1) @ v_sel
    out = rearrange(out, "b m (j i) (h w) c -> b (m c) (j h) (i w)", j=p, i=p, h=region[0])
    out = F.conv2d(out + m.lepe(v), m.wo.weight[..., None, None], m.wo.bias)
    return out[:, :, :h, :w].contiguous()


FORMS: Final[dict[str, Form]] = {"tutorial": tutorial, "gather": gather, "NCHW": nchw}


def given(name: str, x: Tensor) -> Tensor:
    """A map (b, c, h, w) as that form is given it, contiguous."""
    return x.permute(0, 2, 3, 1).contiguous() if name == "gather" else x
