"""Layers of other code bases are heard and proved, whatever they are called, and every listener is let go."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wild_models import KINDS, FlooredConv, FormerBlock, Kind, Pasted, PickWindows, Stem, picture

import bra
from bra import BiLevelRoutingAttention, bra_record
from bra.errors import TraceError
from bra.hooks import capture_of, rerouted
from bra.tracing import LayerTrace

BY_NAME = {kind.name: kind for kind in KINDS}
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.replace(" ", "-"))


def made(kind: Kind) -> nn.Module:
    """With weights that make attention choose: as they are first drawn, it is all but even."""
    model = kind.make().eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and any(part in name for part in ("qkv", "to_q", "to_kv")):
            weight *= 4
    return model


def hooks_on(model: nn.Module) -> list[Any]:
    return [hook for module in model.modules() for hook in (*module._forward_hooks.values(),
                                                            *module._forward_pre_hooks.values())]


def returned(model: nn.Module, x: Tensor, name: str) -> list[Tensor]:
    """What a layer, and what its output linear, returned."""
    layer, kept = model.get_submodule(name), []
    linear = next((getattr(layer, one) for one in ("wo", "output_linear", "proj", "to_out") if hasattr(layer, one)),
                  None)
    handles = [module.register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
               for module in (linear, layer) if module is not None]
    model(x)
    for handle in handles:
        handle.remove()
    return kept


def computed_again(lt: LayerTrace) -> Tensor:
    """(h, w, c): output of a layer from its trace alone: rows of attention times values, position term, linear."""
    windows = []
    for window in range(lt.grid.n_windows):
        values = lt.v[0][:, lt.r_idx[0, window]]                            # (m, k, s, c/m)
        if lt.factor is not None:
            values = values * lt.factor[0, window][None, :, None, None]
        out = lt.attention(window) @ values.flatten(1, 2)                   # (m, t, c/m)
        if lt.lepe is not None:
            out = out + lt.lepe[0, :, window]
        windows.append(out.transpose(0, 1).flatten(1))                      # (t, c)
    tokens = torch.stack(windows)
    if lt.wo is not None:
        tokens = tokens @ lt.wo[0].T + lt.wo[1]
    laid = lt.grid.crop(lt.grid.to_map(tokens.permute(2, 0, 1).numpy()))
    return torch.from_numpy(laid.copy()).permute(1, 2, 0)


@EVERY
def test_every_kind_is_heard_and_proved(kind: Kind) -> None:
    model = made(kind)
    traced = bra.trace(model, picture(kind, model))
    assert len(traced.layers) == kind.layers
    assert not traced.unknown
    for lt in traced.layers.values():
        assert lt.proof is not None
        assert lt.attention_known == kind.known
        if kind.known:
            assert lt.proof.difference is not None
            assert lt.proof.difference < (1.5e-2 if kind.name == "half precision" else 1e-5)
    assert not hooks_on(model)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.known and "#" not in kind.name],
                            ids=lambda kind: kind.name.replace(" ", "-"))
def test_what_a_trace_says_gives_what_the_layer_returned(kind: Kind) -> None:
    model = made(kind)
    x = picture(kind, model)
    name, lt = next(iter(bra.trace(model, x).layers.items()))
    again, kept = computed_again(lt), returned(model, x, name)
    y = kept[0] if lt.proof is not None and lt.proof.compared == "projection" else kept[-1] if lt.wo is None else \
        kept[0]
    y = y[0].float()
    if y.dim() == 2:
        y = y.view(*again.shape)
    if y.shape[0] == again.shape[-1] and y.shape[1:] in (again.shape[:2], (lt.grid.H, lt.grid.W)):
        y = y.permute(1, 2, 0)
    y = y[:again.shape[0], :again.shape[1]]
    assert (again - y).abs().max() <= (0.02 if kind.name == "half precision" else 1e-5) * y.abs().max()


def test_routing_is_that_of_the_layers_own_router() -> None:
    for name in ("pasted class", "moved places", "tokens between"):
        model, kept = made(BY_NAME[name]), []
        router = next(m for m in model.modules() if isinstance(m, PickWindows))
        handle = router.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out))
        (lt,) = bra.trace(model, picture(BY_NAME[name], model)).layers.values()
        handle.remove()
        assert torch.equal(lt.r_idx, kept[0][1])
        torch.testing.assert_close(lt.r_weight, kept[0][0])
        torch.testing.assert_close(lt.affinity.topk(lt.spec.topk).indices, lt.r_idx)


def test_an_attention_of_its_own_is_said_and_refused() -> None:
    model = made(BY_NAME["moved places"])
    (lt,) = bra.trace(model, picture(BY_NAME["moved places"], model)).layers.values()
    assert lt.proof is not None
    assert "attention not" in lt.proof.note
    for ask in (lt.attention, lt.attention_map):
        with pytest.raises(TraceError, match="a way of its own"):
            ask(0)


@pytest.mark.parametrize(("side", "n_win", "windows", "region"), [(20, 7, 10, 2), (80, 7, 8, 11), (15, 4, 5, 3)])
def test_the_rewrite_floors_its_windows(side: int, n_win: int, windows: int, region: int) -> None:
    layer = FlooredConv(16, 4, n_win).eval()
    lt = bra.trace(layer, torch.randn(1, 16, side, side)).layers[""]
    assert (lt.grid.n_win, lt.grid.window_h, lt.grid.window_w) == (windows, region, region)
    assert lt.proof is not None
    assert lt.proof.rule == "floor"
    assert windows * region == lt.grid.H


def test_windows_that_only_fill_the_square_up_are_chosen_by_nobody() -> None:
    kind = BY_NAME["conv rewrite, floored windows"]        # 7 rows and 8 columns of windows on a square of 8×8
    model = made(kind)
    (lt,) = bra.trace(model, picture(kind, model)).layers.values()
    padding = torch.from_numpy(lt.grid.padding_windows)
    assert padding.sum() == 8
    assert not padding[lt.r_idx[0][~padding]].any()
    assert lt.affinity[0][:, padding].eq(float("-inf")).all()


def tampered(heard: bra_record.Heard, **changes: Any) -> float:
    at, wanted = bra_record.tokens_of(heard), heard.sample
    assert wanted is not None
    other = bra_record._with(heard, **changes)
    again = bra_record.projected(other, bra_record.attended(other, wanted[0], at))
    return float((again - wanted[1]).abs().max() / wanted[1].abs().max())


def test_the_proof_fails_where_any_part_is_another() -> None:
    kind = Kind("without padding", lambda: Stem(Pasted(32, 5, 8)))
    model = made(kind)
    x = picture(kind, model)
    with bra_record.Listener([model], sample=True) as listener, torch.no_grad():
        model(x)
    (heard,) = listener.heard
    assert tampered(heard) < 1e-6
    assert heard.q is not None
    wrong = {"r_idx": (heard.r_idx + 1) % 25, "q": heard.q.flip(1), "scale": 4 * heard.scale, "lepe": None, "wo": None,
             "heads": 4}
    for name, value in wrong.items():
        assert tampered(heard, **{name: value}) > 1e-3, name


# letting go -------------------------------------------------------------------------------------------------------


class Breaks(nn.Module):
    def __init__(self, inside: bool) -> None:
        super().__init__()
        self.inside, self.layer = inside, Pasted(16, 3, 2)
        if inside:
            self.layer.wo = nn.Linear(7, 7)

    def forward(self, x: Tensor) -> Tensor:
        self.layer(x)
        raise RuntimeError("after the layer")


@pytest.mark.parametrize("inside", [False, True])
def test_listeners_go_when_the_model_breaks(inside: bool) -> None:
    model = Breaks(inside)
    with pytest.raises(RuntimeError):
        bra.trace(model, torch.randn(1, 16, 9, 9))
    assert not hooks_on(model)
    assert bra_record._listening.get() is None


def test_a_layer_that_broke_and_was_caught_does_not_mix_up_the_next() -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bad, self.good = Pasted(16, 3, 2), Pasted(16, 3, 2)
            self.bad.wo = nn.Linear(7, 7)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.bad(x)
            except RuntimeError:
                return self.good(x)

    traced = bra.trace(Tries().eval(), torch.randn(1, 16, 9, 9))
    assert list(traced.layers) == ["good"]
    assert traced.layers["good"].attention_known


def test_copies_that_were_made_while_listening_are_let_go_too() -> None:
    model, kept = made(BY_NAME["pasted class"]), []
    x = picture(BY_NAME["pasted class"], model)
    with bra_record.Listener([model]) as listener, torch.no_grad():
        kept.append(copy.deepcopy(model))
        kept[0](x)
    assert [heard.name for heard in listener.heard] == ["blocks.0"]
    assert not hooks_on(model)
    assert not hooks_on(kept[0])


def test_threads_hear_their_own_calls_only() -> None:
    kind = BY_NAME["transformer block"]
    model = made(kind)
    inputs = [torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    alone = [bra.trace(model, x) for x in inputs]
    stop, outs = threading.Event(), []

    def plain() -> None:
        while not stop.is_set():
            with torch.no_grad():
                outs.append(model(inputs[0]))

    bystander = threading.Thread(target=plain)
    bystander.start()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: bra.trace(model, x), inputs))
    stop.set()
    bystander.join()
    for one, other in zip(alone, together, strict=True):
        assert list(one.layers) == list(other.layers)
        for name in one.layers:
            torch.testing.assert_close(one.layers[name].q, other.layers[name].q)
    for out in outs:
        torch.testing.assert_close(out, alone[0].out)
    assert not hooks_on(model)


def test_layers_of_this_package_are_not_hooked_and_not_heard_twice() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n_win, self.topk, self.qkv = 3, 4, nn.Linear(1, 1)
            self.attn = BiLevelRoutingAttention(16, n_win=3, num_heads=2)

        def forward(self, x: Tensor) -> Tensor:
            assert not hooks_on(self)
            return self.attn(x)

    traced = bra.trace(Around().eval(), torch.randn(1, 16, 9, 9))
    assert list(traced.layers) == ["attn"]
    assert traced.layers["attn"].proof is None


def test_own_and_foreign_layers_stand_in_the_order_in_which_they_ran() -> None:
    model = nn.Sequential(Pasted(16, 3, 2), BiLevelRoutingAttention(16, n_win=3, num_heads=2), Pasted(16, 3, 2)).eval()
    traced = bra.trace(model, torch.randn(1, 16, 9, 9))
    assert list(traced.layers) == ["0", "1", "2"]
    assert [lt.proof is None for lt in traced.layers.values()] == [False, True, False]


# what is said where nothing was heard ------------------------------------------------------------------------------


def test_a_model_with_such_a_class_is_never_said_to_have_none() -> None:
    class BiLevelRoutingAttention(nn.Module):       # a name is not a class: nothing of what is known is in it
        def forward(self, x: Tensor) -> Tensor:
            return x

    class Idle(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return x

    x = torch.randn(1, 16, 9, 9)
    with pytest.raises(TraceError, match="could not be followed") as named:
        bra.trace(nn.Sequential(BiLevelRoutingAttention()), x)
    with pytest.raises(TraceError, match="none of these ran") as idle:
        bra.trace(Idle(Pasted(16, 3, 2)), x)
    assert all("ran without" not in str(error.value) for error in (named, idle))
    with pytest.raises(TraceError, match="ran without a BiLevelRoutingAttention layer"):
        bra.trace(nn.Conv2d(16, 16, 1), x)


def test_what_could_not_be_followed_is_said_beside_what_could() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n_win, self.topk, self.qkv = 3, 2, nn.Conv2d(16, 48, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.qkv(x)[:, :16].tanh()

    traced = bra.trace(nn.Sequential(Pasted(16, 3, 2), Strange()).eval(), torch.randn(1, 16, 9, 9))
    assert list(traced.layers) == ["0"]
    assert list(traced.unknown) == ["1"]


# other windows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "n_win", "topk"), [
    (lambda: Pasted(16, 3, 2), 3, 2), (lambda: Pasted(16, 3, 2), 4, 5), (lambda: Pasted(16, 7, 2), 2, 4),
    (lambda: FlooredConv(16, 4, 3), 3, 2), (lambda: FlooredConv(16, 4, 3), 4, 5),
    (lambda: FlooredConv(16, 4, 5), 7, 9)])
def test_other_windows_are_those_that_the_class_itself_would_have(make: Any, n_win: int, topk: int) -> None:
    layer, x = make().eval(), torch.randn(1, 16, 13, 17)
    with bra_record.Listener([layer]) as listener, torch.no_grad():
        layer(x)
    (heard,) = listener.heard
    asked = capture_of(rerouted(heard, n_win, topk))
    layer.n_win = n_win
    layer.topk = topk
    if hasattr(layer, "router"):
        layer.router.topk = topk
    lt = bra.trace(layer, x).layers[""]
    assert torch.equal(asked.r_idx, lt.r_idx)
    torch.testing.assert_close(asked.q, lt.q)
    torch.testing.assert_close(asked.k, lt.k)
    torch.testing.assert_close(asked.v, lt.v)
    torch.testing.assert_close(asked.r_weight, lt.r_weight)


def test_a_whole_net_of_blocks_and_odd_maps() -> None:
    model = Stem(FormerBlock(32, n_win=5, kv_side=2), FormerBlock(32, n_win=3)).eval()
    traced = bra.trace(model, torch.rand(2, 3, 136, 208))
    assert [lt.q.shape[0] for lt in traced.layers.values()] == [2, 2]
    assert all(lt.attention_known for lt in traced.layers.values())
