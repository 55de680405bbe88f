"""Attention in chunks against attention written out: numbers, gradients, and when it steps aside."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any
from weakref import ReferenceType, ref

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bra import BiLevelRoutingAttention
from bra import functional as BF
from bra.kernels import cpu, native
from bra.kernels.cpu import attend_chunked
from bra.kernels.dispatch import LEAST_TOKENS, takes_chunked

B, M, P2, T, S, C_QK, C_V, K = 2, 3, 9, 6, 5, 4, 7, 3
SCALE = 0.7


def tensors(size: float = 1.0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v."""
    shapes = ((B, M, P2, T, C_QK), (B, M, P2, S, C_QK), (B, M, P2, S, C_V))
    q, k, v = (torch.randn(shape, dtype=dtype) for shape in shapes)
    return [q * size, k, v]


def routes() -> Tensor:
    return torch.rand(B, P2, P2).argsort(-1)[..., :K]


def some_keys() -> Tensor:
    real = torch.rand(P2, S) > 0.4
    real[:, 0] = True
    return real


def written_out(q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, factor: Tensor | None, real: Tensor | None) -> Tensor:
    keys, values = BF.gather_keys(k, r_idx, factor), BF.gather_keys(v, r_idx, factor)
    return BF.attend_explicit(q, keys, values, SCALE, BF.gather_mask(real, r_idx))[0]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [1.0, 300.0], ids=["", "logits beyond what exp2 holds"])
@pytest.mark.parametrize("held", [1, T * K * S, 200, 2**19], ids=[
    "a part of a window at a time", "a window at a time", "a few", "all at once"])
def test_numbers_and_gradients_are_those_of_attention_written_out(
        soft: bool, masked: bool, size: float, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CHUNK_ELEMENTS", held)
    monkeypatch.setattr(cpu, "LEAST_QUERIES", 4)       # does not divide the 6 that there are
    r_idx, real = routes(), some_keys() if masked else None
    given = [*tensors(size), *([torch.rand(B, P2, K, dtype=torch.float64) + 0.5] if soft else [])]
    weight = torch.randn(B, M, P2, T, C_V, dtype=torch.float64)
    found = []
    for attend in (written_out, lambda q, k, v, r_idx, f, real: attend_chunked(q, k, v, r_idx, SCALE, f, real)):
        leaves = [t.clone().requires_grad_() for t in given]
        out = attend(*leaves[:3], r_idx, leaves[3] if soft else None, real)
        (out * weight).sum().backward()
        found.append([out.detach(), *(t.grad for t in leaves)])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)
    with torch.no_grad():
        torch.testing.assert_close(attend_chunked(*given[:3], r_idx, SCALE, given[3] if soft else None, real),
                                   found[0][0])


@pytest.mark.parametrize("shift", [-500.0, 500.0])
def test_a_row_far_from_zero_loses_nothing(shift: float) -> None:
    """The same number on all logits of a row changes nothing, though exp2 of it alone is 0 or infinite in float32."""
    q, k, v = tensors(dtype=torch.float32)
    r_idx, far = routes(), torch.full((B, M, P2, T, 1), shift)
    expected = attend_chunked(q, k, v, r_idx, 1.0)
    shifted = attend_chunked(torch.cat([q, far], -1), torch.cat([k, torch.ones_like(k[..., :1])], -1), v, r_idx, 1.0)
    torch.testing.assert_close(shifted, expected, atol=1e-3, rtol=1e-3)
    assert expected.isfinite().all()


def test_a_number_that_is_none_stays_with_those_who_look_at_it() -> None:
    q, k, v = tensors()
    q[0, 0, 0, 0, 0] = float("nan")
    out = attend_chunked(q, k, v, routes(), SCALE)
    assert out[0, 0, 0, 0].isnan().all()
    assert int(out.isnan().sum()) == C_V


def test_no_gradient_of_a_gradient() -> None:
    q, k, v = (t.requires_grad_() for t in tensors())
    with pytest.raises(RuntimeError, match="ret_attn_mask=True"):
        torch.autograd.grad(attend_chunked(q, k, v, routes(), SCALE).sum(), v, create_graph=True)


def layer(**options: Any) -> tuple[BiLevelRoutingAttention, Tensor]:
    """A layer and a map of windows that chunks are chosen for: 6×7 tokens, padded in both directions."""
    return BiLevelRoutingAttention(16, **{"num_heads": 2, "n_win": 3, **options}), torch.randn(2, 16, 17, 20)


@pytest.mark.parametrize("options", [{}, {"qk_dim": 8}, {"soft_routing": True, "diff_routing": True},
                                        {"diff_routing": True, "param_routing": True}, {"mask_padding": True},
                                        {"kv_downsample_mode": "avgpool", "kv_downsample_ratio": 2}])
def test_a_layer_learns_as_the_explicit_one(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CHUNK_ELEMENTS", 2**14)
    m, x = layer(**options)
    m, x, grads = m.double(), x.double(), []
    assert takes_chunked(torch.empty(1, 1, 1, 42, 1))
    for explicit in (False, True):
        m.zero_grad()
        leaf = x.clone().requires_grad_()
        y = m(leaf, ret_attn_mask=True)[0] if explicit else m(leaf)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        grads.append([y.detach(), leaf.grad, *(p.grad.clone() for p in m.parameters())])
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want)


