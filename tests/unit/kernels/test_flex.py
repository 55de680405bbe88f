"""The block mask against attention written out: what it lists, what it hides, the numbers, and when it is taken.

No GPU is needed for most of it: FlexAttention also runs on the CPU, uncompiled by `mask_mod` alone, compiled by the
block lists too. It has no backward there; gradients are tested through a kernel that spreads the lists out. Where there
is a GPU, the real kernel is compared, gradients too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from bra import BiLevelRoutingAttention
from bra import functional as BF
from bra.kernels import dispatch, flex

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
compiles = pytest.mark.skipif(shutil.which("g++") is None, reason="FlexAttention's CPU kernel is compiled by g++")
WINDOWS = [(1, 1), (49, 49), (64, 64), (130, 130), (49, 16), (64, 4), (12, 130)]
"""Queries and keys per window."""
ROUTINGS = [(4, 1), (4, 4), (9, 2), (49, 4), (64, 3)]
"""Windows and topk."""


def shapes(t: int, s: int, p2: int, topk: int, masked: bool = False, learns: bool = False, b: int = 2, m: int = 2,
           qk: int = 8, c: int = 8, device: str = "cpu", dtype: torch.dtype = torch.float32) -> flex.Shapes:
    return flex.Shapes(torch.device(device), dtype, (b, m, p2, t, qk), (b, m, p2, s, qk), (b, m, p2, s, c), topk,
                       masked, learns, qk**-0.5)


def explicit(q: Tensor, k: Tensor, v: Tensor, r_idx: Tensor, scale: float, real_keys: Tensor | None = None) -> Tensor:
    mask = BF.gather_mask(real_keys, r_idx)
    return BF.attend_explicit(q, BF.gather_keys(k, r_idx), BF.gather_keys(v, r_idx), scale, mask)[0]


def spread(count: Tensor, blocks: Tensor) -> Tensor:
    """(b, rows), (b, rows, cols) -> (b, rows, cols) bool: which blocks the first `count` entries name."""
    named = torch.zeros(*blocks.shape[:2], blocks.shape[2], dtype=torch.bool)
    for image, row in torch.cartesian_prod(torch.arange(len(count)), torch.arange(count.shape[1])).tolist():
        named[image, row, blocks[image, row, :count[image, row]].long()] = True
    return named


def seen_by_lists(mask: Any) -> Tensor:
    """(b, queries, keys) bool: what a kernel sees that skips unlisted blocks and asks mask_mod in partial ones only."""
    q_block, k_block = mask.BLOCK_SIZE
    part = spread(mask.kv_num_blocks[:, 0], mask.kv_indices[:, 0])
    full = torch.zeros_like(part)
    if mask.full_kv_num_blocks is not None:
        full = spread(mask.full_kv_num_blocks[:, 0], mask.full_kv_indices[:, 0])
    assert not (part & full).any()
    b, rows, cols = part.shape
    at = torch.meshgrid(torch.arange(b), torch.arange(rows * q_block), torch.arange(cols * k_block), indexing="ij")
    asked = mask.mask_mod(at[0], torch.zeros_like(at[0]), at[1], at[2])
    part, full = (x.repeat_interleave(q_block, 1).repeat_interleave(k_block, 2) for x in (part, full))
    assert bool((asked | ~full)[full].all())        # a full block hides nothing
    return full | (part & asked)


def by_lists(q: Tensor, k: Tensor, v: Tensor, *, block_mask: Any, scale: float, kernel_options: Any) -> Tensor:
    """A kernel for tests: as `flex_attention`, with the lists spread out, differentiable on any device."""
    logits = (q * scale) @ k.mT
    return logits.masked_fill(~seen_by_lists(block_mask)[:, None], float("-inf")).softmax(-1) @ v


def by_mask(q: Tensor, k: Tensor, v: Tensor, *, block_mask: Any, scale: float, kernel_options: Any) -> Tensor:
    """The same from `mask_mod` alone, as plainly as torch can compile it; FlexAttention's own learns on a GPU only."""
    image, query, key = torch.meshgrid(*(torch.arange(n) for n in (len(q), q.shape[2], k.shape[2])), indexing="ij")
    seen = block_mask.mask_mod(image, image, query, key)[:, None]
    return ((q * scale) @ k.mT).masked_fill(~seen, float("-inf")).softmax(-1) @ v


