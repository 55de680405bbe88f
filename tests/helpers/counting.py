"""What the tests of cost share: torch's own count, and the sums that any cost must have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bra import Cost


def torch_macs(model: nn.Module, *x: int, **options: Any) -> int:
    """Half of what FlopCounterMode counts on the meta device."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.to("meta")(torch.empty(*x, device="meta"), **options)
    return counter.get_total_flops() // 2


def check_sums(cost: Cost) -> None:
    rows, total = cost.rows, cost.total
    for column in ("params", "macs", "executed_macs"):
        assert sum(getattr(row, column) for row in rows) == getattr(total, column), column
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert total.alive_bytes == max(row.alive_bytes for row in rows)
    for row in rows:
        assert row.peak_bytes <= row.alive_bytes
        if row.parts:
            assert sum(part.params for part in row.parts) == row.params
            assert sum(part.macs for part in row.parts) == row.macs
            assert min(min(part.params, part.macs) for part in row.parts) >= 0
