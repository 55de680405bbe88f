"""A view as a command and as a program: both are run, and what they give is what the page shows."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from programs import ran

import bra
from bra.cli.main import main
from bra.experiments.compare import compare, layer_input, settings_of
from bra.experiments.probes import probe
from bra.experiments.sweep_table import read_table
from bra.models.catalog import CATALOG, ModelSettings
from bra.opening import open_file, open_model
from bra.photo import Photo
from bra.reports import code
from bra.tracing import LayerTrace

PICTURE = Path(__file__).parents[3] / "sample_images" / "animal.jpg"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(PICTURE, "photo.jpg")
    return tmp_path


def photo() -> Photo:
    return Photo.from_bytes(PICTURE.read_bytes())


def same(program: str, expected: LayerTrace, window: int, token: int | None, folder: Path) -> None:
    r_idx, r_weight, attention = ran(program, "(r_idx.clone(), r_weight.clone(), attention.clone())", folder)
    assert torch.equal(r_idx, expected.r_idx[0, window])
    assert torch.allclose(r_weight, expected.r_weight[0, window], atol=1e-5)
    rows = expected.attention(window, token)
    assert attention.shape == rows.shape
    assert torch.allclose(attention, rows, atol=1e-5)


# programs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "layer", "token"), [
    (ModelSettings("flowers", side=224), "stages.2.2.attn", 3),
    (ModelSettings("flowers", side=224, changed=True, n_win=4, topk=3), "stages.1.0.attn", None),
    (ModelSettings("flowers", side=224, untrained=True), "stages.3.0.attn", 1),
    (ModelSettings("cells", side=224), "model.19.attn", 2),
    (ModelSettings("similarity", side=224, n_win=5, topk=6, num_heads=4, mask_padding=True), "layers.1", None)],
    ids=["BiFormer", "other windows", "full attention", "YOLO", "patches"])
def test_the_program_of_a_query_makes_the_numbers_of_the_page(settings: ModelSettings, layer: str, token: int | None,
                                                              folder: Path) -> None:
    if settings.entry.family == "yolo":
        pytest.importorskip("ultralytics")
    found = open_model(settings.opens).look(photo(), settings.side, settings.change_of(layer)).trace.layers[layer]
    program = code.explore_code(settings, layer, 7, token, routed=found.routed)
    assert ("ret_attn_mask=True" in program) == found.routed
    assert len(program.splitlines()) <= 15
    same(program, found, 7, token, folder)


def test_the_program_of_a_file_of_ones_own(folder: Path) -> None:
    pytest.importorskip("ultralytics")
    rows = "nc: 3\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, BiLevelRoutingAttention, [4, 2]]\nhead:\n" \
           "  - [[1], 1, Detect, [nc]]\n"
    name = "it's mine.yaml"
    (folder / name).write_text(rows)
    settings = ModelSettings("own", side=128)
    found = open_file(rows.encode(), name).look(photo(), 128).trace.layers["model.1"]
    same(code.explore_code(settings, "model.1", 5, 0, file=name), found, 5, 0, folder)


def test_the_program_of_a_recording(folder: Path) -> None:
    program = code.recording_code("run.bra", "model.1", 5, 2)
    assert "bra.load('run.bra').layers['model.1']" in program
    layer = bra.BiLevelRoutingAttention(16, 4, 2, topk=3).eval()
    x = torch.rand(1, 16, 16, 16)
    bra.record(layer, x, "run.bra")
    found = bra.trace(layer, x).layers[""]
    kept = ran(code.recording_code("run.bra", "", 5, 2), "(r_idx.clone(), attention.clone())", folder)
    assert torch.equal(kept[0], found.r_idx[0, 5])
    assert torch.allclose(kept[1], found.attention(5, 2), atol=1e-3)


def test_the_programs_of_the_other_pages(folder: Path) -> None:
    settings = ModelSettings("similarity", side=128)
    model = open_model(settings.opens)
    rows = compare(layer_input(model, photo(), 128, "layers.1"), settings_of((3, 4), (1, 4))).rows
    found = ran(code.compare_code(settings, "layers.1", (3, 4), (1, 4)), "[(r.recall, r.macs) for r in rows]", folder)
    assert found == [(pytest.approx(row.recall), row.macs) for row in rows]
    survived = ran(code.probe_code(settings), "[r.survived for r in rows]", folder)
    assert survived == pytest.approx([row.survived for row in probe(model, photo(), 128)], nan_ok=True)
    macs = ran(code.cost_code(settings, (96, 128)), "cost.total.macs", folder)
    assert macs == bra.cost(model, (96, 128)).total.macs


# commands -------------------------------------------------------------------------------------------------

SETTINGS = ModelSettings("similarity", n_win=2, topk=3, side=96, stride=16, num_heads=4, kv_downsample_mode="avgpool",
                         mask_padding=True)


def run(line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "bra"
    assert main(words) == 0


def test_the_command_of_a_sweep_is_of_the_model_of_the_view(folder: Path) -> None:
    (folder / "my photos").mkdir()
    shutil.copy(PICTURE, "my photos")
    run(code.sweep_command(SETTINGS, (2, 3), (1, 4), 3, ("layers.1",), folder="my photos", jobs=1))
    table = read_table(Path("sweep/rows.parquet").read_bytes())
    about = table.about["settings"]
    assert ModelSettings(**about) == SETTINGS
    given = layer_input(open_model(SETTINGS.opens), photo(), 96, "layers.1")
    rows = compare(given, settings_of((2, 3), (1, 4), 3)).rows
    assert sorted(table.rows["recall"].to_pylist()) == pytest.approx(sorted(row.recall for row in rows), abs=1e-5)


def test_the_other_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(code.compare_command(SETTINGS, (2,), (1, 2), layer="layers.1", cost="peak_bytes"))
    run(code.probe_command(SETTINGS))
    run(code.inspect_command(replace(SETTINGS, n_win=3, topk=2), "layers.1"))
    run(code.cost_command(ModelSettings("similarity"), (96, 128)))
    assert code.cost_command(SETTINGS, (96, 128)) == "", "of patches the command knows the usual settings alone"
    assert "n_win 3 · topk 2" in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", CATALOG)
@pytest.mark.parametrize("untrained", [False, True])
def test_a_command_names_model_side_and_weights(key: str, untrained: bool) -> None:
    settings = ModelSettings(key, side=320, untrained=untrained)
    words = shlex.split(code.sweep_command(settings, (4,), (1,), file="my best.pt"))
    name = {"own": "my best.pt", "yolo": "yolov8n-bra", "biformer": "biformer_tiny", "stock": "yolo11n"}.get(key, key)
    assert words[words.index("--model") + 1] == name
    assert words[words.index("--side") + 1] == "320"
    assert ("--untrained" in words) == untrained
