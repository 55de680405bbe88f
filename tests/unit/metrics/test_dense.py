"""What routing changed, against the same weights with every window routed to all."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bra
from bra import BiLevelRoutingAttention, LayerTrace
from bra.metrics.dense import (
    attention_share,
    dense_attention,
    dense_masses,
    oracle_windows,
    output_change,
    recall,
    routed_attention,
)
from bra.metrics.routing import nearest_windows, on_map
from bra.models.biformer import FullAttention

OPTIONS: list[dict[str, Any]] = [
    {}, {"qk_dim": 8}, {"soft_routing": True}, {"soft_routing": True, "diff_routing": True},
    {"diff_routing": True, "param_routing": True}, {"param_attention": "none"}, {"param_attention": "qkv"},
    {"side_dwconv": 0}, {"mask_padding": True}, {"mask_padding": True, "soft_routing": True}, {"topk": 9},
    *({"kv_downsample_mode": mode, "kv_downsample_ratio": 2, "kv_per_win": 2, "mask_padding": masked}
      for mode in ("maxpool", "avgpool", "ada_maxpool", "fracpool", "conv") for masked in (False, True)),
]
IDS = ["-".join(map(str, o.values())) or "defaults" for o in OPTIONS]


def pair(options: dict[str, Any], x: Tensor) -> tuple[LayerTrace, BiLevelRoutingAttention, BiLevelRoutingAttention]:
    """A layer's trace, the layer, and its twin with every window routed to all."""
    m = BiLevelRoutingAttention(16, **{"num_heads": 2, "n_win": 3, "topk": 2, **options}).eval()
    for p in m.parameters():
        torch.nn.init.normal_(p, std=0.5)                            # attention far from even
    twin = BiLevelRoutingAttention(**m.spec.to_dict() | {"topk": 9}).eval()
    twin.load_state_dict(m.state_dict())
    return bra.trace(m, x).layers[""], m, twin


