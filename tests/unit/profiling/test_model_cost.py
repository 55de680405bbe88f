"""What a model costs: against torch's own counter, against numbers worked by hand, and against the process's memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from counting import check_sums, torch_macs
from test_attention_cost import CASES
from torch import Tensor, nn

import bra
from bra import BiLevelRoutingAttention, BRASpec
from bra.errors import CostError
from bra.kernels import native
from bra.models.biformer import biformer_tiny
from bra.models.catalog import ModelSettings, build
from bra.profiling import meter


@pytest.mark.parametrize(("h", "w", "c", "options", "mflops"), CASES)
def test_five_settings_worked_out_before(h: int, w: int, c: int, options: dict[str, Any], mflops: float) -> None:
    layer = BiLevelRoutingAttention(c, **options)
    cost = bra.cost(layer, (h, w))
    row, = cost.rows
    assert 2 * row.macs / 1e6 == pytest.approx(mflops, abs=0.0005)
    assert row.macs == torch_macs(layer, 1, c, h, w, ret_attn_mask=True)
    assert (row.name, row.given, row.returned) == ("BiLevelRoutingAttention", ((1, c, h, w),), ((1, c, h, w),))
    assert [part.name for part in row.parts if part.name != "pooling"] == \
        ["qkv", "routing", "QKᵀ", "AV", "LePE", "output"]
    assert {part.basis for part in row.parts} == {"formula"}
    assert row.basis == "measured"
    check_sums(cost)


def test_a_layer_worked_out_by_hand() -> None:
    """4×4 tokens of 2 channels, 2×2 windows of 4 tokens, one routed: 16 tokens attend to 4 keys each."""
    cost = bra.cost(BiLevelRoutingAttention(2, n_win=2, num_heads=1, topk=1, side_dwconv=0), 4)
    assert {part.name: (part.params, part.macs) for part in cost.rows[0].parts} == {
        "qkv": (3 * 2 * 2 + 6, 16 * 2 * 6), "routing": (0, 16 * 2), "QKᵀ": (0, 16 * 4 * 2), "AV": (0, 16 * 4 * 2),
        "output": (2 * 2 + 2, 16 * 2 * 2)}


def test_half_precision_takes_half_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    # 28 tokens: windows too small for attention in chunks of torch's operators, which half precision does not take.
    monkeypatch.setattr(native, "_library", lambda: None)
    whole = bra.cost(BiLevelRoutingAttention(64, side_dwconv=0), 28)
    half = bra.cost(BiLevelRoutingAttention(64, side_dwconv=0).half(), 28)
    assert half.total.macs == whole.total.macs
    assert half.total.peak_bytes == pytest.approx(whole.total.peak_bytes / 2, rel=0.05)


def test_rows_and_bytes_of_a_chain_worked_out_by_hand() -> None:
    """A 4×4 image of 3 channels is 192 bytes; 8 channels are 512, 1 channel is 64."""
    cost = bra.cost(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1, bias=False)), 4)
    assert [(row.name, row.params, row.macs, row.peak_bytes, row.alive_bytes) for row in cost.rows] == [
        ("0 Conv2d", 32, 16 * 3 * 8, 512, 192 + 512),
        ("1 ReLU", 0, 0, 512, 192 + 512 + 512),
        ("2 Conv2d", 72, 16 * 8 * 9, 64, 192 + 512 + 64)]
    assert (cost.total.peak_bytes, cost.total.alive_bytes) == (1024, 1216)
    assert [(one.name, one.calls, one.elements) for one in cost.not_counted] == [("relu", 1, 128)]


def test_biformer_tiny_is_counted_as_torch_counts_it() -> None:
    model = biformer_tiny()
    cost = bra.cost(model, 224)
    check_sums(cost)
    assert cost.total.params == sum(p.numel() for p in model.parameters())
    assert cost.total.macs == cost.total.executed_macs == torch_macs(model.eval(), 1, 3, 224, 224)
    assert cost.total.params / 1e6 == pytest.approx(13.1, abs=0.05)
    assert cost.total.macs / 1e9 == pytest.approx(2.2, abs=0.05)
    block = next(row for row in cost.rows if row.name == "stages.2.7 Block")
    assert [part.name for part in block.parts][0::6] == ["attn qkv", "rest"]
    assert block.parts[-1].basis == "measured"
    assert block.parts[-1].macs == 196 * 256 * (9 + 2 * 3 * 256)           # position convolution, MLP of ratio 3
    assert (block.grid.h, block.grid.n_win) == (14, 7)
    names = {one.name for one in cost.not_counted}
    assert {"topk", "softmax inside attention", "gelu", "layer_norm", "batch_norm"} <= names
    assert not names & {"view", "permute", "convolution", "addmm", "bmm", "empty"}


def test_catalog_models_have_a_row_for_every_layer() -> None:
    cost = bra.cost(build(ModelSettings()), (300, 448))
    check_sums(cost)
    assert [row.name for row in cost.rows] == ["embed PatchEmbedding", "layers.0 BiLevelRoutingAttention",
                                               "layers.1 BiLevelRoutingAttention"]
    assert (cost.rows[1].grid.h, cost.rows[1].grid.w) == (38, 56)


class Odd(nn.Module):
    """Weights of its own, one layer called twice on two sizes, and a course that hangs on values."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(16, 3))
        self.attention = BiLevelRoutingAttention(16, n_win=2, num_heads=2)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("dc,bchw->bdhw", self.gate, x)
        if x.sum() > 1e9:
            return x
        return self.norm(self.attention(x)[..., :4, :4]) + self.attention(x[..., :4, :4])


