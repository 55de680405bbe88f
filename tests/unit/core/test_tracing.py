"""A trace says what the layer's own output says, window by window, and knows where each window lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bra
from bra import BiLevelRoutingAttention, BRAError
from bra import functional as BF
from bra.errors import GridError, TraceError

OPTIONS: list[dict[str, Any]] = [
    {}, {"qk_dim": 8}, {"topk": 9}, {"soft_routing": True}, {"soft_routing": True, "diff_routing": True},
    {"diff_routing": True, "param_routing": True}, {"param_attention": "none"}, {"mask_padding": True},
    {"mask_padding": True, "topk": 9},
    *({"kv_downsample_mode": mode, "kv_downsample_ratio": 2, "kv_per_win": 2, "mask_padding": masked}
      for mode in ("maxpool", "avgpool", "ada_maxpool", "ada_avgpool", "fracpool", "conv") for masked in (False, True)),
    {"kv_downsample_mode": "ada_avgpool", "kv_per_win": 5},
    {"kv_downsample_mode": "conv", "kv_downsample_ratio": 2, "kv_downsample_kernel": 3},
]
IDS = ["-".join(map(str, o.values())) or "defaults" for o in OPTIONS]


def layer(dim: int = 16, **options: Any) -> BiLevelRoutingAttention:
    return BiLevelRoutingAttention(dim, **{"num_heads": 2, "n_win": 3, **options}).eval()


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
def test_rows_are_those_that_the_layer_returns(options: dict[str, Any]) -> None:
    m, x = layer(**options), torch.randn(2, 16, 13, 10)
    traced = bra.trace(m, x)
    with torch.no_grad():
        y, r_weight, r_idx, attn = m(x, ret_attn_mask=True)
    lt = traced.layers[""]
    torch.testing.assert_close(traced.out, y)
    assert torch.equal(lt.r_idx, r_idx)
    assert torch.equal(lt.r_weight, r_weight)
    assert lt.weights_used == m.spec.soft_routing
    torch.testing.assert_close(lt.affinity.gather(-1, r_idx), lt.affinity.topk(m.topk).values)
    for image in range(2):
        for window in range(9):
            rows = attn[image * 9 + window]
            torch.testing.assert_close(lt.attention(window, image=image), rows)
            torch.testing.assert_close(lt.attention(window, token=3, image=image), rows[:, 3])


def tokens_under_keys(m: BiLevelRoutingAttention, h: int, w: int) -> list[set[int]]:
    """For each key of a window of h·w tokens, the tokens it sees: those that change it when they alone are 1."""
    lone = torch.eye(h * w).view(-1, 1, h, w).expand(-1, m.qk_dim + m.dim, -1, -1)
    with torch.no_grad():
        seen = m.kv_down(lone)[:, 0].flatten(1).T > 0                 # (s, t)
    return [set(key.nonzero().flatten().tolist()) for key in seen]


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
@pytest.mark.parametrize("window", [4, 8])
def test_the_map_is_the_attention_laid_on_raster_order(options: dict[str, Any], window: int) -> None:
    m, x = layer(**options), torch.randn(1, 16, 13, 10)               # 15×12 padded, windows of 5×4
    lt = bra.trace(m, x).layers[""]
    with torch.no_grad():
        attn = m(x, ret_attn_mask=True)[3][window].numpy()            # (m, t, k·s)
    expected = np.zeros((2, 20, 15, 12))
    keys = tokens_under_keys(m, 5, 4)
    for rank, chosen in enumerate(lt.r_idx[0, window].tolist()):
        for key, tokens in enumerate(keys):
            places = [(5 * (chosen // 3) + token // 4, 4 * (chosen % 3) + token % 4) for token in tokens]
            if m.spec.mask_padding:
                places = [(row, col) for row, col in places if row < 13 and col < 10]
            for row, col in places:
                expected[:, :, row, col] += attn[:, :, rank * len(keys) + key] / len(places)
    for token in (0, 19):
        np.testing.assert_allclose(lt.attention_map(window, token).numpy(), expected[:, token], atol=1e-6)
    whole = lt.attention_map(window)
    # Window 8 begins at (10, 8): of its 5×4 tokens 3×2 are on the map, and the mean is over those.
    on_map = [*range(20)] if window == 4 else [0, 1, 4, 5, 8, 9]
    np.testing.assert_allclose(whole.numpy(), expected[:, on_map].mean(1), atol=1e-6)
    assert whole.shape == (2, 15, 12)
    torch.testing.assert_close(whole.sum((1, 2)), torch.ones(2))
    if m.spec.mask_padding:
        assert lt.grid.crop(whole.numpy()).sum() == pytest.approx(2)


def test_the_mean_of_a_large_window_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    lt = bra.trace(layer(), torch.randn(1, 16, 13, 10)).layers[""]
    expected = lt.attention_map(8)
    monkeypatch.setattr("bra.tracing.ROW_ELEMENTS", 2 * 80 * 4)       # 4 of 6 rows of 2 heads and 80 keys, then 2
    torch.testing.assert_close(lt.attention_map(8), expected)


def test_the_mean_of_a_large_window_never_holds_more_than_a_few_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    lt = bra.trace(layer(n_win=1, topk=1), torch.randn(1, 16, 48, 48)).layers[""]      # 2 · 2304² weights
    made, rows = [], BF.attention_rows
    monkeypatch.setattr(BF, "attention_rows", lambda *given: made.append(rows(*given)) or made[-1])
    lt.attention_map(0)
    assert sum(part.numel() for part in made) == 2 * 2304**2
    assert max(part.numel() * part.element_size() for part in made) <= 4 * 2**20


@pytest.mark.parametrize(("mode", "ratio", "under"), [
    # Windows of 5×4 tokens: the tokens under the first key and under the last, counted by hand.
    ("identity", 2, ({0}, {19})), ("maxpool", 2, ({0, 1, 4, 5}, {10, 11, 14, 15})),
    ("avgpool", 4, ({*range(16)}, {*range(16)})), ("ada_avgpool", 2, ({0, 1, 4, 5, 8, 9}, {10, 11, 14, 15, 18, 19})),
    ("ada_maxpool", 1, ({*range(20)}, {*range(20)})), ("conv", 2, ({0, 1, 4, 5}, {10, 11, 14, 15}))])
def test_tokens_under_a_key(mode: str, ratio: int, under: tuple[set[int], set[int]]) -> None:
    m = layer(kv_downsample_mode=mode, kv_downsample_ratio=ratio, kv_per_win=ratio)
    rows, cols = bra.trace(m, torch.randn(1, 16, 15, 12)).layers[""].support
    for key, tokens in zip((0, -1), under, strict=True):
        share = torch.outer(rows[key], cols[key]).flatten()
        assert set(share.nonzero().flatten().tolist()) == tokens == tokens_under_keys(m, 5, 4)[key]
        assert share.max() == pytest.approx(1 / len(tokens))


def test_a_token_attends_to_itself_when_it_alone_is_loud() -> None:
    # q = k = v = x; a single loud token: whoever is loud too attends to it, and it lies where it was put.
    m = layer(8, num_heads=1, param_attention="none", side_dwconv=0, topk=1)
    x = torch.zeros(1, 8, 9, 9)
    x[..., 7, 4] = 20
    lt = bra.trace(m, x).layers[""]
    window, token = lt.grid.window_of_token(7, 4)
    found = lt.attention_map(window, token)[0]
    assert found[7, 4] == pytest.approx(1)
    assert found.argmax() == 7 * 9 + 4


class Net(nn.Module):
    """A strided stem, then two layers, the second of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, stride=8)
        self.blocks = nn.ModuleList([layer(), layer(topk=2)])
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        for block in (self.blocks[0], self.blocks[1], self.blocks[1]):
            x = x + block(x)
        return x


