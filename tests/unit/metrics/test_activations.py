"""Maps of a traced layer: the last is the layer's output, the others lead to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bra import BiLevelRoutingAttention
from bra.errors import TraceError
from bra.metrics.activations import layer_maps, score_map
from bra.teaching.example import FIRST, SIDE, example_module, run_example
from bra.tracing import LayerTrace, trace

OPTIONS: list[dict[str, Any]] = [
    {}, {"num_heads": 4}, {"mask_padding": True}, {"soft_routing": True}, {"side_dwconv": 0}, {"qk_dim": 4},
    {"param_attention": "qkv"}, {"param_attention": "none"}]


def traced(**options: Any) -> tuple[torch.Tensor, LayerTrace, BiLevelRoutingAttention]:
    module = BiLevelRoutingAttention(**{"dim": 8, "n_win": 3, "num_heads": 2, "topk": 4, **options}).eval()
    result = trace(module, torch.randn(2, 8, 10, 13))
    return result.out, result.layers[""], module


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("image", [0, 1])
def test_the_last_map_is_the_layers_output(options: dict[str, Any], image: int) -> None:
    out, layer, _ = traced(**options)
    maps = layer_maps(layer, image)
    np.testing.assert_allclose(maps.out, out[image].numpy(), atol=1e-5)
    np.testing.assert_allclose(maps.mixed + maps.lepe, maps.summed, atol=1e-6)
    assert maps.lepe.any() == (layer.lepe is not None)


@pytest.mark.parametrize("mask", [False, True])
def test_window_means_are_what_the_router_compared(mask: bool) -> None:
    _, layer, _ = traced(mask_padding=mask)
    maps = layer_maps(layer)
    corners = [layer.grid.token_of_window(window, 0) for window in range(9)]
    q, k = (np.array([of[:, row, col] for row, col in corners]) for of in (maps.q_mean, maps.k_mean))
    np.testing.assert_allclose(layer.spec.scale * q @ k.T, layer.affinity[0], atol=1e-5)


def test_scores_become_the_attention() -> None:
    _, layer, _ = traced(n_win=2, topk=2)
    for window, token in ((0, 0), (3, 5)):
        scores = score_map(layer, window, token)
        seen = ~np.isnan(scores)
        shares = np.where(seen, np.exp(np.nan_to_num(scores)), 0)
        attention = layer.grid.crop(layer.attention_map(window, token).numpy())
        ratio = attention[seen] / shares[seen]
        np.testing.assert_allclose(ratio.reshape(2, -1).std(-1) / ratio.reshape(2, -1).mean(-1), 0, atol=1e-4)
        assert not attention[~seen].any()


def test_maps_of_the_worked_example_are_its_numbers() -> None:
    made = run_example(FIRST, 2)
    x = torch.tensor(FIRST, dtype=torch.float32).view(1, SIDE, SIDE, 2).permute(0, 3, 1, 2)
    maps = layer_maps(trace(example_module(2), x).layers[""])
    for name, same in {"q": "q_map", "k": "k_map", "v": "v_map", "mixed": "mixed", "lepe": "lepe", "summed": "summed",
                       "out": "out"}.items():
        np.testing.assert_allclose(getattr(maps, name).transpose(1, 2, 0), getattr(made, same)[0], atol=1e-6)


def test_pooled_keys_are_refused_in_a_sentence() -> None:
    _, layer, _ = traced(kv_downsample_mode="avgpool", kv_downsample_ratio=2)
    for ask in (lambda: layer_maps(layer), lambda: score_map(layer, 0, 0)):
        with pytest.raises(TraceError, match="pools its keys"):
            ask()
