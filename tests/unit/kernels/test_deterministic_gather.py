"""Rows that are picked, and their gradients, which are sums: by hand, of second order, the same each time on a GPU."""

from __future__ import annotations

import pytest
import torch

from bra import BiLevelRoutingAttention
from bra.deterministic_gather import _GatherRows, gather_rows, sum_rows
from bra.errors import GridError


def test_sums_by_hand() -> None:
    x = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    assert sum_rows(x, torch.tensor([3, 1, 3]), 5).tolist() == [[0, 0], [2, 20], [0, 0], [5, 50], [0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_index_select(dtype: torch.dtype) -> None:
    x, rows = torch.randn(6, 5, dtype=dtype), torch.tensor([0, 4, 4, 1, 4, 0, 2])
    toward, found = torch.randn(7, 5, dtype=dtype), []
    for way in (lambda t: t.index_select(0, rows), lambda t: _GatherRows.apply(t, rows)):
        leaf = x.clone().requires_grad_()
        first, = torch.autograd.grad((way(leaf).pow(3) * toward).sum(), leaf, create_graph=True)
        found.append([first, *torch.autograd.grad(first.square().sum(), leaf)])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


def test_derivatives_forward_are_checked() -> None:
    rows = torch.tensor([2, 0, 2])
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: _GatherRows.apply(t, rows), x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda t: _GatherRows.apply(t, rows), x)


def test_half_precision_is_summed_too() -> None:
    x = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float16)
    assert sum_rows(x, torch.tensor([1, 1, 0]), 2).tolist() == [[4], [3]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.filterwarnings("error")
def test_on_a_gpu_a_step_under_deterministic_algorithms_is_the_same_each_time_and_warns_of_nothing() -> None:
    rows = torch.randint(0, 49, (8 * 49 * 4,), device="cuda")
    x = torch.randn(49, 36 * 128, device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        grads = []
        for _ in range(3):
            leaf = x.clone().requires_grad_()
            gather_rows(leaf, rows).square().sum().backward()
            grads.append(leaf.grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])
    wanted = x.double().requires_grad_()
    wanted.index_select(0, rows).square().sum().backward()
    torch.testing.assert_close(grads[0].double(), wanted.grad, atol=1e-2, rtol=1e-4)


def test_a_map_of_another_precision_is_refused_with_the_cure_and_autocast_takes_it() -> None:
    m, x = BiLevelRoutingAttention(16, num_heads=2, n_win=3), torch.randn(1, 16, 12, 12)
    with pytest.raises(GridError, match=r"weights are float16, and the map that it was given is float32: pass "
                                        r"x\.to\(torch\.float16\)"):
        m.half()(x)
    assert m(x.half()).dtype == torch.float16
    m.float()
    with torch.autocast("cpu", torch.bfloat16):
        y = m(x.bfloat16())
        y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all()
               for p in m.parameters())
    assert m.qkv.qkv.weight.grad.abs().sum() > 0


def test_half_weights_take_a_float_map_inside_of_autocast() -> None:
    m, x = BiLevelRoutingAttention(16, num_heads=2, n_win=3).bfloat16(), torch.randn(1, 16, 12, 12)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(m(x).float(), m(x.bfloat16()).float(), atol=0.05, rtol=0.05)