def test_checkpointing_recomputes_it() -> None:
    m, x = layer()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    m(a).square().sum().backward()
    checkpoint(m, b, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(b.grad, a.grad)


def test_it_steps_aside_where_operators_are_written_down_or_numbers_are_short() -> None:
    q = torch.empty(1, 1, 1, LEAST_TOKENS, 4)
    assert takes_chunked(q)
    assert takes_chunked(q.double())
    assert not takes_chunked(q.double()[:, :, :, 1:])
    assert takes_chunked(q[:, :, :, 1:]) == native.suits(4)
    assert not takes_chunked(q.bfloat16())
    assert not takes_chunked(q.to("meta"))
    with torch.autocast("cpu"):
        assert not takes_chunked(q)
    graph = torch.jit.trace(lambda t: t + float(takes_chunked(t)), q, check_trace=False)
    torch.testing.assert_close(graph(torch.zeros_like(q)), torch.zeros_like(q))


@pytest.mark.filterwarnings("ignore")
def test_a_graph_of_large_windows_holds_at_other_sizes_and_agrees() -> None:
    m, x = layer()
    m.eval()
    graph = torch.jit.trace(m, x)
    for size in ((17, 20), (40, 23)):
        other = torch.randn(1, 16, *size)
        torch.testing.assert_close(graph(other), m(other), atol=1e-5, rtol=1e-4)


def test_autocast_and_half_precision_stay_near_float() -> None:
    m, x = layer()
    m.eval()
    with torch.no_grad():
        expected = m(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(m(x).float(), expected, atol=0.05, rtol=0.05)
        torch.testing.assert_close(copy.deepcopy(m).bfloat16()(x.bfloat16()).float(), expected, atol=0.05, rtol=0.05)


def test_a_window_of_many_tokens_goes_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    group, span = cpu.rounds(8 * 49, 3249, 49 * 3249)
    assert (group, span) == (1, cpu.LEAST_QUERIES)
    assert cpu.rounds(8 * 49, 144, 4 * 144) == (cpu.CHUNK_ELEMENTS // (4 * 144 * 144), 144)
    largest = 0
    bmm = torch.bmm

    def seen(one: Tensor, two: Tensor, **rest: Any) -> Tensor:
        nonlocal largest
        largest = max(largest, one.shape[0] * one.shape[1] * two.shape[2])
        return bmm(one, two, **rest)

    monkeypatch.setattr(cpu, "CHUNK_ELEMENTS", 2**12)
    monkeypatch.setattr(torch, "bmm", seen)
    q, k, v = (torch.randn(1, 1, 4, 256, 4, dtype=torch.float64) for _ in range(3))
    attend_chunked(q, k, v, torch.arange(4).expand(1, 4, 4), 1.0)
    assert largest == 4 * 256 * cpu.LEAST_QUERIES


def test_an_empty_batch_is_an_empty_map() -> None:
    for n_win in (3, 7):        # windows of 42 tokens, and of 9
        m = BiLevelRoutingAttention(16, num_heads=2, n_win=n_win)
        x = torch.randn(0, 16, 17, 20, requires_grad=True)
        m(x).sum().backward()
        assert m(x).shape == x.shape


@pytest.mark.parametrize("frozen", [False, True])
def test_transforms_of_functions_get_a_form_that_they_know(frozen: bool) -> None:
    m, x = layer()
    m, x = m.double().requires_grad_(not frozen), x.double()
    toward = torch.randn_like(x)

    def written_out(x: Tensor) -> Tensor:
        return m(x, ret_attn_mask=True)[0]

    wanted = torch.func.jvp(written_out, (x,), (toward,))[1]
    with suppress(NotImplementedError):     # torch's own kernel has no derivative forward, and says so
        torch.testing.assert_close(torch.func.jvp(m, (x,), (toward,))[1], wanted)
    torch.testing.assert_close(torch.func.grad(lambda x: m(x).square().sum())(x),
                               torch.func.grad(lambda x: written_out(x).square().sum())(x))
    torch.testing.assert_close(torch.func.vmap(m)(x[:, None]), m(x)[:, None])


def test_a_backward_under_autocast_is_that_of_the_forward() -> None:
    m, x = layer()
    grads = []
    for short in (False, True):
        leaf = x.clone().requires_grad_()
        total = m(leaf).square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=short):
            total.backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[1], grads[0], atol=0.03, rtol=0.03)


@pytest.mark.parametrize("learns", [False, True])
def test_nothing_gathered_outlives_its_round(learns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CHUNK_ELEMENTS", 1)
    gathered, alive = cpu._Rows.gathered, []
    rounds: list[list[ReferenceType[Tensor]]] = []

    def seen(self: Any, kv: Tensor, chunk: slice) -> Tensor:
        if not rounds or len(rounds[-1]) == 2:
            alive.append(sum(one() is not None for past in rounds for one in past))
            rounds.append([])
        found = gathered(self, kv, chunk)
        rounds[-1].append(ref(found))
        return found

    monkeypatch.setattr(cpu._Rows, "gathered", seen)
    q, k, v = (t.requires_grad_(learns) for t in tensors())
    out = attend_chunked(q, k, v, routes(), SCALE)
    if learns:
        out.sum().backward()
    assert len(rounds) == B * M * P2 * (1 + learns)
    assert not any(alive)
