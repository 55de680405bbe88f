"""BiFormer has the published size, cost and names, and each of its layers can be looked into."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import bra
from bra.errors import SpecError
from bra.models.biformer import (
    BiFormer,
    FullAttention,
    biformer_base,
    biformer_small,
    biformer_stl,
    biformer_tiny,
)

Make = Callable[[], BiFormer]


@pytest.mark.parametrize(("make", "millions", "giga_macs"), [
    (biformer_tiny, 13.1, 2.2), (biformer_small, 25.5, 4.5), (biformer_base, 56.8, 9.8), (biformer_stl, 28.4, 4.6)])
def test_parameters_and_multiply_adds_are_the_published_ones(make: Make, millions: float, giga_macs: float) -> None:
    with torch.device("meta"):
        model = make().eval()
        image = torch.empty(1, 3, 224, 224)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga_macs, rel=0.04)


def test_names_are_those_of_the_published_checkpoints() -> None:
    with torch.device("meta"):
        tiny, stl = set(biformer_tiny().state_dict()), set(biformer_stl().state_dict())
    assert {"downsample_layers.0.0.weight", "downsample_layers.0.4.running_mean", "downsample_layers.3.1.bias",
            "stages.0.0.pos_embed.weight", "stages.2.7.attn.qkv.qkv.weight", "stages.2.7.attn.wo.bias",
            "stages.2.7.attn.lepe.weight", "stages.3.1.attn.qkv.weight", "stages.3.1.attn.proj.bias",
            "stages.3.1.attn.lepe.bias", "stages.0.0.mlp.0.weight", "stages.0.0.mlp.3.weight", "norm.running_var",
            "head.weight"} <= tiny
    assert "stages.3.1.attn.qkv.bias" not in tiny
    assert {"downsample_layers.1.0.running_mean", "downsample_layers.1.1.weight", "stages.2.blocks.5.norm1.weight",
            "stages.2.blocks.5.mlp.2.weight"} <= stl
    assert not any("pos_embed" in name for name in stl)


def test_every_routed_layer_can_be_traced_on_its_pixels() -> None:
    torch.manual_seed(0)
    model = BiFormer((1, 1, 2, 1), (32, 64, 96, 128), num_classes=5).eval()
    trace = bra.trace(model, torch.rand(1, 3, 224, 160))
    assert trace.out.shape == (1, 5)
    assert list(trace.layers) == ["stages.0.0.attn", "stages.1.0.attn", "stages.2.0.attn", "stages.2.1.attn"]
    assert [layer.grid.stride for layer in trace.layers.values()] == [(4, 4), (8, 8), (16, 16), (16, 16)]
    assert [layer.spec.topk for layer in trace.layers.values()] == [1, 4, 16, 16]


def test_full_attention_is_the_softmax_over_all_tokens() -> None:
    torch.manual_seed(0)
    layer, x = FullAttention(16, num_heads=2).eval(), torch.randn(1, 16, 3, 4)
    tokens = x[0].flatten(1).T
    q, k, v = layer.qkv(tokens).split(16, -1)
    heads = [torch.softmax(q[:, s] @ k[:, s].T / 8**0.5, -1) @ v[:, s] for s in (slice(0, 8), slice(8, 16))]
    expected = layer.proj(torch.cat(heads, -1) + layer.lepe(x)[0].flatten(1).T)
    torch.testing.assert_close(layer(x)[0].flatten(1).T, expected)


def test_it_learns_in_training_mode_and_refuses_what_heads_do_not_divide() -> None:
    model = BiFormer((1, 1, 1, 1), (32, 32, 32, 32), num_classes=2, drop_path_rate=0.2)
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(SpecError, match="multiples of 32"):
        BiFormer((1, 1, 1, 1), (32, 32, 48, 32))