def test_layers_are_named_as_in_the_model_in_the_order_they_ran() -> None:
    traced = bra.trace(Net().eval(), torch.rand(1, 3, 80, 104))
    assert list(traced.layers) == ["blocks.0", "blocks.1", "blocks.1#2"]
    assert [lt.name for lt in traced.layers.values()] == list(traced.layers)
    assert not torch.equal(traced.layers["blocks.1"].q, traced.layers["blocks.1#2"].q)
    with pytest.raises(TypeError):
        traced.layers["other"] = traced.layers["blocks.0"]  # type: ignore[index]


def test_grids_lie_on_the_pixels_of_the_image() -> None:
    grid = bra.trace(Net().eval(), torch.rand(1, 3, 80, 104)).layers["blocks.0"].grid
    assert (grid.h, grid.w, grid.H, grid.W) == (10, 13, 12, 15)
    assert grid.stride == (8, 8)
    assert grid.image == (80, 104)
    assert grid.box_of_window(4) == (32, 40, 64, 80)                  # windows of 4×5 tokens


def test_an_input_that_is_no_image_gets_a_grid_of_tokens() -> None:
    class OfPair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = layer()

        def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
            return self.attention(pair[0] + pair[1])

    grid = bra.trace(OfPair(), (torch.rand(1, 16, 7, 6), torch.rand(1, 16, 7, 6))).layers["attention"].grid
    assert (grid.h, grid.w, grid.stride, grid.image) == (7, 6, (1, 1), (7, 6))


