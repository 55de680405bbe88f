"""Attending through FlexAttention: the routed windows are a block mask, so that nothing is gathered at all.

Tokens stand in window-major order and every window is one block of the mask, filled up to a multiple of the kernel's
tile; the key blocks of a query block are then r_idx itself. What fills a window up, and keys that are masked as
padding, are left out by `mask_mod`, which also says the routing once more, so that a kernel that does not read the
lists computes the same. No mask of tokens by tokens is ever made.

Written for CUDA, and tested on the CPU only: there by FlexAttention's own CPU kernel and by its uncompiled form, and
the block lists by spreading them out. It never ran on a GPU here, so nothing is claimed of its speed and
`dispatch` takes it only where it is asked for. Legend: see `functional`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILES: Final = (64, 32, 16)
"""Tokens that the kernel takes at once, largest first. 16 is its least, also of channels per head."""
TOLERANCE: Final = {torch.float32: 5e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""By dtype, how far both forms may be apart on numbers of spread 1; float32 may be multiplied as TF32."""
MOST_SHAPES: Final = 64
"""Shapes that the kernel is compiled for, by which torch counts; its own bound, 8, is less than a model may have."""
Kernel = Callable[..., Any]


class Shapes(NamedTuple):
    """Shapes and options of one call of `attend`, from which `example` makes random arguments.

    Attributes:
        device: type and index.
        dtype: of q, k and v.
        q: (b, m, p2, t, Q/m).
        k: (b, m, p2, s, Q/m).
        v: (b, m, p2, s, c/m).
        topk: routed windows.
        masked, learns: whether some keys are masked, and gradients wanted.
        scale: factor on q·k, which the kernel is compiled with.
    """

    device: torch.device
    dtype: torch.dtype
    q: tuple[int, ...]
    k: tuple[int, ...]
    v: tuple[int, ...]
    topk: int
    masked: bool
    learns: bool
    scale: float


def tile_of(tokens: int) -> int:
    """The largest tile that fills a window of so many tokens up by at most a quarter more than the least does."""
    least = min(padded(tokens, tile) for tile in TILES)
    return next(tile for tile in TILES if 4 * padded(tokens, tile) <= 5 * least)