def uncompiled(*tensors: Tensor, **options: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        return flex_attention(*tensors, **options)


def test_the_tile_is_the_largest_that_fills_up_little() -> None:
    # 49 is 64 by any tile; 144 is 9 × 16, by 32 a ninth more, by 64 a third; 36 is 3 × 16, by 32 a third more.
    tiles = {1: 16, 16: 16, 17: 32, 36: 16, 49: 64, 64: 64, 65: 32, 100: 64, 130: 32, 144: 32, 400: 64, 529: 64}
    assert {tokens: flex.tile_of(tokens) for tokens in tiles} == tiles


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("p2", "topk"), ROUTINGS)
@pytest.mark.parametrize(("t", "s"), [(1, 1), (5, 3), (16, 16), (17, 18)])
def test_lists_and_mask_see_exactly_the_routed_keys(t: int, s: int, p2: int, topk: int, masked: bool) -> None:
    inputs = flex.example(shapes(t, s, p2, topk, masked))
    r_idx, real = inputs["r_idx"], inputs["real_keys"]
    q_block, k_block = flex.padded(t, flex.tile_of(t)), flex.padded(s, flex.tile_of(s))
    mask = flex.block_mask(r_idx, q_block, k_block, s, real)
    seen = seen_by_lists(mask).view(2, p2, q_block, p2, k_block)
    wanted = torch.zeros(2, p2, p2, k_block, dtype=torch.bool)
    for image in range(2):
        for window in range(p2):
            for key_window in r_idx[image, window].tolist():
                for key in range(s):
                    wanted[image, window, key_window, key] = real is None or real[key_window, key]
    assert torch.equal(seen, wanted[:, :, None].expand_as(seen))
    # What the backward reads: the same blocks by key.
    for kind in ("", "full_"):
        count, blocks = (getattr(mask, f"{kind}kv_{name}") for name in ("num_blocks", "indices"))
        if count is not None:
            back = spread(getattr(mask, f"{kind}q_num_blocks")[:, 0], getattr(mask, f"{kind}q_indices")[:, 0])
            assert torch.equal(back, spread(count[:, 0], blocks[:, 0]).mT)


def test_windows_that_fill_their_tiles_are_never_masked() -> None:
    mask = flex.block_mask(flex.example(shapes(64, 64, 9, 3))["r_idx"], 64, 64, 64)
    assert mask.kv_num_blocks.sum() == 0
    assert bool((mask.full_kv_num_blocks == 3).all())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("p2", "topk"), ROUTINGS)
@pytest.mark.parametrize(("t", "s"), WINDOWS)
def test_uncompiled_on_the_cpu_it_is_attention_written_out(t: int, s: int, p2: int, topk: int, masked: bool) -> None:
    p2, topk = (p2, topk) if max(t, s) * p2 < 3000 else (9, min(topk, 9))       # this form writes out every row
    inputs = flex.example(shapes(t, s, p2, topk, masked))
    torch.testing.assert_close(flex.attend(**inputs, kernel=uncompiled), explicit(**inputs), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("qk", "c"), [(4, 24), (24, 4), (16, 32), (40, 16)])
def test_q_may_be_wider_or_narrower_than_v(qk: int, c: int) -> None:
    inputs = flex.example(shapes(12, 12, 9, 3, qk=qk, c=c))
    out = flex.attend(**inputs, kernel=uncompiled)
    assert out.shape == (2, 2, 9, 12, c)
    torch.testing.assert_close(out, explicit(**inputs), atol=2e-6, rtol=1e-5)


@compiles
def test_the_cpu_kernel_reads_the_lists_alike(tmp_path: Path) -> None:
    # By itself and compiled afresh: the CPU kernel aborts where it meets another number of threads than when compiled.
    code = ("import torch; torch.set_num_threads(1)\nimport test_flex\n"
            "with torch.no_grad():\n"
            "    for case in ((49, 49, 4, 2, False), (64, 64, 9, 4, False), (64, 16, 9, 9, True)):\n"
            "        inputs = test_flex.flex.example(test_flex.shapes(*case))\n"
            "        torch.testing.assert_close(test_flex.flex.attend(**inputs), test_flex.explicit(**inputs), "
            "atol=2e-6, rtol=1e-5)\nprint('alike')")
    here = os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[3]))),
                         "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, timeout=290)
    assert done.stdout.endswith("alike\n"), done.stderr[-2000:]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("t", "s", "p2", "topk"), [(1, 1, 4, 1), (12, 12, 9, 4), (16, 16, 9, 9), (49, 16, 4, 3)])
