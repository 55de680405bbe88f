"""The cost of Ultralytics models: one row per row of the file, as torch counts it, beside what Ultralytics prints."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("ultralytics")
import thop
from ultralytics import YOLO
from ultralytics.utils.torch_utils import get_flops

import bra
import bra.yolo
from bra.cli.main import main
from bra.errors import CostError
from bra.profiling import meter
from bra.profiling.advice import positions
from bra.yolo.ultralytics_flops import network_of, reported_flops

FILES = sorted(path.stem for path in bra.yolo.CFG.glob("*.yaml"))


def at_scale(stem: str, scale: str = "n") -> torch.nn.Module:
    head, _, tail = stem.partition("-")
    return network_of(f"{head}{scale}-{tail}.yaml").eval()


@pytest.mark.parametrize("stem", FILES)
def test_every_shipped_model_is_counted_as_torch_counts_it(stem: str) -> None:
    model = at_scale(stem)
    counted = {size: bra.cost(model, size) for size in (320, 640, (736, 416))}
    strides = model.model[-1].stride
    model.to("meta").model[-1].stride = strides      # whose values the forward asks for
    for size, cost in counted.items():
        sides = (size, size) if isinstance(size, int) else size
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, *sides, device="meta"))
        assert 2 * cost.total.macs == 2 * cost.total.executed_macs == counter.get_total_flops(), size
        assert sum(row.macs for row in cost.rows) == cost.total.macs
        assert sum(row.params for row in cost.rows) == cost.total.params == sum(p.numel() for p in model.parameters())
        for row in cost.rows:
            assert not row.parts or sum(part.macs for part in row.parts) == row.macs
            assert not row.parts or sum(part.params for part in row.parts) == row.params


def test_rows_are_the_rows_of_the_file() -> None:
    cost = bra.cost(YOLO("yolov8n-bra.yaml"), 640)
    assert len(cost.rows) == 26
    assert [row.name for row in cost.rows if row.layers] == [
        "15 BiLevelRoutingAttention", "19 BiLevelRoutingAttention", "23 BiLevelRoutingAttention"]
    assert [row.name for row in cost.rows[9:12]] == ["9 SPPF", "10 Upsample", "11 Concat"]
    assert cost.rows[11].given == ((1, 256, 40, 40), (1, 128, 40, 40))
    assert cost.rows[15].returned == ((1, 192, 80, 80),)
    assert 2 * cost.total.macs / 1e9 == pytest.approx(15.24, abs=0.005)
    assert {"silu", "batch_norm", "upsample_nearest2d", "topk", "cat"} <= {one.name for one in cost.not_counted}


def test_attention_inside_a_row_is_its_parts() -> None:
    row = bra.cost(at_scale("yolov8-bra-c2f"), 640).rows[15]
    assert row.name == "15 C2fBRA"
    assert row.parts[0].name == "attn.0.attn qkv"
    assert row.parts[0].macs == 84 * 84 * 32 * 96
    assert row.parts[-1].name == "rest"


def test_repeated_rows_stay_one(tmp_path: Path) -> None:
    text = (bra.yolo.CFG / "yolov8-bra-p5.yaml").read_text()
    path = tmp_path / "yolov8x-twice.yaml"
    path.write_text(text.replace("[-1, 1, BiLevelRoutingAttention, []]", "[-1, 2, BiLevelRoutingAttention, []]"))
    cost = bra.cost(YOLO(str(path)), 320)
    assert len(cost.rows) == 24
    assert [part.name for part in cost.rows[10].parts][:7:6] == ["0 qkv", "1 qkv"]
    assert cost.rows[10].name == "10 BiLevelRoutingAttention"


def test_ultralytics_figure_stands_beside_ours_and_is_explained() -> None:
    plain, ours = network_of("yolov8n.yaml"), at_scale("yolov8-bra-p5")
    before = {name: set(vars(m)) for name, m in ours.named_modules()}
    base, more = reported_flops(plain, bra.cost(plain, 640)), reported_flops(ours, bra.cost(ours, 640))
    assert {name: set(vars(m)) for name, m in ours.named_modules()} == before
    # Without attention nothing depends on the size, so extrapolating is exact.
    assert base.extrapolated == pytest.approx(0, abs=1e-6)
    # One row at P5 is 0.251 GFLOPs, twice 125.365 M multiply-adds.
    assert more.ours - base.ours == pytest.approx(0.25073, abs=1e-5)
    assert more.direct - base.direct == pytest.approx(0.25073, abs=1e-5)
    assert more.extrapolated != pytest.approx(0, abs=0.01)
    assert more.printed == pytest.approx(more.ours + more.other_operators + more.extrapolated)
    assert f"{more.printed:.3f} GFLOPs" in str(more)
    assert "extrapolates" in str(more)
    assert "extrapolating from small images changes nothing" in str(base)


def test_a_row_costs_at_its_position_what_it_costs_in_the_model() -> None:
    base, with_row = bra.cost(network_of("yolov8n.yaml"), 640), bra.cost(at_scale("yolov8-bra-p5"), 640)
    at = {place.after: place for place in positions(base)}
    assert len(at) == 22
    after = at["9 SPPF"]
    assert after.layer is not None
    assert with_row.total.macs - base.total.macs == after.layer.macs
    assert with_row.total.params - base.total.params == after.layer.params
    early = at["2 C2f"].layer
    assert early is not None
    assert early.macs > 10 * after.layer.macs
    assert early.params < after.layer.params / 50


@pytest.mark.parametrize("stem", ["yolov8-bra", "yolo11-bra"])
def test_models_are_counted_without_running_them_for_real(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count, ways = meter._metered, []
    monkeypatch.setattr(meter, "_metered", lambda *given, stand_ins: ways.append(stand_ins) or count(
        *given, stand_ins=stand_ins))
    assert bra.cost(at_scale(stem), 1280).total.peak_bytes > 2**27
    assert ways == [True]


def test_a_size_that_strides_do_not_divide_is_refused() -> None:
    with pytest.raises(CostError, match=r"does not run on an input of 1×3×650×650 .* such as 640"):
        bra.cost(network_of("yolov8n.yaml"), 650)


def test_the_command_takes_yolo_files(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["cost", "yolov8n-bra-p5.yaml", "--imgsz", "320", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 24
    monkeypatch.setenv("COLUMNS", "1000")
    assert main(["cost", "yolov8n-bra-p5.yaml", "--imgsz", "320"]) == 0
    *_, pays, where, needs, ultralytics = capsys.readouterr().out.splitlines()
    # One layer of 256 channels: 4c² + 14c parameters.
    assert f"BRA adds {(4 * 256**2 + 14 * 256) / 1e6:.2f}\u00a0M" in pays
    assert "100.0\u00a0% are in 10 BRA, 10×10 tokens of 256 channels" in where
    assert "beside the weights" in needs
    assert "Ultralytics prints" in ultralytics
    assert main(["cost", "none.yaml"]) == 2
    assert main(["cost", "none.pt"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_without_its_counter_ultralytics_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "thop", None)
    model = at_scale("yolov8-bra-p5")
    assert "prints no GFLOPs" in str(reported_flops(model, bra.cost(model, 320)))


@pytest.mark.parametrize("stem", ["yolov8-bra-residual", "yolo11-bra-c2f"])
def test_asking_ultralytics_multiplies_nothing_and_changes_no_figure(
        stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watched(model: torch.nn.Module, size: list[int]) -> float:
        asked.append({p.device.type for p in model.parameters()})
        return float(get_flops(model, size))

    monkeypatch.setattr("bra.yolo.ultralytics_flops.get_flops", watched)
    model, size = at_scale(stem), (96, 160)
    counted = reported_flops(model, bra.cost(model, size))
    assert asked == [{"meta"}]
    assert counted.printed == get_flops(copy.deepcopy(model), list(size))
    really, _ = thop.profile(copy.deepcopy(model), inputs=[torch.rand(1, 3, *size)], verbose=False)
    assert counted.direct == pytest.approx(2 * really / 1e9, rel=1e-12)
    assert {p.device.type for p in model.parameters()} == {"cpu"}
