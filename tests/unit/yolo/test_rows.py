"""Rows of a YAML file: the channels they get, the options they take, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics")
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.nn.modules import block

import bra.yolo
from bra import attention
from bra.errors import YoloError
from bra.yolo.registration import ParseModel
from bra.yolo.rows import options_of, resolve, rows_of, spec_of, with_rows

FILES = sorted(path.stem for path in bra.yolo.CFG.glob("*.yaml"))


def scaled(stem: str, scale: str) -> dict[str, Any]:
    head, _, tail = stem.partition("-")
    model: dict[str, Any] = tasks.yaml_model_load(f"{head}{scale}-{tail}.yaml" if tail else f"{head}{scale}.yaml")
    return model


def on_meta(model: dict[str, Any]) -> torch.nn.Sequential:
    with torch.device("meta"):
        layers, _ = tasks.parse_model(copy.deepcopy(model), 3, verbose=False)
    return layers


def with_row(row: list[Any], scale: str = "n") -> dict[str, Any]:
    """YOLOv8 with one more row at the end of the neck: row 22, after 256 channels at scale n."""
    model = scaled("yolov8", scale)
    model["head"].insert(-1, row)
    return model


def params(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("scale", "channels"), [("n", 256), ("s", 512), ("m", 576), ("l", 512), ("x", 640)])
@pytest.mark.parametrize("args", [[], [8], [7, 8], [{"n_win": 5, "topk": 8}], [7, {"num_heads": 4}]], ids=str)
def test_a_row_gets_its_channels(scale: str, channels: int, args: list[Any]) -> None:
    layer = on_meta(with_row([-1, 1, "BiLevelRoutingAttention", args], scale))[22]
    assert type(layer) is bra.yolo.BiLevelRoutingAttention
    assert layer.dim == channels
    assert params(layer) == 4 * channels**2 + 14 * channels
    named = args[-1] if args and isinstance(args[-1], dict) else {}
    assert layer.n_win == (named.get("n_win") or (args[0] if args and isinstance(args[0], int) else 7))
    assert (layer.topk, layer.num_heads) == (named.get("topk", 4), named.get("num_heads", 8))


@pytest.mark.parametrize(("source", "channels"), [(15, 64), (-7, 64), (9, 256), (4, 64), (20, 384), (0, 16)])
def test_a_row_reads_from_where_it_says(source: int, channels: int) -> None:
    assert on_meta(with_row([source, 1, "BiLevelRoutingAttention", []]))[22].dim == channels


def test_repeats_follow_the_depth_of_the_scale() -> None:
    layer = on_meta(with_row([-1, 3, "BiLevelRoutingAttention", []], "l"))[22]
    assert [attn.dim for attn in layer] == [512, 512, 512]


def test_rows_that_follow_get_their_channels_too() -> None:
    model = with_row([15, 1, "BRABlock", []])
    model["head"].insert(-1, [-1, 1, "Conv", [256, 1]])
    model["head"].insert(-1, [-1, 1, "BiLevelRoutingAttention", []])
    layers = on_meta(model)
    assert layers[22].attn.dim == layers[23].conv.in_channels == 64
    assert layers[24].dim == 64


@pytest.mark.parametrize("scale", "nsmlx")
def test_c2f_with_attention_inside_is_a_c2f(scale: str) -> None:
    layers = on_meta(with_row([-1, 3, "C2fBRA", [512, True, {"n_win": 5}]], scale))
    c2f = on_meta(with_row([-1, 3, "C2f", [512, True]], scale))[22]
    assert type(layers[22]) is bra.yolo.C2fBRA
    assert {name for name, _ in c2f.named_parameters()} <= {name for name, _ in layers[22].named_parameters()}
    assert [attn.attn.n_win for attn in layers[22].attn] == [5] * len(c2f.m)
    assert all(one.add == two.add for one, two in zip(layers[22].m, c2f.m, strict=True))


@pytest.mark.parametrize("scale", "nsmlx")
@pytest.mark.parametrize("stem", FILES)
def test_shipped_models_build(stem: str, scale: str) -> None:
    layers = on_meta(scaled(stem, scale))
    assert [m for m in layers.modules() if isinstance(m, attention.BiLevelRoutingAttention)]


def test_parameters_added_by_hand_count() -> None:
    added = {stem: params(on_meta(scaled(stem, "n"))) - params(on_meta(scaled(stem[:6], "n"))) for stem in FILES}
    assert added["yolov8-bra"] == sum(4 * c * c + 14 * c for c in (192, 192, 384)) == 895_488
    # LayerNorm and gate: 3 numbers per channel.
    assert added["yolov8-bra-residual"] == 895_488 + 3 * (192 + 192 + 384)
    assert added["yolov8-bra-p5"] == added["yolo11-bra-p5"] == 265_728
    assert added["yolov8-bra-p3"] == 17_280
    assert added["yolov8-bra-c2f"] == sum(4 * c * c + 17 * c for c in (32, 64, 128))


@pytest.mark.parametrize("scale", "nsmlx")
@pytest.mark.parametrize("stem", ["yolov8", "yolo11"])
def test_models_without_our_rows_are_left_alone(stem: str, scale: str) -> None:
    parser = tasks.parse_model
    assert isinstance(parser, ParseModel)
    with torch.device("meta"):
        plain, _ = parser.original(scaled(stem, scale), 3, verbose=False)
    mine = on_meta(scaled(stem, scale))
    assert [(name, p.shape) for name, p in mine.named_parameters()] == \
        [(name, p.shape) for name, p in plain.named_parameters()]


@pytest.mark.parametrize(("row", "words"), [
    ([-1, 1, "BiLevelRoutingAttention", [256]], ("row 22", "n_win=256", "1 to 64", "write [] or [7]")),
    ([-1, 1, "BiLevelRoutingAttention", [8, 7]], ("row 22", "num_heads=7", "dim=256", "write [7, 8]")),
    ([-1, 1, "BRABlock", [{"topk": 50}]], ("row 22", "topk=50", "1 to n_win² = 49", "lower topk")),
    ([-1, 1, "BRABlock", [{"dim": 256}]], ("row 22", "names dim", "n_win, num_heads", "put in by itself")),
    ([-1, 1, "BRABlock", [7, {"n_win": 7}]], ("row 22", "n_win twice", "keep one")),
    ([-1, 1, "BRABlock", [1] * 17], ("row 22", "17 values", "16 at most")),
    ([-1, 1, "BRABlock", [[7]]], ("row 22", "n_win=[7]", "whole number")),
    ([-1, 1, "BRABlock", ["nc"]], ("row 22", "n_win='nc'", "whole number")),
    ([[4, 6], 1, "BRABlock", []], ("row 22", "reads from [4, 6]", "one row above")),
    ([40, 1, "BRABlock", []], ("row 22", "reads from 40", "one row above")),
    ([-1, 3, "C2fBRA", []], ("row 22", "channels out", "[256, True, {n_win: 5}]")),
    ([-1, 3, "C2fBRA", [512, {"num_heads": 7}]], ("row 22", "num_heads=7", "dim=64")),
], ids=str)
def test_refused_with_row_value_range_and_cure(row: list[Any], words: tuple[str, ...]) -> None:
    with pytest.raises(YoloError) as error:
        on_meta(with_row(row))
    assert all(word in str(error.value) for word in words), error.value


def test_the_image_itself_has_three_channels() -> None:
    model = scaled("yolov8", "n")
    model["backbone"][0] = [-1, 1, "BRABlock", [{"num_heads": 1}]]
    assert on_meta(model)[0].attn.dim == 3


@pytest.mark.parametrize("model", [{}, {"backbone": [], "head": None}, {"backbone": [[1, 2]], "head": []},
                                      {"backbone": [[-1, 1, "BRABlock", 7]], "head": []}], ids=str)
def test_no_model_is_refused(model: dict[str, Any]) -> None:
    with pytest.raises(YoloError, match=r"'backbone:'|a row is"):
        rows_of(model)


def test_strings_mean_what_the_parser_makes_of_them() -> None:
    row = rows_of({"backbone": [[-1, 1, "BRABlock", ["5", 8, "None", {"kv_downsample_mode": "avgpool"}]]], "head": []})
    spec = spec_of(row[0], 64)
    assert (spec.n_win, spec.qk_dim, spec.kv_downsample_mode) == (5, 64, "avgpool")
    assert options_of(row[0])["qk_dim"] is None


def test_resolving_leaves_the_model_as_it_was() -> None:
    model = with_row([-1, 1, "BRABlock", [{"topk": 8}]])
    before = copy.deepcopy(model)
    parser = tasks.parse_model
    assert isinstance(parser, ParseModel)
    resolved = resolve(model, 3, parser.original)
    assert model == before
    assert resolved["head"][-2][3] == [256, 7, 8, None, None, 4, 4, None, "identity", 8]
    assert with_rows(model, rows_of(model)) == model


def test_registering_again_changes_nothing() -> None:
    before = (tasks.parse_model, tasks.check_yaml, tasks.C2fBRA, block.BiLevelRoutingAttention)
    bra.yolo.register()
    assert (tasks.parse_model, tasks.check_yaml, tasks.C2fBRA, block.BiLevelRoutingAttention) == before


def test_an_installation_edited_by_hand_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tasks, "BRABlock")
    with pytest.raises(YoloError, match=r"already holds .* edited by hand .* pip install"):
        bra.yolo.register()


def test_a_local_file_comes_before_ours(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = scaled("yolov8", "n")
    (tmp_path / "yolov8-bra.yaml").write_text(
        f"nc: 2\nscales: {{n: [0.33, 0.25, 1024]}}\nbackbone: {mine['backbone']}\nhead: {mine['head']}\n")
    assert tasks.yaml_model_load("yolov8n-bra.yaml")["nc"] == 2
    assert YOLO("yolov8n-bra.yaml").model.yaml["nc"] == 2
