"""BiFormer has the published size, cost and names, and each of its layers can be looked into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from chinese import in_chinese
from torch.utils.flop_counter import FlopCounterMode

import bra
from bra.errors import BRAError, CheckpointError, SpecError
from bra.models.biformer import (
    BiFormer,
    FullAttention,
    biformer_base,
    biformer_small,
    biformer_stl,
    biformer_tiny,
    from_state,
)
from bra.models.biformer_state import read_layout

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
    coarse = BiFormer((1, 1, 1, 1), (32, 32, 32, 32), n_win=3, topks=(1, 4, 9, -2))
    assert {layer.grid.n_win for layer in bra.trace(coarse, torch.rand(1, 3, 224, 160)).layers.values()} == {3}
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


def test_affinity_of_a_traced_full_attention_is_the_logarithm_of_what_windows_get() -> None:
    layer, x = FullAttention(16, num_heads=2, n_win=2).eval(), torch.randn(1, 16, 3, 4)   # windows of 2×2; row 4 padded
    lt = bra.trace(layer, x).layers[""]
    with torch.no_grad():
        q, k, _ = (part.reshape(3, 4, 2, 8) for part in layer.qkv(x.permute(0, 2, 3, 1))[0].split(16, -1))
    cut = [(rows, cols) for rows in (slice(0, 2), slice(2, 3)) for cols in (slice(0, 2), slice(2, 4))]
    shares = torch.zeros(4, 4)
    for i, rows in enumerate(cut):
        tokens = [(token, head) for head in range(2) for token in q[rows][:, :, head].reshape(-1, 8)]
        for token, head in tokens:
            weights = torch.einsum("hwc,c->hw", k[:, :, head], token / 8**0.5).flatten().softmax(0).view(3, 4)
            shares[i] += torch.stack([weights[one].sum() for one in cut]) / len(tokens)
    torch.testing.assert_close(lt.affinity[0], shares.log())
    torch.testing.assert_close(lt.r_weight[0], shares.sort(-1, descending=True).values)
    assert torch.equal(lt.r_idx[0], shares.argsort(-1, descending=True))


def test_windows_of_padding_only_are_ranked_last_and_get_nothing() -> None:
    lt = bra.trace(FullAttention(16, num_heads=2, n_win=7), torch.randn(1, 16, 9, 14)).layers[""]
    padding = torch.from_numpy(lt.grid.padding_windows)  # windows of 2×2 tokens: rows 5 and 6 of windows
    assert padding.nonzero().flatten().tolist() == [*range(35, 49)]
    assert padding[lt.r_idx[0, ~padding, -14:]].all()
    assert torch.isneginf(lt.affinity[0][~padding][:, padding]).all()
    assert lt.r_weight[0, ~padding, -14:].max() == 0


def test_being_traced_does_not_change_the_output() -> None:
    layer, x = FullAttention(16, num_heads=2).eval(), torch.randn(1, 16, 9, 14)
    assert torch.equal(bra.trace(layer, x).out, layer(x))


def test_it_learns_in_training_mode_and_refuses_what_heads_do_not_divide() -> None:
    model = BiFormer((1, 1, 1, 1), (32, 32, 32, 32), num_classes=2, drop_path_rate=0.2)
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(SpecError, match="multiples of 32"):
        BiFormer((1, 1, 1, 1), (32, 32, 48, 32))


def shapes_of(model: BiFormer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_more_classes_than_anyone_can_tell_apart_are_refused() -> None:
    """A weights file of a few megabytes could ask for the names of millions."""
    with torch.device("meta"):
        shapes = shapes_of(BiFormer((1, 1, 1, 1), (32, 32, 32, 32), num_classes=21_843))
    assert read_layout(shapes).num_classes == 21_843        # ImageNet-21K
    with pytest.raises(CheckpointError, match=r"^30,001 classes are too many: 30,000 at most; ") as caught:
        read_layout({**shapes, "head.weight": (30_001, 32), "head.bias": (30_001,)})
    in_chinese(caught.value.args[0])


@pytest.mark.parametrize(("make", "name", "depth", "dims", "mlp_ratio"), [
    (biformer_tiny, "BiFormer-T", (2, 2, 8, 2), (64, 128, 256, 512), 3),
    (biformer_small, "BiFormer-S", (4, 4, 18, 4), (64, 128, 256, 512), 3),
    (biformer_base, "BiFormer-B", (4, 4, 18, 4), (96, 192, 384, 768), 3),
    (biformer_stl, "BiFormer-STL", (2, 2, 6, 2), (96, 192, 384, 768), 4)])
def test_a_published_model_is_known_by_its_shapes(make: Make, name: str, depth: tuple[int, ...], dims: tuple[int, ...],
                                                  mlp_ratio: int) -> None:
    with torch.device("meta"):
        layout = read_layout(shapes_of(make()))
    assert (layout.published, layout.depth, layout.dims, layout.mlp_ratio) == (name, depth, dims, mlp_ratio)
    assert layout.full == (False, False, False, True)
    assert (layout.num_classes, layout.swin_layout) == (1000, name == "BiFormer-STL")


SMALL: dict[str, Any] = {"depth": (1, 2, 1, 1), "dims": (32, 32, 64, 32), "num_classes": 5}


@pytest.mark.parametrize("options", [
    {}, {"mlp_ratio": 2, "swin_layout": True}, {"num_classes": 0}, {"n_win": 3, "topks": (2, 3, 9, -2)},
    {"topks": (-2, 4, 16, 49)}], ids=["defaults", "stl", "no-head", "n_win", "routed-last"])
def test_a_model_comes_back_from_its_state(options: dict[str, Any]) -> None:
    model, x = BiFormer(**SMALL | options).eval(), torch.rand(1, 3, 96, 64)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    state = {f"module.{name}": tensor.half() if name == "head.weight" else tensor
             for name, tensor in model.state_dict().items()}
    twin = from_state(state, **{name: options[name] for name in ("n_win", "topks") if name in options})
    assert not twin.training
    assert {p.dtype for p in twin.parameters()} == {torch.float32}
    torch.testing.assert_close(twin(x), model(x), atol=2e-3, rtol=2e-3)       # one weight went through half precision
    specs = [layer.spec for layer in bra.trace(twin, x).layers.values()]
    assert specs == [layer.spec for layer in bra.trace(model, x).layers.values()]
    before = model.norm.weight.clone()
    with torch.no_grad():
        twin.norm.weight.zero_()                                              # memory of its own
    assert torch.equal(model.norm.weight, before)


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = {**BiFormer(**SMALL).state_dict(), **{name.replace("__", "."): t for name, t in changes.items()}}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(("state", "options", "words"), [
    ({}, {}, "not a BiFormer's"),
    ({"model.0.conv.weight": torch.zeros(3)}, {}, "weights of a YOLO .* choose the best.pt"),
    ({"encoder.weight": torch.zeros(3)}, {}, "not a BiFormer's"),
    (changed(stages__3__0__attn__proj__bias=None), {}, "'stages.3.0.attn.proj.bias' is missing"),
    (changed(stages__1__0__norm1__weight=None), {}, "'stages.1.0.norm1.weight' is missing"),
    (changed(stages__0__0__norm1__weight=torch.zeros(())), {}, "missing or empty"),
    (changed(stages__0__0__attn__qkv__qkv__weight=torch.zeros(64, 32)), {}, "64×32 and .* 96×32: .* qk_dim = dim"),
    (changed(stages__0__0__gamma1=torch.ones(32), stages__0__0__gamma2=torch.ones(32)), {}, "gamma1' and 1 more"),
    (changed(stages__2__0__norm1__weight=torch.ones(48)), {}, "multiples of 32"),
    (changed(head__bias=torch.full((5,), torch.nan)), {}, "'head.bias' holds values that are not finite"),
    (changed(head__bias=torch.zeros(5, dtype=torch.int8)), {}, "torch.int8: floats are needed"),
    (changed(head__weight=torch.zeros(1, 1).expand(2**30, 2**30)), {}, "numbers are too many"),
    ({f"stages.0.{n}.norm1.weight": torch.ones(32) for n in range(300)}, {}, "300 blocks are too many"),
    (changed(), {"topks": (1, 4, 16, 49)}, "need 1 or more, 1 or more, 1 or more, -2"),
    (changed(), {"topks": (1, 4, 16)}, "topks=.1, 4, 16. does not suit"),
    (changed(), {"n_win": 1}, "topk=4 is not possible"),
    (BiFormer(**SMALL, topks=(1, 4, 16, 49)).state_dict(), {}, "cannot be read from weights: give the topk of each")])
def test_what_is_no_biformer_is_refused_with_words(state: dict[str, torch.Tensor], options: dict[str, Any],
                                                   words: str) -> None:
    with pytest.raises(BRAError, match=words):
        from_state(state, **options)


def test_a_state_that_changes_its_kind_inside_a_stage_is_refused() -> None:
    state = BiFormer(**SMALL).state_dict()
    other = BiFormer(**SMALL, topks=(1, -2, 16, -2)).state_dict()
    mixed = {name: tensor for name, tensor in state.items() if not name.startswith("stages.1.1.attn")}
    mixed |= {name: tensor for name, tensor in other.items() if name.startswith("stages.1.1.attn")}
    with pytest.raises(CheckpointError, match=r"stages\.1\.1\.attn"):
        from_state(mixed)
