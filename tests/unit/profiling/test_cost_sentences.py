"""What a model pays for BRA, in sentences whose numbers can be worked out by hand."""

from __future__ import annotations

from torch import nn

import bra
from bra.profiling.format import PARTS, REST, part_words, short, summary
from bra.profiling.variants import without_bra


def test_sentences_of_a_small_model() -> None:
    """16×16 px, 1000 channels: a 1×1 convolution of 4,000 parameters, then two layers on 16×16 and 8×8 tokens."""
    def layer(n_win: int) -> nn.Module:
        return bra.BiLevelRoutingAttention(1000, n_win, topk=1, param_attention="qkv", side_dwconv=0)

    model = nn.Sequential(nn.Conv2d(3, 1000, 1), layer(1), nn.AvgPool2d(2), layer(2))
    cost, plain = bra.cost(model, 16), bra.cost(without_bra(model), 16)
    pays, where, needs = (sentence.replace("\u00a0", " ") for sentence in summary(cost, plain))
    # q, k, v: 3·c² + 3·c each.
    assert "has 6.01 M parameters" in pays
    assert "BRA adds 6.01 M (99.9 %)" in pays
    assert "in 2 layers" in pays
    # The first: 256·3c² = 768 M to project, 2·256·256·c = 131 M to attend; the second a quarter of 768 M.
    assert where.startswith("Of BRA's multiply-adds 82.")
    assert "1 BRA, 16×16 tokens of 1000 channels: 14.6 % of them attend (QKᵀ, AV), 85.4 % project" in where
    assert where.endswith("of its parameters 50.0 % are in 1 BRA.")
    # Without BRA: the map of 256·1000 numbers, and its quarter.
    assert f"{4 * 1.25 * 256e3 / 1e6:.1f} MB without BRA" in needs
    written = max(layer.explicit_peak_bytes for row in cost.rows for layer in row.layers)
    assert f"would take {written / 1e6:,.1f} MB" in needs


def test_words_of_parts() -> None:
    assert [part_words(name) for name in ("qkv", "attn.0.attn QKᵀ", "#2 LePE", "rest")] == \
        [PARTS["qkv"], PARTS["QKᵀ"], PARTS["LePE"], REST]
    assert short("15 BiLevelRoutingAttention") == "15 BRA"
