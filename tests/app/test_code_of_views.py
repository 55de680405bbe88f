"""Every page hands over the Python and the commands of its view: each is run in a process of its own, and what it gives
is what the page shows."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
import torch
from programs import ran
from sent_figures import figures, maps, texts
from streamlit.testing.v1 import AppTest
from test_models import ask, message, upload
from wild_models import KINDS

from bra.cli.main import main
from bra.experiments.sweep_table import read_table
from bra.hooks import record
from bra.models.biformer import biformer_tiny
from bra.models.card import cards
from bra.models.catalog import ModelSettings
from bra.opening import look
from bra.photo import Photo
from bra.teaching.example import run_example
from bra.units import percent, quantity

pytest.importorskip("ultralytics")
from ultralytics import YOLO

from bra.yolo.transplant import write_checkpoint

ROOT = Path(__file__).parents[2]
APP = ROOT / "dashboard" / "app.py"
CFG = ROOT / "bra" / "yolo" / "cfg"


@pytest.fixture
def app() -> AppTest:
    made = AppTest.from_file(str(APP), default_timeout=120)
    made.session_state["stage_drawn"] = True        # as a browser says
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A visitor's folder, as a checkout is: the built-in pictures in sample_images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample_images").symlink_to(ROOT / "sample_images")
    return tmp_path


def program(app: AppTest) -> str:
    """The program that the page offers: the only block of code that begins with an import."""
    found = [block.value for block in app.code if block.language == "python"
             and block.value.startswith(("import ", "from "))]
    assert len(found) == 1
    return str(found[0])


def commands(app: AppTest) -> list[list[str]]:
    """The commands that the page offers, as words."""
    lines = [shlex.split(block.value) for block in app.code if block.value.startswith("bra ")]
    return [words[1:] for words in lines]


# Explore --------------------------------------------------------------------------------------------------


def same_as_the_page(app: AppTest, folder: Path, name: str = "", role: int = 0) -> None:
    """A query's routing in the program is that of the stage, and its attention is what the page's map sums to."""
    header, arrays = message(app, "stage")
    text = program(app)
    r_idx, r_weight, attention = ran(text, f"[t.clone() for t in ({name}r_idx, {name}r_weight, {name}attention)]",
                                     folder)
    (window,) = (int(found) for found in re.findall(rf"^{name}r_idx,.* = (?:indices|layer\.r_idx)\[0, (\d+)\]", text,
                                                    re.MULTILINE))
    np.testing.assert_array_equal(arrays["r_idx"][window], r_idx)
    np.testing.assert_allclose(arrays["r_weight"][window], r_weight, atol=1e-5)
    mean = attention.flatten(0, -2).mean(0)         # over heads, and over tokens where all are asked
    by_window = mean.view(len(r_idx), -1).sum(1)
    drawn, n = maps(figures(app)[0])[2 * role], header["grid"]["n_win"]
    h, w = -(-drawn.shape[0] // n), -(-drawn.shape[1] // n)
    for mass, at in zip(by_window.tolist(), r_idx.tolist(), strict=True):
        row, column = divmod(at, n)
        shown = drawn[row * h:(row + 1) * h, column * w:(column + 1) * w].sum()
        assert shown == pytest.approx(mass, abs=2e-3)


QUERIES = {
    "BiFormer": {}, "other windows": {"model": "flowers", "layer": "stages.1.0.attn", "changed": "1", "n_win": "4",
                                      "topk": "3", "a": "3000.4000"},
    "YOLO": {"model": "cells", "picture": "smear", "layer": "model.19.attn", "a": "5200.6100", "whole": "1"},
    "patches": {"model": "similarity", "n_win": "5", "topk": "6", "num_heads": "4", "a": "100.9900"}}


@pytest.mark.parametrize("family", QUERIES)
def test_the_program_and_the_command_of_explore(app: AppTest, folder: Path, family: str) -> None:
    ask(app, side="224", **QUERIES[family])
    same_as_the_page(app, folder)
    (words,) = commands(app)
    assert main(words) == 0
    windows = re.search(r"n_win \d+ · topk \d+", message(app, "stage")[0]["caption"])
    assert windows is not None
    assert windows[0] in (folder / "report.html").read_text(encoding="utf-8")


def test_two_queries_are_both_in_the_program(app: AppTest, folder: Path) -> None:
    ask(app, model="flowers", side="224", layer="stages.1.0.attn", a="2000.2000", b="8000.7000")
    same_as_the_page(app, folder)
    same_as_the_page(app, folder, "b_", 1)


def test_another_routing_of_the_layer_is_in_the_program(app: AppTest, folder: Path) -> None:
    app.session_state["explore_tabs"] = "Look elsewhere"
    ask(app, model="flowers", side="224", layer="stages.1.0.attn", a="2000.2000", b="9500.9500", elsewhere="swap",
        changed="1", n_win="6", topk="3")
    shown = app.dataframe[0].value
    found = ran(program(app), "[(row.before, row.after) for row in found.rows]", folder)
    np.testing.assert_allclose(100 * np.array(found), shown[["before", "afterwards"]].to_numpy(), atol=1e-3)
    assert "Swap(" in program(app)


def test_masked_padding_is_in_the_program_and_a_command_that_cannot_say_it_is_not_offered(app: AppTest,
                                                                                          folder: Path) -> None:
    ask(app, model="flowers", side="224", layer="stages.1.0.attn", changed="1", n_win="6", topk="4", mask_padding="1")
    assert "mask_padding=True" in program(app)
    same_as_the_page(app, folder)
    assert commands(app) == []


def test_the_program_of_ones_own_checkpoint_and_of_a_file_of_rows(app: AppTest, folder: Path) -> None:
    write_checkpoint(YOLO("yolov8n-bra-p5.yaml").model, folder / "my best.pt")
    ask(app, model="own", side="224", picture="still_life")
    upload(app, "my best.pt", (folder / "my best.pt").read_bytes(), "")
    same_as_the_page(app, folder)
    (words,) = commands(app)
    assert words[words.index("--model") + 1] == "my best.pt"
    assert main(words) == 0
    (folder / "mine.yaml").write_bytes((CFG / "yolov8-bra-p5.yaml").read_bytes())
    upload(app, "mine.yaml", (folder / "mine.yaml").read_bytes(), "")
    same_as_the_page(app, folder)


def test_the_program_of_a_recording(app: AppTest, folder: Path) -> None:
    torch.manual_seed(0)
    record(KINDS[0].make().eval(), torch.rand(1, 3, 64, 96), folder / "run.bra")
    ask(app, model="own")
    upload(app, "run.bra", (folder / "run.bra").read_bytes(), "")
    assert "bra.load('run.bra')" in program(app)
    same_as_the_page(app, folder)
    app.toggle(key="changed").set_value(True).run()
    app.slider(key="topk").set_value(2).run()
    assert "topk=2" in program(app)
    same_as_the_page(app, folder)


# The other pages ------------------------------------------------------------------------------------------


def page(app: AppTest, name: str, **query: str) -> AppTest:
    return ask(app.switch_page(f"views/{name}.py"), **query)


@pytest.mark.parametrize("family", [{"model": "similarity", "n_win": "5"}, {"model": "flowers"}, {"model": "cells"}],
                         ids=["patches", "BiFormer", "YOLO"])
def test_the_table_of_compare_as_a_program_and_a_command(app: AppTest, folder: Path, family: dict[str, str],
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    page(app, "compare", side="224", rows="4.5", columns="1.4", equal="1", cost="peak_bytes", **family)
    shown = app.dataframe[0].value
    found = ran(program(app), "[(r.n_win, r.topk, 100 * r.recall, 100 * r.nearest) for r in rows]", folder)
    np.testing.assert_allclose(np.array(found), shown[["n_win", "topk", "keeps", "nearest"]].to_numpy(), atol=1e-3)
    (words,) = commands(app)
    capsys.readouterr()
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"\b{row.n_win}\b.*\b{row.topk}\b.*{row.keeps:.1f}", printed) for row in shown.itertuples())


def test_a_against_b_as_a_program(app: AppTest, folder: Path) -> None:
    page(app, "compare", tab="versus", model="flowers", side="224", b_model="similarity", b_n_win="6", b_topk="5")
    rows = app.dataframe[0].value
    recalls, shared = ran(program(app), "([100 * r.recall for r in pair.rows], 100 * float(pair.shared.union_share["
                                        "pair.shared.union_share == pair.shared.union_share].mean()))", folder)
    assert [rows.loc[0, side] for side in "AB"] == [f"{value:.1f} %" for value in recalls]
    assert any(f"**{shared:.0f} %**" in block.value for block in app.markdown)


def test_the_probes_as_a_program_and_a_command(app: AppTest, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page(app, "compare", tab="probes", model="similarity", side="224", stride="16")
    shown = app.dataframe[0].value
    survived = ran(program(app), "[100 * r.survived for r in rows]", folder)
    np.testing.assert_allclose(survived, shown["survives"].astype(float), atol=1e-3)
    (words,) = commands(app)
    capsys.readouterr()
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert all(f"{value:.1f} %" in printed for value in survived if value == value)


def test_other_ways_to_choose_as_a_program_and_a_command(app: AppTest, folder: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    page(app, "compare", tab="rules", model="similarity", side="224", stride="16", n_win="5", topk="6")
    shown = app.dataframe[0].value
    kept = ran(program(app), "[100 * r.recall for r in sorted(rows, key=lambda r: -r.recall)]", folder)
    np.testing.assert_allclose(kept, shown["keeps"].astype(float), atol=1e-3)
    (words,) = commands(app)
    (folder / "FOLDER").mkdir()
    shutil.copy(ROOT / "sample_images" / "animal.jpg", folder / "FOLDER")
    capsys.readouterr()
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert all(f"{value:.1f} %" in printed for value in kept)


def test_the_command_of_many_pictures_makes_the_table_that_the_page_opens(app: AppTest, folder: Path) -> None:
    page(app, "compare", tab="sweeps", model="similarity", side="224", n_win="5", stride="16", rows="4", columns="1.2")
    (words,) = commands(app)
    (folder / "FOLDER").mkdir()
    shutil.copy(ROOT / "sample_images" / "animal.jpg", folder / "FOLDER")
    assert main(words) == 0
    data = (folder / "sweep" / "rows.parquet").read_bytes()
    assert ModelSettings(**read_table(data).about["settings"]).n_win == 5
    (folder / "rows.parquet").write_bytes(data)
    app.get("file_uploader")[-1].set_value(("rows.parquet", data, "")).run()
    assert not app.exception
    shown = app.dataframe[0].value
    found = ran(program(app), "[100 * r.recall for r in rows]", folder)
    np.testing.assert_allclose(found, shown["keeps"].astype(float), atol=1e-3)


@pytest.mark.parametrize("query", [{"model": "yolo"}, {"model": "flowers"}, {"model": "similarity"}],
                         ids=["YOLO", "BiFormer", "patches"])
def test_the_table_of_cost_as_a_program_and_a_command(app: AppTest, folder: Path, query: dict[str, str],
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    page(app, "cost", cost_height="320", cost_width="256", cost_n_win="5", cost_topk="3", cost_narrow="2",
         cost_tab="otherwise", **query)
    macs, params, others = ran(program(app), "(cost.total.macs, cost.total.params, [o.total.macs for o in others])",
                               folder)
    against = next(one.value for one in app.dataframe if "second setting" in one.value.to_string())
    line = against.iloc[:, 1:].to_numpy()
    assert {macs, *others} <= {int(value) for value in line.flatten() if isinstance(value, (int, np.integer, float))
                               and value == value}
    (words,) = commands(app)
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert counted["total"]["macs"] == macs
    assert counted["total"]["params"] == params


def test_patches_with_settings_of_their_own_have_a_program_for_cost_and_no_command(app: AppTest, folder: Path) -> None:
    page(app, "cost", model="similarity", layer="layers.1", n_win="5", topk="2", cost_height="224", cost_width="224")
    assert "n_win=5" in program(app)
    assert commands(app) == []


@pytest.mark.parametrize("name", cards())
def test_the_program_of_a_card(app: AppTest, folder: Path, name: str) -> None:
    page(app, "models", card=name)
    title, verdict = ran(program(app), "(str(card.title), [str(one) for one in card.verdict])", folder)
    shown = [block.value for block in app.markdown]
    assert any(title in one for one in shown)
    assert all(any(one in text for text in shown) for one in verdict)


def lesson(app: AppTest, **query: str) -> AppTest:
    return page(app, "learn", **query)


@pytest.mark.parametrize(("step", "keep", "form"), [
    (1, "[growth.pairs, growth.routed_pairs]", quantity), (3, "list(found.after) + [found.change]", percent),
    (4, "[found.rows[1].recall, found.rows[1].nearest]", percent), (5, "[found.of_map, found.of_attention]", percent),
    (6, "[found.recall, found.recall_nearest]", percent), (7, "[found.attention, found.at_random]", percent)])
def test_the_program_of_a_chapter(app: AppTest, folder: Path, step: int, keep: str, form: Callable[[Any], str]) -> None:
    lesson(app, step=f"{step}", learn_cut="5" if step == 4 else "")
    values = ran(program(app), keep, folder)
    words = [*(block.value for block in app.markdown), *(text for one in figures(app) for text in texts(one))]
    assert all(any(form(value) in word for word in words) for value in values), (values, words)


@pytest.mark.parametrize("query", [{"step": "2", "learn_topk": "3"},
                                   {"part": "predict", "step": "3", "learn_who": "trained"},
                                   {"part": "photo", "step": "5"}], ids=["a chapter", "a guess", "on a photograph"])
def test_the_routing_of_the_lesson_as_a_program(app: AppTest, folder: Path, query: dict[str, str]) -> None:
    lesson(app, **query)
    text = program(app)
    r_idx = ran(text, "r_idx", folder)
    window = int(re.findall(r"indices\[0, (\d+)\]", text)[0])
    if query.get("part") == "predict":      # the picture itself does not give the answer away
        layers = look(ModelSettings("flowers", side=320), Photo.from_bytes((ROOT / "sample_images" / "animal.jpg")
                                                                           .read_bytes())).trace.layers
        expected = [lt for lt in layers.values() if lt.routed][1].r_idx[0, window].numpy()
    else:
        name = "stage" if query.get("part") == "photo" else "lesson_picture"
        expected = message(app, name)[1]["r_idx"][window]
    np.testing.assert_array_equal(expected, r_idx)


def test_the_program_of_the_worked_example(app: AppTest, folder: Path) -> None:
    lesson(app, part="example", step="5")
    r_idx, attn = ran(program(app), "(r_idx, attn)", folder)
    made = run_example()
    assert torch.equal(r_idx, made.r_idx)
    assert torch.allclose(attn, made.attention[0].transpose(0, 1))


def link(app: AppTest) -> dict[str, str]:
    """Parameters of the link that the page offers."""
    (found,) = [block.value for block in app.code if block.language == "plaintext" and "bra " not in block.value]
    return dict(parse_qsl(found.partition("?")[2]))


@pytest.mark.parametrize("name", ["explore", "compare", "cost", "models", "learn"])
def test_every_page_offers_the_link_that_brings_its_view_back(app: AppTest, name: str) -> None:
    query = {"model": "flowers", "side": "224", "cost_height": "320", "rows": "4.5", "step": "3", "card": "cells"}
    app = lesson(app, **query, present="0") if name == "learn" else page(app, name, **query)
    shared = link(app)
    assert "present" not in shared
    if name in ("models", "learn"):     # these have a link of their own
        assert shared.items() >= {"models": {"card": "cells"}, "learn": {"step": "3"}}[name].items()
    else:
        assert shared.items() >= {"model": "flowers", "side": "224", "cost_height": "320", "rows": "4.5"}.items()
    again = AppTest.from_file(str(APP), default_timeout=120)
    assert link(lesson(again, **shared) if name == "learn" else page(again, name, **shared)) == shared


# What texts and cards offer -------------------------------------------------------------------------------


def test_the_commands_in_the_texts_of_pages_run(folder: Path) -> None:
    # The chapters on use name commands in passing; what they print whole is run with the README's.
    found = {line for path in (ROOT / "dashboard" / "text").glob("*/*.md")
             if path.stem not in ("own_model", "python", "training")
             for line in re.findall(r"`(bra [^`]+)`", path.read_text(encoding="utf-8"))}
    assert found
    shutil.copy(ROOT / "sample_images" / "animal.jpg", "photo.jpg")
    model = biformer_tiny()
    torch.save({"model": model.state_dict()}, "biformer_tiny_best.pth")
    for line in found:
        assert main(shlex.split(line)[1:]) == 0
