"""The compiled form: its numbers and gradients against attention written out in float64, and what it promises."""

from __future__ import annotations

import ctypes
import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from bra import BiLevelRoutingAttention
from bra import functional as BF
from bra.kernels import native
from bra.kernels.cpu import attend_chunked

pytestmark = pytest.mark.skipif(not native.suits(4), reason="routed.cpp was not built here: no compiler")
SCALE = 0.7
CASES = [  # b, m, windows, t, s, Q/m, c/m, k
    (2, 3, 9, 6, 5, 4, 7, 3), (1, 2, 9, 36, 36, 16, 16, 4), (1, 2, 4, 144, 144, 8, 8, 2), (1, 1, 4, 57, 131, 24, 9, 3),
    (1, 2, 1, 900, 300, 5, 33, 1), (1, 1, 4, 1, 1, 1, 1, 2)]


def tensors(case: tuple[int, ...], soft: bool, masked: bool, size: float = 1.0) -> tuple[list[Tensor], Any, Any]:
    """q, k, v and, where it is soft, the factor; r_idx; real keys."""
    b, m, n, t, s, cq, cv, k = case
    made = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=made) for shape in ((b, m, n, t, cq), (b, m, n, s, cq), (b, m, n, s, cv))]
    given[0] *= size
    if soft:
        given.append(torch.rand(b, n, k, generator=made) + 0.5)
    real = torch.rand(n, s, generator=made) > 0.4
    real[:, 0] = True
    return given, torch.rand(b, n, n, generator=made).argsort(-1)[..., :k], real if masked else None


def learnt(given: list[Tensor], r_idx: Tensor, real: Tensor | None, written_out: bool) -> list[Tensor]:
    """The output, and the gradient of each given tensor."""
    leaves = [t.detach().clone().requires_grad_() for t in given]
    q, k, v, factor = (*leaves, None)[:4]
    if written_out:
        out = BF.attend_explicit(q, BF.gather_keys(k, r_idx, factor), BF.gather_keys(v, r_idx, factor), SCALE,
                                 BF.gather_mask(real, r_idx))[0]
    else:
        out = attend_chunked(q, k, v, r_idx, SCALE, factor, real)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    (out * weight).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_numbers_and_gradients(case: tuple[int, ...], soft: bool, masked: bool) -> None:
    given, r_idx, real = tensors(case, soft, masked)
    wanted = learnt([t.double() for t in given], r_idx, real, written_out=True)
    found = learnt(given, r_idx, real, written_out=False)
    assert len(found) == len(wanted) == 4 + soft
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got.double(), want, atol=2e-5 * max(1.0, float(want.abs().max())), rtol=0)


@pytest.mark.parametrize("kind", ["any", "avx2"])
def test_every_build_gives_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would else be tried only on the processors that it is for."""
    allowed = native.KINDS.get(torch.backends.cpu.get_cpu_capability(), ("any",))
    found = importlib.util.find_spec(f"bra.kernels._routed_{kind}")
    if kind not in allowed or found is None or found.origin is None:
        pytest.skip(f"the build for {kind} is not there, or this processor does not run it")
    given, r_idx, real = tensors(CASES[3], True, True)
    wanted = learnt([t.double() for t in given], r_idx, real, written_out=True)
    library = ctypes.CDLL(found.origin)
    monkeypatch.setattr(native, "_library", lambda: library)
    for got, want in zip(learnt(given, r_idx, real, written_out=False), wanted, strict=True):
        torch.testing.assert_close(got.double(), want, atol=2e-5 * max(1.0, float(want.abs().max())), rtol=0)


@pytest.mark.parametrize("size", [300.0, 3000.0])
def test_logits_beyond_what_exp2_holds(size: float) -> None:
    given, r_idx, real = tensors(CASES[0], False, True, size)
    wanted = learnt([t.double() for t in given], r_idx, real, written_out=True)[0]
    found = learnt(given, r_idx, real, written_out=False)[0]
    # A logit of 3000 is known to 1e-4 in float32, and so is the weight that it becomes.
    torch.testing.assert_close(found.double(), wanted, atol=2e-6 * size, rtol=0)


def test_the_same_bits_whatever_the_threads_and_under_deterministic_algorithms() -> None:
    given, r_idx, real = tensors(CASES[1], True, False)
    before, found = torch.get_num_threads(), []
    try:
        for threads, strict in ((1, False), (2, False), (3, True)):
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)
            found.append(learnt(given, r_idx, real, written_out=False))
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)
    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            assert torch.equal(got, want)


def test_tensors_may_lie_as_they_like() -> None:
    (q, k, v), r_idx, _ = tensors(CASES[0], False, False)
    wanted = attend_chunked(q, k, v, r_idx, SCALE)
    for lie in (lambda t: t.mT.contiguous().mT, lambda t: torch.cat([t, t], -1)[..., :t.shape[-1]],
                lambda t: t.permute(0, 2, 3, 1, 4).contiguous().permute(0, 3, 1, 2, 4)):
        assert torch.equal(attend_chunked(lie(q), lie(k), lie(v), r_idx.mT.contiguous().mT, SCALE), wanted)


def test_a_number_that_is_none_stays_with_those_who_look_at_it() -> None:
    (q, k, v), r_idx, _ = tensors(CASES[1], False, False)
    q[0, 0, 0, 0, 0] = float("nan")
    out = attend_chunked(q, k, v, r_idx, SCALE)
    assert out[0, 0, 0, 0].isnan().all()
    assert int(out.isnan().sum()) == v.shape[-1]


def test_without_a_build_torchs_operators_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    m, x = BiLevelRoutingAttention(16, num_heads=2, n_win=3), torch.randn(2, 16, 17, 20)
    with torch.no_grad():
        compiled = m(x)
        monkeypatch.setattr(native, "_library", lambda: None)
        torch.testing.assert_close(m(x), compiled, atol=1e-5, rtol=1e-4)
