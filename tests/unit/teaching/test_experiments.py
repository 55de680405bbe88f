"""What the chapters measure, against the module run in other ways and against numbers by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bra import BiLevelRoutingAttention, BRASpec
from bra.errors import BRAError
from bra.experiments.compare import LayerInput, layer_input
from bra.metrics import routing as bf
from bra.models.base import Prepared
from bra.models.catalog import ModelSettings
from bra.models.init import redraw
from bra.opening import open_model
from bra.photo import Photo
from bra.profiling.formula import layer_cost
from bra.teaching.experiments import distance, growth, leak, output_parts, rerun, reweighed, score

CAT = Path(__file__).parents[3] / "sample_images" / "animal.jpg"


@pytest.fixture(scope="module")
def given() -> LayerInput:
    """A layer of 5×5 windows, of which 4 are routed to, on 14×15 tokens: padded to 15×15."""
    layer = BiLevelRoutingAttention(16, n_win=5, num_heads=4, topk=4).eval()
    redraw(layer, 3)
    x = torch.randn(1, 16, 14, 15, generator=torch.Generator().manual_seed(1))
    return LayerInput("a", layer, x, Prepared(torch.zeros(1, 3, 112, 120), 0, 0, 112, 120))


def test_growth_by_hand() -> None:
    one, two = growth(448), growth(896)
    assert (one.tokens, one.pairs) == (56 * 56, 3136**2)
    assert two.pairs == 16 * one.pairs
    assert one.routed_pairs == 3136 * 4 * 64            # 4 windows of 8×8 tokens
    assert one.full.macs == layer_cost(BRASpec(64, n_win=1, topk=1), 56, 56).macs
    assert sum(part.macs for part in one.full.parts if part.name in ("QKᵀ", "AV")) == 2 * one.pairs * 64


def test_nothing_changed_is_the_layer_itself(given: LayerInput) -> None:
    lt, out = rerun(given)
    with torch.inference_mode():
        y, r_weight, r_idx, _ = given.layer(given.x, ret_attn_mask=True)
    assert distance(out, y[0]) < 1e-6
    torch.testing.assert_close(lt.r_weight, r_weight)
    assert torch.equal(lt.r_idx, r_idx)
    assert lt.grid.image == (112, 120)


def test_changes_run_the_layer_that_they_describe_and_leave_it_alone(given: LayerInput) -> None:
    before = given.layer.spec
    lt, out = rerun(given, n_win=3, topk=2, mask_padding=True, soft_routing=True)
    other = BiLevelRoutingAttention.from_spec(
        replace(before, n_win=3, topk=2, mask_padding=True, soft_routing=True)).eval()
    other.load_state_dict(given.layer.state_dict())
    with torch.inference_mode():
        y, _, r_idx, _ = other(given.x, ret_attn_mask=True)
    assert distance(out, y[0]) < 1e-6
    assert torch.equal(lt.r_idx, r_idx)
    assert given.layer.spec == before
    assert (given.layer.n_win, given.layer.router.topk) == (5, 4)
    with pytest.raises(BRAError):
        rerun(given, topk=26)


def test_weights_change_and_only_soft_routing_notices(given: LayerInput) -> None:
    hard, soft = (reweighed(given, 7, 3.0, soft) for soft in (False, True))
    assert hard.same_windows
    assert soft.same_windows
    assert hard.change == 0
    assert soft.change > 1e-3
    powers = np.array(hard.before) ** 3          # softmax of three times the logits
    np.testing.assert_allclose(hard.after, powers / powers.sum(), rtol=1e-4)
    assert sum(hard.after) == pytest.approx(1)


def test_padding_takes_attention_until_it_is_masked(given: LayerInput) -> None:
    lt, open_ = leak(given, 5, 4, masked=False)
    _, masked = leak(given, 5, 4, masked=True)
    assert open_.of_map == pytest.approx(15 / 225)
    by_window = [bf.padding_leak(lt, w) for w in range(25)]
    assert open_.of_attention == pytest.approx(np.mean(by_window), abs=1e-6)
    assert open_.worst == pytest.approx(max(by_window), abs=1e-6)
    assert open_.of_attention > 0.005
    assert open_.change > 0
    assert (masked.of_attention, masked.change) == (0, 0)


def test_a_grid_that_fits_has_no_padding_to_leak(given: LayerInput) -> None:
    fits = replace(given, x=given.x[..., :10, :10])
    assert leak(fits, 5, 4, masked=False)[1] == leak(fits, 5, 4, masked=True)[1]
    assert leak(fits, 5, 4, masked=False)[1].of_attention == 0


def test_voices_against_the_modules_own_output(given: LayerInput) -> None:
    lt, out = rerun(given)
    found = output_parts(lt)
    no_progress = BiLevelRoutingAttention.from_spec(replace(given.layer.spec, side_dwconv=0)).eval()
    no_progress.load_state_dict(given.layer.state_dict(), strict=False)
    with torch.inference_mode():
        assert found.without_lepe == pytest.approx(distance(no_progress(given.x)[0], out), rel=1e-4)
    assert 0 < found.attention < 1
    assert min(found.at_random, found.to_nearest) > 0
    everything = output_parts(rerun(given, topk=25)[0])
    assert max(everything.at_random, everything.to_nearest) < 1e-5        # all windows, in whatever order


def test_a_guess_is_scored_by_hand(given: LayerInput) -> None:
    lt, _ = rerun(given)
    routed = lt.r_idx[0, 6].tolist()
    wrong = [w for w in range(25) if w not in routed]
    assert score(lt, 6, routed).hits == 4
    assert score(lt, 6, wrong[:4]).hits == 0
    made = score(lt, 6, [*routed[:1], *wrong[:3]])
    assert (made.hits, made.of, made.chance) == (1, 4, pytest.approx(16 / 25))
    assert made.nearest == len(set(routed) & set(bf.nearest_windows(lt)[6].tolist()))
    for forged, why in (([25], "window 25 does not exist"), ([-1], "window -1"), ([0, 10**40], "does not exist"),
                        ([0, 1, 2, 3, 4], "5 windows are marked: mark 4 at most")):
        with pytest.raises(BRAError, match=why):
            score(lt, 6, forged)


def test_a_trained_layer_on_a_photograph_is_rerun_as_it_ran() -> None:
    photo = Photo.from_bytes(CAT.read_bytes())
    model = open_model(ModelSettings("flowers"))
    looked = model.look(photo, 224).trace.layers
    for name in ("stages.0.0.attn", "stages.2.2.attn"):
        lt, _ = rerun(layer_input(model, photo, 224, name))
        assert torch.equal(lt.r_idx, looked[name].r_idx)
        assert lt.grid == looked[name].grid
