"""Padding masks, the two poolings that upstream left unwritten, and gradients through the routing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bra import BiLevelRoutingAttention
from bra.functional import weight_factor
from bra.kv_pool import pool_kv


def layer(dim: int = 16, **options: Any) -> BiLevelRoutingAttention:
    return BiLevelRoutingAttention(dim, **{"num_heads": 2, "n_win": 3, **options}).double()


def image(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def twin_of(m: BiLevelRoutingAttention, **changes: Any) -> BiLevelRoutingAttention:
    """The same weights under other settings."""
    twin = BiLevelRoutingAttention(**{**m.spec.to_dict(), **changes}).double().train(m.training)
    twin.load_state_dict(m.state_dict(), strict=False)
    return twin


def gradients(m: nn.Module, x: Tensor) -> dict[str, Tensor]:
    m.zero_grad()
    (m(x) * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)).sum().backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in m.named_parameters()}


# padding ----------------------------------------------------------------------------------------------------

def test_masking_changes_nothing_when_nothing_is_padded() -> None:
    m, x = layer(), image(1, 16, 9, 6)
    torch.testing.assert_close(twin_of(m, mask_padding=True)(x), m(x))


def test_masking_changes_a_padded_map() -> None:
    m, x = layer(), image(1, 16, 8, 7)
    assert (twin_of(m, mask_padding=True)(x) - m(x)).abs().max() > 1e-3


def test_masked_padding_is_as_if_it_were_not_there() -> None:
    # With every window chosen, windows do not matter: only the amount of padding differs (5 → 5, 6, 6, 8, 5).
    x = image(1, 16, 5, 5)
    whole = layer(n_win=1, topk=1)
    for n_win in (2, 3, 4, 5):
        masked = twin_of(whole, n_win=n_win, topk=n_win**2, mask_padding=True)
        torch.testing.assert_close(masked(x), whole(x))
    assert (twin_of(whole, n_win=4, topk=16)(x) - whole(x)).abs().max() > 1e-3


def test_masked_padding_gets_no_attention_and_all_else_some() -> None:
    # 5 → 6 rows and columns: in windows of 3×3 the last row or column of window 1, 2 and 3 is padding.
    real = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0, 1, 1, 0],
                         [1, 1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0, 0, 0, 0]], dtype=torch.bool)
    *_, r_idx, attn = layer(n_win=2, topk=3, mask_padding=True)(image(1, 16, 5, 5), ret_attn_mask=True)
    keys = attn.view(4, 2, 9, 3, 9) > 0                               # (p2, m, t, k, s)
    assert torch.equal(keys, real[r_idx[0]][:, None, None].expand_as(keys))


@pytest.mark.parametrize("topk", [1, 48, 49, 50])
def test_windows_of_padding_only_are_chosen_last(topk: int) -> None:
    # 20 → 24 rows: windows of 3×3, the eighth row and column of windows hold padding only: 15 of 64.
    *_, r_idx, _ = layer(n_win=8, topk=topk, mask_padding=True)(image(1, 16, 20, 20), ret_attn_mask=True)
    padding = (r_idx // 8 == 7) | (r_idx % 8 == 7)
    assert int(padding.sum()) == 64 * max(0, topk - 49)
    assert not padding[..., :49].any()


# pooling ----------------------------------------------------------------------------------------------------

def test_fractional_pooling_is_the_same_each_time_in_eval_mode() -> None:
    m, x = layer(kv_downsample_mode="fracpool", kv_downsample_ratio=2), image(1, 16, 21, 21)
    first = m.eval()(x)
    torch.testing.assert_close(m(x), first, rtol=0, atol=0)
    m.train()
    assert any((m(x) - first).abs().max() > 1e-6 for _ in range(5))


def test_fractional_pooling_cuts_k_and_v_and_all_windows_at_the_same_places() -> None:
    m = layer(kv_downsample_mode="fracpool", kv_downsample_ratio=2).train()
    k = image(1, 1, 7, 7, 5).expand(2, 9, 7, 7, 5)
    for _ in range(10):
        pooled = pool_kv(m.kv_down, torch.cat([k, k], -1))             # (2, 9, 3·3, 10)
        assert pooled.shape == (2, 9, 9, 10)
        torch.testing.assert_close(pooled[..., :5], pooled[..., 5:], rtol=0, atol=0)
        torch.testing.assert_close(pooled, pooled[:1, :1].expand_as(pooled), rtol=0, atol=0)


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_fractional_pooling_of_any_window(side: int) -> None:
    m = layer(kv_downsample_mode="fracpool", kv_downsample_ratio=3, kv_downsample_kernel=2)
    *_, attn = m(image(1, 16, 3 * side, 3 * side), ret_attn_mask=True)
    assert attn.shape[-1] == 4 * max(1, side // 3) ** 2


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_conv_pooling_starts_as_mean_pooling(ratio: int) -> None:
    m, x = layer(kv_downsample_mode="conv", kv_downsample_ratio=ratio), image(1, 16, 18, 18)
    torch.testing.assert_close(m(x), twin_of(m, kv_downsample_mode="avgpool")(x))


@pytest.mark.parametrize(("kernel", "ratio", "keys"),
                            [(3, 2, 4), (5, 2, 4), (2, 2, 4), (1, 2, 4), (4, 4, 1), (3, 1, 16)])
def test_conv_pooling_with_a_wider_kernel_makes_as_many_keys(kernel: int, ratio: int, keys: int) -> None:
    m = layer(kv_downsample_mode="conv", kv_downsample_ratio=ratio, kv_downsample_kernel=kernel)
    *_, attn = m(image(1, 16, 12, 12), ret_attn_mask=True)            # windows of 4×4
    assert attn.shape[-1] == 4 * keys


def test_conv_pooling_learns() -> None:
    m = layer(kv_downsample_mode="conv", kv_downsample_ratio=2, kv_downsample_kernel=3)
    assert gradients(m, image(1, 16, 12, 12))["kv_down.weight"].abs().sum() > 0


# routing ----------------------------------------------------------------------------------------------------

def test_straight_through_is_one_with_the_gradient_of_the_weight() -> None:
    w = torch.tensor([0.2, 0.8], requires_grad=True)
    factor = weight_factor(w, "hard")
    assert factor.tolist() == [1.0, 1.0]
    (factor * torch.tensor([3.0, -5.0])).sum().backward()
    assert w.grad.tolist() == [3.0, -5.0]
    assert weight_factor(w, "none") is None
    assert weight_factor(w, "soft") is w


def test_hard_differentiable_routing_leaves_the_output_as_it_is() -> None:
    m, x = layer(), image(1, 16, 8, 8)
    hard = twin_of(m, diff_routing=True)
    torch.testing.assert_close(hard(x), m(x), rtol=0, atol=1e-12)
    assert (twin_of(m, soft_routing=True)(x) - m(x)).abs().max() > 1e-3


def test_hard_differentiable_routing_adds_the_gradient_of_the_routing() -> None:
    m, x = layer(), image(1, 16, 8, 8)
    plain, hard = gradients(m, x), gradients(twin_of(m, diff_routing=True), x)
    Q = m.qk_dim
    extra = hard["qkv.qkv.weight"] - plain["qkv.qkv.weight"]
    assert extra[:2 * Q].abs().max() > 1e-6                            # q and k
    assert extra[2 * Q:].abs().max() < 1e-12                           # v takes no part in routing
    torch.testing.assert_close(hard["wo.weight"], plain["wo.weight"])


@pytest.mark.parametrize("soft", [False, True])
def test_the_routing_embedding_learns(soft: bool) -> None:
    m = layer(diff_routing=True, param_routing=True, soft_routing=soft)
    assert gradients(m, image(1, 16, 8, 8))["router.emb.weight"].abs().max() > 1e-6


def test_the_straight_through_gradient_is_the_slope_of_its_surrogate() -> None:
    # The surrogate multiplies by 1 + r_weight - its value at the start; it must rise as the gradient says.
    m, x = layer(diff_routing=True, param_routing=True, side_dwconv=0), image(1, 16, 6, 6)
    bias = m.router.emb.bias
    slope = gradients(m, x)["router.emb.bias"]
    start = m(x, ret_attn_mask=True)[1].detach()

    def loss() -> float:
        r_weight, r_idx = m(x, ret_attn_mask=True)[1:3]
        factor = 1 + r_weight - start
        q, kv = m.qkv(x.permute(0, 2, 3, 1))
        cut = [t.unflatten(1, (3, 2)).unflatten(3, (3, 2)).transpose(2, 3).reshape(9, 4, -1) for t in (q, kv)]
        chosen = (cut[1][r_idx[0]] * factor[0, :, :, None, None]).flatten(1, 2)       # (9, 4·4, 2·16)
        out = []
        for head in range(2):
            part = slice(8 * head, 8 * head + 8)
            rows = (cut[0][..., part] @ chosen[..., :16][..., part].mT * m.scale).softmax(-1)
            out.append(rows @ chosen[..., 16:][..., part])
        tokens = m.wo(torch.cat(out, -1))                                             # (9, 4, 16)
        y = tokens.view(3, 3, 2, 2, 16).transpose(1, 2).reshape(6, 6, 16).permute(2, 0, 1)
        return float((y * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(y)).sum())

    step = 1e-5
    for channel in (0, 7):
        with torch.no_grad():
            bias[channel] += step
            up = loss()
            bias[channel] -= 2 * step
            down = loss()
            bias[channel] += step
        assert (up - down) / (2 * step) == pytest.approx(float(slope[channel]), rel=1e-4, abs=1e-9)


def test_soft_routing_alone_passes_no_gradient_to_the_routing() -> None:
    m, x = layer(soft_routing=True), image(1, 16, 8, 8)
    _, r_weight, _, _ = m(x, ret_attn_mask=True)
    assert not r_weight.requires_grad
    assert twin_of(m, diff_routing=True)(x, ret_attn_mask=True)[1].requires_grad