def test_a_model_that_asks_for_values_runs_for_real() -> None:
    cost = bra.cost(Odd(), 8, channels=3)
    check_sums(cost)
    assert [row.name for row in cost.rows] == ["attention BiLevelRoutingAttention", "norm BatchNorm2d", "Odd itself"]
    assert cost.rows[-1].params == 48
    assert cost.rows[-1].macs == 64 * 16 * 3
    twice = {part.name: part.macs for part in cost.rows[0].parts}
    assert twice["qkv"] == 64 * 16 * 48
    assert twice["#2 qkv"] == 16 * 16 * 48


def test_nothing_is_left_on_the_model() -> None:
    model = Odd().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    keys = {name: set(vars(m)) for name, m in model.named_modules()}
    cost = bra.cost(model, 8, channels=3, rounds=1)
    assert cost.rounds == 1
    assert all(m.training for m in model.modules())
    assert {name: set(vars(m)) for name, m in model.named_modules()} == keys
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_time_adds_up_and_tells_of_its_progress() -> None:
    reported: list[tuple[int, int]] = []
    cost = bra.cost(biformer_tiny(), 64, rounds=3, progress=lambda *at: reported.append(at))
    assert reported == [(n, 5) for n in range(1, 6)]
    assert sum(row.ms or 0 for row in cost.rows) == pytest.approx(cost.total.ms)
    assert sum(row.time_share or 0 for row in cost.rows) == pytest.approx(1)
    times = {row.name: row.ms or 0 for row in cost.rows}
    assert times["stages.0.0 Block"] > times["norm BatchNorm2d"] > 0
    assert bra.cost(biformer_tiny(), 64).total.ms is None


def test_time_between_the_rows_is_somebodys() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    cost = bra.cost(model, 8, rounds=1)
    assert [(row.name, row.macs) for row in cost.rows] == [("0 Conv2d", 1536), ("1 ReLU", 0), ("Sequential itself", 0)]
    assert sum(row.ms or 0 for row in cost.rows) == pytest.approx(cost.total.ms)
    assert len(bra.cost(model, 8).rows) == 2


class Sleeper(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return x + 1


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sleeper, self.conv = Sleeper(), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.sleeper(self.sleeper(x)))


def test_a_row_that_runs_twice_takes_twice_as_long() -> None:
    sleeper, conv, _ = bra.cost(CalledTwice(), 8, rounds=1).rows
    assert sleeper.ms >= 40
    assert conv.ms < sleeper.ms


def test_threads_do_not_hear_one_another() -> None:
    model = biformer_tiny()
    sides = [64, 96, 128, 160]
    alone = [bra.cost(model, side).to_dict() for side in sides]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda side: bra.cost(model, side).to_dict(), sides))
    assert together == alone


def test_no_memory_is_spent_on_a_huge_map() -> None:
    cost = bra.cost(BiLevelRoutingAttention(64), 2048)
    assert cost.total.peak_bytes > 2**32
    assert cost.rows[0].layers[0].explicit_peak_bytes > 2**43


