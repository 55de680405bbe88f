"""Model cards: whole, small, honest about their routing, and their weights are what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bra.errors import BRAError
from bra.models.card import WEIGHTS, LayerQuality, ModelCard, cards, ship, shipped
from bra.models.catalog import CATALOG, DEFAULT

ROW = LayerQuality("a", 7, 4, recall=0.30, recall_chance=0.08, recall_nearest=0.25, recall_oracle=0.5)
CARD = ModelCard(
    "toy", "A toy", "classify", "data", "licence", "command", {"torch": "2"}, {"epochs": 1}, ("x", "y"), 32, None,
    "seed0", {"toy": {"accuracy": (0.5, 0.6)}}, {"seed0": ({"epoch": 1.0, "loss": 2.0},)},
    {"trained": (ROW,), "untrained": (replace(ROW, recall=0.08),)}, 3, ("none",))


def test_better_means_clearly_above_both_controls() -> None:
    assert ROW.beats_recall
    assert not replace(ROW, recall=0.255).beats_recall          # within one per cent point of the nearest windows
    assert not replace(ROW, recall_chance=0.4).beats_recall
    assert not ROW.beats_overlap                                # no labels
    labelled = replace(ROW, overlap=0.7, overlap_chance=0.4, overlap_nearest=0.6, overlap_oracle=0.9)
    assert labelled.beats_overlap
    assert not replace(labelled, overlap=0.5).beats_overlap


def test_the_verdict_is_made_of_the_numbers() -> None:
    assert CARD.verdict == ("Layers that keep clearly more of full attention than random windows and than the nearest "
                            "ones: trained 1 of 1, untrained 0 of 1.",)
    worse = replace(CARD, quality={"trained": (replace(ROW, recall=0.2), ROW), "untrained": (ROW, ROW)})
    assert worse.verdict[0].endswith("trained 1 of 2, untrained 2 of 2.")
    labelled = replace(ROW, overlap=0.7, overlap_chance=0.4, overlap_nearest=0.6, overlap_oracle=0.9)
    two = replace(ROW, shared=0.5), replace(ROW, shared=0.96)
    alike = replace(CARD, quality={"trained": two, "untrained": (ROW,)})
    assert "50% to 96% fall on the same topk windows" in alike.verdict[1]
    assert replace(CARD, quality={"trained": (labelled,), "untrained": (ROW,)}).verdict[1].endswith(
        "trained 1 of 1, untrained 0 of 1.")


def test_a_layer_collapsed_where_choices_are_shared_and_hardly_depend_on_the_query() -> None:
    layers = [replace(ROW, shared=shared, query_dependence=dependence)
              for shared, dependence in ((0.8, 0.1), (0.8, 0.9), (0.3, 0.1), (0.8, None), (None, 0.1))]
    assert [layer.collapsed for layer in layers] == [True, False, False, False, False]
    card = replace(CARD, quality={"trained": tuple(layers), "untrained": (layers[1],)})
    assert card.verdict[-1].endswith("hardly matters where one points: trained 1 of 5, untrained 0 of 1.")


def routed(name: str, overlap: float, nearest: float, shared: float = 0.2, dependence: float = 0.8) -> LayerQuality:
    return replace(ROW, layer=name, overlap=overlap, overlap_nearest=nearest, shared=shared,
                   query_dependence=dependence)


def test_the_clearest_layer_is_above_the_nearest_windows_on_all_pictures_and_did_not_collapse() -> None:
    layers = routed("a", 0.70, 0.65), routed("b", 0.90, 0.80), routed("c", 0.9, 0.5, 0.95, 0.05)
    quality = {"trained": layers, "untrained": (ROW,)}
    assert replace(CARD, quality=quality).clearest_layer == "b"
    others = routed("a", 0.6, 0.5), routed("b", 0.4, 0.5), routed("c", 0.9, 0.5)
    assert replace(CARD, quality={**quality, "cells": others}).clearest_layer == "a"
    assert replace(CARD, quality={**quality, "seed0": others}).clearest_layer == "b"        # another seed's weights
    assert CARD.clearest_layer == ""
    assert replace(CARD, quality={"trained": layers[2:], "untrained": (ROW,)}).clearest_layer == ""


def test_what_is_looked_at_first_is_a_model_and_a_layer_that_answer() -> None:
    entry = CATALOG[DEFAULT]
    clear = {name: next(row.query_dependence for row in card.quality["trained"] if row.layer == card.clearest_layer)
             for name, card in cards().items() if card.clearest_layer}
    assert clear.keys() == {"photos", "cells", "vehicles"}
    assert max(clear, key=clear.__getitem__) == entry.card
    assert cards()[entry.card].clearest_layer == entry.layer


def test_variants_are_compared_seed_by_seed() -> None:
    assert CARD.comparison == ()
    two = replace(CARD, scores={"a": {"mAP": (0.5, 0.6, 0.4)}, "b": {"mAP": (0.4, 0.7, 0.3)}})
    assert two.comparison == ("mAP: “a” less “b” is +0.033 on average, above 0 with 2 of 3 seeds.",)


def test_a_card_and_weights_survive_the_way_to_disk(tmp_path: Path) -> None:
    tensors = {"w": torch.linspace(-1, 1, 7), "n": torch.tensor(3)}
    ship(CARD, tensors, tmp_path)
    card, read = shipped("toy", tmp_path)
    assert card == CARD
    assert cards(tmp_path) == {"toy": CARD}
    torch.testing.assert_close(read["w"], tensors["w"], atol=1e-3, rtol=0)
    assert read["w"].dtype == torch.float32
    assert read["n"].item() == 3
    with pytest.raises(BRAError, match="no weights named other"):
        shipped("other", tmp_path)


def test_what_is_shipped_is_in_the_catalog_and_small() -> None:
    assert set(cards()) == {entry.card for entry in CATALOG.values() if entry.card}
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= 16e6


@pytest.mark.parametrize("name", cards())
def test_a_shipped_card_is_whole(name: str) -> None:
    card = cards()[name]
    assert card.data
    assert card.licence
    assert card.limits
    assert card.command.startswith("bra train-demo ")
    assert card.shipped in card.curves
    assert {row.layer for row in card.quality["trained"]} == {row.layer for row in card.quality["untrained"]}
    seeds = {len(values) for metrics in card.scores.values() for values in metrics.values()}
    assert len(seeds) == 1
    assert len(card.curves) == len(card.scores) * seeds.pop()
    for row in (*card.quality["trained"], *card.quality["untrained"]):
        assert 0 <= row.recall_chance <= row.recall_oracle <= 1
        assert row.recall <= row.recall_oracle + 1e-4
