"""Rules of routing: by hand on tiny layers, against slow versions, and against the layer's own `ret_attn_mask`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bra
from bra import BiLevelRoutingAttention, LayerTrace
from bra.errors import BRAError
from bra.metrics import dense as bd
from bra.metrics import routing
from bra.metrics import rules as br
from bra.metrics.overlap import semantic_overlap
from bra.metrics.routing import on_map
from bra.metrics.rules import RULES, RuleRow, try_rules, verdict
from bra.profiling.formula import layer_cost

OPTIONS: list[dict[str, Any]] = [
    {}, {"qk_dim": 8}, {"soft_routing": True}, {"param_attention": "none"},
    {"mask_padding": True, "soft_routing": True},
    {"kv_downsample_mode": "avgpool", "kv_downsample_ratio": 2, "mask_padding": True},
    {"diff_routing": True, "param_routing": True}]
IDS = ["-".join(map(str, o.values())) or "defaults" for o in OPTIONS]


def layer(options: dict[str, Any]) -> BiLevelRoutingAttention:
    made = BiLevelRoutingAttention(16, **{"num_heads": 2, "n_win": 3, "topk": 2, **options}).eval()
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.5)                            # attention far from even
    return made


def by_rule(rows: tuple[RuleRow, ...]) -> dict[str, RuleRow]:
    return {row.rule: row for row in rows}


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
def test_the_row_of_bra_is_what_the_module_itself_returns(options: dict[str, Any]) -> None:
    x = torch.randn(1, 16, 13, 10)                                   # windows of 5×4: padding right and below
    m = layer(options)
    twin = BiLevelRoutingAttention(**m.spec.to_dict() | {"topk": 9}).eval()
    twin.load_state_dict(m.state_dict())
    with torch.no_grad():
        y, _, r_idx, _ = m(x, ret_attn_mask=True)
        y_full, _, full_idx, full = twin(x, ret_attn_mask=True)
    lt = bra.trace(m, x).layers[""]
    found = try_rules(lt, rules=["bra"])[0]

    kept, moved = [], []
    by_window = (lt.grid.to_windows(lt.grid.pad(of[0].numpy())) for of in (y - y_full, y_full))
    for at, (off, whole) in enumerate(zip(*(np.moveaxis(of, 1, 0) for of in by_window), strict=True)):
        real = lt.grid.real_tokens[at]
        if real.any():
            chosen = torch.isin(full_idx[0, at], r_idx[0, at])       # which of the twin's ranks the layer chose
            mass = full[at][:, torch.from_numpy(real)].view(2, int(real.sum()), 9, -1).sum(-1)
            kept.append(float(mass[..., chosen].sum(-1).mean()))
            moved.append(np.linalg.norm(off) / np.linalg.norm(whole))
    assert found.recall == pytest.approx(np.mean(kept), abs=1e-5)
    assert found.change == pytest.approx(np.mean(moved), abs=1e-4)


def slow_attention(lt: LayerTrace, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Recall (m, p2, t) and output of a mask (m, p2, t, p2), and which keys exist; one token at a time."""
    q, k, v = (t[0].double() for t in (lt.q, lt.k, lt.v))
    m, p2, t = q.shape[:3]
    kept, out = torch.zeros(m, p2, t), torch.zeros(m, p2, t, v.shape[-1])
    seen = torch.ones(k.shape[1:3], dtype=torch.bool) if lt.real_keys is None else lt.real_keys
    logits = lt.affinity[0].double()
    for head in range(m):
        for i in range(p2):
            for u in range(t):
                chosen = mask[head, i, u]
                full_factor = logits[i].softmax(0) if lt.weights_used else torch.ones(p2)
                factor = logits[i].masked_fill(~chosen, -math.inf).softmax(0) if lt.weights_used else torch.ones(p2)
                scores = torch.stack([lt.spec.scale * (k[head, j] @ q[head, i, u]) for j in range(p2)])
                dense = (scores * full_factor[:, None]).masked_fill(~seen, -math.inf).flatten().softmax(0).view(p2, -1)
                kept[head, i, u] = dense[chosen].sum()
                weights = (scores * factor[:, None]).masked_fill(~(seen & chosen[:, None]), -math.inf)
                weights = weights.flatten().softmax(0).view(p2, -1) * factor[:, None]
                out[head, i, u] = (weights[..., None] * v[head]).sum((0, 1))
    return kept, out, seen


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
def test_attention_to_a_mask_is_that_of_the_slow_version(options: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(bd, "BLOCK_ELEMENTS", 4000)                  # several blocks
    lt = bra.trace(layer(options), torch.randn(1, 16, 8, 7)).layers[""]
    mask = torch.rand(2, 9, lt.grid.n_tokens, 9) < 0.4
    mask[..., 0] = True                                              # each attends to something that is on the map
    real = torch.from_numpy(lt.grid.real_tokens)
    kept, out, _ = slow_attention(lt, mask)
    found = bd.masked_attention(lt, lambda windows, tokens: mask[:, windows, tokens])
    np.testing.assert_allclose(found.recall, ((kept * real).sum(-1) / real.sum(-1)).numpy(), atol=1e-5)
    torch.testing.assert_close(found.out, out, atol=1e-4, rtol=1e-4)
    picks = [[float(mask[:, i, real[i], j].float().mean()) for j in range(9)] for i in range(9)]
    np.testing.assert_allclose(found.picks, picks, atol=1e-6)
    assert torch.equal(found.tiles, mask.any(2))

    picked = mask[0, :, 0]                                           # the same windows for every head and token
    torch.testing.assert_close(br.attention_to(lt, picked.numpy()),
                               slow_attention(lt, picked[None, :, None].expand_as(mask))[1], atol=1e-4, rtol=1e-4)


def tiny(keys: list[list[list[float]]], topk: int = 1, affinity: list[list[float]] | None = None) -> LayerTrace:
    """Four windows of two tokens in a row, whose queries, keys and values are given: (4, 2, 2)."""
    m = BiLevelRoutingAttention(2, n_win=2, topk=topk, num_heads=1, param_attention="none", side_dwconv=0).eval()
    by_window = np.moveaxis(np.array(keys, np.float32), -1, 0)       # (2, 4, 2)
    lt = bra.trace(m, torch.zeros(1, 2, 2, 4)).layers[""]
    x = torch.from_numpy(lt.grid.to_map(by_window))[None]
    lt = bra.trace(m, x).layers[""]
    np.testing.assert_array_equal(lt.k[0, 0].numpy(), np.array(keys, np.float32))
    return lt if affinity is None else replace(lt, affinity=torch.tensor(affinity)[None])


def test_max_pooled_keys_find_what_a_mean_drowns() -> None:
    #            asks for (1, 0)     even, of mean 1     4 and −5: mean −0.5     nothing
    lt = tiny([[[1, 0], [1, 0]], [[1.5, 0], [1.5, 0]], [[4, 0], [-5, 0]], [[0, 0], [0, 0]]])
    assert br.own_windows(lt)[0].tolist() == [1]                     # means 1, 1.5, −0.5, 0
    assert br.max_pooled(lt)[0].tolist() == [2]                      # largest 1, 1.5, 4, 0


def test_by_token_each_token_goes_where_it_wants() -> None:
    #            two that differ      likes the first     likes the second
    lt = tiny([[[1, 0], [0, 1]], [[3, 0], [3, 0]], [[0, 3], [0, 3]], [[0, 0], [0, 0]]])
    mask = br.by_token(lt)(slice(0, 1), slice(0, 2))                 # (1, 1, 2, 4)
    assert mask[0, 0].tolist() == [[False, True, False, False], [False, False, True, False]]


AFFINITY = [[0.0, 1.0, 2.0, 3.0], [9.0, 1.0, 2.0, 3.0], [9.0, 1.0, 2.0, 3.0], [9.0, 1.0, 2.0, 3.0]]
ANY = [[[1.0, 0.0], [0.0, 1.0]]] * 4


def test_own_and_band_take_their_places_first() -> None:
    lt = tiny(ANY, 2, AFFINITY)
    assert br.with_own(lt).tolist() == [[0, 3], [1, 0], [2, 0], [3, 0]]
    assert br.with_band(lt).tolist() == [[0, 3], [1, 0], [2, 0], [3, 0]]         # of two places, one is near
    lt = tiny(ANY, 3, AFFINITY)
    assert br.with_own(lt).tolist() == [[0, 3, 2], [1, 0, 3], [2, 0, 3], [3, 0, 2]]
    # Windows are one token high and two wide, so those above and below are nearer than those beside.
    assert [set(row) for row in br.with_band(lt).tolist()] == [{0, 2, 3}, {1, 3, 0}, {2, 0, 3}, {3, 1, 0}]


def test_without_column_means_nobody_is_wanted_by_all() -> None:
    hub = [[5.0, 1, 0, 0], [5, 0, 1, 0], [5, 0, 0, 1], [6, 0, 0, 0]]     # column means 5.25, .25, .25, .25
    assert br.without_column_means(tiny(ANY, 1, hub)).tolist() == [[1], [2], [3], [0]]


def test_top_p_gives_the_windows_to_those_who_are_unsure() -> None:
    sure, unsure = [0.97, 0.01, 0.01, 0.01], [0.28, 0.26, 0.24, 0.22]
    shares = [sure, [0.5, 0.3, 0.1, 0.1], unsure, sure]
    lt = tiny(ANY, 2, np.log(np.array(shares, np.float32)).tolist())
    # 4 windows of 2 make 8; each has its first, and 4 more go where least is reached: .28, .5, .54 and .78 of all.
    assert br.top_p(lt).tolist() == [[True, False, False, False], [True, True, False, False], [True] * 4,
                                     [True, False, False, False]]


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
def test_every_rule_attends_to_as_many_windows(options: dict[str, Any]) -> None:
    lt = bra.trace(layer(options), torch.randn(1, 16, 13, 10)).layers[""]
    for name, rule in RULES.items():
        chosen = rule.choose(lt, 0) if rule.choose else bd.oracle_windows(lt, bd.dense_attention(lt))
        if not isinstance(chosen, np.ndarray):
            assert (chosen(slice(0, 9), slice(0, 20)).sum(-1) == 2).all(), name
        elif chosen.dtype == bool:
            assert chosen[on_map(lt)].sum(-1).mean() == 2, name
        else:
            assert chosen.shape == (9, 2), name
            assert all(len(set(row)) == 2 for row in chosen.tolist()), name


def test_masked_padding_is_chosen_by_no_rule() -> None:
    lt = bra.trace(layer({"n_win": 5, "mask_padding": True}), torch.randn(1, 16, 16, 16)).layers[""]    # 4 rows of 5
    mapped = on_map(lt)
    assert not mapped.all()
    for name, rule in RULES.items():
        if rule.choose is None:
            continue
        chosen = rule.choose(lt, 0)
        if isinstance(chosen, np.ndarray):
            picked = chosen if chosen.dtype == bool else routing.picked(chosen, 25)
        else:
            picked = chosen(slice(0, 25), slice(0, 16)).any(2).any(0).numpy()
        assert not picked[mapped][:, ~mapped].any(), name
    assert all(math.isfinite(row.recall) and math.isfinite(row.change) for row in try_rules(lt))


def test_costs_by_hand() -> None:
    lt = bra.trace(layer({}), torch.randn(1, 16, 12, 9)).layers[""]      # 9 windows of 4×3, no padding
    rows = by_rule(try_rules(lt))
    usual, routing = layer_cost(lt.spec, 12, 9).macs, 9 * 9 * 16
    assert {name: row.macs - usual for name, row in rows.items() if row.macs != usual} == {
        "token": 108 * 9 * 16 - routing, "nearest": -routing, "chance": -routing, "oracle": 108 * 108 * 16 - routing}
    window = 12 * (16 + 16) * 4                                          # 12 keys and values of 16 numbers
    assert rows["bra"].kv_bytes == 9 * 2 * window
    assert rows["top_p"].kv_bytes == 9 * 2 * window
    assert rows["oracle"].kv_bytes == 9 * 2 * window + 9 * 9 * 12 * 16 * 4
    tiles = br.by_token(lt)(slice(0, 9), slice(0, 12)).any(2).sum()      # of 2 heads, each with half of the channels
    assert rows["token"].kv_bytes == int(tiles) * window // 2


def test_overlap_of_labels_is_that_of_the_layer() -> None:
    lt = bra.trace(layer({}), torch.randn(1, 16, 13, 10)).layers[""]
    labels = np.random.default_rng(1).integers(0, 3, (13, 10))
    rows, known = by_rule(try_rules(lt, labels)), semantic_overlap(lt, labels).to_dict()
    assert (rows["bra"].overlap, rows["nearest"].overlap, rows["chance"].overlap) == pytest.approx(
        (known["routed"], known["nearest"], known["chance"]))
    mask = br.by_token(lt)(slice(0, 9), slice(0, lt.grid.n_tokens))
    by_token = [semantic_overlap(replace(lt, r_idx=mask[head, :, u].nonzero()[:, 1].view(1, 9, 2)), labels).routed[w]
                for head in range(2) for w in range(9) for u in np.flatnonzero(lt.grid.real_tokens[w])]
    windows = [w for _ in range(2) for w in range(9) for _ in np.flatnonzero(lt.grid.real_tokens[w])]
    expected = np.bincount(windows, by_token) / np.bincount(windows)
    assert rows["token"].overlap == pytest.approx(expected.mean())


def test_images_of_a_batch_are_told_apart() -> None:
    x, m = torch.randn(2, 16, 12, 9), layer({"soft_routing": True})
    both = bra.trace(m, x).layers[""]
    assert [by.recall for by in try_rules(both, image=1)] == pytest.approx(
        [by.recall for by in try_rules(bra.trace(m, x[1:]).layers[""])])


def test_what_is_not_possible_is_refused_and_work_can_be_ended() -> None:
    lt = bra.trace(layer({}), torch.randn(1, 16, 12, 9)).layers[""]
    with pytest.raises(BRAError, match="rule 'best' is not known: choose of bra, max"):
        try_rules(lt, rules=["best"])

    def end(done: int, todo: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        try_rules(lt, progress=end)


def row(rule: str, recall: float) -> RuleRow:
    return RuleRow(rule, 7, 4, recall, 0.1, 1, 1)


def test_the_sentence_says_which_and_how_much_more_than_chance() -> None:
    rows = [row("bra", 0.5), row("max", 0.55), row("nearest", 0.6), row("chance", 0.1), row("oracle", 0.9)]
    assert verdict(rows) == (
        "Most of full attention is kept here by: max-pooled keys. It keeps 55.0 %, 45.0 points more than random "
        "windows (10.0 %); BRA's own means of windows keep 50.0 %, the nearest windows 60.0 %.")
    assert verdict([*rows[:1], *rows[2:]]).startswith("Means of windows, as BRA has them, keep most")
    assert verdict([row("bra", 0.1), row("nearest", 0.1), row("chance", 0.1)]).startswith("No rule keeps more")
