"""Figures hold the numbers of the module: traces against `ret_attn_mask` and against sums by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

import bra
from bra import BiLevelRoutingAttention
from bra.experiments.compare import SettingRow
from bra.experiments.sweep_table import Summary
from bra.figures import attention, card, compare, cost, learn, routing, rules
from bra.figures.template import (
    COLORWAY,
    COLOURS,
    PLOTLY_WORDS,
    Style,
    attention_scale,
    export_config,
    file_name,
    locale_config,
    log_ticks,
    template,
    wrapped,
)
from bra.messages import Language
from bra.metrics.rules import RULES, RuleRow, try_rules
from bra.models.card import cards
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.profiling.advice import positions
from bra.profiling.format import PARTS
from bra.profiling.variants import without_bra
from bra.teaching.experiments import growth
from bra.tracing import LayerTrace, trace

CAPTION = "a model · attn · n_win 3 · topk 2 · random weights"
PHOTO = Photo.from_array(np.random.default_rng(1).integers(0, 255, (56, 72, 3), dtype=np.uint8))


def layer(**options: Any) -> BiLevelRoutingAttention:
    return BiLevelRoutingAttention(16, **{"n_win": 3, "num_heads": 4, "topk": 2, **options}).eval()


def seen(made: BiLevelRoutingAttention, h: int = 7, w: int = 9) -> tuple[LayerTrace, tuple[Any, ...]]:
    """A trace, and what the module itself returns for the same map."""
    x = torch.randn(1, 16, h, w)
    with torch.inference_mode():
        return trace(made, x).layers[""], made(x, ret_attn_mask=True)


def array(values: Any) -> NDArray[Any]:
    """What plotly holds of an array, back from its own form."""
    return np.asarray(values, dtype=float)


def test_the_ranking_is_the_modules_choice_and_its_affinities() -> None:
    lt, (_, weights, chosen, _) = seen(layer())
    for query in range(9):
        figure = routing.ranking(lt, [("a", query)])
        first, rest = figure.data
        assert [data[0] for data in first.customdata] == chosen[0, query].tolist()
        assert list(first.x) == [1, 2]
        assert list(rest.x) == [3, 4, 5, 6, 7, 8, 9]
        windows = [data[0] for trace in (first, rest) for data in trace.customdata]
        assert sorted(windows) == list(range(9))
        assert [*first.y, *rest.y] == pytest.approx(lt.affinity[0, query, windows].tolist())
        assert list(rest.y) == sorted(rest.y, reverse=True)
        assert [float(data[4]) for data in first.customdata] == pytest.approx(weights[0, query].tolist(), abs=1e-4)
        assert sum(data[3] for trace in (first, rest) for data in trace.customdata) == pytest.approx(1)
        assert figure.layout.shapes[0].x0 == 2.5


def test_two_queries_are_told_apart_by_colour_and_name() -> None:
    lt, _ = seen(layer())
    figure = routing.ranking(lt, [("a", 0), ("b", 5)])
    assert [trace.marker.color for trace in figure.data] == [COLOURS["a"]] * 2 + [COLOURS["b"]] * 2
    assert [trace.name for trace in figure.data] == ["A: chosen", "A: rejected", "B: chosen", "B: rejected"]


def test_masked_padding_that_cannot_be_chosen_has_no_bar() -> None:
    lt, _ = seen(layer(n_win=4, mask_padding=True), 5, 5)
    rest = routing.ranking(lt, [("a", 0)]).data[1]
    assert sum(value is None for value in rest.y) == int(np.isneginf(lt.affinity[0, 0].numpy()).sum()) > 0
    assert np.isnan(array(routing.matrix(lt).data[0].z)).sum() == 16 * sum(value is None for value in rest.y)


def test_the_matrix_holds_every_affinity_and_a_dot_on_each_choice() -> None:
    lt, (_, weights, chosen, _) = seen(layer())
    heat, dots = routing.matrix(lt, [("a", 4)]).data
    assert array(heat.z) == pytest.approx(lt.affinity[0].numpy())
    assert list(zip(dots.y, dots.x, strict=True)) == [(q, w) for q in range(9) for w in chosen[0, q].tolist()]
    about = array(dots.customdata)
    assert about[:, 0].tolist() == [1, 2] * 9
    assert about[:, 1] == pytest.approx(weights[0].flatten().numpy())
    shape = routing.matrix(lt, [("a", 4)]).layout.shapes[0]
    assert (shape.y0, shape.y1) == (3.5, 4.5)


def test_in_degrees_are_counted_from_the_modules_choices_and_lie_on_their_windows() -> None:
    lt, (_, _, chosen, _) = seen(layer())
    figure = routing.in_degree(lt, PHOTO.encoded(64), (7, 9))
    counts = np.bincount(chosen.flatten().numpy(), minlength=9)
    heat = figure.data[0]
    assert array(heat.z).ravel().tolist() == counts.tolist()
    assert [text for line in heat.text for text in line] == [str(n) if n else "×" for n in counts]
    for window in range(9):
        top, left, bottom, right = lt.grid.box_of_window(window)
        row, col = divmod(window, 3)
        assert (heat.y0 + row * heat.dy, heat.x0 + col * heat.dx) == ((top + bottom) / 2, (left + right) / 2)
    assert figure.layout.images[0].source.startswith("data:image/webp;base64,")
    assert (figure.layout.images[0].sizex, figure.layout.images[0].sizey) == (9, 7)


@pytest.mark.parametrize("options", [{}, {"soft_routing": True}, {"topk": 9}, {"mask_padding": True}])
def test_attention_maps_are_the_rows_of_ret_attn_mask(options: dict[str, Any]) -> None:
    lt, (_, _, chosen, rows) = seen(layer(**options))
    grid, window, token = lt.grid, 4, 3
    by_hand = np.zeros((4, grid.H, grid.W))
    tokens = grid.n_tokens
    for rank, routed in enumerate(chosen[0, window].tolist()):
        for at in range(tokens):
            row, col = grid.token_of_window(routed, at)
            by_hand[:, row, col] += rows[window, :, token, rank * tokens + at].numpy()
    query = attention.Attended("a", window, token, lt.attention_map(window, token).numpy())
    figure = attention.attention([query], range(6), grid, PHOTO.encoded(64), (7, 9), caption=CAPTION)
    expected = [by_hand.mean(0), by_hand.max(0), *by_hand]
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    for heat, values in zip(heats, expected, strict=True):
        assert np.nan_to_num(array(heat.z)) == pytest.approx(100 * values, abs=1e-4)
        assert heat.coloraxis == "coloraxis"
    assert figure.layout.coloraxis.cmax == pytest.approx(100 * by_hand.max(), rel=1e-5)
    assert [note.text for note in figure.layout.annotations][:3] == ["A: mean", "A: max", "A: head 0"]
    masses = routing.window_masses(grid, query.maps)
    assert sum(masses) == pytest.approx(1)
    where = routing.where(lt, ("a", window), masses)
    assert list(where.data[0].x) == [str(w) for w in chosen[0, window].tolist()]
    sums = rows[window, :, token].reshape(4, -1, tokens).sum(-1).mean(0)
    assert list(where.data[0].y) == pytest.approx(sums.tolist(), abs=1e-5)
    assert list(where.data[1].y) == pytest.approx(lt.r_weight[0, window].tolist())


@pytest.mark.parametrize("narrow", [False, True])
def test_padding_is_hatched_and_named_once(narrow: bool) -> None:
    lt, _ = seen(layer(n_win=4))                # 7 × 9 pixels as 8 × 12
    query = attention.Attended("a", 4, None, lt.attention_map(4).numpy())
    figure = attention.attention([query], [0, 1], lt.grid, PHOTO.encoded(64), (7, 9), Style(narrow=narrow))
    hatched = [trace for trace in figure.data if trace.legendgroup == "padding"]
    assert [(trace.name, trace.showlegend, trace.fillpattern.shape) for trace in hatched] == [
        ("padding", True, "/"), ("padding", False, "/")]
    corners = {(x, y) for x, y in zip(hatched[0].x, hatched[0].y, strict=True) if x is not None}
    assert corners == {(0, 7), (12, 7), (12, 8), (0, 8), (9, 0), (12, 0), (9, 7)}
    assert figure.layout.showlegend
    assert (figure.layout.yaxis.domain == figure.layout.yaxis2.domain) is not narrow, "below each other on a phone"


def test_no_padding_no_hatch() -> None:
    lt, _ = seen(layer(n_win=4), 8, 8)
    figure = routing.in_degree(lt, PHOTO.encoded(64), (8, 8))
    assert [trace.type for trace in figure.data] == ["heatmap"]
    assert not figure.layout.showlegend


def test_colours_follow_the_root_and_numbers_do_not() -> None:
    assert [share for share, _ in attention_scale(by_root=True)][:3] == [0, 1 / 64, 1 / 16]
    assert [share for share, _ in attention_scale()][:3] == [0, 1 / 8, 1 / 4]


# cost -----------------------------------------------------------------------------------------------------

MODEL = open_model(ModelSettings("flowers")).module


@pytest.mark.parametrize("measure", ["macs", "params", "peak_bytes"])
def test_bars_add_up_to_their_rows(measure: str) -> None:
    counted = bra.cost(MODEL, 224)
    figure = cost.bars(counted, measure)
    for at, row in enumerate(counted.rows):
        parts = [(x, about) for one in figure.data for x, y, about in zip(one.x, one.y, one.customdata, strict=True)
                 if y == at]
        assert sum(about[1] for _, about in parts) == getattr(row, measure)
        assert sum(x for x, _ in parts) * cost.UNITS[measure][0] == pytest.approx(getattr(row, measure))
        assert {about[0] for _, about in parts} <= {row.name}
    assert figure.layout.yaxis.range == (len(counted.rows) - 0.5, -0.5)
    if measure in cost.ADDS_UP:
        assert sum(about[2] for one in figure.data for about in one.customdata) == pytest.approx(1)


def test_every_part_has_a_colour_of_its_own() -> None:
    made = BiLevelRoutingAttention(16, n_win=2, kv_downsample_mode="conv", kv_downsample_ratio=2)
    figure = cost.bars(bra.cost(made, 16), "macs")
    assert {one.name for one in figure.data} == set(PARTS.values())
    assert len({one.marker.color for one in figure.data}) == len(PARTS)


def test_the_icicle_is_a_tree_whose_levels_add_up_and_which_can_be_clicked() -> None:
    counted = bra.cost(MODEL, 224)
    tree = cost.icicle(counted).data[0]
    sizes = dict(zip(tree.ids, tree.values, strict=True))
    assert len(sizes) == len(tree.ids)
    children: dict[str, int] = {}
    for name, above in zip(tree.ids, tree.parents, strict=True):
        if above:
            children[above] = children.get(above, 0) + sizes[name]
    assert children == {name: sizes[name] for name in children}
    assert sizes[tree.ids[0]] == counted.total.params
    assert {row.name: row.params for row in counted.rows if row.params}.items() <= sizes.items()


@pytest.mark.parametrize("measure", ["macs", "params", "peak_bytes"])
def test_places_are_those_of_the_formula(measure: str) -> None:
    found = positions(bra.cost(without_bra(MODEL), 224))
    here = {place.after for place in found[:1]}
    figure = cost.places(found, measure, here, caption=CAPTION)
    made = {(one.name, about[0]): about[2] for one in figure.data for about in one.customdata}
    there = [place for place in found if place.layer is not None]
    if measure == "peak_bytes":
        assert made == {(name, place.after): size for place in there for name, size in (
            ("fused, as here", place.layer.peak_bytes), ("attention written out", place.layer.explicit_peak_bytes))}
        assert figure.layout.shapes[0].x0 == 2**30 / 1e6
    else:
        assert made == {("has one now" if place.after in here else "possible", place.after):
                        getattr(place.layer, measure) for place in there}
    assert all(x * cost.UNITS[measure][0] == pytest.approx(about[2])
               for one in figure.data for x, about in zip(one.x, one.customdata, strict=True))


def test_other_ways_to_have_a_model_are_in_per_cent_of_the_first() -> None:
    whole, plain = bra.cost(MODEL, 224), bra.cost(without_bra(MODEL), 224)
    figure = cost.against({"as it is": whole, "without BRA": plain})
    assert [one.y[0] for one in figure.data] == [100, 100, 100]
    assert [about[0] for about in figure.data[1].customdata] == [whole.total.macs, plain.total.macs]
    assert figure.data[0].y[1] == pytest.approx(100 * plain.total.params / whole.total.params)


# compare, cards, lesson -----------------------------------------------------------------------------------

def row(n_win: int, topk: int, recall: float, macs: int) -> SettingRow:
    return SettingRow(n_win, topk, n_win**2, 0.0, recall, 0.1, 0.3, 0.9, 0.8, macs, 2 * macs)


def test_the_front_is_drawn_through_what_nothing_beats() -> None:
    rows = [row(4, 1, 0.2, 1_000_000), row(4, 4, 0.6, 4_000_000), row(7, 1, 0.1, 2_000_000), row(7, 8, 0.5, 5_000_000)]
    figure = compare.deciding(rows, "macs", caption=CAPTION)
    by_name = {one.name: one for one in figure.data}
    assert list(zip(by_name["Pareto front"].x, by_name["Pareto front"].y, strict=True)) == [
        pytest.approx((1, 0.2)), pytest.approx((4, 0.6))]
    assert [about[:4] for about in by_name["n_win 7"].customdata] == [[7, 1, 0.3, 0.1], [7, 8, 0.3, 0.1]]
    assert list(by_name["n_win 7"].y) == [0.1, 0.5]
    assert by_name["n_win 4"].marker.size == (15, 15)
    assert by_name["n_win 7"].marker.size == (9, 9)
    assert {value for value in by_name["nearest windows"].y if value is not None} == {0.3}
    assert {value for value in by_name["random windows"].y if value is not None} == {0.1}
    without = compare.deciding(rows, "seconds")        # nobody measured time
    assert not [one for one in without.data if one.x]


def test_a_sweep_shows_each_picture_and_the_means_interval() -> None:
    rows = [Summary("l", 7, 1, 3, (0.2, 0.3, 0.4), 0.3, (0.25, 0.36), 0.31, (0, 0), 0.02, 0.9, 1e6, 1e6),
            Summary("l", 7, 4, 1, (0.7,), 0.7, (float("nan"), float("nan")), 0.6, (0, 0), 0.1, 0.95, 1e6, 1e6)]
    ticks, means, nearest, chance, best = compare.swept(rows, caption=CAPTION).data
    assert list(zip(ticks.y, ticks.x, strict=True)) == [(0, 0.2), (0, 0.3), (0, 0.4), (1, 0.7)]
    assert list(means.x) == [0.3, 0.7]
    assert means.customdata[0] == pytest.approx([0.25, 0.36, 3])
    assert [means.error_x.array[0], means.error_x.arrayminus[0]] == pytest.approx([0.06, 0.05])
    assert means.error_x.array[1] == means.error_x.arrayminus[1] == 0
    assert [list(one.x) for one in (nearest, chance, best)] == [[0.31, 0.6], [0.02, 0.1], [0.9, 0.95]]


@pytest.mark.parametrize("name", cards())
def test_a_cards_figures_show_its_numbers(name: str) -> None:
    made = cards()[name]
    for metric in next(iter(made.scores.values())):
        figure = card.curves(made, metric)
        assert [list(one.y) for one in figure.data] == [[line[metric] for line in lines]
                                                        for lines in made.curves.values()]
        assert [one.line.width == 3 for one in figure.data] == [run == made.shipped for run in made.curves]
    quality = {one.name: dict(zip((about[0] for about in one.customdata), one.x, strict=True))
               for one in card.quality(made, "recall").data}
    for line in made.quality["trained"]:
        assert quality["trained"][line.layer] == line.recall
        assert quality["nearest windows"][line.layer] == line.recall_nearest
        assert quality["random windows"][line.layer] == line.recall_chance
        assert quality["best possible"][line.layer] == line.recall_oracle
    assert quality["untrained"] == {line.layer: line.recall for line in made.quality["untrained"]}


def test_growth_and_bars_show_what_the_formula_gives() -> None:
    pixels = [64, 128, 256]
    every = [growth(side) for side in pixels]
    full, routed = learn.growth(every, pixels, 128).data
    assert list(full.y) == pytest.approx([one.full.macs / 1e9 for one in every])
    assert list(routed.y) == pytest.approx([one.routed.macs / 1e9 for one in every])
    assert [list(about) for about in full.customdata] == [[one.tokens, one.pairs] for one in every]
    figure = learn.bars([learn.Bar("a", 0.25, "25 %"), learn.Bar("b", 1.87, "over", "bad")], "share, %")
    bars = figure.data[0]
    assert list(bars.x) == [25, 187]
    assert figure.layout.xaxis.range[1] > 187, "what is over 100 % is drawn as long as it is"
    assert list(bars.text) == ["25 %", "over"]


def test_rules_are_ranked_and_marked() -> None:
    lt, _ = seen(layer())
    rows = try_rules(lt, np.arange(63).reshape(7, 9) % 3)
    figure = rules.rules(rows, caption=CAPTION)
    bars, changes, overlaps = figure.data
    ranked = sorted(rows, key=lambda row: -row.recall)
    assert list(bars.x) == [row.recall for row in ranked]
    assert list(changes.x) == [row.change for row in ranked]
    assert list(overlaps.x) == [row.overlap for row in ranked]
    assert [one.text for one in figure.layout.annotations] == [
        f"{RULES[row.rule].name} · <b>{row.recall:.1%}</b>" for row in ranked]
    (line,) = figure.layout.shapes
    assert line.x0 == line.x1 == pytest.approx(2 / 9)              # chance
    assert len(rules.rules(try_rules(lt)).data) == 2               # without labels no marks of theirs
    far = [RuleRow("bra", 3, 2, 0.1, 2.5, 1, 1)]
    assert rules.rules(far).layout.xaxis.range[1] > 2.5            # an output may move by more than its size


# what all have in common ----------------------------------------------------------------------------------

def every_figure(style: Style) -> dict[str, go.Figure]:
    lt, _ = seen(layer())
    maps, counted, made = lt.attention_map(4).numpy(), bra.cost(MODEL, 224), cards()["flowers"]
    rows = [row(4, 1, 0.2, 1_000_000), row(4, 4, 0.6, 4_000_000)]
    place = positions(bra.cost(without_bra(MODEL), 224))
    picture = PHOTO.encoded(64)
    return {
        "ranking": routing.ranking(lt, [("a", 4), ("b", 1)], style, CAPTION),
        "matrix": routing.matrix(lt, [("a", 4)], style, CAPTION),
        "in_degree": routing.in_degree(lt, picture, (7, 9), [("a", 4)], style, CAPTION),
        "where": routing.where(lt, ("a", 4), routing.window_masses(lt.grid, maps), style, CAPTION),
        "attention": attention.attention([attention.Attended("a", 4, None, maps)], [0, 1], lt.grid, picture, (7, 9),
                                         style, CAPTION),
        "bars": cost.bars(counted, "macs", style), "icicle": cost.icicle(counted, style),
        "places": cost.places(place, "macs", (), style, CAPTION), "against": cost.against({"as it is": counted}, style),
        "deciding": compare.deciding(rows, "macs", style, CAPTION),
        "swept": compare.swept([Summary("l", 7, 1, 2, (0.2, 0.4), 0.3, (0.2, 0.4), 0.3, (0, 0), 0.1, 0.9, 1, 1)], style,
                               CAPTION),
        "curves": card.curves(made, "loss", style), "quality": card.quality(made, "recall", style),
        "rules": rules.rules([RuleRow("bra", 3, 2, 0.5, 0.1, 1, 1, 0.5), RuleRow("chance", 3, 2, 0.2, 0.1, 1, 1, 0.3)],
                             style, CAPTION),
        "growth": learn.growth([growth(64), growth(128)], [64, 128], 64, style),
        "bars of shares": learn.bars([learn.Bar("a", 0.5, "50 %")], "share, %", style, CAPTION)}


def test_only_the_template_depends_on_the_theme() -> None:
    light, dark = (every_figure(Style(dark=dark)) for dark in (False, True))
    for name, figure in light.items():
        parts = [json.loads(one.to_json()) for one in (figure, dark[name])]
        for part in parts:
            part["layout"].pop("template")
        if name in ("ranking", "matrix", "in_degree", "where", "attention"):
            continue        # of another random map
        assert parts[0] == parts[1], name
    assert template(False) != template(True)


def test_every_axis_is_named_and_every_picture_has_its_caption() -> None:
    for name, figure in every_figure(Style()).items():
        assert figure.layout.title.text, name
        axes = [axis for axis in figure.select_xaxes() if axis.visible is not False]
        if name != "icicle":
            assert any(axis.title.text for axis in axes), name
        for one in figure.data:
            assert one.hovertemplate or one.hoverinfo == "skip", name


def test_colours_and_scales() -> None:
    assert len(set(COLORWAY)) >= 10
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert {"a", "b", "routed", "rejected", "padding", "chance", "nearest"} <= set(COLOURS)
    for dark in (False, True):
        scale = template(dark).layout.colorscale
        assert len(scale.sequential) == 9
        assert scale.diverging[1][1] == template(dark).layout.paper_bgcolor


def test_words_are_in_the_language_of_the_figure() -> None:
    words = Language("xx", {"query window": "QW", "routing weight": "RW", "key window, number": "KN"})
    lt, _ = seen(layer())
    figure = routing.matrix(lt, style=Style(words))
    assert figure.layout.xaxis.title.text == "KN"
    assert "QW: %{y}" in figure.data[0].hovertemplate
    assert "RW: %{customdata[1]:.4f}" in figure.data[1].hovertemplate


def test_variants_keep_their_names_in_every_language_and_runs_without_one_are_named_in_it() -> None:
    words = Style(Language("xx", {"run": "R", "none": "N"}))
    vehicles = card.curves(cards()["vehicles"], "mAP50", words)
    assert {line.name for line in vehicles.data} == {"residual-p3-taught", "residual-p3", "none"}
    assert {line.name for line in card.curves(cards()["photos"], "loss", words).data} == {"R"}


def test_strangers_names_are_text_and_nothing_else() -> None:
    lt, _ = seen(layer())
    figure = routing.matrix(lt, caption="<b>x</b> %{z}<a href='javascript:1'>")
    assert "<b>" not in figure.layout.title.text
    assert "<a" not in figure.layout.title.text


@pytest.mark.parametrize("text", ["one two three four five six seven", "窗口" * 30 + " topk 4", "a" * 90, ""])
def test_a_caption_is_cut_between_words_and_loses_none(text: str) -> None:
    lines = wrapped(text, 12)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= 12 for line in lines if " " in line)


def test_files_are_told_apart_by_their_names() -> None:
    name = file_name("Flowers: trained/here", "stages.1.0.attn", "cat photo.jpg", "n7_k4", "matrix", "")
    assert name == "Flowers-trained-here_stages.1.0.attn_cat-photo.jpg_n7_k4_matrix"
    assert export_config(name)["toImageButtonOptions"] == {"format": "png", "filename": name, "scale": 4}
    assert export_config(name)["showSendToCloud"] is False, "a visitor's data stay here"
    assert export_config(name, "svg")["toImageButtonOptions"]["format"] == "svg"


def test_plotlys_own_words_are_told_in_the_readers_language() -> None:
    code = get_plotlyjs()
    assert [str(word) for word in PLOTLY_WORDS if f'"{word}"' not in code] == []
    config = locale_config(Language("zh-CN", {"Reset axes": "重置"}))
    assert config["locale"] == "zh-CN"
    assert config["locales"]["zh-CN"]["dictionary"] | {"Reset axes": "重置", "Pan": "Pan"} == \
        config["locales"]["zh-CN"]["dictionary"]


def test_a_logarithmic_axis_marks_round_numbers() -> None:
    ticks = log_ticks([3, 40])
    assert [value for value in ticks["tickvals"] if 3 <= value <= 40] == [5, 10, 20]
    assert ticks["ticktext"][ticks["tickvals"].index(20)] == "20"