class Doing(nn.Module):
    """A convolution, and one thing done with its map."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 8, 3, padding=1), act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


LAST = torch.channels_last
ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "in place": lambda x: x.add_(1).relu_(),
    "numbers made": lambda x: x + torch.arange(16) + torch.randn(1, 8, 1, 1) + x.new_zeros(1),
    "numbers made here": lambda x: x + torch.arange(16, device=x.device, dtype=x.dtype),
    "depthwise": lambda x: nn.functional.conv2d(x, torch.zeros(8, 1, 3, 3), padding=1, groups=8),
    "channels last": lambda x: nn.functional.conv2d(x.contiguous(memory_format=LAST), torch.zeros(8, 8, 1, 1)),
    "transposed": lambda x: nn.functional.conv_transpose2d(x, torch.zeros(8, 4, 2, 2), stride=2),
    "one-dimensional": lambda x: nn.functional.conv1d(x.flatten(2), torch.zeros(8, 8, 3)),
    "resized": lambda x: nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "batch norm": lambda x: nn.functional.batch_norm(x, torch.zeros(8), torch.ones(8)),
    "layer norm": lambda x: nn.functional.layer_norm(x, (16, 16)),
    "attention": lambda x: nn.functional.scaled_dot_product_attention(x, x, x),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "Fourier": lambda x: torch.fft.rfft2(x).abs(),
    "cut and joined": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1) + torch.stack([x, x]).sum(0),
    "half": lambda x: x.half().float(),
    "sampled": lambda x: nn.functional.grid_sample(x, torch.zeros(1, 4, 4, 2), align_corners=False),
    "multi-head attention": lambda x: nn.MultiheadAttention(16, 2, batch_first=True).eval()(x[0], x[0], x[0])[0],
    "recurrent": lambda x: nn.LSTM(16, 4)(x[0])[0],
}
HANGS_ON_NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "item": lambda x: x * x.max().item(), "if": lambda x: x if x.sum() > 0 else x * 2,
    "list": lambda x: x * x.sum().reshape(1).tolist()[0], "numpy": lambda x: x * float(x.numpy().sum()),
    "mask": lambda x: x[x > 0].sum(), "places": lambda x: x.nonzero().sum(),
    "another shape in place": lambda x: x.unsqueeze_(0).squeeze(0),
}


@pytest.mark.parametrize("name", [*ACTS, *HANGS_ON_NUMBERS])
def test_stand_ins_are_counted_as_tensors_with_numbers_are(name: str) -> None:
    model = Doing((ACTS | HANGS_ON_NUMBERS)[name]).eval()
    given = model, ["conv"], (1, 3, 16, 16), torch.float32
    torch.manual_seed(0)
    real = meter._metered(*given, stand_ins=False)
    assert real.spans["conv"].macs == 3 * 8 * 9 * 16 * 16
    if name in HANGS_ON_NUMBERS:
        with pytest.raises(meter.NeedsValuesError):
            meter._metered(*given, stand_ins=True)
    counted = meter.metered(*given)
    assert counted.spans == real.spans
    assert counted.passed == real.passed


def test_everything_becomes_plain_values() -> None:
    cost = bra.cost(BiLevelRoutingAttention(16, n_win=2), 10)
    plain = json.loads(json.dumps(cost.to_dict()))
    assert plain["rows"][0]["macs"] == cost.rows[0].macs
    assert plain["rows"][0]["layers"][0]["grid"]["padding_share"] == 0
    assert BRASpec(**plain["rows"][0]["layers"][0]["spec"]) == cost.rows[0].layers[0].spec


@pytest.mark.parametrize(("given", "words"), [
    ({"imgsz": 0}, ("imgsz=0", "1 to 16384", "640")),
    ({"imgsz": (640, "640")}, ("imgsz=", "whole numbers")),
    ({"imgsz": 8, "channels": 5}, ("does not run", "1×5×8×8", "channels")),
    ({"imgsz": 8, "rounds": -1}, ("rounds=-1", "0 for no time")),
], ids=str)
def test_refused_with_value_and_cure(given: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(CostError) as error:
        bra.cost(nn.Conv2d(3, 4, 1), **given)
    assert all(word in str(error.value) for word in words), error.value


def test_what_takes_too_much_memory_is_counted_and_not_timed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1000, 1), nn.AvgPool2d(8))
    counted = bra.cost(model, 64, most_bytes=1)
    timed = bra.cost(model, 64, rounds=1, most_bytes=counted.total.alive_bytes)
    assert timed.total.ms is not None
    reported: list[int] = []
    with pytest.raises(CostError, match=r"timing this model on 64×64 px takes 16 MB at one time, and at most 16 MB"):
        bra.cost(model, 64, rounds=1, progress=lambda done, todo: reported.append(done),
                 most_bytes=counted.total.alive_bytes - 1)
    assert not reported
