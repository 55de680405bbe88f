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


def test_every_layer_can_be_traced_on_its_pixels() -> None:
    torch.manual_seed(0)
    model = BiFormer((1, 1, 2, 1), (32, 64, 96, 128), num_classes=5).eval()
    trace = bra.trace(model, torch.rand(1, 3, 224, 160))
    assert trace.out.shape == (1, 5)
    layers = trace.layers.values()
    assert list(trace.layers) == ["stages.0.0.attn", "stages.1.0.attn", "stages.2.0.attn", "stages.2.1.attn",
                                  "stages.3.0.attn"]
    assert [layer.grid.stride for layer in layers] == [(4, 4), (8, 8), (16, 16), (16, 16), (32, 32)]
    # The last map has 7×5 tokens: 5 windows per side are the most it holds.
    assert [(layer.spec.topk, layer.grid.n_win, layer.routed) for layer in layers] == [
        (1, 7, True), (4, 7, True), (16, 7, True), (16, 7, True), (25, 5, False)]


def test_full_attention_is_the_softmax_over_all_tokens() -> None:
    torch.manual_seed(0)
    layer, x = FullAttention(16, num_heads=2).eval(), torch.randn(1, 16, 3, 4)
    tokens = x[0].flatten(1).T
    q, k, v = layer.qkv(tokens).split(16, -1)
    heads = [torch.softmax(q[:, s] @ k[:, s].T / 8**0.5, -1) @ v[:, s] for s in (slice(0, 8), slice(8, 16))]
    expected = layer.proj(torch.cat(heads, -1) + layer.lepe(x)[0].flatten(1).T)
    torch.testing.assert_close(layer(x)[0].flatten(1).T, expected)


@pytest.mark.parametrize(("h", "w", "n_win", "p"), [
    (6, 6, 3, 3), (7, 10, 3, 3), (9, 4, 7, 4), (2, 3, 7, 2), (1, 5, 7, 1)])
def test_rows_of_a_traced_full_attention_are_the_softmax_over_all_tokens(h: int, w: int, n_win: int, p: int) -> None:
    layer, x = FullAttention(16, num_heads=2, n_win=n_win).eval(), torch.randn(2, 16, h, w)
    with torch.no_grad():
        layer.qkv.weight.mul_(8)                         # rows far from even
        q, k, _ = layer.qkv(x.permute(0, 2, 3, 1)).double().split(16, -1)
    lt = bra.trace(layer, x).layers[""]
    assert (lt.grid.n_win, lt.spec.topk, lt.r_idx.shape[-1]) == (p, p * p, p * p)
    for image in range(2):
        for head in range(2):
            part = slice(8 * head, 8 * head + 8)
            for row in range(h):
                for col in range(w):
                    logits = (k[image, ..., part] * q[image, row, col, part]).sum(-1) / 8**0.5
                    expected = logits.flatten().softmax(0).view(h, w)
                    found = lt.attention_map(*lt.grid.window_of_token(row, col), image=image)[head]
                    torch.testing.assert_close(found[:h, :w].double(), expected, atol=1e-5, rtol=1e-4)
                    assert found.sum() == pytest.approx(1)       # nothing is left for the padding


def test_affinity_of_a_traced_full_attention_is_the_scaled_product_of_window_means() -> None:
    layer, x = FullAttention(16, num_heads=2, n_win=2).eval(), torch.randn(1, 16, 3, 4)   # windows of 2×2; row 4 padded
    lt = bra.trace(layer, x).layers[""]
    with torch.no_grad():
        q, k, _ = layer.qkv(x.permute(0, 2, 3, 1))[0].split(16, -1)
    cut = [(rows, cols) for rows in (slice(0, 2), slice(2, 3)) for cols in (slice(0, 2), slice(2, 4))]
    expected = torch.stack([torch.stack([q[i].mean((0, 1)) @ k[j].mean((0, 1)) / 8**0.5 for j in cut]) for i in cut])
    torch.testing.assert_close(lt.affinity[0], expected)
    assert torch.equal(lt.r_idx[0], expected.argsort(-1, descending=True))


def test_windows_of_padding_only_are_ranked_last_and_get_nothing() -> None:
    lt = bra.trace(FullAttention(16, num_heads=2, n_win=7), torch.randn(1, 16, 9, 14)).layers[""]
    padding = torch.from_numpy(lt.grid.padding_windows)  # windows of 2×2 tokens: rows 5 and 6 of windows
    assert padding.nonzero().flatten().tolist() == [*range(35, 49)]
    assert padding[lt.r_idx[0, :, -14:]].all()
    assert torch.isneginf(lt.affinity[0][:, padding]).all()
    assert lt.r_weight[0, :, -14:].max() == 0


def test_being_traced_does_not_change_the_output() -> None:
    layer, x = FullAttention(16, num_heads=2).eval(), torch.randn(1, 16, 9, 14)
    assert torch.equal(bra.trace(layer, x).out, layer(x))


def test_it_learns_in_training_mode_and_refuses_what_heads_do_not_divide() -> None:
    model = BiFormer((1, 1, 1, 1), (32, 32, 32, 32), num_classes=2, drop_path_rate=0.2)
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(SpecError, match="multiples of 32"):
        BiFormer((1, 1, 1, 1), (32, 32, 48, 32))
