"""Attention of other libraries: rows of a trace against the block's own weights, written out by the block itself or by
an independent slow form.

`whole` is (m, n, n + e): for every token of the map its weights on every token, and on e tokens that are no places.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stock_blocks import ShiftedBlock, Tokens, Turned, Vit
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import (
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
    SwinTransformer,
)
from ultralytics.nn.modules.block import C2PSA, A2C2f, AAttn, Attention
from ultralytics.nn.modules.transformer import AIFI

import bra
from bra import BiLevelRoutingAttention, bra_record
from bra.errors import CheckpointError, TraceError
from bra.metrics.dense import attention_share, dense_attention, layer_output
from bra.tracing import LayerTrace

CLOSE = 1e-5


def rolled_places(h: int, w: int, side: int, shift: int) -> Tensor:
    """(windows, t): number of the place that lies in each of the windows of a padded and rolled map; -1 for padding."""
    at = F.pad(torch.arange(h * w).reshape(1, h, w, 1) + 1, (0, 0, 0, -w % side, 0, -h % side)) - 1
    at = at.roll((-shift, -shift), (1, 2))
    return at.reshape(at.shape[1] // side, side, at.shape[2] // side, side).transpose(1, 2).reshape(-1, side * side)


def spread(written: Tensor, places: Tensor, n: int) -> Tensor:
    """Weights by window (windows, m, t, t) -> (m, n, n) over the map, what falls on padding left out."""
    whole = torch.zeros(written.shape[1], n + 1, n + 1)
    for weights, at in zip(written, places, strict=True):
        whole[:, at[:, None], at] = weights          # -1 is the last, which is cut off
    return whole[:, :n, :n]


def softmaxes(call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What torch's softmax returned while something ran."""
    kept: list[Tensor] = []
    usual = F.softmax

    def listening(*given: Any, **named: Any) -> Tensor:
        out = usual(*given, **named)
        kept.append(out.detach().clone())
        return out

    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(F, "softmax", listening)
        call()
    return kept


@dataclass(frozen=True)
class Case:
    """One block: how it is made, its input, the layer's name, and its weights (m, n, n + e), written out."""

    make: Callable[[], nn.Module]
    x: Tensor
    layer: str
    whole: Callable[[nn.Module, Tensor, pytest.MonkeyPatch], Tensor]
    kind: str
    outside: tuple[str, ...] = ()


def loud(make: Callable[[], nn.Module]) -> nn.Module:
    """A model with weights that make attention choose, and batch norms that do something; in eval mode."""
    torch.manual_seed(1)
    module = make()
    for name, weight in module.named_parameters():
        if weight.dim() > 1 and any(part in name for part in ("qkv", "in_proj")):
            weight.data *= 4
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean, part.running_var = torch.randn(part.num_features), torch.rand(part.num_features) + 0.5
            part.weight.data, part.bias.data = torch.rand(part.num_features) + 0.5, torch.randn(part.num_features)
    return module.eval()


def slow_psa(module: Any, x: Tensor, _: pytest.MonkeyPatch) -> Tensor:
    """Head by head and token by token, in double precision."""
    module, x = copy.deepcopy(module).double(), x.double()
    rows = module.qkv(x)[0].flatten(1)
    wide, whole = 2 * module.key_dim + module.head_dim, []
    for head in range(module.num_heads):
        q, k = rows[head * wide:][:module.key_dim], rows[head * wide + module.key_dim:][:module.key_dim]
        whole.append(torch.stack([(q[:, n] @ k / module.key_dim**0.5).softmax(0) for n in range(q.shape[1])]))
    return torch.stack(whole).float()


