"""Models are shared by visitors: tracing writes nothing on them, leaves no listener, and does not mix up threads."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bra
from bra import BiLevelRoutingAttention
from bra.recorder import active_recorder, recording


class Net(nn.Module):
    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.BatchNorm2d(16)
        self.attention = BiLevelRoutingAttention(16, n_win=3, num_heads=2)
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(self.norm(self.stem(x)))
        if self.fails:
            raise RuntimeError("after the attention")
        return y


def everything_on(model: nn.Module) -> list[tuple[str, str, Any]]:
    """Each attribute of each module; tensors by place in memory and content."""
    found = []
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, dict):
                value = [(k, id(v), v._version, v.detach().clone().tolist() if v is not None else None)
                         if isinstance(v, Tensor) else (k, id(v)) for k, v in value.items()]
            found.append((name, key, value))
    return found


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_model_is_the_same_after_a_trace(fails: bool, training: bool) -> None:
    model = Net(fails).train(training)
    before, x = everything_on(model), torch.rand(2, 3, 40, 40)
    if fails:
        with pytest.raises(RuntimeError, match="after the attention"):
            bra.trace(model, x)
    else:
        bra.trace(model, x)
    assert everything_on(model) == before
    assert active_recorder() is None
    for module in model.modules():
        assert not {**module._forward_hooks, **module._forward_pre_hooks, **module._backward_hooks}


def test_the_check_above_sees_what_a_forward_in_train_mode_does() -> None:
    model = Net().train()
    before = everything_on(model)
    model(torch.rand(2, 3, 40, 40))
    assert everything_on(model) != before


def test_a_trace_in_train_mode_uses_the_batch_as_the_model_would() -> None:
    model, x = Net().train(), torch.rand(2, 3, 40, 40)
    torch.testing.assert_close(bra.trace(model, x).out, model(x))


def test_the_input_is_left_as_it_was() -> None:
    x = torch.rand(1, 3, 40, 40)
    copy = x.clone()
    bra.trace(Net().eval(), x)
    assert torch.equal(x, copy)


def test_traced_tensors_take_part_in_no_graph() -> None:
    lt = bra.trace(Net().eval(), torch.rand(1, 3, 40, 40)).layers["attention"]
    for name in lt.__slots__:
        value = getattr(lt, name)
        assert not (isinstance(value, Tensor) and value.requires_grad), name


def test_recording_ends_with_its_block_and_nests() -> None:
    layer, x = BiLevelRoutingAttention(16, n_win=2, num_heads=2), torch.rand(1, 16, 4, 4)
    with recording() as outer:
        layer(x)
        with recording() as inner:
            layer(x)
            layer(x)
        layer(x)
    layer(x)
    assert (len(outer.captures), len(inner.captures)) == (2, 2)
    with pytest.raises(KeyError), recording():
        raise KeyError
    assert active_recorder() is None


def test_another_thread_and_another_context_do_not_hear() -> None:
    layer, x = BiLevelRoutingAttention(16, n_win=2, num_heads=2), torch.rand(1, 16, 4, 4)
    empty = contextvars.copy_context()
    with recording() as rec, ThreadPoolExecutor(1) as pool:
        pool.submit(layer, x).result()
        empty.run(layer, x)
        assert not rec.captures
        layer(x)
    assert len(rec.captures) == 1


@pytest.mark.parametrize("training", [False, True])
def test_eight_threads_on_one_model_each_get_their_own_trace(training: bool) -> None:
    model = Net().train(training)
    images = [torch.rand(1, 3, 40 + 4 * n, 60) for n in range(8)]
    alone = [bra.trace(model, x) for x in images]
    for _ in range(4):
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda x: bra.trace(model, x), images))
        for one, other in zip(alone, together, strict=True):
            a, b = one.layers["attention"], other.layers["attention"]
            assert list(other.layers) == ["attention"]
            assert a.grid == b.grid
            torch.testing.assert_close(b.q, a.q)
            torch.testing.assert_close(b.affinity, a.affinity)
            assert torch.equal(b.r_idx, a.r_idx)
            torch.testing.assert_close(other.out, one.out)
