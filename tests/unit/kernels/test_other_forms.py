"""What our forward is measured against computes the same: outputs and gradients of four forms over the same weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bra import BiLevelRoutingAttention

sys.path.append(str(Path(__file__).parents[2] / "bench"))
from forms import FORMS, given


@pytest.mark.parametrize("side", [12, 17])
@pytest.mark.parametrize("name", FORMS)
def test_outputs_and_gradients_are_ours(name: str, side: int) -> None:
    torch.manual_seed(0)
    m = BiLevelRoutingAttention(16, 3, num_heads=2, topk=2)
    x = torch.randn(2, 16, side, side)
    toward, found = torch.randn_like(x), []
    for ours in (False, True):
        m.zero_grad()
        leaf = x.clone().requires_grad_()
        y = m(leaf) if ours else FORMS[name](m, given(name, leaf))
        y = y.permute(0, 3, 1, 2) if name == "gather" and not ours else y
        (y * toward).sum().backward()
        found.append([y.detach(), leaf.grad, *(p.grad.clone() for p in m.parameters())])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)