def test_gradients_through_the_spread_lists_are_those_of_the_written_out_form(
        t: int, s: int, p2: int, topk: int, masked: bool) -> None:
    inputs = flex.example(shapes(t, s, p2, topk, masked, learns=True))
    weights = torch.randn(2, 2, p2, t, 8)

    def gradients(out: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((out * weights).sum(), [inputs[name] for name in "qkv"])

    for ours, theirs in zip(gradients(flex.attend(**inputs, kernel=by_lists)), gradients(explicit(**inputs)),
                            strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-6, rtol=1e-4)


class Largest(TorchDispatchMode):
    """The largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.untyped_storage().nbytes() // out.element_size())
        return out


@pytest.mark.parametrize("masked", [False, True])
def test_no_mask_of_tokens_by_tokens_is_made(masked: bool) -> None:
    inputs = flex.example(shapes(400, 400, 64, 4, masked))
    with Largest() as largest:
        flex.block_mask(inputs["r_idx"], 448, 448, 400, inputs["real_keys"])
    assert largest.elements <= max(2 * 64 * 65, 64 * 448)       # by blocks, and one word per key


def test_it_is_taken_only_where_it_is_asked_for_and_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # The rule alone, with a device's answers put in its place: no kernel runs here.
    q = torch.empty(1, 2, 4, 64, 8)
    monkeypatch.setenv(dispatch.CHOICE, "flex")
    assert not dispatch.takes_flex(q, None)
    assert not dispatch.takes_flex(q.to("meta"), None)
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda _: True))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    for capability, able in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, one=capability: one)
        for wish in ("flex", "auto", "gather", ""):
            monkeypatch.setenv(dispatch.CHOICE, wish)
            assert dispatch.takes_flex(q, None) == (able and wish == "flex")
        monkeypatch.setenv(dispatch.CHOICE, "flex")
        assert not dispatch.takes_flex(q, torch.ones(1))
        assert not dispatch.takes_flex(q.double(), None)
    monkeypatch.delenv(dispatch.CHOICE)
    assert not dispatch.takes_flex(q, None)


def forced(monkeypatch: pytest.MonkeyPatch, kernel: Any) -> list[Any]:
    """Take this form on the CPU too, by some kernel; the list gets the shape of q each time."""
    ran: list[Any] = []

    def possible(q: Tensor, factor: Tensor | None) -> bool:
        ran.append(tuple(q.shape))
        return factor is None

    monkeypatch.setenv(dispatch.CHOICE, "flex")
    monkeypatch.setattr(flex, "possible", possible)
    monkeypatch.setattr(flex, "_compiled", lambda: kernel)
    monkeypatch.setattr(dispatch, "takes_chunked", lambda _q: False)
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda _: True))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return ran


@pytest.mark.parametrize("options", [{}, {"mask_padding": True}, {"kv_downsample_mode": "avgpool"}, {"qk_dim": 16},
                                        {"soft_routing": True}])
def test_a_layer_that_takes_it_gives_the_same_map_and_gradients(options: dict[str, Any],
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    layer = BiLevelRoutingAttention(32, n_win=3, num_heads=2, kv_downsample_ratio=2, **options)
    x = torch.randn(2, 32, 20, 22)

    def ran_through() -> tuple[Tensor, ...]:
        out = layer(x)
        return out.detach(), *torch.autograd.grad(out.square().sum(), list(layer.parameters()))

    before = ran_through()
    ran = forced(monkeypatch, by_lists)
    after = ran_through()
    assert len(ran) == 1
    for usual, ours in zip(before, after, strict=True):
        torch.testing.assert_close(ours, usual, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("error", [torch._dynamo.exc.TorchDynamoException,
                                   torch._dynamo.exc.FailOnRecompileLimitHit])
def test_a_kernel_that_does_not_compile_is_done_without(error: type[Exception],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise error("no compiler")

    ran = forced(monkeypatch, broken)
    inputs = flex.example(shapes(16, 16, 4, 2))
    with pytest.warns(RuntimeWarning, match=r"did not compile for q \(2, 2, 4, 16, 8\)"):
        out = dispatch.attend_routed(**inputs)
    torch.testing.assert_close(out, explicit(**inputs), atol=2e-6, rtol=1e-5)
    assert len(ran) == 1


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """All rules as on a GPU, the kernel compiled, but by a compiler that only notes what it was given."""
    graphs: list[Any] = []
    noted = torch.compile(by_mask, fullgraph=True, dynamic=False,
                          backend=lambda graph, _: graphs.append(graph) or graph.forward)
    torch._dynamo.reset()
    forced(monkeypatch, noted)
    yield graphs
    torch._dynamo.reset()


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode,
                                     lambda: torch.autocast("cpu", torch.bfloat16)])
def test_it_is_compiled_once_for_each_shape(mode: Any, as_on_a_gpu: list[Any]) -> None:
    layer = BiLevelRoutingAttention(32, n_win=3, num_heads=2)
    for side in (18, 24):           # windows of 36 tokens, filled up to 48, and of 64
        x = torch.randn(1, 32, side, side)
        with mode():
            for _ in range(2):
                layer(x)
    assert len(as_on_a_gpu) == 2


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_more_shapes_are_compiled_than_torch_would(as_on_a_gpu: list[Any]) -> None:
    layer = BiLevelRoutingAttention(32, n_win=2, topk=2, num_heads=2)
    sides = range(6, 24)
    with torch.no_grad():
        for side in sides:
            layer(torch.randn(1, 32, 2 * side, 2 * side))
    blocks = {flex.padded(side**2, flex.tile_of(side**2)) for side in sides}
    assert len(as_on_a_gpu) == len(blocks) > torch._dynamo.config.recompile_limit


def test_checkpointing_recomputes_it_and_who_counts_operators_sees_the_other_form(as_on_a_gpu: list[Any]) -> None:
    layer, x = BiLevelRoutingAttention(32, n_win=3, num_heads=2), torch.randn(1, 32, 24, 24, requires_grad=True)
    checkpoint(layer, x, use_reentrant=False).sum().backward()      # saves as much when it runs a second time
    assert as_on_a_gpu
    compiled = len(as_on_a_gpu)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() > 0
    assert len(as_on_a_gpu) == compiled


def test_shapes_without_numbers_get_the_other_form() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        layer = BiLevelRoutingAttention(32, n_win=3, num_heads=2)
        assert layer(torch.empty(1, 32, 24, 24)).shape == (1, 32, 24, 24)


@pytest.fixture(autouse=True)
def _few_shapes() -> None:
    if torch.cuda.is_available():       # torch compiles one function for so many shapes only
        torch._dynamo.reset()


@on_gpu
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("t", "s", "p2", "topk", "qk", "c"), [
    (49, 49, 64, 4, 8, 8), (64, 64, 49, 4, 32, 32), (144, 144, 49, 4, 24, 24), (130, 130, 4, 4, 16, 32),
    (64, 16, 64, 8, 32, 16)])
def test_on_a_gpu_it_is_attention_written_out(t: int, s: int, p2: int, topk: int, qk: int, c: int, dtype: torch.dtype,
                                              masked: bool) -> None:
    inputs = flex.example(shapes(t, s, p2, topk, masked, True, qk=qk, c=c, device="cuda:0", dtype=dtype))
    exact = {name: x.detach().double().requires_grad_() if name in "qkv" else x for name, x in inputs.items()}
    ours, truth = flex.attend(**inputs), explicit(**exact)
    tolerance = flex.TOLERANCE[dtype]
    torch.testing.assert_close(ours.double(), truth, atol=tolerance, rtol=tolerance)
    weights = torch.randn_like(ours)
    pairs = zip(torch.autograd.grad(ours, [inputs[n] for n in "qkv"], weights),
                torch.autograd.grad(truth, [exact[n] for n in "qkv"], weights.double()), strict=True)
    for got, wanted in pairs:
        size = wanted.abs().max().item()
        torch.testing.assert_close(got.double(), wanted, atol=tolerance * size, rtol=tolerance)


@on_gpu
@pytest.mark.parametrize("topk", [1, 4, 16])
def test_on_a_gpu_a_layer_gives_the_same_whichever_form_it_takes(topk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = BiLevelRoutingAttention(64, topk=topk).cuda(), torch.randn(4, 64, 80, 80, device="cuda")
    outs = []
    for wish in ("gather", "flex"):
        monkeypatch.setenv(dispatch.CHOICE, wish)
        outs.append(layer(x))
    torch.testing.assert_close(outs[1], outs[0], atol=5e-3, rtol=5e-3)
