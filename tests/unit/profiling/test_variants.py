"""A model without its BRA layers costs what the model that it was put into costs; other settings what they say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bra
from bra.errors import SpecError
from bra.models.biformer import biformer_tiny
from bra.profiling.variants import with_full_attention, with_settings, without_bra


@pytest.mark.parametrize(("name", "base"), [
    ("yolov8n-bra", "yolov8n"), ("yolov8n-bra-residual", "yolov8n"), ("yolov8n-bra-c2f", "yolov8n"),
    ("yolov8n-bra-p3", "yolov8n"), ("yolo11n-bra-p5", "yolo11n"), ("yolo11n-bra", "yolo11n")])
def test_without_bra_a_yolo_is_the_yolo_it_was(name: str, base: str) -> None:
    pytest.importorskip("ultralytics")
    from bra.yolo.adapter import open_named

    model, plain = open_named(name, "", "").module, open_named(base, "", "").module
    left, whole = bra.cost(without_bra(model), 160), bra.cost(plain, 160)
    assert [(row.name, row.params, row.macs, row.given) for row in left.rows] == \
        [(row.name, row.params, row.macs, row.given) for row in whole.rows]
    assert without_bra(model).save == sorted(set(plain.save))
    assert bra.cost(model, 160).total.macs > left.total.macs


def test_a_row_read_from_afar_and_a_repeated_one_are_passed_through() -> None:
    pytest.importorskip("ultralytics")
    from bra.yolo.build import build_checked

    rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [0, 2, "BRABlock", []],
            [-1, 1, "Conv", [16, 3, 2]], [[-1, 1], 1, "Concat", [1]]]
    model = build_checked({"nc": 3, "backbone": rows, "head": [[[-1], 1, "Detect", ["nc"]]]})
    left = without_bra(model)
    assert [row.f for row in left.model] == [-1, -1, 0, [-1, 1], [-1]]
    assert [row.i for row in left.model] == list(range(5))
    assert left.save == [0, 1]
    assert [row.f for row in model.model][:5] == [-1, -1, 0, -1, [-1, 1]]
    assert bra.cost(left, 64).rows[2].given == bra.cost(model, 64).rows[3].given == ((1, 16, 32, 32),)


def test_what_is_left_runs_and_the_model_is_as_it_was() -> None:
    layer = bra.BiLevelRoutingAttention(32, n_win=4, topk=2)
    model = nn.Sequential(nn.Conv2d(3, 32, 1), layer).eval()
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(without_bra(model)(x), model[0](x))
    assert model[1] is layer
    assert without_bra(model)[0].weight is model[0].weight


def test_full_attention_and_other_settings_cost_what_their_formula_says() -> None:
    model = biformer_tiny().eval()
    full = bra.cost(with_full_attention(model), 224)
    assert all(layer.spec.topk == layer.spec.n_windows for row in full.rows for layer in row.layers)
    assert full.total.macs > bra.cost(model, 224).total.macs
    assert full.total.params == bra.cost(model, 224).total.params
    narrow = bra.cost(with_settings(model, qk_dim=32, num_heads=2), 224)
    assert narrow.total.params < full.total.params
    with pytest.raises(SpecError, match="topk=50"):
        with_settings(model, topk=50)


def test_layers_that_get_weights_get_no_memory() -> None:
    plain = {"n_win": 1, "topk": 1, "num_heads": 1, "side_dwconv": 0}
    small = nn.Sequential(nn.Conv2d(3, 16, 1), bra.BiLevelRoutingAttention(16, **plain))
    for changed in (with_settings(small, n_win=2), with_full_attention(small), with_settings(small[1], n_win=2)):
        assert {p.is_meta for name, p in changed.named_parameters() if not name.startswith("0.")} == {True}
    model = nn.Sequential(*(bra.BiLevelRoutingAttention(65_536, param_attention="none", **plain) for _ in range(20)))
    cost = bra.cost(with_settings(model, param_attention="qkvo", n_win=2), 4, channels=65_536)      # 1.4 TB
    assert cost.total.params == 20 * (4 * 65_536**2 + 4 * 65_536)
    assert cost.total.macs > 20 * 16 * 4 * 65_536**2
    assert next(model.parameters(), None) is None


def test_without_memory_a_model_costs_what_it_costs_with() -> None:
    options = {"n_win": 4, "topk": 2, "kv_downsample_mode": "conv", "kv_downsample_ratio": 2}
    model = nn.Sequential(nn.Conv2d(3, 32, 1), bra.BiLevelRoutingAttention(32)).eval()
    real = nn.Sequential(model[0], bra.BiLevelRoutingAttention(32, **options)).eval()
    assert bra.cost(with_settings(model, **options), 16).to_dict() == bra.cost(real, 16).to_dict()
    assert model[1].wo.weight.device.type == "cpu"
    assert with_settings(model, **options)[0].weight is model[0].weight
