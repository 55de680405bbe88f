"""What a traced layer made on its way from keys to output, laid on the map: every channel at every token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from bra import functional as BF
from bra.errors import TraceError
from bra.messages import message
from bra.metrics.routing import Floats
from bra.tracing import LayerTrace


@dataclass(frozen=True, slots=True, eq=False)
class LayerMaps:
    """Maps (channels, h, w) of one image, padding cut off.

    Attributes:
        q: queries.
        k: keys.
        q_mean: at each token the mean query of its window, padding included, as the router sees it.
        k_mean: the same of keys.
        v: values.
        mixed: weighted means of the gathered values: what attention alone puts out.
        lepe: the position term; 0 where the layer has none.
        summed: both.
        out: the layer's output.
    """

    q: Floats
    k: Floats
    q_mean: Floats
    k_mean: Floats
    v: Floats
    mixed: Floats
    lepe: Floats
    summed: Floats
    out: Floats


@torch.inference_mode()
def layer_maps(trace: LayerTrace, image: int = 0) -> LayerMaps:
    """The maps of one image of a layer.

    Raises:
        TraceError: the layer pools its keys, which then have no token of their own.
    """
    _check_tokens(trace)
    q, k, v = (of[image : image + 1] for of in (trace.q, trace.k, trace.v))              # (1, m, p2, t, ·)
    r_idx = trace.r_idx[image : image + 1]
    factor = None if trace.factor is None else trace.factor[image : image + 1]
    keys, values = BF.gather_keys(k, r_idx, factor), BF.gather_keys(v, r_idx, factor)
    mixed = BF.attend_explicit(q, keys, values, trace.spec.scale, BF.gather_mask(trace.real_keys, r_idx))[0]
    lepe = torch.zeros_like(mixed) if trace.lepe is None else trace.lepe[image : image + 1]
    summed = mixed + lepe
    joined = rearrange(summed, "b m n t c -> b n t (m c)")
    out = joined if trace.wo is None else F.linear(joined, *trace.wo)
    means = (_window_means(trace, of) for of in (q, k))
    return LayerMaps(*(_on_map(trace, of) for of in (q, k, *means, v, mixed, lepe, summed, out[:, None])))


@torch.inference_mode()
def score_map(trace: LayerTrace, window: int, token: int, image: int = 0) -> Floats:
    """(heads, h, w): the scaled product of one token's query with each key that was gathered for it; NaN elsewhere.

    A softmax over a head's numbers is `trace.attention` of the token, except for masked padding.

    Raises:
        GridError: no such window or token.
        TraceError: the layer pools its keys.
    """
    trace.grid.token_of_window(window, token)
    _check_tokens(trace)
    chosen = trace.r_idx[image, window]
    factor = None if trace.factor is None else trace.factor[image : image + 1, window : window + 1]
    keys = BF.gather_keys(trace.k[image : image + 1], chosen[None, None], factor)        # (1, m, 1, k·t, ·)
    query = trace.q[image : image + 1, :, window : window + 1, token : token + 1]
    scores = BF.affinity(query, keys, trace.spec.scale)[0, :, 0, 0].float()             # (m, k·t)
    by_window = torch.full((len(scores), trace.grid.n_windows, trace.grid.n_tokens), float("nan"))
    by_window[:, chosen] = scores.view(len(scores), len(chosen), -1)
    return _cropped(trace, trace.grid.to_map(by_window.numpy()))


def _check_tokens(trace: LayerTrace) -> None:
    if trace.k.shape[3] != trace.grid.n_tokens:
        raise TraceError(message("layer {name} pools its keys, so they cannot be laid on tokens: look at a layer with "
                                 "kv_downsample_mode='identity'.", name=repr(trace.name)))


def _window_means(trace: LayerTrace, of: Tensor) -> Tensor:
    """(1, m, p2, t, c) -> the same with each token's numbers those of its window's mean."""
    real = None if trace.real_keys is None else trace.real_keys[:, None]
    by_token = rearrange(of, "b m n t c -> b n 1 t (m c)")
    mean = BF.pool(by_token, real)[:, :, None]
    return rearrange(mean.expand(-1, -1, of.shape[3], -1), "b n t (m c) -> b m n t c", m=of.shape[1])


def _on_map(trace: LayerTrace, of: Tensor) -> Floats:
    """(1, m, p2, t, c) -> (m·c, h, w)."""
    return _cropped(trace, trace.grid.to_map(rearrange(of, "1 m n t c -> (m c) n t").float().numpy()))


def _cropped(trace: LayerTrace, of: NDArray[np.float32]) -> Floats:
    return trace.grid.crop(of).astype(np.float64)
