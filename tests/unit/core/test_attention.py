"""The module's contract: forms of the call, shapes, names, and the identities that hold whatever the weights are."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import bra
from bra import BiLevelRoutingAttention, BRAError, BRASpec, KVGather, QKVLinear, TopkRouting

POOLS = ("identity", "maxpool", "avgpool", "ada_maxpool", "ada_avgpool", "fracpool", "conv")


def layer(dim: int = 16, **options: object) -> BiLevelRoutingAttention:
    return BiLevelRoutingAttention(dim, **{"num_heads": 2, "n_win": 3, **options}).double()


def image(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def full_attention(m: BiLevelRoutingAttention, x: Tensor) -> Tensor:
    """Every token of (1, c, h, w) attends to every token; no windows, no padding."""
    _, c, h, w = x.shape
    q, k, v = m.qkv.qkv(x.flatten(2)[0].T).split([m.qk_dim, m.qk_dim, c], -1)        # (h·w, ·)
    heads = [((qh * m.scale) @ kh.T).softmax(-1) @ vh for qh, kh, vh in
             zip(*(t.chunk(m.num_heads, -1) for t in (q, k, v)), strict=True)]
    out = torch.cat(heads, -1).T.reshape(1, c, h, w) + m.lepe(v.T.reshape(1, c, h, w))
    return m.wo(out.movedim(1, -1)).movedim(-1, 1)


def test_the_four_outputs_have_their_shapes() -> None:
    # 20×30 tokens in 7×7 windows are padded to 21×35: windows of 3×5 = 15 tokens, 4 of them gathered.
    y, r_weight, r_idx, attn = BiLevelRoutingAttention(32, num_heads=4)(torch.randn(2, 32, 20, 30), ret_attn_mask=True)
    assert y.shape == (2, 32, 20, 30)
    assert r_weight.shape == r_idx.shape == (2, 49, 4)
    assert attn.shape == (2 * 49, 4, 15, 4 * 15)


@pytest.mark.parametrize("mode", POOLS)
@pytest.mark.parametrize("mask_padding", [False, True])
def test_both_forms_of_the_call_give_the_same_map(mode: str, mask_padding: bool) -> None:
    m = layer(kv_downsample_mode=mode, kv_downsample_ratio=2, kv_per_win=2, mask_padding=mask_padding).eval()
    x = image(2, 16, 13, 10)
    y, r_weight, _, attn = m(x, ret_attn_mask=True)
    torch.testing.assert_close(m(x), y)
    assert y.shape == x.shape
    assert y.is_contiguous()
    torch.testing.assert_close(attn.sum(-1), torch.ones_like(attn[..., 0]))
    torch.testing.assert_close(r_weight.sum(-1), torch.ones_like(r_weight[..., 0]))


@pytest.mark.parametrize("options", [{}, {"qk_dim": 8}, {"qk_dim": 32}, {"soft_routing": True, "diff_routing": True},
                                        {"diff_routing": True, "param_routing": True}, {"mask_padding": True}])
def test_both_forms_of_the_call_give_the_same_gradients(options: dict[str, object]) -> None:
    m, x = layer(**options), image(1, 16, 7, 8)
    fused, explicit = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = image(1, 16, 7, 8)
    (m(fused) * weight).sum().backward()
    expected = {name: p.grad.clone() for name, p in m.named_parameters()}
    m.zero_grad()
    (m(explicit, ret_attn_mask=True)[0] * weight).sum().backward()
    torch.testing.assert_close(fused.grad, explicit.grad)
    for name, p in m.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], msg=name)
        assert p.grad.abs().sum() > 0, name


def test_arguments_come_in_the_order_of_the_tutorial() -> None:
    order = ["dim", "n_win", "num_heads", "qk_dim", "qk_scale", "kv_per_win", "kv_downsample_ratio",
             "kv_downsample_kernel", "kv_downsample_mode", "topk", "param_attention", "param_routing", "diff_routing",
             "soft_routing", "side_dwconv", "auto_pad", "mask_padding"]
    defaults = [7, 8, None, None, 4, 4, None, "identity", 4, "qkvo", False, False, False, 3, True, False]
    for made in (BiLevelRoutingAttention, BRASpec):
        parameters = inspect.signature(made).parameters
        assert list(parameters) == order
        assert [p.default for p in parameters.values()][1:] == defaults


def test_a_spec_makes_the_module_that_made_it() -> None:
    m = layer(qk_dim=8, topk=2, side_dwconv=5)
    twin = BiLevelRoutingAttention.from_spec(m.spec).double()
    twin.load_state_dict(m.state_dict())
    x = image(1, 16, 6, 6)
    assert twin.spec == m.spec
    torch.testing.assert_close(twin(x), m(x), rtol=0, atol=0)


def test_state_dict_keys_are_those_of_the_tutorial() -> None:
    keys = {"qkv.qkv.weight", "qkv.qkv.bias", "wo.weight", "wo.bias", "lepe.weight", "lepe.bias"}
    assert set(layer().state_dict()) == keys
    assert set(layer(diff_routing=True, param_routing=True).state_dict()) == keys | {"router.emb.weight",
                                                                                     "router.emb.bias"}
    assert set(layer(side_dwconv=0, param_attention="qkv").state_dict()) == {"qkv.qkv.weight", "qkv.qkv.bias"}
    assert not layer(side_dwconv=0, param_attention="none").state_dict()


@pytest.mark.parametrize("options", [{}, {"side_dwconv": 0}, {"kv_downsample_mode": "fracpool"},
                                        {"param_attention": "none"}])
def test_survives_pickle_and_deepcopy(options: dict[str, object]) -> None:
    m, x = layer(**options).eval(), image(1, 16, 13, 13)
    for twin in (pickle.loads(pickle.dumps(m)), copy.deepcopy(m)):
        assert twin.spec == m.spec
        torch.testing.assert_close(twin(x), m(x), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(6, 6), (9, 4)])
def test_choosing_every_window_is_full_attention(size: tuple[int, int]) -> None:
    m = layer(n_win=2, topk=4, qk_dim=8) if size == (6, 6) else layer(n_win=1, topk=1)
    x = image(1, 16, *size)
    torch.testing.assert_close(m(x), full_attention(m, x))


def test_each_image_of_a_batch_is_computed_alone() -> None:
    m, x = layer(), image(3, 16, 10, 7)
    torch.testing.assert_close(m(x), torch.cat([m(one[None]) for one in x]))


def test_memory_layout_of_the_input_does_not_matter() -> None:
    m, x = layer(), image(2, 16, 9, 8)
    torch.testing.assert_close(m(x.contiguous(memory_format=torch.channels_last)), m(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", POOLS)
@pytest.mark.parametrize("mask_padding", [False, True])
def test_half_precision_stays_near_float(dtype: torch.dtype, mode: str, mask_padding: bool) -> None:
    m = layer(topk=9, kv_downsample_mode=mode, kv_downsample_ratio=2, kv_per_win=2, mask_padding=mask_padding).eval()
    x = image(1, 16, 7, 13)
    expected = m(x)
    got = m.to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, atol=0.03, rtol=0.03)


def test_a_map_that_does_not_fit_is_refused_without_auto_pad() -> None:
    m = layer(auto_pad=False)
    assert m(image(1, 16, 9, 6)).shape == (1, 16, 9, 6)
    with pytest.raises(BRAError, match=r"9×7 tokens .* 3×3 windows.*auto_pad=True"):
        m(image(1, 16, 9, 7))


@pytest.mark.parametrize("mode", ["maxpool", "avgpool", "conv"])
def test_pooling_larger_than_a_window_is_refused_with_the_cure(mode: str) -> None:
    m = layer(kv_downsample_mode=mode, kv_downsample_ratio=4)
    assert m(image(1, 16, 12, 12)).shape == (1, 16, 12, 12)
    with pytest.raises(BRAError, match=r"at least 4×4 tokens, and n_win=3 makes windows of 3×3 .*lower n_win"):
        m(image(1, 16, 9, 9))


def test_impossible_arguments_are_refused_when_the_module_is_made() -> None:
    with pytest.raises(BRAError, match="num_heads"):
        BiLevelRoutingAttention(256, 8, 7)


def test_the_parts_work_on_their_own() -> None:
    q, k = torch.tensor([[[1.0, 0], [0, 1]]]), torch.tensor([[[3.0, 1], [1, 2]]])
    r_weight, r_idx = TopkRouting(qk_dim=2, topk=1, qk_scale=1.0)(q, k)
    assert r_idx.tolist() == [[[0], [1]]]         # q·kᵀ = [[3, 1], [1, 2]]
    assert r_weight.tolist() == [[[1.0], [1.0]]]
    r_weight, _ = TopkRouting(qk_dim=4, topk=2)(torch.ones(1, 2, 4), torch.tensor([[[1.0] * 4, [0.5] * 4]]))
    assert r_weight[0, 0, 1] / r_weight[0, 0, 0] == pytest.approx(math.exp((2 - 4) * 4**-0.5))
    kv = torch.arange(6.0).view(1, 2, 3, 1)       # windows (0, 1, 2) and (3, 4, 5)
    idx, half = torch.tensor([[[1], [0]]]), torch.full((1, 2, 1), 0.5)
    assert KVGather()(idx, half, kv).flatten().tolist() == [3, 4, 5, 0, 1, 2]
    assert KVGather("soft")(idx, half, kv).flatten().tolist() == [1.5, 2, 2.5, 0, 0.5, 1]
    q, kv = QKVLinear(dim=6, qk_dim=4)(torch.randn(5, 6))
    assert (q.shape, kv.shape) == ((5, 4), (5, 10))


def test_the_package_names_what_its_contract_names() -> None:
    for name in ("BiLevelRoutingAttention", "TopkRouting", "KVGather", "QKVLinear", "BRASpec", "BRAError", "trace"):
        assert name in bra.__all__
        assert hasattr(bra, name)
    assert issubclass(BRAError, ValueError)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"mask_padding": True},
                                        {"kv_downsample_mode": "avgpool", "kv_downsample_ratio": 2}])
def test_a_graph_traced_at_one_size_holds_at_others(options: dict[str, object]) -> None:
    m = layer(**options).eval()
    graph = torch.jit.trace(m, image(1, 16, 10, 10))
    for size in ((6, 6), (12, 13), (7, 20)):
        x = image(1, 16, *size)
        torch.testing.assert_close(graph(x), m(x))


def test_with_spec_is_another_layer_over_the_same_weights() -> None:
    layer = BiLevelRoutingAttention(16, n_win=4, num_heads=2, topk=3).eval().requires_grad_(False)
    layer.i = 7                                     # as a parser of rows notes it
    x, before = torch.rand(1, 16, 20, 20), layer.state_dict()
    again = layer.with_spec(layer.spec)
    assert torch.equal(again(x), layer(x))
    other = layer.with_spec(replace(layer.spec, n_win=5, topk=2, mask_padding=True), routing_scale=0.5)
    made = BiLevelRoutingAttention(16, n_win=5, num_heads=2, topk=2, mask_padding=True).eval()
    made.load_state_dict(before)
    made.router.scale = 0.5
    assert torch.equal(other(x), made(x))
    assert (other.n_win, other.topk, other.router.topk, other.i, other.training) == (5, 2, 2, 7, False)
    assert all(one is two for one, two in zip(layer.parameters(), other.parameters(), strict=True))
    assert not any(p.requires_grad for p in layer.parameters())
    assert (layer.spec.n_win, layer.topk, layer.router.topk, layer.router.scale) == (4, 3, 3, 16**-0.5)
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.with_spec(replace(layer.spec, kv_downsample_mode="conv"))
