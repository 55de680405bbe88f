"""Records what the attention layers of a model do in one forward pass, into one file: bi-level routing attention (BRA),
and attention that does not route over an image's tokens.

    from bra_record import record
    record(model, "bus.jpg", "run.bra")

Works beside any code base: drop this one file next to your script. It needs Python 3.8, torch 1.10 and numpy (Pillow
only to open pictures), finds the layers by their parts and not by their names, and writes a safetensors file that runs
nothing when it is read. Where the forward is your own script's, record around it:

    with listen(model, "run.bra"):
        detect(...)

把本文件放在你的脚本旁边,上面两行即可:它按结构(而不是按类名)找到双层路由注意力层,把一次前向写成一个
只含数据、读取时不运行任何代码的文件。

Attention that does not route is heard of Ultralytics' Attention (PSA, C2PSA) and AAttn (A2C2f), of PyTorch's
MultiheadAttention, of blocks with one linear for q, k, v as timm has them (ViT, DeiT), and of Swin's windows.

Each layer is proved: attention and output are computed again from the recorded q, k, v and indices, in every window at
up to 24 of its tokens, and compared with what the layer returned. The layers are heard through forward hooks, for one
call, which are always taken off again.

Shapes: b images, h w tokens of a map, p2 windows, t tokens per window, k routed windows, m heads, Q channels of q and
k, c channels of v.
"""

from __future__ import annotations

import io
import json
import locale
import math
import os
import platform
from collections import OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

VERSION = 1
"""Of the file format."""
MOST_BYTES = 46_000_000
"""Of all layers in a file; what does not fit is kept in fewer bits, and as routing alone at last. The file says
which."""
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 1.5e-2}
"""Largest difference, over the largest output, at which a layer counts as understood, about three times what rounding
alone gives in the lower precisions; in float32 the right settings give about 1e-6."""
LOOSE = 3e-3
"""The same on an accelerator, whose convolutions round float32 to ten bits."""
KEPT = 1e-2
"""Largest difference, likewise, that fewer bits in the file may bring about."""
ROWS = 2**19
"""Attention weights that are held at one time while a layer is proved: 2 MiB of float32, which a cache holds."""
TOKENS = 24
"""Tokens of every window at which a layer is proved; all of them would take as long as the layer itself."""
SAMPLE = 16
"""Windows whose outputs are kept to check what is written."""
N_WIN = ("n_win", "num_win", "n_wins", "nwin", "num_windows", "n_windows", "win_num", "window_num", "n_region",
         "n_regions", "num_regions", "region_num")
TOPK = ("topk", "top_k", "topks", "num_topk", "k_top")
HEADS = ("num_heads", "n_heads", "heads", "n_head", "nhead", "head_num")
PROJECTIONS = ("qkv", "qkv_linear", "to_qkv", "qkv_proj", "qkv_conv", "in_proj", "proj_qkv")
OUTPUTS = ("wo", "output_linear", "proj", "to_out", "out_proj", "proj_out", "o_proj")
POSITIONS = ("lepe", "lce", "get_v", "pe", "pos", "dwconv")
LAID = 8
"""Windows per side that are laid over a map whose layer knows none, where its sides allow it."""
OUTSIDE = (("cls_token", "class token"), ("class_token", "class token"), ("cls_embedding", "class token"),
           ("dist_token", "distillation token"), ("reg_token", "register token"), ("register_tokens", "register token"),
           ("storage_tokens", "register token"))
"""Parameters that models put before an image's tokens, and what such a token is called."""
CHINESE = {
    "{model} has no bi-level routing attention layer, and no other attention over an image's tokens: give a model that "
    "has one.":
        "{model} 中没有双层路由注意力层,也没有其他作用于图像 token 的注意力:请给出含有这类层的模型。",
    "{model} has {layers}, but none of these ran in this call: run the part of the model that holds them.":
        "{model} 中有 {layers},但这次调用没有运行它们:请运行包含这些层的部分。",
    "{model} has {layers}, whose routing could not be followed ({why}): send us the class, or record the layer alone.":
        "{model} 中有 {layers},但无法跟踪其路由({why}):请把该类发给我们,或单独记录该层。",
    "{model} is compiled or scripted, so its layers cannot be listened to: give the model that it was made from.":
        "{model} 是编译或脚本化后的模型,无法监听其中的层:请给出原始模型。",
    "{kind} is no model of torch: give the module, or an object whose .model it is.":
        "{kind} 不是 torch 模型:请给出模块本身,或其 .model 为模块的对象。",
    "Pillow is not installed, which opens pictures: pip install pillow, or give the tensor that the model reads.":
        "打开图片需要 Pillow:请 pip install pillow,或直接给出模型的输入张量。",
    "it returned no map": "它没有返回特征图",
    "no projection to q, k and v, and no router with indices was heard":
        "没有听到 q、k、v 的投影,也没有听到返回索引的路由",
    "its parts do not fit together": "它的各部分对不上",
    "each head routes by itself": "每个头各自路由",
    "its windows are not laid out in rows and columns": "它的窗口不是按行列排列",
    "routing known, attention not: it attends in a way of its own": "路由已知,注意力未知:它以自己的方式计算注意力",
    "computed again from its q, k and v it gives another output: it attends in a way of its own":
        "由其 q、k、v 重新计算得到的输出不同:它以自己的方式计算注意力",
    "its keys are not the tokens of its queries, or some are masked": "它的键与查询不是同一组 token,或有些被掩蔽",
    "its tokens are no places of the picture": "它的 token 不对应图片上的位置",
    "its numbers did not fit into the file": "它的数值超出了文件的大小",
    "{path}: {n} layers, {size:.1f} MB": "{path}:{n} 层,{size:.1f} MB",
}


class RecordError(ValueError):
    """A model that cannot be recorded; one sentence with the cure.

    Attributes:
        template: the English sentence with `{name}` where its values stand.
        values: the values by name.
    """

    def __init__(self, template: str, **values: Any) -> None:
        super().__init__(message(template, **values))
        self.template, self.values = template, values


def message(template: str, **values: Any) -> str:
    """A sentence in the language of this computer: Chinese where it is set to it, else English."""
    wanted = os.environ.get("BRA_LANGUAGE") or os.environ.get("LC_ALL") or os.environ.get("LANG") or \
        (locale.getlocale()[0] or "")
    words = CHINESE.get(template, template) if wanted.lower().startswith(("zh", "chinese")) else template
    return words.format(**values)


# what is heard ------------------------------------------------------------------------------------------------


@dataclass
class Reach:
    """What a layer that does not route attends to: every token to all of its own area, and to those outside of the map.

    Attributes:
        kind: "whole", the map is one area; "stripes" of as many tokens each, counted row by row; or "windows".
        stripes: how many.
        window: rows and columns of tokens in a window.
        shift: rows and columns by which windows are shifted down and right; what is left over at the edges stays apart.
        bias: (m, 2·rows - 1, 2·columns - 1) added to the logits by the place of the query less that of the key, or
            None.
        names: of the tokens that are no places of the map.
        k, v: (b, n, Q), (b, n, c) of these, or None.
    """

    kind: str = "whole"
    stripes: int = 1
    window: Tuple[int, int] = (1, 1)
    shift: Tuple[int, int] = (0, 0)
    bias: Optional[Tensor] = None
    names: Tuple[str, ...] = ()
    k: Optional[Tensor] = None
    v: Optional[Tensor] = None


@dataclass
class Heard:
    """One attention layer in one forward.

    Attributes:
        name: as `named_modules` gives it; "name#2" for a layer that ran a second time.
        module: the layer.
        kind: its class, as "module.name".
        size: (h, w) of its map.
        windows: rows and columns of windows.
        region: rows and columns of tokens in a window; windows times region is the padded map.
        n_win: windows per side that the layer was set to.
        topk: windows that each is routed to.
        heads: heads m.
        scale: factor on q·k.
        soft: whether gathered k and v are multiplied by the routing weights.
        mask_padding: whether padded tokens are left out.
        rule: "pad" where the map is padded to a multiple of n_win; "floor" where windows have floor(h / n_win) tokens.
        r_idx: (b, p2, k) chosen windows, best first.
        r_weight: (b, p2, k) softmax over the chosen.
        affinity: (b, p2, p2) logits of all windows, or None where the router has a rule of its own.
        routing: "heard" from the layer's router, or "computed" from q and k where it has none that can be heard.
        q, k: (b, h, w, Q) maps, or None where the layer attends in a way of its own.
        v: (b, h, w, c), likewise.
        pad: (2Q + c,) what a padded token has in the places of q, k and v.
        pool: mode, ratio and side of the pooling of k and v, as `BRASpec` names them.
        emb: weight (Q, Q) and bias of the router's linear on window means, or None.
        lepe: weight (c, 1, s, s) and bias of the position convolution, or None.
        wo: weight (c, c) and bias of the output linear, or None.
        known: whether attention is known: computed again, it gave the layer's output.
        compared: what was compared with: "output" of the layer, or of its output "projection", after which it goes on.
        difference: largest difference over the largest output, of the tokens that were computed again; of an attention
            that is not known, of the best try.
        note: what is to be said about it.
        sample: windows, and outputs (1, windows, tokens, c) there, by which the file is checked; None in a trace.
        dtype: of the layer's numbers.
        reach: of a layer that does not route, what it attends to. Its windows are only laid over the map to look at
            it: each is "routed" to those that its tokens reach, in no order, and to others where some reach more.
    """

    name: str
    module: Any
    kind: str
    size: Tuple[int, int]
    windows: Tuple[int, int]
    region: Tuple[int, int]
    n_win: int
    topk: int
    heads: int
    scale: float
    soft: bool
    mask_padding: bool
    rule: str
    r_idx: Tensor
    r_weight: Tensor
    affinity: Optional[Tensor]
    routing: str
    q: Optional[Tensor] = None
    k: Optional[Tensor] = None
    v: Optional[Tensor] = None
    pad: Optional[Tensor] = None
    pool: Tuple[str, int, int] = ("identity", 1, 1)
    emb: Optional[Tuple[Tensor, Optional[Tensor]]] = None
    lepe: Optional[Tuple[Tensor, Optional[Tensor]]] = None
    wo: Optional[Tuple[Tensor, Optional[Tensor]]] = None
    known: bool = False
    compared: str = "output"
    difference: Optional[float] = None
    note: str = ""
    sample: Optional[Tuple[List[int], Tensor]] = None
    dtype: str = "float32"
    reach: Optional[Reach] = None

    @property
    def padded(self) -> Tuple[int, int]:
        """(H, W) of the map with its padding."""
        return self.windows[0] * self.region[0], self.windows[1] * self.region[1]


def windowed(x: Tensor, windows: Tuple[int, int], region: Tuple[int, int]) -> Tensor:
    """(b, H, W, c) -> (b, p2, t, c)."""
    (j, i), (h, w) = windows, region
    return x.reshape(x.shape[0], j, h, i, w, -1).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], j * i, h * w, -1)


def unwindowed(x: Tensor, windows: Tuple[int, int], region: Tuple[int, int]) -> Tensor:
    """(b, p2, t, c) -> (b, H, W, c). Inverse of `windowed`."""
    (j, i), (h, w) = windows, region
    return x.reshape(x.shape[0], j, i, h, w, -1).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], j * h, i * w, -1)


def padded(x: Tensor, size: Tuple[int, int], value: Tensor) -> Tensor:
    """(b, h, w, c) -> (b, H, W, c): tokens of `value` (c,) to the right and below."""
    h, w = x.shape[1:3]
    if (h, w) == size:
        return x
    whole = value.to(x).expand(x.shape[0], size[0], size[1], -1).clone()
    whole[:, :h, :w] = x
    return whole


def real_tokens(heard: Heard, device: Any = None) -> Tensor:
    """(p2, t) bool: tokens that are on the map and not padding."""
    H, W = heard.padded
    on = torch.zeros(1, H, W, 1, device=device)
    on[:, :heard.size[0], :heard.size[1]] = 1
    return windowed(on, heard.windows, heard.region)[0, :, :, 0] > 0