def padded(tokens: int, tile: int) -> int:
    """The next multiple of the tile."""
    return -(-tokens // tile) * tile


def block_mask(r_idx: Tensor, q_block: int, k_block: int, s: int, real_keys: Tensor | None = None) -> Any:
    """The routing as FlexAttention reads it.

    Args:
        r_idx: (b, p2, k).
        q_block: tokens of a window of queries, filled up.
        k_block: keys of a window, filled up.
        s: keys of a window.
        real_keys: (p2, s) bool, which may be attended.
    """
    from torch.nn.attention.flex_attention import BlockMask

    b, p2, k = r_idx.shape
    chosen = torch.zeros(b, p2, p2, dtype=torch.bool, device=r_idx.device).scatter_(-1, r_idx, True)
    real = torch.ones(p2, s, dtype=torch.bool, device=r_idx.device) if real_keys is None else real_keys
    real = F.pad(real, (0, k_block - s)).flatten()                              # (p2·k_block,)

    def mask_mod(image: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return chosen[image, query // q_block, key // k_block] & real[key]

    # Entries beyond the first k are not read; there are as many as windows, since their number tells how long k is.
    blocks = F.pad(r_idx, (0, p2 - k))[:, None].int().contiguous()              # (b, 1, p2, p2)
    count = torch.full((b, 1, p2), k, dtype=torch.int32, device=r_idx.device)
    if real_keys is not None or k_block != s:
        return BlockMask.from_kv_blocks(count, blocks, BLOCK_SIZE=(q_block, k_block), mask_mod=mask_mod)
    # Blocks whose keys all count are listed apart: in them the mask is not even computed.
    return BlockMask.from_kv_blocks(torch.zeros_like(count), torch.zeros_like(blocks), count, blocks,
                                    BLOCK_SIZE=(q_block, k_block), mask_mod=mask_mod)


def attend(q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, real_keys: Tensor | None = None,
           kernel: Kernel | None = None) -> Tensor:
    """As `dispatch.attend_routed` without a factor, by a kernel that reads the routing from a block mask.

    q (b, m, p2, t, Q/m), k (b, m, p2, s, Q/m), v (b, m, p2, s, c/m), r_idx (b, p2, k), real_keys (p2, s) bool for those
    that may be attended. `kernel` is called as `flex_attention`; None for that, compiled.
    """
    (b, m, p2, t, _), (s, c) = q.shape, v.shape[-2:]
    q_tile, k_tile = tile_of(t), tile_of(s)
    q_block, k_block = padded(t, q_tile), padded(s, k_tile)
    q, k, v = (_filled(x, block) for x, block in ((q, q_block), (k, k_block), (v, k_block)))
    mask = block_mask(r_idx, q_block, k_block, s, real_keys)
    with torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
        out: Tensor = (kernel or _compiled())(q, k, v, block_mask=mask, scale=scale,
                                              kernel_options=_tiles(q_tile, k_tile))
    return out.view(b, m, p2, q_block, -1)[..., :t, :c]


def _filled(x: Tensor, block: int) -> Tensor:
    """(b, m, p2, n, c) -> (b, m, p2·block, c or more), zeros after the tokens of each window and after few channels.

    It lies in memory as its shape says, since the kernel is compiled for one layout.
    """
    channels, tokens = max(0, TILES[-1] - x.shape[-1]), block - x.shape[-2]
    return (F.pad(x, (0, channels, 0, tokens)) if channels or tokens else x).contiguous().flatten(2, 3)


def _tiles(q: int, k: int) -> dict[str, int]:
    """The kernel's tiles, which must divide the blocks: forward; gradient of k and v; gradient of q."""
    return {"BLOCK_M": q, "BLOCK_N": k, "BLOCK_M1": min(q, k), "BLOCK_N1": k, "BLOCK_M2": q, "BLOCK_N2": min(q, k)}


@functools.cache
def _compiled() -> Kernel:
    """`flex_attention` compiled, once per process: torch keeps what it compiled with this function, bounded by
    MOST_SHAPES, and locks it. It never runs uncompiled: that would write out every token's row over all tokens."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Kernel = torch.compile(flex_attention, fullgraph=True, dynamic=False)
    return compiled


def possible(q: Tensor, factor: Tensor | None = None) -> bool:
    """Whether the kernel could attend queries q: no factor on what is gathered, a dtype and a device that it knows."""
    if factor is not None or q.dtype not in TOLERANCE:
        return False
    # Not on a CPU, though there is a kernel: it has no backward, and torch 2.14's ends the whole process where the
    # number of threads is another than when it was compiled.
    return q.is_cuda and torch.cuda.get_device_capability(q.device) >= (8, 0)


def example(shapes: Shapes) -> dict[str, Any]:
    """Random arguments of `attend` in these shapes, the same each time; no generator but their own is touched."""
    made = torch.Generator(shapes.device).manual_seed(0)

    def normal(shape: tuple[int, ...]) -> Tensor:
        drawn = torch.randn(shape, generator=made, device=shapes.device, dtype=shapes.dtype)
        return drawn.requires_grad_(shapes.learns)

    b, _, p2 = shapes.q[:3]
    order = torch.rand(b, p2, p2, generator=made, device=shapes.device).argsort(-1)
    # Every window keeps its first key: a row without any would have no softmax.
    real = torch.arange(shapes.k[3], device=shapes.device) < 1 + torch.arange(p2, device=shapes.device)[:, None]
    return {"q": normal(shapes.q), "k": normal(shapes.k), "v": normal(shapes.v), "r_idx": order[..., :shapes.topk],
            "scale": shapes.scale, "real_keys": real if shapes.masked else None}