def test_a_model_without_the_layer_is_refused() -> None:
    with pytest.raises(TraceError, match="Sequential ran without a BiLevelRoutingAttention layer, and without other"):
        bra.trace(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.rand(1, 3, 8, 8))
    with pytest.raises(BRAError, match="auto_pad"):
        bra.trace(layer(auto_pad=False), torch.rand(1, 16, 8, 8))


def test_windows_and_tokens_that_do_not_exist_are_refused() -> None:
    lt = bra.trace(layer(), torch.rand(1, 16, 9, 9)).layers[""]
    for window, token in ((9, None), (-1, None), (0, 9), (0, -1)):
        with pytest.raises(GridError):
            lt.attention(window, token)
        with pytest.raises(GridError):
            lt.attention_map(window, token)


def test_a_trace_keeps_a_few_maps_and_not_the_attention() -> None:
    lt = bra.trace(BiLevelRoutingAttention(64).eval(), torch.rand(1, 64, 80, 80)).layers[""]
    assert lt.wo is not None
    tensors = [*lt.support, *lt.wo, *(value for name in lt.__slots__ if isinstance(value := getattr(lt, name), Tensor))]
    kept = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
    tokens = 84 * 84
    attention_bytes = 4 * 8 * tokens * (4 * 144)                      # float32, 8 heads, 4 windows of 144 tokens
    assert kept < attention_bytes / 15
    maps = 4 * tokens * (64 + 64 + 64 + 64)                           # q, k, v and the position term
    assert maps < kept < 1.1 * maps


def test_a_trace_keeps_its_numbers_when_the_model_learns_on() -> None:
    m = layer()
    lt = bra.trace(m, torch.randn(1, 16, 9, 9)).layers[""]
    assert lt.wo is not None
    before = [part.clone() for part in lt.wo]
    with torch.no_grad():
        for p in m.parameters():
            p.zero_()
    assert all(torch.equal(one, two) for one, two in zip(lt.wo, before, strict=True))


def test_random_pooling_in_training_is_refused_with_the_cure() -> None:
    m = layer(kv_downsample_mode="fracpool", kv_downsample_ratio=2).train()
    with pytest.raises(BRAError, match=r"model\.eval\(\)"):
        bra.trace(m, torch.randn(1, 16, 15, 12))
    assert bra.trace(m.eval(), torch.randn(1, 16, 15, 12)).layers