def areas_of(reach: Reach, size: Tuple[int, int], windows: Tuple[int, int], region: Tuple[int, int]) -> Tensor:
    """(p2, t): number of the area of every token of windows laid over a map of `size`; -1 where there is none."""
    rows, cols = places_of(windows, region)
    (h, w), (down, across) = size, reach.window
    if reach.kind == "windows":
        # Swin pads to whole windows, and what it pads is attended. The shift is a roll, whose seams stay apart.
        high, wide = -(-h // down) * down, -(-w // across) * across
        on = (rows < high) & (cols < wide)
        parts = []
        for at, whole, side, shift in ((rows, high, down, reach.shift[0]), (cols, wide, across, reach.shift[1])):
            rolled = (at - shift) % whole
            seam = (rolled >= whole - shift).long() if shift else torch.zeros_like(at)
            parts.append((rolled // side) * 2 + seam)
        area = parts[0] * (2 * (wide // across) + 2) + parts[1]
    else:
        on = (rows < h) & (cols < w)
        area = (rows * w + cols) // (h * w // reach.stripes) if reach.kind == "stripes" else torch.zeros_like(rows)
    return area.masked_fill(~on, -1)


def places_of(windows: Tuple[int, int], region: Tuple[int, int]) -> Tuple[Tensor, Tensor]:
    """(p2, t) rows and columns of the tokens of every window."""
    rows = torch.arange(windows[0] * region[0])[None, :, None, None].expand(1, -1, windows[1] * region[1], 1)
    cols = torch.arange(windows[1] * region[1])[None, None, :, None].expand(1, windows[0] * region[0], -1, 1)
    return windowed(rows, windows, region)[0, :, :, 0], windowed(cols, windows, region)[0, :, :, 0]


def reached(areas: Tensor) -> Tensor:
    """(p2, k): the windows that share an area with each; of those that reach fewer, others too, which get nothing."""
    names, place = torch.unique(areas, return_inverse=True)
    inside = torch.zeros(len(areas), len(names)).scatter_(1, place, 1.0)[:, names >= 0]
    shares = (inside @ inside.t() > 0).to(torch.int8)
    return shares.sort(stable=True, dim=-1, descending=True)[1][:, :max(1, int(shares.sum(-1).max()))]


def confined(reach: Reach, logits: Tensor, areas: Tensor, places: Tuple[Tensor, Tensor], queries: Tuple[Tensor, Tensor],
             keys: Tensor) -> Tensor:
    """Logits (b, n, m, t, k·s) with what the layer adds to them, and -inf for keys of other areas.

    Args:
        reach: of the layer.
        logits: of some tokens of n windows.
        areas: of every token (p2, t).
        places: rows and columns of every token (p2, t).
        queries: windows (n,) and tokens in them (t',).
        keys: (b, n, k) windows of the keys.
    """
    (windows, tokens), flat = queries, keys.flatten(2)
    own = areas[windows][:, tokens][None, :, None, :, None]
    other = areas[flat].flatten(2)[:, :, None, None, :]
    if reach.bias is not None:
        at = []
        for place, side in zip(places, reach.window):
            far = place[windows][:, tokens][None, :, :, None] - place[flat].flatten(2)[:, :, None, :]
            at.append((far + side - 1).clamp(0, 2 * side - 2))                              # (b, n, t, k·s)
        logits = logits + reach.bias.to(logits)[:, at[0], at[1]].permute(1, 2, 0, 3, 4)
    # A token of padding asks nothing; it sees all, so that its softmax is a number.
    return logits.masked_fill((own != other) & (own >= 0), float("-inf"))


def window_means(x: Tensor, real: Optional[Tensor]) -> Tensor:
    """(b, p2, t, c) -> (b, p2, c), over the real tokens where they are given."""
    if real is None:
        return x.mean(2)
    share = real.to(x)[None, :, :, None]
    return (x * share).sum(2) / share.sum(2).clamp(min=1)


def lepe_of(heard: Heard, v: Tensor) -> Tensor:
    """The position term (b, H, W, c) of a padded map v (b, H, W, c); zeros where the layer has none."""
    if heard.lepe is None:
        return torch.zeros_like(v)
    weight, bias = heard.lepe
    if heard.mask_padding:
        kept = torch.zeros_like(v)
        kept[:, :heard.size[0], :heard.size[1]] = v[:, :heard.size[0], :heard.size[1]]
        v = kept
    side = weight.shape[-2] // 2, weight.shape[-1] // 2
    term = F.conv2d(v.permute(0, 3, 1, 2), weight.to(v), None if bias is None else bias.to(v), padding=side,
                    groups=v.shape[-1])
    return term.permute(0, 2, 3, 1)


def pooled(heard: Heard, x: Tensor) -> Tensor:
    """(b, p2, t, c) -> (b, p2, s, c): k or v as the layer pools them in each window."""
    mode, ratio, side = heard.pool
    if mode == "identity":
        return x
    b, p2, _, c = x.shape
    maps = x.reshape(b * p2, heard.region[0], heard.region[1], c).permute(0, 3, 1, 2)
    if mode == "ada_avgpool":
        maps = F.adaptive_avg_pool2d(maps, side)
    elif mode == "ada_maxpool":
        maps = F.adaptive_max_pool2d(maps, side)
    elif mode == "avgpool":
        maps = F.avg_pool2d(maps, ratio)
    else:
        maps = F.max_pool2d(maps, ratio)
    return maps.flatten(2).transpose(1, 2).reshape(b, p2, -1, c)


def attended(heard: Heard, chosen: Optional[Sequence[int]] = None, tokens: Optional[Sequence[int]] = None) -> Tensor:
    """As `attended_parts`, all at once: (b, windows, tokens, c)."""
    return torch.cat([out for _, out in attended_parts(heard, chosen, tokens)], 1)


def attended_parts(heard: Heard, chosen: Optional[Sequence[int]] = None,
                   tokens: Optional[Sequence[int]] = None) -> Iterator[Tuple[List[int], Tensor]]:
    """Output of the layer computed again from q, k, v and r_idx, before the output linear and with the position term:
    some windows at a time, and of these (b, windows, tokens, c), in float32, or float64 where the layer has it.

    Args:
        heard: the layer.
        chosen: windows; None for all.
        tokens: of each window; None for all.
    """
    assert heard.q is not None
    assert heard.k is not None
    assert heard.v is not None
    assert heard.pad is not None
    exact = torch.float64 if heard.q.dtype == torch.float64 else torch.float32
    Q, c, m = heard.q.shape[-1], heard.v.shape[-1], heard.heads
    pad = heard.pad.to(heard.q.device, exact)
    whole = [padded(x.to(exact), heard.padded, pad[start:start + x.shape[-1]])
             for x, start in ((heard.q, 0), (heard.k, Q), (heard.v, 2 * Q))]
    q, k, v = (windowed(x, heard.windows, heard.region) for x in whole)
    lepe = windowed(lepe_of(heard, whole[2]), heard.windows, heard.region)
    k, v = pooled(heard, k), pooled(heard, v)
    if tokens is not None:
        q, lepe = q[:, :, tokens], lepe[:, :, tokens]
    b, p2, t, _ = q.shape
    rows = list(range(p2)) if chosen is None else list(chosen)
    keys = k.shape[2] * heard.r_idx.shape[-1]
    step = max(1, ROWS // max(1, b * m * t * keys))
    real = real_tokens(heard, q.device) if heard.mask_padding else None
    reach = heard.reach
    if reach is not None:
        areas = areas_of(reach, heard.size, heard.windows, heard.region).to(q.device)
        rows_of, cols_of = (place.to(q.device) for place in places_of(heard.windows, heard.region))
        every = torch.tensor(list(range(t)) if tokens is None else list(tokens), device=q.device)
    for start in range(0, len(rows), step):
        part = rows[start:start + step]
        routed = heard.r_idx[:, part].long().to(q.device)                                   # (b, n, k)
        at = torch.arange(b, device=q.device)[:, None, None]
        near, values = k[at, routed], v[at, routed]                                         # (b, n, k, s, ·)
        if heard.soft:
            factor = heard.r_weight[:, part].to(q)[..., None, None]
            near, values = near * factor, values * factor
        n = len(part)
        near = near.reshape(b, n, keys, m, Q // m).permute(0, 1, 3, 4, 2)
        values = values.reshape(b, n, keys, m, c // m).permute(0, 1, 3, 2, 4)
        asked = q[:, part].reshape(b, n, t, m, Q // m).permute(0, 1, 3, 2, 4)
        logits = (asked * heard.scale) @ near                                               # (b, n, m, t, keys)
        if real is not None:
            seen = real.to(q.device)[routed].reshape(b, n, 1, 1, keys)
            logits = logits.masked_fill(~seen, float("-inf"))
        if reach is not None:
            logits = confined(reach, logits, areas, (rows_of, cols_of),
                              (torch.tensor(part, device=q.device), every), routed)
            if reach.k is not None and reach.v is not None:
                outer = reach.k.to(q).reshape(b, 1, -1, m, Q // m).permute(0, 1, 3, 4, 2)
                logits = torch.cat([logits, (asked * heard.scale) @ outer], -1)
                outer = reach.v.to(q).reshape(b, 1, -1, m, c // m).permute(0, 1, 3, 2, 4)
                values = torch.cat([values, outer.expand(-1, n, -1, -1, -1)], 3)
        yield part, (logits.softmax(-1) @ values).permute(0, 1, 3, 2, 4).reshape(b, n, t, c) + lepe[:, part]


def projected(heard: Heard, x: Tensor) -> Tensor:
    """The output linear."""
    if heard.wo is None:
        return x
    weight, bias = heard.wo
    return F.linear(x, weight.to(x), None if bias is None else bias.to(x))


def affinity_of(heard: Heard, means: Optional[Tuple[Tensor, Tensor]] = None) -> Tensor:
    """Routing logits of all windows (b, p2, p2), in float32: scaled products of window means of q and k.

    Args:
        heard: the layer; its q, k, windows, scale and emb count.
        means: (b, p2, Q) of q and of k where the router was heard, else they are taken here.
    """
    if means is None:
        assert heard.q is not None
        assert heard.k is not None
        assert heard.pad is not None
        # The rewrite's means leave out what is beyond the map; the others' count padding in.
        real = real_tokens(heard, heard.q.device) if heard.rule == "floor" or heard.mask_padding else None
        Q = heard.q.shape[-1]
        q, k = (windowed(padded(x, heard.padded, heard.pad[at:at + Q]), heard.windows, heard.region)
                for x, at in ((heard.q, 0), (heard.k, Q)))
        means = window_means(q, real), window_means(k, real)
    query, key = means
    if heard.emb is not None:
        weight, bias = heard.emb
        query, key = (F.linear(x.to(weight), weight, bias) for x in (query, key))
    logits = ((query * heard.scale) @ key.transpose(-2, -1)).float()
    if heard.mask_padding:
        logits = logits.masked_fill(~real_tokens(heard, logits.device).any(-1), float("-inf"))
    return logits


# how a layer's parts are found -----------------------------------------------------------------------------------


def _number(module: Any, names: Sequence[str]) -> Optional[int]:
    own = vars(module) if isinstance(module, nn.Module) else {}
    for name in names:
        # A module looks for what it has not among its parts, which takes ten times as long.
        value = own[name] if name in own else getattr(type(module) if own else module, name, None)
        if isinstance(value, property):
            value = getattr(module, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def looks_like_bra(module: nn.Module) -> bool:
    """Whether a module has the parts of a BRA layer: windows and topk of its own beside a projection, or a router."""
    children = dict(module.named_children())
    if not children:
        return False
    windows = _number(module, N_WIN) is not None and _number(module, TOPK) is not None
    routes = any(_number(child, TOPK) is not None and _number(child, N_WIN) is None for child in children.values())
    if not windows and (not routes or isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))):
        return False
    return (windows and "router" in children) or any(name in children for name in PROJECTIONS) or len(
        [1 for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]) >= 3


def named_like_bra(module: nn.Module) -> bool:
    """Whether its class is called as BRA layers are."""
    name = type(module).__name__.lower().replace("_", "")
    return "bilevelrouting" in name or name in ("nchwbra", "bra")


def layers_of(network: nn.Module, skip: Tuple[type, ...] = ()) -> Dict[str, nn.Module]:
    """The BRA layers of a network by name, without those of the classes `skip`; of modules inside one another, the
    innermost.
    """
    found = {name: module for name, module in network.named_modules()
             if isinstance(module, skip) or looks_like_bra(module)}
    around = {name for name in found for other in found
              if other != name and (name == "" or other.startswith(name + "."))}
    return {name: module for name, module in found.items() if name not in around and not isinstance(module, skip)}


def called_bra(network: nn.Module, skip: Tuple[type, ...] = ()) -> Dict[str, nn.Module]:
    """Modules that are BRA by their class's name, whether or not their parts are known."""
    return {name: module for name, module in network.named_modules()
            if not isinstance(module, skip) and named_like_bra(module)}


def class_of(module: Any) -> str:
    """A module's class as "module.name"."""
    return "{}.{}".format(type(module).__module__, type(module).__qualname__)


@dataclass
class _Event:
    """One call of a part of a layer: what it got, and what it returned."""

    path: str
    module: nn.Module
    given: Tuple[Any, ...]
    out: Any


@dataclass
class _Frame:
    """A layer that is running.

    Attributes:
        name: its name.
        module: the layer.
        given: what it got.
        events: calls of its parts.
        named: what it got by name.
        above: names and modules that hold it, the innermost first.
        around: shapes of what the innermost got.
    """

    name: str
    module: nn.Module
    given: Tuple[Any, ...]
    events: List[_Event] = field(default_factory=list)
    named: Mapping[str, Any] = field(default_factory=dict)
    above: Sequence[Tuple[str, nn.Module]] = ()
    around: List[Tuple[int, ...]] = field(default_factory=list)


def _tensors(value: Any) -> List[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for t in value if isinstance(t, Tensor)]
    return []


def _copy(value: Any) -> Any:
    """A copy of the tensors: a layer may scale q in place after it was heard."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, (tuple, list)):
        return type(value)(_copy(one) for one in value) if type(value) in (tuple, list) else value
    return value


class _Parts:
    """What one call of a layer tells: tried in the order in which layers are commonly built.

    Raises:
        _UnknownError: nothing can be said of its routing.
    """

    def __init__(self, frame: _Frame, returned: Any) -> None:
        self.frame, self.module, self.events = frame, frame.module, frame.events
        maps = [t for t in _tensors(returned) if t.is_floating_point() and t.dim() in (3, 4)]
        if not maps:
            raise _UnknownError("it returned no map")
        self.y = maps[0].detach()
        given = [t for t in _tensors(list(frame.given)) if t.is_floating_point()]
        self.x: Optional[Tensor] = given[0].detach() if given else None
        self.n_win, self.topk = _number(self.module, N_WIN), _number(self.module, TOPK)
        self.heads = _number(self.module, HEADS) or 1
        self._router()
        self._projection()

    def _router(self) -> None:
        """Indices that some part returned beside weights, and the window means that it got."""
        self.r_idx: Optional[Tensor] = None
        self.r_weight: Optional[Tensor] = None
        self.means: Optional[Tuple[Tensor, Tensor]] = None
        self.router: Optional[nn.Module] = None
        for event in reversed(self.events):
            outs = _tensors(event.out) if isinstance(event.out, (tuple, list)) else []
            whole = [t for t in outs if t.dtype in (torch.int64, torch.int32) and t.dim() in (3, 4)]
            if not whole:
                continue
            r_idx = whole[0].detach()
            if r_idx.dim() == 4:
                heads_first = r_idx[:, :1].expand_as(r_idx)
                if not bool((r_idx == heads_first).all()):
                    raise _UnknownError("each head routes by itself")
                r_idx = r_idx[:, 0]
            weights = [t.detach() for t in outs if t.is_floating_point() and t.shape == whole[0].shape]
            self.r_idx, self.router = r_idx, event.module
            if weights:
                self.r_weight = weights[0] if weights[0].dim() == 3 else weights[0][:, 0]
            means = [t.detach() for t in _tensors(list(event.given)) if t.is_floating_point() and t.dim() == 3
                     and t.shape[1] == r_idx.shape[1]]
            if len(means) >= 2:
                self.means = (means[0], means[1])
            self.topk = int(r_idx.shape[-1])
            return

    def _projection(self) -> None:
        """q, k and v side by side, (b, p2, h, w, 2Q + c) by window or (b, H, W, 2Q + c) as a map; None if not heard."""
        self.qkv: Optional[Tensor] = None
        self.by_conv = False
        self.project: Optional[Callable[[Tensor], Tensor]] = None      # (n, c) -> (n, 2Q + c)
        self.Q = self.c = 0
        for event in self.events:       # a module that splits for itself returns (q, kv) or (q, k, v)
            outs = event.out if isinstance(event.out, (tuple, list)) else ()
            if len(outs) in (2, 3) and all(isinstance(t, Tensor) and t.is_floating_point() and t.dim() in (4, 5)
                                           for t in outs) and len({t.shape[:-1] for t in outs}) == 1:
                self.Q = int(outs[0].shape[-1])
                self.qkv = torch.cat([t.detach() for t in outs], -1)
                self.c = int(self.qkv.shape[-1]) - 2 * self.Q
                self.project = _Split(event.module)
                break
        if self.qkv is None:
            self._apart()
        if self.qkv is None:
            for event in self.events:
                if _is_projection(event.module) and isinstance(event.out, Tensor):
                    self._combined(event.module, event.out.detach())
                    break
        if self.qkv is None and self.x is not None:     # called as .forward, past every hook: run once more
            for name in PROJECTIONS:
                inner = getattr(self.module, name, None)
                if isinstance(inner, nn.Module) and _is_projection(inner):
                    self._combined(inner, inner(self.x).detach())
                    break
        if self.qkv is not None and self.c < 1:
            self.qkv = None

    def _combined(self, module: nn.Module, out: Tensor) -> None:
        self.by_conv = isinstance(module, nn.Conv2d)
        self.qkv = out.permute(0, 2, 3, 1) if self.by_conv and out.dim() == 4 else out
        Q = _number(self.module, ("qk_dim",))
        width = int(self.qkv.shape[-1])
        self.Q = Q if Q and 0 < 2 * Q < width else width // 3
        self.c = width - 2 * self.Q
        self.project = _Applied(module)

    def _apart(self) -> None:
        """A projection each for q, k and v, or for q and for k and v together, by the names that people give."""
        named: Dict[str, _Event] = {}
        for event in self.events:
            last = event.path.rpartition(".")[2].lower()
            for part in ("qk", "kv", "q", "k", "v"):
                if last in (part, "to_" + part, part + "_proj", "proj_" + part, part + "_linear", "w" + part,
                            part + "_conv", "linear_" + part) and isinstance(event.out, Tensor):
                    named[part] = event
        groups = (("q", "k", "v"), ("q", "kv"), ("qk", "v"))
        for group in groups:
            if all(part in named for part in group):
                events = [named[part] for part in group]
                conv = isinstance(events[0].module, nn.Conv2d)
                outs = [e.out.detach().permute(0, 2, 3, 1) if conv and e.out.dim() == 4 else e.out.detach()
                        for e in events]
                if len({t.shape[:-1] for t in outs}) != 1:
                    return
                self.Q = int(outs[0].shape[-1]) // (2 if group[0] == "qk" else 1)
                self.qkv = torch.cat(outs, -1)
                self.c = int(self.qkv.shape[-1]) - 2 * self.Q
                self.by_conv = conv
                self.project = _Applied(*(e.module for e in events))
                return


class _UnknownError(Exception):
    """Why nothing can be said of a layer; an English sentence of `CHINESE`."""


class _Applied:
    """Projections side by side, as a function of tokens."""

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = modules

    def __call__(self, tokens: Tensor) -> Tensor:
        """(n, c) -> (n, 2Q + c)."""
        return torch.cat([m(tokens[:, :, None, None])[:, :, 0, 0] if isinstance(m, nn.Conv2d) else m(tokens)
                          for m in self.modules], -1)


class _Split:
    """A module that returns q and the rest apart, as a function of tokens."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, tokens: Tensor) -> Tensor:
        """(n, c) -> (n, 2Q + c)."""
        return torch.cat([t.reshape(len(tokens), -1) for t in self.module(tokens[:, None, None, None, :])], -1)


def _is_projection(module: nn.Module) -> bool:
    """A linear, or a 1×1 convolution, with at least twice as many channels out as in."""
    if isinstance(module, nn.Linear):
        return module.out_features >= 2 * module.in_features
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1 and \
        module.out_channels >= 2 * module.in_channels


def tolerance_of(x: Tensor, dtype: Any = None) -> float:
    """Largest difference at which numbers of this kind, on this device, count as the same."""
    near = TOLERANCE.get(dtype or x.dtype, 1e-4)
    return near if x.device.type == "cpu" else max(near, LOOSE)


def understand(frame: Any, returned: Any, sample: bool) -> Heard:
    """What one call of a layer says: its routing, and where it can be proved, its attention.

    Args:
        frame: the call.
        returned: what the layer returned.
        sample: keep outputs of some windows, by which a file can be checked.

    Raises:
        _UnknownError: nothing can be said of its routing.
    """
    parts = _Parts(frame, returned)
    best: Optional[Heard] = None
    tolerance = tolerance_of(parts.y)
    if parts.qkv is not None and parts.heads >= 1 and parts.Q % parts.heads == 0 and parts.c % parts.heads == 0:
        for heard, target, layout in _readings(frame, parts):
            difference = _difference(heard, target, layout, tolerance, heard if sample else None)
            if difference is not None and difference <= tolerance:
                heard.difference, heard.known = difference, True
                return heard
            if difference is not None and (best is None or difference < (best.difference or 0.0)):
                heard.difference, best = difference, heard
    if parts.r_idx is None:
        raise _UnknownError("no projection to q, k and v, and no router with indices was heard")
    return _routing_only(frame, parts, None if best is None else best.difference)


def _readings(frame: _Frame, parts: _Parts) -> Iterator[Tuple[Heard, Tensor, str]]:
    """Ways to read one call, likeliest first, each with the tensor and the layout that it must give."""
    for h, w, layout in _sizes(parts):
        for windows, region, rule in _geometries(parts, h, w):
            base = _based(frame, parts, (h, w), windows, region, rule)
            if base is None:
                continue
            for scale in _scales(parts):
                base.scale = scale
                made = _routed(base, parts)
                if made is None:
                    continue
                for target, compared, inner in _targets(parts, layout):
                    yield _with(made, compared=compared), target, inner


def _with(heard: Heard, **changes: Any) -> Heard:
    """A copy with other attributes."""
    values = {name: getattr(heard, name) for name in Heard.__dataclass_fields__}
    values.update(changes)
    return Heard(**values)


def _sizes(parts: _Parts) -> List[Tuple[int, int, str]]:
    """(h, w) of the map that the layer returned, and where its channels are; each way that its shape allows."""
    y, found = parts.y, []
    if y.dim() == 4:
        if y.shape[1] == parts.c:
            found.append((int(y.shape[2]), int(y.shape[3]), "NCHW"))
        if y.shape[3] == parts.c:
            found.append((int(y.shape[1]), int(y.shape[2]), "NHWC"))
        if len(found) == 2 and parts.qkv is not None and parts.qkv.dim() == 5 and not parts.by_conv:
            found.reverse() if _square_root(parts.qkv.shape[1]) and \
                y.shape[1] == _square_root(parts.qkv.shape[1]) * parts.qkv.shape[2] else None
    elif parts.qkv is not None and y.shape[2] == parts.c:
        q = parts.qkv
        p = _square_root(q.shape[1]) if q.dim() == 5 else 0
        h, w = (p * q.shape[2], p * q.shape[3]) if q.dim() == 5 else q.shape[1:3]
        if h * w == y.shape[1]:
            found.append((int(h), int(w), "NLC"))
    return found


def _square_root(n: int) -> int:
    root = int(math.sqrt(n) + 0.5)
    return root if root * root == n else 0


def _geometries(parts: _Parts, h: int, w: int) -> List[Tuple[Tuple[int, int], Tuple[int, int], str]]:
    """Windows, tokens in a window, and the rule, as the recorded numbers allow."""
    assert parts.qkv is not None
    if parts.qkv.dim() == 5:
        p = _square_root(parts.qkv.shape[1])
        region = int(parts.qkv.shape[2]), int(parts.qkv.shape[3])
        if not p or p * region[0] < h or p * region[1] < w:
            return []
        return [((p, p), region, "pad")]
    found = []
    n = parts.n_win or (_square_root(parts.r_idx.shape[1]) if parts.r_idx is not None else 0)
    if n:
        floor = h // n, w // n
        grown = -(-h // n), -(-w // n)
        if min(floor) >= 1 and (parts.by_conv or floor == grown):
            found.append(((-(-h // floor[0]), -(-w // floor[1])), floor, "floor"))
        if floor != grown or not found:
            found.append(((n, n), grown, "pad"))
    if parts.r_idx is not None:
        found = [one for one in found if one[0][0] * one[0][1] == parts.r_idx.shape[1]]
    return found


def _scales(parts: _Parts) -> List[float]:
    """Factors on q·k that layers have, the layer's own first."""
    own = [getattr(parts.module, name, None) for name in ("scale", "qk_scale")] + [getattr(parts.router, "scale", None)]
    tried = [float(one) for one in own if isinstance(one, (int, float)) and one > 0]
    tried += [float(one) for one in own if isinstance(one, Tensor) and one.numel() == 1]
    tried += [parts.Q**-0.5, (parts.Q // parts.heads) ** -0.5]
    return list(OrderedDict.fromkeys(tried))


def _based(frame: _Frame, parts: _Parts, size: Tuple[int, int], windows: Tuple[int, int], region: Tuple[int, int],
           rule: str) -> Optional[Heard]:
    """The layer with its maps and parts, before its routing is known."""
    assert parts.qkv is not None
    Q, (h, w), module = parts.Q, size, parts.module
    H, W = windows[0] * region[0], windows[1] * region[1]
    qkv = parts.qkv
    if qkv.dim() == 5:
        qkv = unwindowed(qkv.flatten(2, 3), windows, region)
    elif tuple(qkv.shape[1:3]) not in (size, (H, W)):
        return None
    pad = torch.zeros(qkv.shape[-1], device=qkv.device, dtype=qkv.dtype)
    if tuple(qkv.shape[1:3]) == (H, W) and size != (H, W):      # padded before the projection: its bias is in there
        pad = qkv[0, -1, -1].clone()
    elif parts.qkv.dim() == 5 and parts.project is not None:     # nothing to pad here, but under other windows
        pad = _of_nothing(parts)
    qkv = qkv[:, :h, :w]
    pool = _pool_of(module)
    if pool is None:
        return None
    spec = getattr(module, "spec", None)
    gather = getattr(module, "kv_gather", None)
    return Heard(
        name=frame.name, module=module, kind=class_of(module), size=size, windows=windows, region=region,
        n_win=parts.n_win or windows[0], topk=parts.topk or 1, heads=parts.heads, scale=1.0,
        soft=getattr(gather, "mul_weight", "none") == "soft" or getattr(module, "soft_routing", False) is True,
        mask_padding=getattr(spec, "mask_padding", False) is True or getattr(module, "mask_padding", False) is True,
        rule=rule, r_idx=torch.zeros(0), r_weight=torch.zeros(0), affinity=None, routing="computed",
        q=qkv[..., :Q], k=qkv[..., Q:2 * Q], v=qkv[..., 2 * Q:], pad=pad, pool=pool, emb=_emb_of(parts),
        lepe=_lepe_conv(parts), wo=_output_linear(parts), dtype=str(parts.y.dtype).replace("torch.", ""))


def _of_nothing(parts: _Parts) -> Tensor:
    """What the projection makes of a token of zeros (2Q + c,)."""
    assert parts.project is not None
    assert parts.qkv is not None
    inner = [m for event in parts.events for m in [event.module] if _is_projection(m)]
    width = getattr(inner[0], "in_features", getattr(inner[0], "in_channels", parts.c)) if inner else parts.c
    return parts.project(torch.zeros(1, width, device=parts.qkv.device, dtype=parts.qkv.dtype))[0].detach()


def _emb_of(parts: _Parts) -> Optional[Tuple[Tensor, Optional[Tensor]]]:
    """The router's linear on window means."""
    router = parts.router if parts.router is not None else getattr(parts.module, "router", None)
    emb = getattr(router, "emb", None)
    if not isinstance(emb, nn.Linear):
        return None
    return emb.weight.detach(), None if emb.bias is None else emb.bias.detach()


def _pool_of(module: nn.Module) -> Optional[Tuple[str, int, int]]:
    """How k and v are pooled; None where it is not known."""
    layer = getattr(module, "kv_down", None)
    if layer is None or isinstance(layer, nn.Identity):
        return "identity", 1, 1
    for kind, mode in ((nn.AdaptiveAvgPool2d, "ada_avgpool"), (nn.AdaptiveMaxPool2d, "ada_maxpool")):
        if isinstance(layer, kind):
            side = layer.output_size
            side = side[0] if isinstance(side, tuple) and side[0] == side[1] else side
            return (mode, 1, side) if isinstance(side, int) else None
    for plain, mode in ((nn.MaxPool2d, "maxpool"), (nn.AvgPool2d, "avgpool")):
        if isinstance(layer, plain):
            sides = {one for value in (layer.kernel_size, layer.stride)
                     for one in (value if isinstance(value, tuple) else (value,))}
            return (mode, int(sides.pop()), 1) if len(sides) == 1 and layer.padding in (0, (0, 0)) else None
    return None


def _lepe_conv(parts: _Parts) -> Optional[Tuple[Tensor, Optional[Tensor]]]:
    """The depthwise convolution on v, by its name or as the only one that ran."""
    named = [getattr(parts.module, name, None) for name in POSITIONS]
    for layer in [*named, *(event.module for event in parts.events)]:
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels == parts.c and \
                layer.stride == (1, 1) and layer.dilation == (1, 1) and \
                layer.padding == (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2):
            return layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    return None


def _output_linear(parts: _Parts) -> Optional[Tuple[Tensor, Optional[Tensor]]]:
    """The last linear of c channels that ran, or the one of the usual names."""
    event = _output_event(parts)
    if event is None:
        return None
    weight = event.module.weight.detach()
    bias = event.module.bias
    return weight.reshape(weight.shape[0], -1), None if bias is None else bias.detach()


def _output_event(parts: _Parts) -> Any:
    """The call of the output linear."""
    for event in reversed(parts.events):
        m = event.module
        square = (isinstance(m, nn.Linear) and m.in_features == m.out_features == parts.c) or (
            isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.groups == 1
            and m.in_channels == m.out_channels == parts.c)
        within_router = parts.router is not None and any(m is one for one in parts.router.modules())
        if square and not within_router and event.path.rpartition(".")[2].lower() not in ("q", "k", "v", "to_q", "to_k",
                                                                                          "to_v"):
            return event
    for name in OUTPUTS:
        named = getattr(parts.module, name, None)
        if isinstance(named, (nn.Linear, nn.Conv2d)) and named.weight.numel() == parts.c**2:
            return _Event(name, named, (), None)
    return None


def _targets(parts: _Parts, layout: str) -> List[Tuple[Tensor, str, str]]:
    """What a reading must give: the layer's output, or else that of its output linear, after which it may go on."""
    found = [(parts.y, "output", layout)]
    event = _output_event(parts)
    if event is not None and isinstance(event.out, Tensor) and event.out.dim() == 4:
        found.append((event.out, "projection", "NCHW" if isinstance(event.module, nn.Conv2d) else "NHWC"))
    return found


def _routed(base: Heard, parts: _Parts) -> Optional[Heard]:
    """The layer with its routing: as heard, or computed as the paper says."""
    p2 = base.windows[0] * base.windows[1]
    if parts.r_idx is not None and (parts.r_idx.shape[1] != p2 or int(parts.r_idx.max()) >= p2
                                    or int(parts.r_idx.min()) < 0):
        return None
    affinity: Optional[Tensor] = affinity_of(base, parts.means)
    assert affinity is not None
    if parts.r_idx is None:
        if not 1 <= base.topk <= p2:
            return None
        values, r_idx = affinity.topk(base.topk, -1)
        return _with(base, r_idx=r_idx, r_weight=values.softmax(-1), affinity=affinity)
    weight = parts.r_weight
    if weight is None:
        weight = affinity.gather(-1, parts.r_idx.long()).softmax(-1)
    if not _explains(affinity, parts.r_idx.long(), parts.r_weight, parts.y.dtype):
        affinity = None
    return _with(base, r_idx=parts.r_idx, r_weight=weight, affinity=affinity, routing="heard")


def _explains(logits: Tensor, r_idx: Tensor, r_weight: Optional[Tensor], dtype: Any) -> bool:
    """Whether the chosen windows are those of the largest logits, and the weights their softmax."""
    chosen = logits.gather(-1, r_idx)
    near = tolerance_of(logits, dtype)
    largest = logits.topk(r_idx.shape[-1], -1).values
    finite = torch.isfinite(largest)
    reach = float(largest[finite].abs().max()) if bool(finite.any()) else 1.0
    same = torch.where(finite, chosen - largest, torch.zeros_like(largest)).abs().max() <= near * max(reach, 1e-6)
    return bool(same) and (r_weight is None or bool((chosen.softmax(-1) - r_weight.float()).abs().max() <= near))


def _difference(heard: Heard, target: Tensor, layout: str, tolerance: float,
                keep: Optional[Heard] = None) -> Optional[float]:
    """Largest difference between the layer computed again and what it returned, over its largest output; what was
    found so far as soon as it is beyond the tolerance.

    Args:
        heard: the reading.
        target: what the layer returned.
        layout: "NCHW", "NHWC" or "NLC".
        tolerance: largest difference of a reading that is right.
        keep: gets outputs at sample windows.
    """
    tokens = tokens_of(heard)
    y = target.permute(0, 2, 3, 1) if layout == "NCHW" else target
    h, w = heard.size
    if layout == "NLC":
        y = y.reshape(y.shape[0], h, w, -1)
    if y.dim() != 4 or y.shape[1] < h or y.shape[2] < w or y.shape[-1] != (heard.v.shape[-1] if heard.v is not None
                                                                          else 0):
        return None
    y = y[:, :h, :w].float() if y.dtype != torch.float64 else y[:, :h, :w]
    whole = windowed(padded(y, heard.padded, torch.zeros(y.shape[-1])), heard.windows, heard.region)[:, :, tokens]
    real = real_tokens(heard, y.device)[:, tokens]
    if keep is not None:
        at = sample_of(heard, SAMPLE)
        keep.sample = at, whole[:1, at].clone()
    if not bool(real.any()):
        return 0.0
    on = real[None, :, :, None].to(whole)
    most = float((whole * on).abs().max().clamp(min=1e-12))
    found = 0.0
    for part, again in attended_parts(heard, None, tokens):
        off = float(((projected(heard, again) - whole[:, part]) * on[:, part]).abs().max()) / most
        if not math.isfinite(off):
            return None
        found = max(found, off)
        if found > tolerance:
            break
    return found


def tokens_of(heard: Heard) -> List[int]:
    """Tokens of every window at which the layer is proved, spread over rows and columns."""
    t = heard.region[0] * heard.region[1]
    return sorted({n * t // TOKENS + (n * 7) % max(1, t // TOKENS) for n in range(TOKENS)}) if t > TOKENS else \
        list(range(t))


def sample_of(heard: Heard, count: int) -> List[int]:
    """Windows on the map, spread evenly, the first and the last among them."""
    on = real_tokens(heard).any(-1).nonzero().flatten().tolist()
    if len(on) <= count:
        return on
    return [on[round(n * (len(on) - 1) / (count - 1))] for n in range(count)]


def _routing_only(frame: _Frame, parts: _Parts, difference: Optional[float]) -> Heard:
    """A layer whose router was heard, and whose attention is its own."""
    assert parts.r_idx is not None
    p2 = int(parts.r_idx.shape[1])
    y = parts.y
    nchw = y.dim() == 4 and (parts.x is None or parts.x.shape[1] == y.shape[1]) and not (
        parts.x is not None and parts.x.dim() == 4 and parts.x.shape[-1] == y.shape[-1] == parts.c)
    size = (int(y.shape[2]), int(y.shape[3])) if nchw else (int(y.shape[1]), int(y.shape[2]))
    p = _square_root(p2)
    windows, region, rule = (p, p), (-(-size[0] // max(p, 1)), -(-size[1] // max(p, 1))), "pad"
    if not p or y.dim() != 4:
        raise _UnknownError("its windows are not laid out in rows and columns")
    affinity = None
    if parts.means is not None:
        means, emb = parts.means, _emb_of(parts)
        if emb is not None:
            means = F.linear(means[0], *emb), F.linear(means[1], *emb)
        for scale in _scales(parts):
            logits = ((means[0] * scale) @ means[1].transpose(-2, -1)).float()
            if _explains(logits, parts.r_idx.long(), parts.r_weight, y.dtype):
                affinity = logits
                break
    weight = parts.r_weight
    if weight is None:
        weight = torch.full(parts.r_idx.shape, 1 / parts.r_idx.shape[-1], device=y.device) if affinity is None else \
            affinity.gather(-1, parts.r_idx.long()).softmax(-1)
    channels = int(y.shape[1] if nchw else y.shape[-1])
    return Heard(
        name=frame.name, module=parts.module, kind=class_of(parts.module), size=size, windows=windows, region=region,
        n_win=p, topk=int(parts.r_idx.shape[-1]), heads=parts.heads if channels % max(parts.heads, 1) == 0 else 1,
        scale=(channels or 1) ** -0.5, soft=False, mask_padding=False, rule=rule, r_idx=parts.r_idx, r_weight=weight,
        affinity=affinity, routing="heard", known=False, difference=difference,
        note="routing known, attention not: it attends in a way of its own", dtype=str(y.dtype).replace("torch.", ""))


# attention that does not route ------------------------------------------------------------------------------------


def stock_kind(module: nn.Module) -> str:
    """Which attention over tokens a module is by its parts: "multihead", "window", "area", "position" (Ultralytics'
    Attention), "tokens" (timm's), or "" for none."""
    if isinstance(module, nn.MultiheadAttention):
        return "multihead"
    parts = module._modules
    if "qkv" not in parts or "proj" not in parts or _number(module, HEADS) is None or looks_like_bra(module):
        return ""
    # A class that routes, whatever its parts: its own hearing says what is to be said.
    if named_like_bra(module) or _number(module, N_WIN) is not None or _number(module, TOPK) is not None:
        return ""
    if hasattr(module, "relative_position_index") and hasattr(module, "window_size"):
        return "window"
    if "pe" in parts:
        return "area" if _number(module, ("area",)) is not None else \
            "position" if _number(module, ("key_dim",)) is not None else ""
    # A convolution beside them is of the input, as in BiFormer's last stage, and cannot be had from q, k and v.
    return "tokens" if isinstance(parts["qkv"], nn.Linear) and not any(name in parts for name in POSITIONS) else ""


def stock_layers(network: nn.Module, skip: Tuple[type, ...] = ()) -> Dict[str, nn.Module]:
    """The layers of a network whose attention does not route, by name; none inside of a BRA layer, or of `skip`."""
    inside: Tuple[str, ...] = ()
    found = {}
    for name, module in network.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(module, skip):
            inside += (name + "." if name else "",)
        elif stock_kind(module):
            found[name] = module
    around = layers_of(network, skip)
    return {name: module for name, module in found.items()
            if not any(name == one or name.startswith(one + ".") or one.startswith(name + ".") for one in around)}


def _fitted(module: Any) -> Optional[Tuple[Tensor, Optional[Tensor]]]:
    """Weight and bias of a convolution or linear, with the batch norm behind it folded in; None for anything else."""
    inner = module if isinstance(module, (nn.Conv2d, nn.Linear)) else getattr(module, "conv", None)
    if not isinstance(inner, (nn.Conv2d, nn.Linear)):
        return None
    weight, bias = inner.weight.detach(), None if inner.bias is None else inner.bias.detach()
    norm = None if inner is module else getattr(module, "bn", None)
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None or norm.running_mean is None:
        return weight, bias
    exact = torch.float64
    factor = (norm.running_var.to(exact) + norm.eps).rsqrt() * (
        1.0 if norm.weight is None else norm.weight.detach().to(exact))
    first = torch.zeros_like(factor) if bias is None else bias.to(exact)
    moved = (first - norm.running_mean.to(exact)) * factor + (
        0.0 if norm.bias is None else norm.bias.detach().to(exact))
    return (weight.to(exact) * factor.reshape(-1, *[1] * (weight.dim() - 1))).to(weight.dtype), moved.to(weight.dtype)


def _flat(pair: Optional[Tuple[Tensor, Optional[Tensor]]]) -> Optional[Tuple[Tensor, Optional[Tensor]]]:
    """A 1×1 convolution as a linear."""
    return None if pair is None else (pair[0].reshape(pair[0].shape[0], -1), pair[1])


@dataclass
class _Tokens:
    """q, k, v (b, n, ·) of one call, head by head, and the output (b, n, c) that they must give."""

    q: Tensor
    k: Tensor
    v: Tensor
    y: Tensor
    heads: int
    scale: float
    wo: Optional[Tuple[Tensor, Optional[Tensor]]]
    lepe: Optional[Tuple[Tensor, Optional[Tensor]]] = None


def _tokens_of(frame: _Frame, returned: Any, kind: str) -> _Tokens:
    """The tokens of one call.

    Raises:
        _UnknownError: they are not to be had.
    """
    module = frame.module
    if kind == "multihead":
        return _multihead(frame, returned)
    heads = int(_number(module, HEADS) or 1)
    maps = [t for t in _tensors(returned) if t.is_floating_point()]
    event = next((e for e in frame.events if e.path == "qkv" and isinstance(e.out, Tensor)), None)
    if not maps or event is None:
        raise _UnknownError("no projection to q, k and v, and no router with indices was heard")
    y, out = maps[0].detach(), event.out.detach()
    wo, scale = _flat(_fitted(module.proj)), getattr(module, "scale", None)
    if kind in ("position", "area"):
        b, c = out.shape[:2]
        width, key = c // heads, int(_number(module, ("key_dim",)) or 0) or c // heads // 3
        rows = out.flatten(2).reshape(b, heads, width, -1).permute(0, 3, 1, 2)               # (b, n, m, width)
        q, k, v = (part.flatten(2) for part in rows.split([key, key, width - 2 * key], -1))
        scale = float(scale) if kind == "position" and isinstance(scale, (int, float)) else key**-0.5
        return _Tokens(q, k, v, y.flatten(2).transpose(1, 2), heads, scale, wo, _fitted(module.pe))
    if out.shape[-1] % (3 * heads):
        raise _UnknownError("its parts do not fit together")
    wide = out.shape[-1] // 3
    q, k, v = out.reshape(out.shape[0], -1, 3 * wide).split(wide, -1)
    for name in ("q", "k"):             # normalised head by head, before they are multiplied
        normed = next((e.out.detach() for e in frame.events if e.path == name + "_norm" and isinstance(e.out, Tensor)
                       and not isinstance(e.module, nn.Identity)), None)
        if normed is not None and normed.dim() == 4 and normed.shape[1] == heads:
            normed = normed.transpose(1, 2).flatten(2)
            q, k = (normed, k) if name == "q" else (q, normed)
    usual = (wide // heads) ** -0.5
    return _Tokens(q, k, v, y.reshape(y.shape[0], -1, y.shape[-1]), heads,
                   float(scale) if isinstance(scale, (int, float)) else usual, wo)


def _multihead(frame: _Frame, returned: Any) -> _Tokens:
    """q, k, v of PyTorch's MultiheadAttention, whose parts are not called: they are computed from its weights."""
    module, named = frame.module, dict(zip(("query", "key", "value"), frame.given))
    named.update(frame.named)
    query, key, value = (named.get(name) for name in ("query", "key", "value"))
    maps = _tensors(returned)
    if not maps or query is None or key is None or value is None or query.shape != key.shape or \
            query.shape[:-1] != value.shape[:-1] or frame.named.get("attn_mask") is not None or \
            frame.named.get("key_padding_mask") is not None or any(one is not None for one in frame.given[3:4]) or \
            module.bias_k is not None or module.add_zero_attn:
        raise _UnknownError("its keys are not the tokens of its queries, or some are masked")
    given = [t.detach() for t in (query, key, value, maps[0])]
    if query.dim() == 2:
        given = [t[None] for t in given]
    elif not module.batch_first:
        given = [t.transpose(0, 1) for t in given]
    wide, bias = module.embed_dim, module.in_proj_bias
    weights = module.in_proj_weight.split(wide) if module.in_proj_weight is not None else \
        (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    biases = (None, None, None) if bias is None else bias.split(wide)
    q, k, v = (F.linear(x, w.detach(), None if b is None else b.detach()) for x, w, b in zip(given, weights, biases))
    return _Tokens(q, k, v, given[3], module.num_heads, (wide // module.num_heads) ** -0.5, _flat(_fitted(
        module.out_proj)))


def _map_of(frame: _Frame, count: int, image: Optional[Tuple[int, int]]) -> List[Tuple[int, int, Tuple[str, ...]]]:
    """Ways in which `count` tokens are a map: its rows, its columns, and names of the tokens before it.

    Raises:
        _UnknownError: there is none.
    """
    given = [tuple(t.shape) for t in _tensors(list(frame.given))]
    for shape in [shape for shape in given + frame.around if len(shape) == 4]:
        for h, w in ((shape[2], shape[3]), (shape[1], shape[2])):
            if h * w == count:
                return [(int(h), int(w), ())]
    if any("decoder" in (type(one).__name__ + name).lower() for name, one in frame.above):
        raise _UnknownError("its tokens are no places of the picture")
    names: List[str] = []
    for _, one in frame.above:
        held = vars(one).get("_parameters", {})
        for key, word in OUTSIDE:
            if isinstance(held.get(key), Tensor):
                extra = int(held[key].shape[-2]) if held[key].dim() > 1 else 1
                names += [word] if extra == 1 else ["{} {}".format(word, n + 1) for n in range(extra)]
    found = []
    for outside in OrderedDict.fromkeys((tuple(names), (), ("class token",))):
        n = count - len(outside)
        ways = [(h, n // h) for h in range(1, n + 1) if n % h == 0] if image else []
        # As many pixels to a token down as across, but for what is rounded at the edges.
        near = [(abs(math.log(image[0] * w / (h * image[1]))), h, w) for h, w in ways] if image else []
        if near and min(near)[0] < 0.1 and min(near)[1] > 1:
            found.append((min(near)[1], min(near)[2], outside))
    if not found:
        raise _UnknownError("its tokens are no places of the picture")
    return found


def laid_windows(size: Tuple[int, int], reach: Reach) -> Tuple[Tuple[int, int], Tuple[int, int]]:
    """Windows and tokens in a window that are laid over a map: about `LAID` a side, with little padding, and their
    edges on those of the areas where that can be."""
    if reach.kind == "windows":
        (rows, cols), (h, w) = reach.window, size
        size = -(-h // rows) * rows, -(-w // cols) * cols
    best: List[Tuple[float, int]] = []
    for p in range(1, min(2 * LAID, max(size)) + 1):
        h, w = -(-size[0] // p), -(-size[1] // p)
        spare = 1 - size[0] * size[1] / (p * h * p * w)
        if reach.kind == "windows":
            apart = any(side % n and n % side for n, side in zip((h, w), reach.window))
        else:
            apart = reach.kind == "stripes" and bool(size[0] % reach.stripes or (size[0] // reach.stripes) % h)
        best.append((4 * spare + 0.3 * apart + 0.3 * abs(math.log2(p / LAID)), p))
    p = min(best)[1]
    return (p, p), (-(-size[0] // p), -(-size[1] // p))


def understand_stock(frame: _Frame, returned: Any, kind: str, image: Optional[Tuple[int, int]], sample: bool) -> Heard:
    """What one call of a layer says that does not route.

    Args:
        frame: the call.
        returned: what the layer returned.
        kind: as `stock_kind` names it.
        image: height and width of what the network read, where it was a picture.
        sample: keep outputs of some windows, by which a file can be checked.

    Raises:
        _UnknownError: nothing can be said of it, or computed again it gives something else.
    """
    if kind == "window":
        readings = _window_readings(frame, returned)
    else:
        readings = _whole_readings(frame, _tokens_of(frame, returned, kind), image)
    best: Optional[float] = None
    for heard, target in readings:
        tolerance = tolerance_of(target)
        difference = _difference(heard, target, "NHWC", tolerance, heard if sample else None)
        if difference is not None and difference <= tolerance:
            heard.difference, heard.known = difference, True
            return heard
        best = difference if best is None else best
    raise _UnknownError("computed again from its q, k and v it gives another output: it attends in a way of its own")


def _read(frame: _Frame, tokens: _Tokens, size: Tuple[int, int], reach: Reach, maps: Sequence[Tensor],
          pad: Tensor) -> Heard:
    """A layer that attends as `reach` says, from its maps q, k, v (b, h, w, ·)."""
    windows, region = laid_windows(size, reach)
    routed = reached(areas_of(reach, size, windows, region)).to(maps[0].device)
    r_idx = routed.expand(len(maps[0]), -1, -1)
    own_padding = reach.kind == "windows" and bool(size[0] % reach.window[0] or size[1] % reach.window[1])
    return Heard(
        name=frame.name, module=frame.module, kind=class_of(frame.module), size=size, windows=windows, region=region,
        n_win=windows[0], topk=int(r_idx.shape[-1]), heads=tokens.heads, scale=tokens.scale, soft=False,
        mask_padding=not own_padding, rule="pad", r_idx=r_idx, affinity=None, routing="computed",
        r_weight=torch.full(r_idx.shape, 1 / r_idx.shape[-1], device=r_idx.device), q=maps[0], k=maps[1], v=maps[2],
        pad=pad, lepe=tokens.lepe, wo=tokens.wo, dtype=str(tokens.y.dtype).replace("torch.", ""), reach=reach)


def _whole_readings(frame: _Frame, tokens: _Tokens, image: Optional[Tuple[int, int]]) -> Iterator[Tuple[Heard, Tensor]]:
    """A layer over all tokens, or over stripes of them."""
    count, stripes = int(tokens.q.shape[1]), int(_number(frame.module, ("area",)) or 1)
    for h, w, names in _map_of(frame, count, image):
        n = len(names)
        reach = Reach("stripes" if stripes > 1 else "whole", max(1, stripes), names=names)
        if n:
            reach.k, reach.v = tokens.k[:, :n], tokens.v[:, :n]
        maps = [x[:, n:].reshape(len(x), h, w, -1) for x in (tokens.q, tokens.k, tokens.v)]
        pad = torch.zeros(sum(x.shape[-1] for x in maps), device=maps[0].device, dtype=maps[0].dtype)
        yield _read(frame, tokens, (h, w), reach, maps, pad), tokens.y[:, n:].reshape(len(tokens.y), h, w, -1)


def _window_readings(frame: _Frame, returned: Any) -> Iterator[Tuple[Heard, Tensor]]:
    """A layer over Swin's windows: torchvision's, which reads the map, or one that reads windows within a block that
    shifts them."""
    module: Any = frame.module
    given = [t.detach() for t in _tensors(list(frame.given)) if t.is_floating_point()]
    maps = [t.detach() for t in _tensors(returned) if t.is_floating_point()]
    if not given or not maps:
        raise _UnknownError("it returned no map")
    x, y, heads = given[0], maps[0], int(_number(module, HEADS) or 1)
    side = _pair_of(module.window_size)
    if x.dim() == 4:
        h, w = int(x.shape[1]), int(x.shape[2])
        shift = _pair_of(getattr(module, "shift_size", 0))
        qkv, bias = module.qkv.weight.detach(), module.qkv.bias
        bias = None if bias is None else bias.detach()
        if hasattr(module, "logit_scale") and bias is not None:     # the second version has none on its keys
            bias = torch.cat([part * factor for part, factor in zip(bias.chunk(3), (1, 0, 1))])
        high, wide = (-(-n // s) * s for n, s in zip((h, w), side))
        rows = F.linear(F.pad(x, (0, 0, 0, wide - w, 0, high - h)), qkv, bias)
    else:
        h, w = _block_map(frame, int(x.shape[0]), side)
        block: Any = frame.above[0][1]
        shift = _pair_of(getattr(block, "shift_size", 0))
        high, wide = (-(-n // s) * s for n, s in zip((h, w), side))
        event = next((e for e in frame.events if e.path == "qkv" and isinstance(e.out, Tensor)), None)
        out = F.linear(x, module.qkv.weight.detach(), getattr(module, "q_bias", None)) if event is None else event.out
        rows, y = (_unrolled(one, (high, wide), side, shift) for one in (out.detach(), y))
        y = y[:, :h, :w]
    # Windows as large as the map have nowhere to be shifted to.
    shift = 0 if side[0] >= high else shift[0], 0 if side[1] >= wide else shift[1]
    q, k, v = rows.chunk(3, -1)
    own, scale = getattr(module, "scale", None), (q.shape[-1] // heads) ** -0.5
    if hasattr(module, "logit_scale"):
        b = len(q)
        factor = module.logit_scale.detach().clamp(max=math.log(100.0)).exp().reshape(1, 1, 1, heads, 1)
        q, k = (F.normalize(t.reshape(b, high, wide, heads, -1), dim=-1) for t in (q, k))
        q, k, scale = (q * factor).flatten(3), k.flatten(3), 1.0
    elif isinstance(own, (int, float)):
        scale = float(own)
    reach = Reach("windows", window=side, shift=shift, bias=_bias_table(module, heads, side))
    tokens = _Tokens(q, k, v, y, heads, scale, _flat(_fitted(module.proj)))
    pad = torch.cat([q[0, -1, -1], k[0, -1, -1], v[0, -1, -1]])
    yield _read(frame, tokens, (h, w), reach, [t[:, :h, :w] for t in (q, k, v)], pad), y[:, :h, :w]


def _pair_of(value: Any) -> Tuple[int, int]:
    """One number, or two, as two."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _bias_table(module: Any, heads: int, side: Tuple[int, int]) -> Tensor:
    """(m, 2·rows - 1, 2·columns - 1): what Swin adds to logits by the place of the query less that of the key."""
    if hasattr(module, "cpb_mlp"):
        table = 16 * torch.sigmoid(module.cpb_mlp(module.relative_coords_table).detach().reshape(-1, heads))
    else:
        table = module.relative_position_bias_table.detach()
    return table.reshape(2 * side[0] - 1, 2 * side[1] - 1, heads).permute(2, 0, 1)


def _block_map(frame: _Frame, count: int, side: Tuple[int, int]) -> Tuple[int, int]:
    """Rows and columns of the map that a block of Swin cuts into windows; `count` windows of all pictures.

    Raises:
        _UnknownError: it is not known.
    """
    for shape in frame.around:
        if len(shape) == 4:
            return int(shape[1]), int(shape[2])
    own = getattr(frame.above[0][1], "input_resolution", None) if frame.above else None
    if isinstance(own, (tuple, list)) and len(own) == 2:
        return _pair_of(own)
    raise _UnknownError("its tokens are no places of the picture")


def _unrolled(x: Tensor, padded_size: Tuple[int, int], side: Tuple[int, int], shift: Tuple[int, int]) -> Tensor:
    """(windows of all pictures, t, c) -> (b, H, W, c), the roll taken back."""
    count = padded_size[0] // side[0], padded_size[1] // side[1]
    whole = unwindowed(x.reshape(-1, count[0] * count[1], x.shape[1], x.shape[2]), count, side)
    return torch.roll(whole, shift, (1, 2)) if any(shift) else whole


# listening --------------------------------------------------------------------------------------------------------

_listening: ContextVar[Optional["Listener"]] = ContextVar("bra_record", default=None)


class _Hook:
    """A forward hook of one listener on one module. A copy of the module carries the same hook."""

    def __init__(self, listener: Listener, kind: str, name: str, layer: str = "") -> None:
        self.listener, self.kind, self.name, self.layer = listener, kind, name, layer

    def __deepcopy__(self, memo: Any) -> _Hook:
        return self

    def __call__(self, module: nn.Module, given: Any, *out: Any) -> None:
        """Tell the listener, where it is the one of this call."""
        if _listening.get() is self.listener and not self.listener.busy:
            self.listener.note(self, module, given if isinstance(given, tuple) else (given,), *out)


def _hear_named(module: nn.Module, hook: _Hook) -> None:
    """Hang a hook on that gets what the module is given by name too, where torch is new enough to tell."""
    try:
        module.register_forward_pre_hook(hook, with_kwargs=True)  # type: ignore[call-overload,unused-ignore]
    except TypeError:
        module.register_forward_pre_hook(hook)


class Listener:
    """Hears the attention layers of networks for one call, in this thread: BRA, and attention that does not route.

    Args:
        networks: roots; a forward of one of them begins anew.
        skip: classes of the layers that are not to be heard.
        found: told of every layer as it returns, as soon as it is in `.heard`.
        table: also keep a line for every module: type, parameters, output shape, multiply-adds.
        sample: keep outputs of some windows.

    Attributes:
        heard: layers in the order in which they ran; one that runs again is "name#2".
        unknown: name -> why nothing could be said of a layer.
        image: the root's first input that is a tensor, a copy.
        out: what the root returned last.
        rows: the table, by name.
    """

    def __init__(self, networks: Sequence[nn.Module], skip: Tuple[type, ...] = (),
                 found: Optional[Callable[[Heard], None]] = None, table: bool = False, sample: bool = False) -> None:
        self.networks, self.skip, self.sample = list(networks), skip, sample
        self.found = found
        self.layers: Dict[str, nn.Module] = {}
        for network in self.networks:
            self.layers.update({**layers_of(network, skip), **stock_layers(network, skip)})
        self.table = table
        self.above: Dict[str, List[Tuple[str, nn.Module]]] = {}
        self.around: Dict[str, List[Tuple[int, ...]]] = {}
        self.size: Optional[Tuple[int, int]] = None
        self.busy = False
        self.frames: List[_Frame] = []
        self.touched: Dict[int, nn.Module] = {}
        self.names: Dict[str, int] = {}
        self.token: Any = None
        self._clear()

    def _clear(self) -> None:
        self.heard: List[Heard] = []
        self.unknown: Dict[str, str] = {}
        self.rows: Dict[str, Dict[str, Any]] = OrderedDict()
        self.image: Optional[Tensor] = None
        self.out: Any = None
        self.frames.clear()
        self.names.clear()

    def __enter__(self) -> Listener:
        self.token = _listening.set(self)
        try:
            for network in self.networks:
                self._hook_network(network)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        """Take every hook off again, from copies of the modules too."""
        if self.token is not None:
            _listening.reset(self.token)
            self.token = None
        for root in [*self.networks, *self.touched.values()]:
            for module in root.modules():
                for hooks in (module._forward_hooks, module._forward_pre_hooks):
                    for key in [key for key, hook in hooks.items()
                                if isinstance(hook, _Hook) and hook.listener is self]:
                        del hooks[key]
        self.frames.clear()
        self.touched.clear()

    def _hook_network(self, network: nn.Module) -> None:
        stock = stock_layers(network, self.skip)
        layers = {**layers_of(network, self.skip), **stock}
        inside = {}
        for name, layer in layers.items():
            for inner, module in layer.named_modules():
                if inner:
                    inside[module] = name, inner
        every = dict(network.named_modules())
        for name in stock:
            above = [".".join(name.split(".")[:n]) for n in range(name.count("."), -1, -1)] if name else []
            self.above[name] = [(one, every[one]) for one in above if one in every]
            if self.above[name]:
                self.above[name][0][1].register_forward_pre_hook(_Hook(self, "around", name))
        for name, module in network.named_modules():
            if name == "" :
                module.register_forward_pre_hook(_Hook(self, "root", name))
            if name in layers:
                _hear_named(module, _Hook(self, "begin", name))
                module.register_forward_hook(_Hook(self, "end", name))
            if module in inside:
                module.register_forward_hook(_Hook(self, "part", *inside[module][::-1]))
            if self.table:
                module.register_forward_hook(_Hook(self, "row", name))
            if name == "":
                module.register_forward_hook(_Hook(self, "done", name))

    def note(self, hook: _Hook, module: nn.Module, given: Tuple[Any, ...], *out: Any) -> None:
        """A module begins or returns."""
        if hook.kind == "root":
            if not any(module is one for one in self.networks):
                self.touched[id(module)] = module        # a copy that somebody made of the network
            if not self.frames:
                self._clear()
                images = [t for t in _tensors(list(given)) if t.is_floating_point() or t.dtype == torch.uint8]
                self.image = images[0].detach()[:1].clone() if images and self.table else None
                self.size = next(((int(t.shape[2]), int(t.shape[3])) for t in images if t.dim() == 4), None)
        elif hook.kind == "around":
            self.around[hook.name] = [tuple(t.shape) for t in _tensors(list(given))]
        elif hook.kind == "begin":
            self.frames.append(_Frame(hook.name, module, given, named=out[0] if out else {},
                                      above=self.above.get(hook.name, ()), around=self.around.get(hook.name, [])))
        elif hook.kind == "part":
            if self.frames and self.frames[-1].name == hook.layer:
                event = _Event(hook.name, module, given, out[0])
                if _is_projection(module) or len(_tensors(event.out)) > 1:
                    event.out = _copy(event.out)
                self.frames[-1].events.append(event)
        elif hook.kind == "row":
            self.rows[hook.name] = row_of(hook.name, module, given, out[0], self.rows.get(hook.name))
        elif hook.kind == "done":
            self.out = out[0] if self.table else None
        elif hook.kind == "end":
            while self.frames and self.frames[-1].name != hook.name:     # an error was caught inside the model
                self.frames.pop()
            if self.frames:
                self._finish(self.frames.pop(), out[0])

    def _finish(self, frame: _Frame, returned: Any) -> None:
        self.busy = True
        try:
            with torch.no_grad():
                kind = stock_kind(frame.module)
                heard = understand_stock(frame, returned, kind, self.size, self.sample) if kind else \
                    understand(frame, returned, self.sample)
            self.names[frame.name] = self.names.get(frame.name, 0) + 1
            if self.names[frame.name] > 1:
                heard.name = "{}#{}".format(frame.name, self.names[frame.name])
            if self.found is not None:
                self.found(heard)
            self.heard.append(heard)
        except _UnknownError as error:
            self.unknown[frame.name] = str(error)
        except RecordError:
            raise
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError):
            # The person's own forward goes on, whatever a class of its own kind does to what is tried here.
            self.unknown[frame.name] = "its parts do not fit together"
        finally:
            self.busy = False


# the table of layers ----------------------------------------------------------------------------------------------


def row_of(name: str, module: nn.Module, given: Tuple[Any, ...], out: Any,
           before: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """A line of the table: name, type, parameters of the module itself, output shape, multiply-adds.

    Multiply-adds are those of convolutions and linear layers; None for a module that has parameters of another kind.
    """
    shapes = [list(t.shape) for t in _tensors(out)]
    own = sum(p.numel() for p in module.parameters(recurse=False))
    macs: Optional[int] = 0
    first = _tensors(out)[0] if _tensors(out) else None
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and first is not None:
        kernel = 1
        for side in module.kernel_size:
            kernel *= side
        macs = int(first.numel()) * kernel * module.in_channels // module.groups
    elif isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)) and _tensors(list(given)):
        kernel = 1
        for side in module.kernel_size:
            kernel *= side
        macs = int(_tensors(list(given))[0].numel()) * kernel * module.out_channels // module.groups
    elif isinstance(module, nn.Linear) and first is not None:
        macs = int(first.numel()) * module.in_features
    elif own and not isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding,
                                         nn.PReLU)) and not list(module.children()):
        macs = None
    if before is not None and macs is not None and before["macs"] is not None:
        macs += before["macs"]
    return {"name": name, "type": class_of(module), "params": own, "out": shapes[0] if shapes else [], "macs": macs,
            "leaf": not list(module.children())}


def table_of(network: nn.Module, rows: Mapping[str, Mapping[str, Any]], heard: Sequence[Heard]) -> List[Dict[str, Any]]:
    """The network's rows: those of an Ultralytics model, else its children, containers opened; what is inside a row
    is added up in it. "counted" says whether every multiply-add of a row is: where it holds parts whose own code may
    multiply matrices, or parts that were not heard, it is not."""
    made = []
    attention: Dict[str, int] = {}
    for layer in heard:
        if layer.known:
            name = layer.name.split("#")[0]
            attention[name] = attention.get(name, 0) + attention_macs(layer)
    for path, module in _row_modules("", network, [layer.name.split("#")[0] for layer in heard]):
        macs, counted = 0, True
        for key, part in module.named_modules():
            name = (path + "." + key).strip(".")
            row = rows.get(name)
            macs += attention.get(name, 0) + (0 if row is None or row["macs"] is None else row["macs"])
            own = any(True for _ in part.parameters(recurse=False))
            if (own and (row is None or row["macs"] is None)) or not (
                    name in attention or _within(name, attention) or _plain(part)):
                counted = False
        kind = getattr(module, "type", "")
        made.append({"name": path, "type": kind if isinstance(kind, str) and kind else class_of(module),
                     "params": sum(p.numel() for p in module.parameters()),
                     "out": list(rows.get(path, {}).get("out", [])), "macs": macs, "counted": counted})
    return made


def _within(name: str, layers: Mapping[str, int]) -> bool:
    return any(name.startswith(layer + ".") for layer in layers)


def _plain(module: nn.Module) -> bool:
    """Whether its class is torch's own or holds others only: such code hardly multiplies matrices itself."""
    kind = type(module).__name__.lower()
    return type(module).__module__.startswith("torch.") or not (
        looks_like_bra(module) or any(word in kind for word in ("attn", "attention")))


def _row_modules(path: str, module: nn.Module, layers: Sequence[str], lone: bool = True) -> List[Tuple[str, nn.Module]]:
    """Paths and modules of the rows: containers are opened, and a lone child of the network itself."""
    children = [] if path in layers else list(module.named_children())
    lone = lone and len(children) == 1
    made: List[Tuple[str, nn.Module]] = []
    for name, child in children:
        at = (path + "." + name).strip(".")
        is_row = isinstance(getattr(child, "i", None), int) and hasattr(child, "f")
        opened = (lone or isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict))) and not is_row
        made += (_row_modules(at, child, layers, lone) if opened else []) or [(at, child)]
    return made or ([] if path else [(path, module)])


def attention_macs(heard: Heard) -> int:
    """Multiply-adds of routing and attention, beyond those of the layer's projections."""
    H, W = heard.padded
    p2 = heard.windows[0] * heard.windows[1]
    if heard.q is None or heard.v is None:
        return 0
    if heard.reach is not None:
        areas = areas_of(heard.reach, heard.size, heard.windows, heard.region)
        pairs = torch.bincount(areas[areas >= 0])
        outer = 0 if heard.reach.k is None else int(heard.reach.k.shape[1])
        return int(len(heard.q) * int((pairs * (pairs + outer)).sum()) * (heard.q.shape[-1] + heard.v.shape[-1]))
    Q, c = heard.q.shape[-1], heard.v.shape[-1]
    mode, ratio, side = heard.pool
    keys = {"identity": heard.region[0] * heard.region[1], "ada_avgpool": side * side, "ada_maxpool": side * side}.get(
        mode, (heard.region[0] // ratio) * (heard.region[1] // ratio))
    return int(len(heard.q) * (H * W * heard.topk * keys * (Q + c) + p2 * p2 * Q))


# what the model answered ------------------------------------------------------------------------------------------


def answer_of(out: Any, names: Any = None, most: int = 300) -> Dict[str, Any]:
    """Detections (label, score, left, top, right, bottom as shares of the picture) or classes of what a model returned.

    Understood are Ultralytics' Results, YOLOv5's Detections, torchvision's dicts, and one row of class scores.
    """
    first = out[0] if isinstance(out, (list, tuple)) and len(out) else out
    try:
        boxes = getattr(first, "boxes", None)
        if boxes is not None and hasattr(boxes, "xyxy"):
            height, width = first.orig_shape[:2]
            return {"detections": _boxes(boxes.xyxy, boxes.conf, boxes.cls, first.names, width, height, most)}
        probs = getattr(first, "probs", None)
        if probs is not None:
            return {"classes": _classes(probs.data, first.names)}
        if hasattr(out, "xyxyn") and hasattr(out, "names"):
            rows = out.xyxyn[0].detach().float().cpu()
            return {"detections": _boxes(rows[:, :4], rows[:, 4], rows[:, 5], out.names, 1.0, 1.0, most)}
        if isinstance(first, Tensor) and first.dim() in (1, 2) and first.is_floating_point() and \
                first.reshape(-1, first.shape[-1]).shape[0] == 1 and 1 < first.shape[-1] <= 30000:
            scores = first.reshape(-1).detach().float().cpu()
            share = scores if bool((scores >= 0).all()) and abs(float(scores.sum()) - 1) < 1e-3 else scores.softmax(-1)
            return {"classes": _classes(share, names)}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError):
        pass        # an answer of a kind that only looks like one of these
    return {}


def _label(names: Any, at: int) -> str:
    try:
        return str(names[at])[:64]
    except (IndexError, KeyError, TypeError):
        return "class {}".format(at)


def _boxes(xyxy: Tensor, conf: Tensor, cls: Tensor, names: Any, width: float, height: float,
           most: int) -> List[List[Any]]:
    found = []
    for box, score, at in list(zip(xyxy.tolist(), conf.tolist(), cls.tolist()))[:most]:
        shares = [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
        if all(math.isfinite(one) for one in (*shares, score)):
            found.append([_label(names, int(at)), float(score), *shares])
    return found


def _classes(share: Tensor, names: Any) -> List[List[Any]]:
    best = share.detach().float().cpu().topk(min(5, share.numel()))
    return [[_label(names, at), value] for value, at in zip(best.values.tolist(), best.indices.tolist())
            if math.isfinite(value)]


# the picture ------------------------------------------------------------------------------------------------------


def picture_of(x: Optional[Tensor]) -> Tuple[Optional[np.ndarray], bool]:
    """What the network read, (1, 3, h, w), as a picture (h, w, 3) uint8, and whether it was stretched to be seen.

    None where it was no picture. Numbers in 0 to 1, in 0 to 255, and those normalised by ImageNet's mean and spread
    are known; others are stretched from their least to their largest.
    """
    if x is None or x.dim() != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < 16 or \
            max(x.shape[2:]) > 50 * min(x.shape[2:]):
        return None, False
    rgb = x[0].detach().float().cpu()
    rgb = rgb.expand(3, -1, -1) if rgb.shape[0] == 1 else rgb
    low, high = float(rgb.min()), float(rgb.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return None, False
    stretched = False
    if x.dtype == torch.uint8 or (low >= 0 and 1.5 < high <= 255):
        rgb = rgb / 255
    elif low < -1e-3 or high > 1.001:
        mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        again = rgb * spread[:, None, None] + mean[:, None, None]
        if float(again.min()) > -0.02 and float(again.max()) < 1.02:
            rgb = again
        else:
            rgb, stretched = (rgb - low) / ((high - low) or 1), True
    pixels = (rgb.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return pixels, stretched


def encoded(pixels: np.ndarray, quality: int = 90) -> Tuple[str, np.ndarray]:
    """(h, w, 3) uint8 -> "webp" and its bytes; without Pillow "rgb" and the numbers, every second where there are
    more than a million pixels."""
    try:
        from PIL import Image
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", quality=quality)
        return "webp", np.frombuffer(buffer.getvalue(), np.uint8)
    except (ImportError, OSError, KeyError):
        step = 2 if pixels.shape[0] * pixels.shape[1] > 2**20 else 1
        return "rgb", np.ascontiguousarray(pixels[::step, ::step])


def read_picture(source: Any, size: int) -> Tensor:
    """A picture as most models read one: (1, 3, h, w) float32 in 0 to 1, sides multiples of 32, the longer `size`.

    Args:
        source: path, PIL image, or (h, w, 3) uint8.
        size: of the longer side, in pixels.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise RecordError("Pillow is not installed, which opens pictures: pip install pillow, or give the tensor that "
                          "the model reads.") from error
    image = Image.fromarray(source) if isinstance(source, np.ndarray) else source if isinstance(source, Image.Image) \
        else Image.open(source)
    image = image.convert("RGB")
    share = size / max(image.size)
    width, height = (max(32, round(side * share / 32) * 32) for side in image.size)
    pixels = np.asarray(image.resize((width, height))).astype(np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


# the file ---------------------------------------------------------------------------------------------------------

_KINDS = {"float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
          "uint8": "U8", "bool": "BOOL"}


def write_tensors(path: str, tensors: Mapping[str, np.ndarray], about: Mapping[str, str]) -> int:
    """Write a safetensors file: its size in bytes. The largest numbers come first, so that each lies aligned."""
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: Dict[str, Any] = {"__metadata__": dict(about)}
    at = 0
    for name in order:
        array = tensors[name]
        header[name] = {"dtype": _KINDS[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = str(path) + ".part"
    with open(part, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(np.ascontiguousarray(tensors[name]).tobytes())
    os.replace(part, str(path))
    return 8 + len(text) + at


def rounded(heard: Heard, bits: int) -> Tuple[Heard, Dict[str, np.ndarray]]:
    """The layer with q, k and v in so many bits, and the arrays of the file that hold them.

    Eight bits: whole numbers from -127 to 127, with a factor for every channel.
    """
    arrays, maps = {}, {}
    for part in ("q", "k", "v"):
        x = getattr(heard, part)[:1].float().cpu()
        if bits == 8:
            factor = (x.abs().amax((0, 1, 2)) / 127).clamp(min=1e-12)
            whole = (x / factor).round().clamp(-127, 127)
            arrays[part], arrays[part + "_factor"] = whole.to(torch.int8).numpy(), factor.numpy()
            maps[part] = whole * factor
        elif bits == 16:
            arrays[part] = x.half().numpy()
            maps[part] = x.half().float()
        else:
            arrays[part], maps[part] = x.numpy(), x
    kept = _with(heard, r_idx=heard.r_idx[:1].cpu(), r_weight=heard.r_weight[:1].cpu(),
                 pad=None if heard.pad is None else heard.pad.cpu(), reach=_first(heard.reach), **maps)
    return kept, arrays


def _first(reach: Optional[Reach]) -> Optional[Reach]:
    """Of the first picture, on the CPU."""
    if reach is None:
        return None
    k, v = (None if part is None else part[:1].float().cpu() for part in (reach.k, reach.v))
    bias = None if reach.bias is None else reach.bias.float().cpu()
    return Reach(reach.kind, reach.stripes, reach.window, reach.shift, bias, reach.names, k, v)


def stored_difference(heard: Heard) -> Optional[float]:
    """Largest difference of the layer, computed again from what is stored, at its sample windows."""
    if heard.sample is None:
        return None
    at, wanted = heard.sample
    wanted = wanted.float().cpu()
    tokens = tokens_of(heard)
    real = real_tokens(heard)[at][:, tokens][None, :, :, None].to(wanted)
    parts = {name: None if getattr(heard, name) is None else tuple(None if t is None else t.cpu()
             for t in getattr(heard, name)) for name in ("lepe", "wo")}
    again = projected(_with(heard, **parts), attended(_with(heard, **parts), at, tokens))
    found = float(((again - wanted) * real).abs().max() / (wanted * real).abs().max().clamp(min=1e-12))
    return found if math.isfinite(found) else None


def packed(layers: Sequence[Heard], most_bytes: int = MOST_BYTES) -> Tuple[List[Dict[str, Any]], Dict[str, np.ndarray]]:
    """Layers as descriptions and arrays, together at most `most_bytes` large.

    Each is kept in 16 bits where its output, computed again, stays within `KEPT`, else in 32. Where that is too much,
    the largest are kept in 8 bits, and then as their routing alone. Of a layer that does not route nothing would be
    left then: it is left out.
    """
    def size(number: int, bits: int) -> int:
        heard = layers[number]
        fixed = 0 if heard.reach is not None else heard.r_idx[:1].numel() * 6 + (
            0 if heard.affinity is None else heard.affinity[:1].numel() * 4)
        if not bits or heard.q is None or heard.v is None:
            return fixed
        weights = [t for pair in (heard.emb, heard.lepe, heard.wo) if pair for t in pair if t is not None]
        return fixed + sum(t.numel() * 4 for t in weights) + bits // 8 * (
            2 * heard.q[:1].numel() + heard.v[:1].numel())

    chosen: Dict[int, int] = {}
    for number, heard in enumerate(layers):
        off = stored_difference(rounded(heard, 16)[0]) if heard.known else None
        chosen[number] = 0 if not heard.known else 16 if off is not None and off <= KEPT else 32
    for lower in (8, 0):
        while sum(size(number, bits) for number, bits in chosen.items()) > most_bytes:
            larger = [number for number, bits in chosen.items() if bits > lower]
            if not larger:
                break
            chosen[max(larger, key=lambda number: size(number, chosen[number]))] = lower
    described: List[Dict[str, Any]] = []
    arrays: Dict[str, np.ndarray] = {}
    kept = [(heard, chosen[number]) for number, heard in enumerate(layers) if chosen[number] or heard.reach is None]
    for number, (heard, bits) in enumerate(kept):
        entry, own = _layer_arrays(heard, bits)
        described.append(entry)
        arrays.update({"{}.{}".format(number, name): array for name, array in own.items()})
    return described, arrays


def _layer_arrays(heard: Heard, bits: int) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
    p2 = heard.windows[0] * heard.windows[1]
    arrays = {} if heard.reach is not None else {
        "r_idx": heard.r_idx[:1].cpu().numpy().astype(np.int16 if p2 < 2**15 else np.int32),
        "r_weight": heard.r_weight[:1].float().cpu().numpy()}
    if heard.affinity is not None and (p2 <= 1024 or not bits):
        arrays["affinity"] = heard.affinity[:1].float().cpu().numpy().astype(
            np.float32 if p2 <= 400 else np.float16)
    stored: Optional[float] = None
    if bits:
        kept, maps = rounded(heard, bits)
        arrays.update(maps)
        stored = stored_difference(kept)
        assert heard.pad is not None
        arrays["pad"] = heard.pad.float().cpu().numpy()
        for name in ("emb", "lepe", "wo"):
            pair = getattr(heard, name)
            if pair is not None:
                arrays[name + "_weight"] = pair[0].float().cpu().numpy()
                if pair[1] is not None:
                    arrays[name + "_bias"] = pair[1].float().cpu().numpy()
    channels = None if heard.v is None else int(heard.v.shape[-1])
    reach: Optional[Dict[str, Any]] = None
    if heard.reach is not None:
        reach = {"kind": heard.reach.kind, "stripes": heard.reach.stripes, "window": list(heard.reach.window),
                 "shift": list(heard.reach.shift), "names": list(heard.reach.names)}
        for name in ("bias", "k", "v"):
            part = getattr(heard.reach, name)
            if part is not None:
                arrays["reach_" + name] = (part if name == "bias" else part[:1]).detach().float().cpu().numpy()
    return {
        "name": heard.name, "type": heard.kind, "size": list(heard.size), "windows": list(heard.windows),
        "region": list(heard.region), "n_win": heard.n_win, "topk": int(heard.r_idx.shape[-1]), "heads": heard.heads,
        "scale": heard.scale, "soft": heard.soft, "mask_padding": heard.mask_padding, "rule": heard.rule,
        "routing": heard.routing, "pool": list(heard.pool), "dim": channels, "bits": bits, "known": heard.known,
        "compared": heard.compared, "difference": heard.difference, "stored_difference": stored, "note": heard.note,
        "dtype": heard.dtype, "reach": reach}, arrays


# for people -------------------------------------------------------------------------------------------------------


def networks_of(model: Any) -> List[nn.Module]:
    """The networks inside whatever a person calls a model: a module, or an object that predicts with one.

    Raises:
        RecordError: there is none, or one that cannot be listened to.
    """
    found: List[nn.Module] = []
    predicts = hasattr(model, "predictor") or not isinstance(model, nn.Module)
    if not predicts:
        found.append(model)
    places = [model] if predicts else []
    if predicts and getattr(model, "predictor", None) is not None:
        places.append(model.predictor)
    for place in places:
        inner = place
        for _ in range(4):
            inner = next((getattr(inner, name) for name in ("model", "module", "net", "network")
                          if isinstance(getattr(inner, name, None), nn.Module)), None)
            if inner is None:
                break
            if layers_of(inner) or called_bra(inner) or stock_layers(inner) or not any(
                    isinstance(getattr(inner, name, None), nn.Module) for name in ("model", "module")):
                found.append(inner)
                break
    found = [one.module if isinstance(one, (nn.DataParallel, nn.parallel.DistributedDataParallel)) else one
             for one in found]
    if not found:
        raise RecordError("{kind} is no model of torch: give the module, or an object whose .model it is.",
                          kind=type(model).__name__)
    for one in found:
        if isinstance(one, torch.jit.ScriptModule) or hasattr(one, "_orig_mod"):
            raise RecordError("{model} is compiled or scripted, so its layers cannot be listened to: give the model "
                              "that it was made from.", model=type(model).__name__)
    return list(OrderedDict((id(one), one) for one in found).values())


@contextmanager
def listen(model: Any, path: Any, most_bytes: int = MOST_BYTES, answer: bool = True) -> Iterator[Listener]:
    """Record the last forward of `model` that runs inside the block.

    Args:
        model: a module, or an object that predicts with one, such as Ultralytics' YOLO.
        path: of the file to write; nothing is written where the block ends with an error.
        most_bytes: of all layers in the file.
        answer: keep what the network returned as detections or classes, where it is of a kind that is known.

    Raises:
        RecordError: no attention layer was heard; the sentence says why.
    """
    with Listener(networks_of(model), table=True, sample=True) as listener:
        yield listener
    size = save(listener, model, path, most_bytes, answer_of(listener.out) if answer else {})
    print(message("{path}: {n} layers, {size:.1f} MB", path=path, n=len(listener.heard), size=size / 1e6))


def record(model: Any, image: Any, path: Any = "run.bra", size: int = 640, most_bytes: int = MOST_BYTES) -> str:
    """Run `model` once on a picture and write what its attention layers did.

    Args:
        model: a module, or an object that predicts with one, such as Ultralytics' YOLO, which reads the picture
            itself.
        image: a path, a PIL image, (h, w, 3) uint8, or the tensor that the module reads.
        path: of the file to write.
        size: longer side in pixels at which a module gets the picture; tensors go in as they are.
        most_bytes: of all layers in the file.

    Returns:
        The path.

    Raises:
        RecordError: no attention layer was heard; the sentence says why.
    """
    networks = networks_of(model)
    given = image
    if isinstance(model, nn.Module) and not hasattr(model, "predictor") and not isinstance(image, Tensor):
        given = read_picture(image, size).to(next((p for p in model.parameters()), torch.zeros(0)))
    with Listener(networks, table=True, sample=True) as listener, torch.no_grad():
        out = model(given)
    answer = answer_of(out, getattr(model, "names", None)) or answer_of(listener.out, getattr(model, "names", None))
    written = save(listener, model, path, most_bytes, answer)
    print(message("{path}: {n} layers, {size:.1f} MB", path=path, n=len(listener.heard), size=written / 1e6))
    return str(path)


def save(listener: Listener, model: Any, path: Any, most_bytes: int, answer: Mapping[str, Any]) -> int:
    """Write what a listener heard; returns the size of the file in bytes.

    Raises:
        RecordError: it heard no layer.
    """
    network = listener.networks[0]
    check_heard(listener, type(network).__name__)
    pixels, stretched = picture_of(listener.image)
    layers, arrays = packed(listener.heard, most_bytes)
    written = {entry["name"] for entry in layers}
    unknown = dict(listener.unknown, **{heard.name: "its numbers did not fit into the file"
                                        for heard in listener.heard if heard.name not in written})
    about: Dict[str, Any] = {
        "version": VERSION, "model": type(network).__name__, "kind": class_of(network),
        "weights": str(getattr(model, "ckpt_path", "") or "")[-120:],
        "input": [] if listener.image is None else [int(n) for n in listener.image.shape],
        "torch": torch.__version__, "python": platform.python_version(), "layers": layers,
        "unknown": unknown, "table": table_of(network, listener.rows, listener.heard),
        "picture": None, "detections": answer.get("detections", []), "classes": answer.get("classes", [])}
    if pixels is not None:
        kind, arrays["picture"] = encoded(pixels)
        about["picture"] = {"kind": kind, "height": int(pixels.shape[0]), "width": int(pixels.shape[1]),
                            "stretched": stretched}
    return write_tensors(str(path), arrays, {"format": "bra-recording", "version": str(VERSION),
                                             "about": json.dumps(about, ensure_ascii=True, allow_nan=False)})


def check_heard(listener: Listener, model: str) -> None:
    """Raise RecordError where a listener heard no layer, and say why."""
    if listener.heard:
        return
    called: Dict[str, nn.Module] = {}
    for network in listener.networks:
        called.update(called_bra(network, listener.skip))
        called.update(layers_of(network, listener.skip))
        called.update(stock_layers(network, listener.skip))
    names = ", ".join("{} ({})".format(name or "the model", type(module).__name__)
                      for name, module in list(called.items())[:4]) + (" …" if len(called) > 4 else "")
    if listener.unknown:
        raise RecordError("{model} has {layers}, whose routing could not be followed ({why}): send us the class, or "
                          "record the layer alone.", model=model, layers=names,
                          why=message(next(iter(listener.unknown.values()))))
    if called and not any(named in listener.layers for named in called):
        raise RecordError("{model} has {layers}, whose routing could not be followed ({why}): send us the class, or "
                          "record the layer alone.", model=model, layers=names,
                          why=message("no projection to q, k and v, and no router with indices was heard"))
    if called:
        raise RecordError("{model} has {layers}, but none of these ran in this call: run the part of the model that "
                          "holds them.", model=model, layers=names)
    raise RecordError("{model} has no bi-level routing attention layer, and no other attention over an image's tokens: "
                      "give a model that has one.", model=model)
