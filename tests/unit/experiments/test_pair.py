"""A against B by hand, and the bytes that the small pictures are drawn from."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bra.experiments.compare import (
    SettingRow,
    beats_controls,
    compare,
    compare_pair,
    difference,
    layer_input,
    settings_of,
)
from bra.experiments.recommend import reason, recommended, weighed
from bra.metrics.agreement import ACROSS, DOWN
from bra.metrics.dense import layer_output
from bra.models.catalog import ModelSettings, build
from bra.opening import open_model
from bra.photo import Photo, to_tensor
from bra.reports.tables import compare_csv, compare_html, compare_text
from bra.tracing import trace
from bra.viewer.multiples import multiples_message, pair_message
from bra.viewer.pack import unpack

SETTINGS = ModelSettings(n_win=4, topk=3, side=128, num_heads=2)


def photo() -> Photo:
    small = Image.fromarray(np.random.default_rng(2).integers(0, 255, (5, 6, 3), dtype=np.uint8))
    return Photo.from_array(np.asarray(small.resize((128, 104), Image.Resampling.BICUBIC)))


def one(settings: ModelSettings = SETTINGS, n_win: int = 4, topk: int = 3):
    return compare(layer_input(open_model(settings), photo(), 128), settings_of((n_win,), (topk,)))


@pytest.mark.parametrize("key", ["similarity", "untrained"])
def test_a_layers_output_is_what_the_module_returns(key: str) -> None:
    model = build(replace(SETTINGS, model=key, n_win=5))        # 13×16 tokens: padded to 15×20
    with torch.inference_mode():
        tokens = model.embed(to_tensor(photo().rgb))
        lt = trace(model.layers[0], tokens).layers[""]
        torch.testing.assert_close(layer_output(lt).permute(2, 0, 1)[None], model.layers[0](tokens),
                                   atol=1e-5, rtol=1e-5)


def test_a_against_itself_shares_all_and_differs_in_nothing() -> None:
    found = compare_pair(one(), one())
    np.testing.assert_array_equal(found.shared.union_share, 1)
    np.testing.assert_array_equal(found.difference, 0)
    # 13 rows of tokens are padded to 16, so three of 16 windows cover 3/16 of the grid, and more of the picture.
    assert 3 / 16 < (found.shared.both).mean() < 5 / 16


def test_all_windows_against_three_by_hand() -> None:
    found = compare_pair(one(topk=3), one(topk=16))
    np.testing.assert_allclose(found.shared.only_a, 0, atol=1e-12)
    np.testing.assert_allclose(found.shared.both + found.shared.only_b, 1, atol=1e-12)
    np.testing.assert_allclose(found.shared.union_share, found.shared.both, atol=1e-12)
    assert found.chance == pytest.approx(found.shared.both.mean())      # of all that is there, any choice shares itself
    assert found.rows[1].recall == pytest.approx(1)


def test_outputs_that_are_opposite_or_of_other_shape() -> None:
    a = one(replace(SETTINGS, model="untrained")).traces[0]
    weight, bias = a.wo
    opposite = replace(a, wo=(-weight, -bias))
    np.testing.assert_allclose(difference(a, opposite), 2, atol=1e-6)   # |y + y| over |y|
    assert difference(a, one(replace(SETTINGS, stride=16)).traces[0]) is None


def test_the_small_pictures_get_the_modules_routing_and_the_tables_numbers() -> None:
    compared = compare(layer_input(open_model(SETTINGS), photo(), 128), settings_of((3, 4), (2, 5)))
    header, picture, arrays = unpack(multiples_message(photo(), compared, "macs", (5000, 2500), "below"))
    assert (header["at"], header["caption"], header["pair"]) == ([5000, 2500], "below", False)
    assert picture[:4] == b"RIFF"
    for n, (cell, row, lt) in enumerate(zip(header["cells"], compared.rows, compared.traces, strict=True)):
        np.testing.assert_array_equal(arrays[f"r_idx_{n}"], lt.r_idx[0])
        assert (cell["n_win"], cell["topk"], cell["grid"]["n_win"]) == (row.n_win, row.topk, row.n_win)
        assert cell["keeps"] in (f"{100 * row.recall:.0f}", f"{100 * row.recall:.1f}")


def test_a_against_b_sends_areas_at_every_place_and_the_difference() -> None:
    found = compare_pair(one(), one(n_win=5, topk=4))
    header, _, arrays = unpack(pair_message(photo(), found, ("first", "second"), (0, 0), ""))
    assert header["places"] == [ACROSS, DOWN]
    assert [cell["title"] for cell in header["cells"]] == ["A: first", "B: second"]
    for name in ("both", "only_a", "only_b"):
        assert arrays[name].shape == (ACROSS * DOWN,)
        np.testing.assert_allclose(arrays[name], getattr(found.shared, name), atol=1e-6)
    assert header["map"] == [13, 16]
    np.testing.assert_allclose(arrays["difference"], found.difference, atol=1e-6)


def test_tables_say_what_was_found() -> None:
    rows = compare(layer_input(open_model(SETTINGS), photo(), 128), settings_of((4,), (1, 8, 16))).rows
    assert rows[2].recall == pytest.approx(1)
    assert "topk 8" in reason(rows)                             # full attention itself is no answer
    assert compare_text(rows).count("\n") == 5               # heading, three rows, what * means, the reason
    lines = compare_csv(rows).splitlines()
    assert lines[0].startswith("n_win,topk,windows,padding_share,recall,chance")
    assert float(lines[2].split(",")[4]) == rows[1].recall
    page = compare_html(rows, "<Title>", "about")
    assert "&lt;Title&gt;" in page
    assert "<Title>" not in page
    drawn = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])["data"]
    assert [one["y"] for one in drawn if one["name"] == "n_win 4"] == [[row.recall for row in rows]]
    assert page.count("plotly.js v") == 1
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=", page)


def setting(topk: int, recall: float, chance: float, nearest: float) -> SettingRow:
    return SettingRow(4, topk, 16, 0.0, recall, chance, nearest, 1.0, 0.5, 1000 * topk, 2000 * topk)


def test_a_setting_is_recommended_only_where_it_beats_chance_and_nearest() -> None:
    at_chance = [setting(k, 0.06 * k, 0.0625 * k, 0.06 * k) for k in (4, 8, 15)]
    assert reason(at_chance).startswith("None of these settings can be recommended")
    assert not any(map(beats_controls, at_chance))
    # The cheaper one keeps as much, but its nearest windows keep it too.
    assert "topk 8 is the cheapest" in reason([setting(4, 0.8, 0.25, 0.8), setting(8, 0.8, 0.5, 0.6)])
    assert reason([setting(2, 0.3, 0.1, 0.2)]).startswith("No routed setting here keeps 50 %")


def test_every_setting_is_weighed_beside_the_recommended_one() -> None:
    rows = [setting(2, 0.3, 0.4, 0.2), setting(4, 0.6, 0.25, 0.5), setting(8, 0.7, 0.5, 0.6), setting(16, 1, 1, 1),
            replace(setting(5, 0.6, 0.25, 0.5), padding_share=0.1)]
    assert recommended(rows) == (rows[1], 0.5)
    assert weighed(rows) == (
        "no better than its nearest or random windows", "this one",
        "kept +10.0, cost +100 %, memory +100 %, padding +0.0", "full attention, no routing",
        "n_win 4, topk 4 keeps as much and takes less")
    assert weighed([setting(2, 0.3, 0.1, 0.2)]) == ("keeps less than 50 %",)