def mass_of(twin: BiLevelRoutingAttention, x: Tensor, lt: LayerTrace, image: int) -> np.ndarray:
    """(m, p2, p2) from the weights that the twin itself returns."""
    with torch.no_grad():
        _, _, r_idx, attn = twin(x, ret_attn_mask=True)
    mass = np.full((2, 9, 9), np.nan)
    for window in range(9):
        real = torch.from_numpy(lt.grid.real_tokens[window])
        if real.any():
            by_rank = attn[image * 9 + window][:, real].mean(1).view(2, 9, -1).sum(-1)
            mass[:, window, r_idx[image, window]] = by_rank.numpy()
    return mass


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
def test_dense_attention_is_that_of_the_same_weights_with_all_windows(options: dict[str, Any]) -> None:
    x = torch.randn(2, 16, 13, 10)                                   # windows of 5×4: padding right and below
    lt, _, twin = pair(options, x)
    for image in range(2):
        dense, expected = dense_attention(lt, image), mass_of(twin, x, lt, image)
        np.testing.assert_allclose(dense.mass, expected, atol=1e-5)
        np.testing.assert_allclose(dense.mass.sum(-1), 1, rtol=1e-5)
        chosen = lt.r_idx[image].numpy()
        by_hand = [[sum(expected[head, w, c] for c in chosen[w]) for w in range(9)] for head in range(2)]
        np.testing.assert_allclose(recall(lt, dense, image), by_hand, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
def test_change_is_that_of_the_two_modules_outputs(options: dict[str, Any]) -> None:
    x = torch.randn(2, 16, 13, 10)
    lt, m, twin = pair(options, x)
    with torch.no_grad():
        y, y_full = (net(x)[1].double().numpy() for net in (m, twin))             # (16, 13, 10)
    found = output_change(lt, dense_attention(lt, 1), 1)
    for window in range(9):
        rows, cols = slice(window // 3 * 5, window // 3 * 5 + 5), slice(window % 3 * 4, window % 3 * 4 + 4)
        one, full = (a[:, rows, cols].reshape(16, -1) for a in (y, y_full))
        error = np.linalg.norm(one - full) / np.linalg.norm(full)
        assert found.relative_error[window] == pytest.approx(error, rel=1e-3, abs=3e-6)
        cosines = (one * full).sum(0) / np.linalg.norm(one, axis=0) / np.linalg.norm(full, axis=0)
        assert found.cosine[window] == pytest.approx(cosines.mean(), abs=1e-5)
    assert found.head_error.shape == (2, 9)
    if lt.spec.topk == 9:
        assert found.relative_error.max() < 5e-6 > found.head_error.max()
    else:
        assert found.relative_error.max() > 0.01 < found.head_error.max()


def test_head_errors_are_those_before_position_term_and_output_linear() -> None:
    # Without both, and with one head, nothing comes between: the layer's error is its head's.
    x = torch.randn(1, 16, 13, 10)
    bare = pair({"num_heads": 1, "side_dwconv": 0, "param_attention": "qkv"}, x)[0]
    change = output_change(bare, dense_attention(bare))
    np.testing.assert_allclose(change.head_error[0], change.relative_error)
    whole = pair({"num_heads": 2}, x)[0]
    dense = dense_attention(whole)
    routed, full = (t.double().numpy() for t in (routed_attention(whole), dense.out))
    real = whole.grid.real_tokens[8]                                 # the corner window: 3×2 of its tokens are real
    error = np.linalg.norm((routed - full)[1, 8, real]) / np.linalg.norm(full[1, 8, real])
    assert output_change(whole, dense).head_error[1, 8] == pytest.approx(error)


def test_uniform_attention_recalls_its_share_whoever_is_chosen() -> None:
    m = BiLevelRoutingAttention(16, num_heads=2, n_win=4, topk=3).eval()
    torch.nn.init.zeros_(m.qkv.qkv.weight)                           # q = k = 0: all tokens alike
    torch.nn.init.zeros_(m.qkv.qkv.bias)
    lt = bra.trace(m, torch.randn(1, 16, 8, 8)).layers[""]
    dense = dense_attention(lt)
    np.testing.assert_allclose(dense.mass, 1 / 16, rtol=1e-5)
    np.testing.assert_allclose(recall(lt, dense), 3 / 16, rtol=1e-5)
    np.testing.assert_allclose(recall(lt, dense, windows=nearest_windows(lt)), 3 / 16, rtol=1e-5)


def test_routing_to_what_is_alike_recalls_more_than_the_neighbours() -> None:
    # Two kinds of windows, like a chessboard, along two directions; q = k = v = x: attention is for one's own kind.
    x = torch.zeros(1, 8, 8, 8)
    kind = (torch.arange(8)[:, None] // 2 + torch.arange(8) // 2) % 2
    x[0, 0], x[0, 1] = 4.0 * (kind == 0), 4.0 * (kind == 1)
    m = BiLevelRoutingAttention(8, num_heads=1, n_win=4, topk=8, param_attention="none", side_dwconv=0)
    lt = bra.trace(m, x).layers[""]
    dense = dense_attention(lt)
    # Logits 16/√8 for one's own kind and 0 for the other; 8 windows of each.
    own = math.exp(16 / 8**0.5) / (math.exp(16 / 8**0.5) + 1)
    np.testing.assert_allclose(recall(lt, dense), own, rtol=1e-5)
    near = recall(lt, dense, windows=nearest_windows(lt))
    assert near.max() < 0.7
    np.testing.assert_array_equal(np.sort(oracle_windows(lt, dense)), np.sort(lt.r_idx[0].numpy()))


def test_oracle_is_the_best_choice_that_all_heads_share() -> None:
    lt = pair({}, torch.randn(1, 16, 13, 10))[0]
    dense = dense_attention(lt)
    best = oracle_windows(lt, dense)
    for window in range(9):
        both = dense.mass[:, window].mean(0)
        assert set(best[window]) == set(sorted(range(9), key=lambda w: -both[w])[:2])
    most = recall(lt, dense, windows=best).mean(0)
    assert (most >= recall(lt, dense).mean(0)).all()
    assert (most >= recall(lt, dense, windows=nearest_windows(lt)).mean(0)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("masked", [False, True])
def test_windows_of_padding_only_have_no_numbers(masked: bool) -> None:
    lt = pair({"mask_padding": masked}, torch.randn(1, 16, 4, 3))[0]       # windows of 2×1: the third row is padding
    dense = dense_attention(lt)
    change, share = output_change(lt, dense), attention_share(lt)
    for numbers in (dense.mass.sum(-1)[0], change.relative_error, change.cosine, change.head_error[1], share[0],
                    recall(lt, dense)[0]):
        assert (np.isnan(numbers) == [False] * 6 + [True] * 3).all()
    assert (dense.mass[:, :6, 6:] == 0).all() == masked                    # masked padding has none of the attention


def test_blocks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    lt = pair({"soft_routing": True}, torch.randn(1, 16, 13, 10))[0]
    whole = dense_attention(lt)
    row = 2 * 180                                                          # 2 heads, 9 windows of 20 keys
    for elements in (1, 7 * row, 20 * row, 50 * row):                      # a token, 7 + 7 + 6, one window, two
        monkeypatch.setattr("bra.metrics.dense.BLOCK_ELEMENTS", elements)
        parts = dense_attention(lt)
        np.testing.assert_allclose(parts.mass, whole.mass, rtol=1e-5)
        torch.testing.assert_close(parts.out, whole.out)


def test_share_of_attention_in_the_sum_with_the_position_term() -> None:
    m = BiLevelRoutingAttention(4, num_heads=2, n_win=1, topk=1, param_attention="none", side_dwconv=1).eval()
    assert m.lepe is not None
    with torch.no_grad():
        m.lepe.weight.copy_(torch.tensor([3.0, 3, 1, 1]).view(4, 1, 1, 1))     # 3·v for head 0, v for head 1
        m.lepe.bias.zero_()                                                    # type: ignore[union-attr]
    x = torch.ones(1, 4, 2, 2)                                                 # alike tokens: attention gives v back
    np.testing.assert_allclose(attention_share(bra.trace(m, x).layers[""]), [[0.25], [0.5]], rtol=1e-6)
    without = BiLevelRoutingAttention(4, num_heads=2, n_win=1, topk=1, side_dwconv=0)
    np.testing.assert_array_equal(attention_share(bra.trace(without, x).layers[""]), 1)


def test_full_attention_loses_nothing_and_its_output_is_rebuilt() -> None:
    layer, x = FullAttention(16, num_heads=2, n_win=3).eval(), torch.randn(1, 16, 7, 5)
    lt = bra.trace(layer, x).layers[""]
    dense = dense_attention(lt)
    mapped = on_map(lt)
    np.testing.assert_allclose(recall(lt, dense)[:, mapped], 1, rtol=1e-5)
    assert output_change(lt, dense).relative_error[mapped].max() < 1e-6
    assert lt.lepe is not None
    assert lt.wo is not None
    summed = (dense.out + lt.lepe[0]).permute(1, 2, 0, 3).flatten(2) @ lt.wo[0].T + lt.wo[1]      # (p2, t, c)
    found = lt.grid.crop(lt.grid.to_map(summed.permute(2, 0, 1).numpy()))
    torch.testing.assert_close(torch.from_numpy(found), layer(x)[0].detach())


MEASURE = """
import itertools, re, torch, bra
from bra.metrics import dense as D
torch.set_num_threads(1)
lt = bra.trace(bra.BiLevelRoutingAttention(64, n_win=8, num_heads=8).eval(), torch.randn(1, 64, 160, 160)).layers[""]
every = D._blocks
D._blocks = lambda *sizes: itertools.islice(every(*sizes), 100)      # of 2,560 blocks, one like the other

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
dense = D.dense_attention(lt)
D.output_change(lt, dense), D.attention_share(lt)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_a_large_map_needs_no_more_than_500_mb() -> None:
    # 25,600 tokens and 8 heads: all weights at once would take 21 GB.
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert 10 < float(run.stdout) < 500


def test_it_can_be_called_off_between_blocks_where_each_grid_is_computed_apart() -> None:
    class NotWantedError(Exception):
        pass

    def still() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise NotWantedError

    asked: list[int] = []
    lt = pair({"soft_routing": True, "num_heads": 16, "n_win": 3}, torch.rand(1, 16, 120, 120))[0]
    for work in (lambda: dense_attention(lt, still=still), lambda: dense_masses([lt, lt], still=still)):
        asked.clear()
        with pytest.raises(NotWantedError):
            work()
        assert len(asked) == 2