def slow_area(module: Any, x: Tensor, _: pytest.MonkeyPatch) -> Tensor:
    """Each token to the tokens of its own run of n / area, in double precision."""
    module, x = copy.deepcopy(module).double(), x.double()
    rows = module.qkv(x)[0].flatten(1)
    n, d = rows.shape[1], module.head_dim
    whole = torch.zeros(module.num_heads, n, n)
    for head in range(module.num_heads):
        q, k = rows[3 * d * head:][:d], rows[3 * d * head + d:][:d]
        for token in range(n):
            first = token // (n // module.area) * (n // module.area)
            keys = k[:, first:first + n // module.area]
            whole[head, token, first:first + n // module.area] = (q[:, token] @ keys / d**0.5).softmax(0).float()
    return whole


def said_by_multihead(before: int) -> Callable[[nn.Module, Tensor, pytest.MonkeyPatch], Tensor]:
    """PyTorch's own weights of the first MultiheadAttention, the first tokens put last."""
    def whole(module: nn.Module, x: Tensor, _: pytest.MonkeyPatch) -> Tensor:
        layer: Any = next(one for one in module.modules() if isinstance(one, nn.MultiheadAttention))
        kept: list[Any] = []
        handle = layer.register_forward_pre_hook(lambda _m, given, named: kept.append((given, named)), with_kwargs=True)
        with torch.no_grad():
            module(x)
        handle.remove()
        given, named = kept[0]
        with torch.no_grad():
            weights = layer(*given, **{**named, "need_weights": True, "average_attn_weights": False})[1][0]
        return torch.cat([weights[:, before:, before:], weights[:, before:, :before]], -1)
    return whole


def said_by_tokens(before: int) -> Callable[[nn.Module, Tensor, pytest.MonkeyPatch], Tensor]:
    def whole(module: nn.Module, x: Tensor, _: pytest.MonkeyPatch) -> Tensor:
        with torch.no_grad():
            module(x)
        weights = next(one for one in module.modules() if isinstance(one, Tokens)).written[0]
        return torch.cat([weights[:, before:, before:], weights[:, before:, :before]], -1)
    return whole


def said_by_swin(shift: int) -> Callable[[nn.Module, Tensor, pytest.MonkeyPatch], Tensor]:
    def whole(module: Any, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
        h, w = x.shape[1:3]
        written = softmaxes(lambda: module(x[:1]), monkeypatch)[0]
        return spread(written, rolled_places(h, w, module.window_size[0], shift), h * w)
    return whole


def said_by_block(module: Any, x: Tensor, _: pytest.MonkeyPatch) -> Tensor:
    h, w = x.shape[1:3]
    with torch.no_grad():
        module(x[:1])
    return spread(module.attn.written, rolled_places(h, w, module.window_size, module.shift_size), h * w)


def picture(*shape: int) -> Tensor:
    """The same numbers each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


CASES = {
    "C2PSA's attention": Case(lambda: Attention(32, 2), picture(1, 32, 10, 14), "", slow_psa, "whole"),
    "area attention over all": Case(lambda: AAttn(32, 2, 1), picture(1, 32, 6, 9), "", slow_area, "whole"),
    "area attention in stripes": Case(lambda: AAttn(32, 2, 4), picture(1, 32, 12, 8), "", slow_area, "stripes"),
    "stripes that end inside a row": Case(lambda: AAttn(32, 2, 4), picture(1, 32, 10, 6), "", slow_area, "stripes"),
    "AIFI": Case(lambda: AIFI(32, 64, 4), picture(1, 32, 5, 8), "ma", said_by_multihead(0), "whole"),
    "torchvision's ViT": Case(lambda: VisionTransformer(64, 16, 2, 4, 32, 64), picture(1, 3, 64, 64),
                              "encoder.layers.encoder_layer_0.self_attention", said_by_multihead(1), "whole",
                              ("class token",)),
    "timm's attention": Case(Vit, picture(1, 3, 64, 96), "blocks.0", said_by_tokens(1), "whole", ("class token",)),
    "with normed q and k": Case(lambda: Vit(lambda dim: Tokens(dim, 4, True), cls=False), picture(1, 3, 80, 64),
                                "blocks.0", said_by_tokens(0), "whole"),
    "with registers": Case(lambda: Vit(registers=2), picture(1, 3, 64, 64), "blocks.0", said_by_tokens(3), "whole",
                           ("class token", "register token 1", "register token 2")),
    "Swin's windows": Case(lambda: ShiftedWindowAttention(32, [7, 7], [0, 0], 4), picture(2, 14, 21, 32), "",
                           said_by_swin(0), "windows"),
    "Swin's shifted windows": Case(lambda: ShiftedWindowAttention(32, [7, 7], [3, 3], 4), picture(2, 14, 21, 32), "",
                                   said_by_swin(3), "windows"),
    "Swin's with padding": Case(lambda: ShiftedWindowAttention(32, [4, 4], [2, 2], 4), picture(1, 10, 15, 32), "",
                                said_by_swin(2), "windows"),
    "the second Swin's": Case(lambda: ShiftedWindowAttentionV2(32, [4, 4], [2, 2], 4), picture(1, 12, 10, 32), "",
                              said_by_swin(2), "windows"),
    "a block of Swin's authors": Case(ShiftedBlock, picture(1, 12, 16, 32), "attn", said_by_block, "windows"),
    "such a block with padding": Case(ShiftedBlock, picture(1, 10, 13, 32), "attn", said_by_block, "windows"),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=[name.replace(" ", "-") for name in CASES])


@EVERY
def test_rows_are_those_of_the_block(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    module = loud(case.make)
    whole = case.whole(module, case.x, monkeypatch).detach()
    lt = bra.trace(module, case.x).layers[case.layer]
    assert not lt.routed
    assert lt.reach is not None
    assert (lt.reach.kind, lt.outside) == (case.kind, case.outside)
    assert lt.proof is not None
    assert lt.proof.difference is not None
    assert lt.proof.difference < CLOSE
    assert float(whole.max()) > 3 / whole.shape[-1]         # it chooses: even weights would prove little
    worst, grid, n = 0.0, lt.grid, lt.grid.h * lt.grid.w
    assert n == whole.shape[1]
    for place in range(n):
        row, col = divmod(place, grid.w)
        window, token = grid.window_of_token(row, col)
        laid = grid.crop(lt.attention_map(window, token).numpy()).reshape(len(whole), -1)
        worst = max(worst, float((torch.from_numpy(laid.copy()) - whole[:, place, :n]).abs().max()))
        outer = lt.outside_attention(window, token) - whole[:, place, n:]
        worst = max(worst, float(outer.abs().max()) if outer.numel() else 0.0)
    assert worst < CLOSE
    total = lt.attention(0).sum(-1) + lt.outside_attention(0).sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)


@EVERY
def test_the_windows_are_ranked_by_the_attention_that_they_get(case: Case) -> None:
    lt = bra.trace(loud(case.make), case.x).layers[case.layer]
    window = lt.grid.window_of_token(lt.grid.h // 2, lt.grid.w // 2)[0]
    found = lt.grid.to_windows(lt.attention_map(window).mean(0).numpy()).sum(-1)
    if lt.real_keys is None:        # padding that is attended is cut off a map's edge, and counts in its window
        return
    weights = dict(zip(lt.r_idx[0, window].tolist(), lt.r_weight[0, window].tolist(), strict=True))
    assert sorted(weights.values(), reverse=True) == [*weights.values()]
    for at, share in enumerate(found / found.sum()):
        assert weights.get(at, 0.0) == pytest.approx(share, abs=1e-5)


def returned(module: nn.Module, x: Tensor, layer: str) -> Tensor:
    """(h, w, c) what a layer that reads and gives maps returned."""
    kept: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _m, _g, out: kept.append(out.clone()))
    with torch.no_grad():
        module(x)
    handle.remove()
    return kept[0][0] if kept[0].shape[-1] == 32 else kept[0][0].permute(1, 2, 0)


@pytest.mark.parametrize("name", ["C2PSA's attention", "area attention in stripes", "stripes that end inside a row",
                                  "Swin's shifted windows", "Swin's with padding", "the second Swin's"])
def test_the_layers_output_follows_from_its_trace(name: str) -> None:
    case = CASES[name]
    module = loud(case.make)
    lt = bra.trace(module, case.x).layers[case.layer]
    wanted = returned(module, case.x, case.layer)
    assert (layer_output(lt) - wanted).abs().max() < CLOSE * wanted.abs().max()
    mass = dense_attention(lt).mass
    on = ~lt.grid.padding_windows
    assert mass[:, on].sum(-1) == pytest.approx(1, abs=1e-5)
    assert (attention_share(lt)[:, on] > 0).all()


def test_stripes_and_windows_reach_no_farther() -> None:
    lt = bra.trace(loud(lambda: AAttn(32, 2, 4)), picture(1, 32, 32, 32)).layers[""]
    assert lt.grid.n_win == 8
    assert sorted(lt.r_idx[0, 17].tolist()) == [*range(16, 32)]     # rows 2 and 3 of windows are the second stripe
    lt = bra.trace(loud(lambda: ShiftedWindowAttention(32, [7, 7], [0, 0], 4)), picture(1, 56, 56, 32)).layers[""]
    assert (lt.grid.n_win, lt.spec.topk) == (8, 1)
    assert lt.r_idx[0, :, 0].tolist() == [*range(64)]


class Both(nn.Module):
    """C2PSA before BRA."""

    def __init__(self) -> None:
        super().__init__()
        self.stock, self.routed = C2PSA(64, 64, 1), BiLevelRoutingAttention(64, n_win=4, topk=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.routed(self.stock(x))
        return out


def test_what_routes_comes_first() -> None:
    model = loud(Both)
    traced = bra.trace(model, picture(1, 64, 8, 8))
    assert [*traced.layers] == ["routed", "stock.m.0.attn"]
    assert [layer.routed for layer in traced.layers.values()] == [True, False]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Asked(nn.Module):
    """Self-attention of sixteen queries that look at a picture: as many as a map has tokens, and no places of it."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 16, 32))
        self.decoder = nn.ModuleList([nn.MultiheadAttention(32, 4, batch_first=True)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder[0](self.queries, self.queries, self.queries)[0]
        return out + x.mean()


def test_what_attends_in_a_way_of_its_own_is_not_shown() -> None:
    with pytest.raises(TraceError, match="attends in a way of its own"):
        bra.trace(loud(lambda: Vit(Turned)), picture(1, 3, 64, 64))
    with pytest.raises(TraceError, match="no places of the picture"):
        bra.trace(Asked().eval(), picture(1, 3, 64, 64))


@pytest.mark.parametrize("name", ["C2PSA's attention", "stripes that end inside a row", "with registers",
                                  "Swin's with padding", "torchvision's ViT"])
def test_a_recording_keeps_it(name: str, tmp_path: Any) -> None:
    case = CASES[name]
    module = loud(case.make)
    bra.record(module, case.x, tmp_path / "run.bra")
    here, kept = bra.trace(module, case.x[:1]).layers[case.layer], bra.load(tmp_path / "run.bra").layers[case.layer]
    assert not kept.routed
    assert kept.outside == case.outside
    assert kept.reach is not None
    assert here.reach is not None
    assert (kept.reach.kind, kept.reach.window, kept.reach.shift) == (here.reach.kind, here.reach.window,
                                                                     here.reach.shift)
    assert (kept.grid.h, kept.grid.w, kept.grid.n_win) == (here.grid.h, here.grid.w, here.grid.n_win)
    for window in (0, here.grid.n_windows // 2):
        assert (kept.attention_map(window) - here.attention_map(window)).abs().max() < 1e-2
    assert kept.proof is not None
    assert kept.proof.stored is not None
    assert kept.proof.stored < bra_record.KEPT


def test_every_layer_of_a_swin_is_heard() -> None:
    torch.manual_seed(0)
    model = SwinTransformer([4, 4], 16, [2, 2], [2, 4], [7, 7]).eval()
    traced = bra.trace(model, picture(1, 3, 112, 112))
    kinds = [(lt.grid.h, lt.reach.shift) for lt in traced.layers.values() if lt.reach is not None]
    assert kinds == [(28, (0, 0)), (28, (3, 3)), (14, (0, 0)), (14, (3, 3))]
    for lt in traced.layers.values():
        assert isinstance(lt, LayerTrace)
        assert lt.grid.box()[2:] == (112.0, 112.0)


def test_a_block_of_ultralytics_is_heard_inside_of_its_rows() -> None:
    model = loud(lambda: A2C2f(64, 64, 1, True, 4))
    layers = bra.trace(model, picture(1, 64, 8, 8)).layers
    assert {lt.reach.stripes for lt in layers.values() if lt.reach is not None} == {4}
    assert len(layers) == 2


@pytest.mark.parametrize(("part", "value"), [
    ("kind", "everything"), ("stripes", 0), ("stripes", 3), ("window", [0, 4]), ("window", [1, 1]), ("shift", [9, 0]),
    ("names", ["a"] * 99), ("names", "class token")])
def test_a_recording_that_reaches_what_cannot_be_is_refused(part: str, value: Any, tmp_path: Any) -> None:
    kind = {"stripes": "stripes that end inside a row"}.get(part, "Swin's with padding")
    bra.record(loud(CASES[kind].make), CASES[kind].x, tmp_path / "run.bra")
    data = (tmp_path / "run.bra").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    about = json.loads(header["__metadata__"]["about"])
    about["layers"][0]["reach"][part] = value
    if part == "stripes":
        about["layers"][0]["reach"]["kind"] = "stripes"
        about["layers"][0]["size"] = [10, 10] if value == 3 else about["layers"][0]["size"]
    header["__metadata__"]["about"] = json.dumps(about)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (tmp_path / "bad.bra").write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size:])
    with pytest.raises(CheckpointError, match="damaged"):
        bra.load(tmp_path / "bad.bra")
