"""A layer's row of numbers says what its parts say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import bra
from bra import BiLevelRoutingAttention
from bra.metrics import routing as bf
from bra.metrics.dense import attention_share, dense_attention, output_change, recall
from bra.metrics.query_dependence import query_dependence_of
from bra.metrics.summary import report
from bra.models.biformer import FullAttention


def test_a_report_is_the_mean_over_windows_on_the_map_and_heads() -> None:
    m = BiLevelRoutingAttention(16, n_win=3, num_heads=2, topk=2).eval()
    for p in m.parameters():
        torch.nn.init.normal_(p, std=0.5)
    lt = bra.trace(m, torch.randn(2, 16, 5, 4)).layers[""]     # windows of 2×2; 2, 5, 8 are padding, 6, 7 half
    found, dense, mapped = report(lt, 1), dense_attention(lt, 1), [0, 1, 3, 4, 6, 7]
    change = output_change(lt, dense, 1)
    expected = {
        "layer": "", "routed": True, "n_win": 3, "topk": 2, "windows": 6, "padding_share": 1 - 20 / 36,
        "recall": recall(lt, dense, 1)[:, mapped].mean(), "recall_chance": 2 / 9,
        "recall_nearest": recall(lt, dense, 1, bf.nearest_windows(lt))[:, mapped].mean(),
        "recall_oracle": np.sort(dense.mass[:, mapped].mean(0), -1)[:, -2:].sum(-1).mean(),
        "kept_share": bf.kept_share(lt, 1)[mapped].mean(), "margin": bf.margin(lt, 1)[mapped].mean(),
        "entropy": bf.routing_entropy(lt, 1)[mapped].mean(),
        "in_degree_max": max(lt.r_idx[1, mapped].flatten().tolist().count(w) for w in mapped),
        "in_degree_skew": bf.in_degree_skew(lt, 1), "hubs": bf.hubs(lt, 1).sum() / 6,
        "never_chosen": sum(w not in lt.r_idx[1, mapped] for w in mapped) / 6,
        "shared_choices": sum(sorted(np.bincount(lt.r_idx[1].flatten(), minlength=9))[-2:]) / 18,
        "query_dependence": query_dependence_of(lt.affinity[1, mapped].double().numpy()),
        "self_routed": sum(w in lt.r_idx[1, w] for w in mapped) / 6,
        "distance": bf.mean_distance(lt, 1)[mapped].mean(), "distance_chance": bf.window_distances(lt)[mapped].mean(),
        "distance_nearest": (0 + 2) / 2,
        "padding_leak": np.mean([bf.padding_leak(lt, w, 1) for w in mapped]),
        "relative_error": change.relative_error[mapped].mean(), "cosine": change.cosine[mapped].mean(),
        "attention_share": attention_share(lt, 1)[:, mapped].mean()}
    assert found.to_dict() == pytest.approx(expected)
    assert found.padding_leak > 0.05
    assert found.recall_oracle > found.recall


def test_full_attention_is_its_own_dense_attention() -> None:
    found = report(bra.trace(FullAttention(16, num_heads=2), torch.randn(1, 16, 9, 9)).layers[""])
    assert not found.routed
    assert (found.recall, found.recall_chance, found.kept_share, found.cosine) == pytest.approx((1, 1, 1, 1))
    assert found.relative_error == pytest.approx(0, abs=1e-6)
    assert found.padding_leak == pytest.approx(0, abs=1e-6)
    assert found.in_degree_max == found.windows == 25                    # of 7×7 windows of 2×2 tokens


def test_what_is_not_finite_is_none_in_json() -> None:
    lt = bra.trace(BiLevelRoutingAttention(8, n_win=2, num_heads=1, topk=4), torch.randn(1, 8, 4, 4)).layers[""]
    found = report(lt)
    assert found.margin != found.margin                                  # nothing was rejected
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["margin"] is None
