"""Another routing of one layer: windows and pairs of boxes by hand, runs against the module's own forward."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bra
from bra import BiLevelRoutingAttention, LayerTrace
from bra.attention import TopkRouting
from bra.errors import BRAError
from bra.experiments.reroute import (
    AnswerRow,
    Reroute,
    Rerouted,
    Swap,
    box_overlap,
    compare_answers,
    in_words,
    look_elsewhere,
    rerouting,
    row_names,
    why_not,
    windows_of,
)
from bra.figures import reroute as figures
from bra.grid import WindowGrid
from bra.metrics.dense import layer_output
from bra.metrics.routing import random_windows
from bra.models.adapters import OpenClassifier, OpenPatches
from bra.models.base import Answer, Change, Detection, with_windows
from bra.models.biformer import BiFormer
from bra.models.rerun import run_from
from bra.opening import open_file
from bra.photo import Photo

PHOTO = Photo.from_array(np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8))
LAYER = "stages.1.0.attn"
OPTIONS: list[dict[str, Any]] = [{}, {"soft_routing": True}, {"mask_padding": True},
                                 {"kv_downsample_mode": "avgpool", "kv_downsample_ratio": 2}]


def layer(**options: Any) -> BiLevelRoutingAttention:
    made = BiLevelRoutingAttention(16, **{"num_heads": 2, "n_win": 3, "topk": 2, **options}).eval()
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return made


def traced(n_win: int = 2, topk: int = 2, **options: Any) -> LayerTrace:
    made = BiLevelRoutingAttention(8, n_win, 2, topk=topk, **options).eval()
    return bra.trace(made, torch.rand(1, 8, 2 * n_win, 2 * n_win)).layers[""]


def classifier() -> OpenClassifier:
    """A BiFormer whose answer hangs on what its layers do: three layers, of which the second is looked at."""
    model = BiFormer((1, 1, 1), (32, 32, 32), n_win=3, topks=(2, 2, 2), num_classes=5).eval()
    for p in model.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.2)
    return OpenClassifier(model, "tiny", "made for a test", ("ash", "birch", "cedar", "dogwood", "elm"))


# which windows --------------------------------------------------------------------------------------------


def test_the_windows_of_each_rule_by_hand() -> None:
    lt = replace(traced(), r_idx=torch.tensor([[[3, 0], [2, 1], [1, 2], [0, 3]]]))
    assert windows_of(Reroute(""), lt).tolist() == [[3, 0], [2, 1], [1, 2], [0, 3]]
    # Itself, then of the neighbours beside and below or above, equally near, the one with the smaller number.
    assert windows_of(Reroute("", "nearest"), lt).tolist() == [[0, 1], [1, 0], [2, 0], [3, 1]]
    every = windows_of(Reroute("", "all"), lt)
    assert np.sort(every).tolist() == [[0, 1, 2, 3]] * 4
    assert (np.diff(np.take_along_axis(lt.affinity[0].numpy(), every, -1)) <= 0).all()
    for seed in (0, 7):
        np.testing.assert_array_equal(windows_of(Reroute("", "chance", seed=seed), lt), random_windows(lt, seed))


def test_a_swap_takes_the_place_of_the_window_that_goes_and_back() -> None:
    lt = replace(traced(), r_idx=torch.tensor([[[3, 0], [2, 1], [1, 2], [0, 3]]]))
    once = Reroute("", swaps=(Swap(1, 2, 3),))
    assert windows_of(once, lt).tolist() == [[3, 0], [3, 1], [1, 2], [0, 3]]
    twice = replace(once, swaps=(*once.swaps, Swap(1, 3, 2)))
    assert windows_of(twice, lt).tolist() == lt.r_idx[0].tolist()
    assert windows_of(Reroute("", "nearest", (Swap(3, 1, 2),)), lt).tolist()[3] == [3, 2]


@pytest.mark.parametrize(("reroute", "words"), [
    (Reroute("", "cheapest"), "choose of bra, nearest, chance, all"),
    (Reroute("", swaps=(Swap(9, 0, 1),)), "window 9 does not exist"),
    (Reroute("", swaps=(Swap(0, 3, 4),)), "window 4 does not exist"),
    (Reroute("", swaps=(Swap(0, 1, 2),)), "window 0 is not routed to window 1: choose one of 3, 0"),
    (Reroute("", swaps=(Swap(0, 3, 0),)), "window 0 is routed to window 0 already"),
    (Reroute("", "all", (Swap(0, 3, 1),)), "already")])
def test_what_cannot_be_is_refused_with_the_cure(reroute: Reroute, words: str) -> None:
    lt = replace(traced(), r_idx=torch.tensor([[[3, 0], [2, 1], [1, 2], [0, 3]]]))
    with pytest.raises(BRAError, match=words):
        windows_of(reroute, lt)


def test_masked_padding_is_not_looked_at() -> None:
    made = BiLevelRoutingAttention(8, 3, 2, topk=2, mask_padding=True).eval()
    lt = bra.trace(made, torch.rand(1, 8, 4, 4)).layers[""]             # 4×4 tokens in 3×3 windows of 2×2
    row = lt.r_idx[0, 0].tolist()
    with pytest.raises(BRAError, match="holds padding only"):
        windows_of(Reroute("", swaps=(Swap(0, row[0], 8),)), lt)


@pytest.mark.parametrize(("routing", "words"), [
    (((0, 1),) * 3, "needs 4 rows"), (((0, 1), (0, 1), (0,), (0, 1)), "equally many"),
    (((0, 1), (2, 2), (0, 1), (0, 1)), "window 1 cannot be routed to 2, 2"), (((0, 4),) * 4, "0 to 3")])
def test_a_routing_that_cannot_be_is_refused(routing: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(BRAError, match=words):
        with_windows(BiLevelRoutingAttention(8, 2, 2, topk=2), Change("", routing=routing))


# one layer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_layer_puts_out_what_attention_to_the_given_windows_is(options: dict[str, Any]) -> None:
    made, x = layer(**options), torch.randn(1, 16, 11, 12)              # a row of padding
    lt = bra.trace(made, x).layers[""]
    given = windows_of(Reroute("", "nearest"), lt)
    assert (np.sort(given) != np.sort(lt.r_idx[0].numpy())).any()
    other = with_windows(made, Change("", routing=tuple(map(tuple, given.tolist()))))
    with torch.inference_mode():
        y, weights, r_idx, _ = other(x, ret_attn_mask=True)
        torch.testing.assert_close(other(x), y)
    np.testing.assert_array_equal(r_idx[0], given)
    # The affinities are as ever, and the weights are their softmax over the windows that were given.
    chosen = np.take_along_axis(lt.affinity[0].double().numpy(), given, -1)
    wanted = np.exp(chosen) / np.exp(chosen).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights[0], wanted, atol=1e-5)
    # By the trace's own arithmetic, in which only the choice is replaced.
    moved = replace(lt, r_idx=torch.from_numpy(given)[None], r_weight=weights,
                    factor=weights if options.get("soft_routing") else None)
    torch.testing.assert_close(y[0].permute(1, 2, 0), layer_output(moved), atol=1e-4, rtol=1e-4)
    assert type(made.router) is TopkRouting
    assert other.qkv.qkv.weight is made.qkv.qkv.weight
    with torch.inference_mode():
        assert torch.equal(made(x), bra.trace(made, x).out)


# whole models ---------------------------------------------------------------------------------------------


def test_the_same_routing_given_gives_the_same_to_the_last_bit() -> None:
    model = classifier()
    own, kept = run_from(model, PHOTO, 96)
    row = own.trace.layers[LAYER].r_idx[0, 4].tolist()
    free = next(window for window in range(9) if window not in row)
    for swaps in ((), (Swap(4, row[0], free), Swap(4, free, row[0]))):
        change = rerouting(Reroute(LAYER, swaps=swaps), own.trace.layers[LAYER])
        for again in (run_from(model, PHOTO, 96, change, kept)[0], model.look(PHOTO, 96, change)):
            assert torch.equal(again.trace.out, own.trace.out)
            assert again.answer == own.answer
            for name, lt in own.trace.layers.items():
                assert torch.equal(again.trace.layers[name].r_idx, lt.r_idx)
                assert torch.equal(again.trace.layers[name].r_weight, lt.r_weight)


def test_all_windows_are_full_attention() -> None:
    model = classifier()
    full = model.look(PHOTO, 96, Change(LAYER, topk=9))
    own, kept = run_from(model, PHOTO, 96)
    found, _ = run_from(model, PHOTO, 96, rerouting(Reroute(LAYER, "all"), own.trace.layers[LAYER]), kept)
    torch.testing.assert_close(found.trace.out, full.trace.out, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found.trace.out, own.trace.out, atol=1e-5)


def test_look_elsewhere_gives_both_answers_and_leaves_the_model_alone() -> None:
    model = classifier()
    state = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    own = model.look(PHOTO, 96)
    lt = own.trace.layers[LAYER]
    found = look_elsewhere(model, PHOTO, 96, Reroute(LAYER, "chance", seed=3))
    routing = tuple(map(tuple, random_windows(lt, 3).tolist()))
    assert found.before == own.answer
    assert found.after == model.look(PHOTO, 96, Change(LAYER, routing=routing)).answer
    assert found.before != found.after
    moved = sum(len({*row} - {*before}) for row, before in zip(routing, lt.r_idx[0].tolist(), strict=True))
    assert (found.moved, found.choices) == (moved, 18)
    assert model.look(PHOTO, 96).answer == own.answer
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.module.state_dict().items())
    assert sum(row.before for row in found.rows) == pytest.approx(1)    # all five classes are there
    # Other windows of the same layer, in both runs.
    wider = look_elsewhere(model, PHOTO, 96, Reroute(LAYER, "nearest"), Change(LAYER, 4, 3))
    assert wider.before == model.look(PHOTO, 96, Change(LAYER, 4, 3)).answer
    assert wider.choices == 12 * 3      # a row of the 4×4 windows is padding, and asks nothing
    with pytest.raises(BRAError, match="one layer at a time"):
        look_elsewhere(model, PHOTO, 96, Reroute(LAYER, "nearest"), Change("stages.0.0.attn", 4, 3))
    with pytest.raises(BRAError, match="choose one of stages"):
        look_elsewhere(model, PHOTO, 96, Reroute("stages.9.9.attn", "nearest"))


def test_where_it_cannot_be_the_reason_is_said() -> None:
    model = classifier()
    lt = model.look(PHOTO, 96).trace.layers[LAYER]
    assert why_not(model, lt) == ""
    assert "does not route" in why_not(model, replace(lt, routed=False))
    assert "more than once" in why_not(model, replace(lt, name=f"{LAYER}#2"))
    silent = OpenPatches(model.module, "patches", "made for a test")
    assert "no answer" in why_not(silent, lt)
    with pytest.raises(BRAError, match="no answer"):
        look_elsewhere(replace(model, classes=()), PHOTO, 96, Reroute(LAYER, "nearest"))


def test_a_recording_runs_nothing_again(tmp_path: Path) -> None:
    bra.record(classifier().module, torch.rand(1, 3, 96, 128), tmp_path / "run.bra")
    model = open_file((tmp_path / "run.bra").read_bytes(), "run.bra")
    assert model.photo is not None
    lt = model.look(model.photo, 96).trace.layers[LAYER]
    assert "a recording holds" in why_not(model, lt)
    with pytest.raises(BRAError, match="a recording holds"):
        model.look(model.photo, 96, rerouting(Reroute(LAYER, "nearest"), lt))


# what becomes of the answer -------------------------------------------------------------------------------


def box(label: str, score: float, *sides: float) -> Detection:
    return Detection(label, score, (sides[0], sides[1], sides[2], sides[3]))


def test_the_overlap_of_boxes_by_hand() -> None:
    assert box_overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(2 / 6)
    assert box_overlap((0, 0, 4, 2), (1, 0, 3, 2)) == pytest.approx(4 / 8)
    assert box_overlap((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert box_overlap((0, 0, 1, 1), (1, 1, 2, 2)) == box_overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert box_overlap((1, 1, 1, 1), (1, 1, 1, 1)) == 0                 # of no area


def test_boxes_are_paired_by_class_and_overlap() -> None:
    before = Answer((box("cat", 0.9, 0, 0, 0.4, 0.4), box("cat", 0.8, 0.1, 0, 0.5, 0.4),
                     box("dog", 0.7, 0.6, 0.6, 1, 1), box("dog", 0.5, 0, 0.6, 0.4, 1)))
    after = Answer((box("cat", 0.85, 0.1, 0, 0.5, 0.4), box("cat", 0.6, 0, 0, 0.4, 0.4),
                    box("cat", 0.3, 0.6, 0.6, 1, 1), box("dog", 0.4, 0.1, 0.6, 0.5, 1)))
    rows = compare_answers(before, after)
    # The first two lie over each other by 3/5; each finds the one in its own place. The third is now called a cat.
    assert [(row.label, row.before, row.after, row.fate) for row in rows] == [
        ("cat", 0.9, 0.6, "kept"), ("cat", 0.8, 0.85, "kept"), ("dog", 0.7, None, "lost"), ("dog", 0.5, 0.4, "kept"),
        ("cat", None, 0.3, "new")]
    assert [row.overlap for row in rows] == [1, 1, None, pytest.approx(3 / 5), None]
    assert [row.change for row in rows] == [pytest.approx(-0.3), pytest.approx(0.05), None, pytest.approx(-0.1), None]
    assert rows[0].after_box == (0, 0, 0.4, 0.4)
    assert row_names(rows) == ("cat 1", "cat 2", "dog 1", "dog 2", "cat 3")
    stricter = compare_answers(before, after, least=0.7)
    assert [row.fate for row in stricter] == ["kept", "kept", "lost", "lost", "new", "new"]


def test_no_box_is_paired_twice() -> None:
    one = Answer((box("cat", 0.9, 0, 0, 1, 1),))
    two = Answer((box("cat", 0.8, 0, 0, 1, 0.9), box("cat", 0.7, 0, 0, 1, 0.95)))
    rows = compare_answers(one, two)
    assert [(row.before, row.after) for row in rows] == [(0.9, 0.7), (None, 0.8)]
    assert compare_answers(one, one) == (AnswerRow("cat", 0.9, 0.9, (0, 0, 1, 1), (0, 0, 1, 1), 1.0),)


def test_classes_are_paired_by_name() -> None:
    rows = compare_answers(Answer(classes=(("rose", 0.7), ("tulip", 0.2))),
                           Answer(classes=(("tulip", 0.5), ("daisy", 0.3))))
    assert [(row.label, row.before, row.after) for row in rows] == [
        ("rose", 0.7, None), ("tulip", 0.2, 0.5), ("daisy", None, 0.3)]


def test_what_happened_in_words() -> None:
    def said(before: Answer, after: Answer) -> str:
        return str(in_words(Rerouted(Reroute("x"), before, after, 196, 3)))

    roses, tulips = Answer(classes=(("rose", 0.75),)), Answer(classes=(("tulip", 0.5), ("rose", 0.4)))
    assert said(roses, tulips) == ("Other windows than the layer's own: 3 of 196 choices. The answer was rose "
                                   "(75.00 %) and becomes tulip (50.00 %).")
    fewer = Answer(classes=(("rose", 0.5),))
    assert said(roses, fewer).endswith("The answer stays rose: 75.00 % before, 50.00 % after.")
    assert "Nothing of this answer changes" in said(roses, roses)
    cat = Answer((box("cat", 0.9, 0, 0, 1, 1),))
    moved = Answer((box("cat", 0.5, 0, 0, 1, 1), box("dog", 0.3, 0, 0, 1, 1)))
    assert said(cat, moved).endswith("Boxes: 1 before, 2 after; 1 stay, 0 lost, 1 new. The score that changes most is "
                                     "that of cat: 90.00 % before, 50.00 % after.")
    assert "Nothing of this answer changes" in said(cat, cat)
    other = Answer((*cat.detections, box("dog", 0.3, 0, 0, 1, 1)))
    assert said(cat, other).endswith("1 stay, 0 lost, 1 new. No score of those that stay changes.")
    assert said(Answer(), Answer()).endswith("finds nothing on this picture, before and after.")


# as figures -----------------------------------------------------------------------------------------------


def test_the_figures_show_scores_and_places() -> None:
    rows = (AnswerRow("cat", 0.9, 0.6, (0, 0, 0.5, 0.5), (0.1, 0, 0.6, 0.5), 2 / 3), AnswerRow(
        "dog", 0.7, None, (0.5, 0.5, 1, 1)), AnswerRow("cat", None, 0.3, None, (0, 0.5, 0.25, 1)))
    lines, before, after = figures.scores(rows).data
    assert before.x == (0.9, 0.7, None)
    assert after.x == (0.6, None, 0.3)
    assert (lines.x, lines.y) == ((0.9, 0.6, None), (0, 0, None))
    assert [tuple(about) for about in before.customdata] == [
        ("cat 1", "90.00%", "60.00%"), ("dog", "70.00%", "–"), ("cat 2", "–", "30.00%")]
    drawn = figures.boxes(rows, WindowGrid.over_image(80, 120, 8, 12, 2), PHOTO.encoded(64), (80, 120)).data
    assert [one.name for one in drawn] == ["stays (1)", "lost (1)", "new (1)"]      # 12 columns of 10 px: no padding
    assert drawn[0].x == (12, 72, 72, 12, 12, None)         # where it is afterwards
    assert drawn[1].x == (60, 120, 120, 60, 60, None)       # where it was
    assert drawn[1].y == (40, 40, 80, 80, 40, None)
    assert drawn[1].line.dash == "dot"
    many = tuple(AnswerRow(str(at), 0.5, 0.5 + at / 100) for at in range(30))
    assert figures.shown_rows(many) == list(range(10, 30))
