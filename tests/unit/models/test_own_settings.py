"""A BiFormer from a file has the settings that its author gave it, or says which were assumed."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from chinese import in_chinese
from safetensors.torch import save
from torch import Tensor, nn

from bra import BiLevelRoutingAttention, BRASpec
from bra.cli.main import main
from bra.errors import BRAError, CheckpointError
from bra.messages import message, to_plain
from bra.models.base import FileOptions, OpenModel
from bra.models.biformer import BiFormer
from bra.opening import open_file
from bra.reports.tables import model_line

pytestmark = pytest.mark.slow        # commands and reports of whole models
SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1), "dims": (32, 64, 64, 64), "num_classes": 3}


class Official(nn.Module):
    """What the authors' attention leaves on the object (order dim, num_heads, n_win), with the submodules of ours."""

    __module__ = "ops.bra_legacy"
    __qualname__ = "BiLevelRoutingAttention"

    def __init__(self, ours: BiLevelRoutingAttention, **changed: Any) -> None:
        super().__init__()
        for name in ("dim", "n_win", "num_heads", "qk_dim", "topk", "param_routing", "diff_routing", "soft_routing",
                     "param_attention", "kv_downsample_mode", "kv_per_win", "kv_downsample_ratio"):
            setattr(self, name, getattr(ours.spec, name))
        self.scale, self.auto_pad = ours.spec.scale, False
        for name, part in ours.named_children():
            setattr(self, name, part)
        self.attn_act = nn.Softmax(-1)
        for name, value in changed.items():
            setattr(self, name, value)


def drawn(**options: Any) -> BiFormer:
    """With weights that make every part count."""
    torch.manual_seed(0)
    model = BiFormer(**SMALL | options).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def saved(what: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(what, buffer)
    return buffer.getvalue()


def saved_as_official(model: Any, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The file that an installation of the authors' code writes."""
    module = types.ModuleType("ops.bra_legacy")
    module.BiLevelRoutingAttention = Official       # type: ignore[attr-defined]
    with monkeypatch.context() as theirs:
        theirs.setitem(sys.modules, "ops", types.ModuleType("ops"))
        theirs.setitem(sys.modules, "ops.bra_legacy", module)
        return saved(model)


def same_answer(opened: OpenModel, model: nn.Module) -> None:
    x = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(opened.module(x), model(x), atol=1e-5, rtol=1e-5)


def settings(opened: OpenModel) -> list[tuple[int, int]]:
    return [(spec.n_win, spec.topk) for spec in opened.specs.values()]


def test_a_whole_model_keeps_its_windows_and_says_nothing() -> None:
    model = drawn(n_win=8, topks=(2, 8, 9, -2))
    for whole in (model, {"model": model}, {"model": None, "ema": model, "epoch": 3}):
        opened = open_file(saved(whole), "mine.pth")
        assert settings(opened) == [(8, 2), (8, 8), (8, 9), (8, 9)]
        assert (opened.assumptions, opened.asks, opened.notes) == ((), (), ())
        assert opened.origin == "weights from mine.pth"
        same_answer(opened, model)


def test_a_whole_model_of_the_authors_code_keeps_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pooling, soft routing, heads, q·k width, scale and windows layer by layer: no tensor's name tells them."""
    specs = {
        "stages.0.0.attn": BRASpec(32, 4, 4, topk=3, soft_routing=True, side_dwconv=3),
        "stages.1.0.attn": BRASpec(64, 2, 8, topk=2, kv_downsample_mode="avgpool", kv_downsample_ratio=2),
        "stages.2.0.attn": BRASpec(64, 2, 2, qk_dim=32, topk=1, param_attention="qkv", qk_scale=0.3),
        "stages.2.1.attn": BRASpec(64, 3, 2, topk=5, diff_routing=True, param_routing=True),
        "stages.3.0.attn": BRASpec(64, 1, 2, topk=1)}
    model = drawn(topks=(1, 1, 1, 1), specs=specs)
    wanted = drawn(topks=(1, 1, 1, 1), specs=specs)
    for stage in model.stages:
        for block in stage:
            block.attn = Official(block.attn)
    opened = open_file(saved_as_official(model, monkeypatch), "theirs.pth")
    assert dict(opened.specs) == specs
    assert opened.assumptions == ()
    assert "padded with zeros" in opened.notes[0], "theirs refuses maps that do not fit"
    in_chinese(opened.notes[0])
    same_answer(opened, wanted)


def test_epsilons_and_activations_are_the_file_s_own() -> None:
    model = drawn()
    for block in (block for stage in model.stages for block in stage):
        block.norm1, block.mlp[2] = nn.LayerNorm(len(block.norm1.weight), eps=1e-2), nn.GELU("tanh")
    model.stages[1][0].mlp[2] = nn.ReLU()
    same_answer(open_file(saved(model), "a.pth"), model)
    same_answer_of_published = open_file(saved(model.state_dict()), "a.pth")
    with pytest.raises(AssertionError):
        same_answer(same_answer_of_published, model)


@pytest.mark.parametrize(("change", "words"), [
    (lambda m: setattr(m.stages[0][0], "pre_norm", False), "norm after the attention"),
    (lambda m: setattr(m.downsample_layers[1][0], "stride", (1, 1)), r"has stride=\[1, 1\], and the layer made here"),
    (lambda m: m.stages[0][0].mlp.__setitem__(2, nn.Softmax(-1)), "is Softmax, and the layer made here GELU"),
    (lambda m: setattr(m.stages[3][0].attn, "num_heads", 4), "has num_heads=4, and the layer made here 8"),
    (lambda m: setattr(m.stages[3][0].attn, "scale", 0.5), "has scale=0.5"),
    (lambda m: object.__setattr__(m.stages[0][0].attn.spec, "n_win", 40), "n_win=40: 16 at most"),
    (lambda m: object.__setattr__(m.stages[0][0].attn.spec, "n_win", 0), "n_win=0 is not possible")])
def test_what_cannot_be_shown_as_its_author_s_is_refused(change: Any, words: str) -> None:
    model = drawn()
    change(model)
    with pytest.raises(BRAError, match=words) as caught:
        open_file(saved(model), "a.pth")
    in_chinese(caught.value.args[0])


def test_a_layer_that_keeps_no_heads_is_said_to_have_the_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn(topks=(1, 1, 1, 1))
    for stage in model.stages:
        for block in stage:
            block.attn = Official(block.attn)
            del block.attn.num_heads
    opened = open_file(saved_as_official(model, monkeypatch), "theirs.pth")
    assert opened.assumptions[0] == \
        "stages.0.0.attn keeps no num_heads: the tutorial's defaults are assumed (num_heads=8)"
    assert opened.assumptions[3:] == ("2 more like these",)
    for sentence in opened.assumptions:
        in_chinese(sentence)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_tensors_alone_are_said_to_be_taken_as_published_or_as_given(ending: str) -> None:
    model = drawn(n_win=8, topks=(2, 8, 9, -2))
    data = saved({"model": model.state_dict()}) if ending == "pth" else save(model.state_dict())
    opened = open_file(data, f"a.{ending}")
    assert settings(opened) == [(7, 1), (7, 4), (7, 16), (7, 16)]
    assert "n_win 7, topk 1, 4, 16, 32 channels a head" in opened.assumptions[0]
    assert "assumed as published" in opened.origin
    assert opened.asks == ("n_win", "topks")
    given = open_file(data, f"a.{ending}", options=FileOptions(8, (2, 8, 9, -2)))
    assert settings(given) == [(8, 2), (8, 8), (8, 9), (8, 9)]
    assert "n_win 8 and topk 2, 8, 9 as given" in given.origin
    same_answer(given, model)
    for one in (opened, given):
        assert "只有张量" in in_chinese(one.origin)


def test_a_routed_fourth_stage_opens_once_its_topk_is_given() -> None:
    model = drawn(topks=(1, 4, 9, 9))
    with pytest.raises(CheckpointError, match=r"--topks 1,4,16,16 on the command line"):
        open_file(saved(model.state_dict()), "a.pth")
    same_answer(open_file(saved(model.state_dict()), "a.pth", options=FileOptions(topks=(1, 4, 9, 9))), model)
    same_answer(open_file(saved(model), "a.pth"), model)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "encoder.", "model_ema.", "module.backbone."])
def test_what_stands_before_every_name_is_no_obstacle(prefix: str) -> None:
    model = drawn()
    state = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    opened = open_file(saved({"state_dict": state}), "a.pth")
    assert opened.notes == ()
    same_answer(opened, model)


def test_a_backbone_of_a_larger_model_is_opened_and_the_rest_is_named() -> None:
    model = drawn()
    part = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()
            if not name.startswith(("norm.", "head."))}
    others = {"backbone.extra_norms.0.weight": torch.ones(32), "decode_head.conv.weight": torch.ones(3)}
    opened = open_file(saved(part | others), "a.pth")
    assert "2 other tensors are left out, such as 'backbone.extra_norms.0.weight'" in opened.notes[0]
    assert "no norm after the last stage" in opened.notes[1]
    for note in opened.notes:
        in_chinese(note)
    assert opened.classes == ()
    x = torch.rand(1, 3, 64, 64)
    for ours, theirs in zip(opened.module.stages, model.stages, strict=True):
        assert torch.equal(ours[0].attn.lepe.weight, theirs[0].attn.lepe.weight)
    before = nn.Sequential(*(part for pair in zip(model.downsample_layers, model.stages, strict=True) for part in pair))
    with torch.no_grad():
        torch.testing.assert_close(opened.module(x), before(x).mean((2, 3)))


def test_the_average_of_the_weights_is_taken_where_both_are_there() -> None:
    model, average = drawn(), {name: tensor * 2 for name, tensor in drawn().state_dict().items()}
    both: dict[str, Tensor] = {**model.state_dict(), **{f"model_ema.{name}": one for name, one in average.items()}}
    opened = open_file(saved(both), "a.pth")
    assert torch.equal(opened.module.head.weight, average["head.weight"])
    assert f"{len(average)} tensors under 'model_ema.'" in opened.notes[0]
    for whole in ({"model": model.state_dict(), "model_ema": average}, {"state_dict_ema": average, "state_dict": both}):
        assert torch.equal(open_file(saved(whole), "a.pth").module.head.weight, average["head.weight"])


def test_bare_weights_of_a_yolo_are_called_so() -> None:
    for name in ("model.0.conv.weight", "model.model.0.conv.weight", "module.model.12.cv1.weight"):
        with pytest.raises(CheckpointError, match=r"YOLO model without the rows .*choose the best\.pt") as caught:
            open_file(saved({name: torch.ones(3)}), "yolo.pt")
        in_chinese(caught.value.args[0])


# the command line, and what it writes -------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Tensors of a model with windows of its own."""
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(drawn(n_win=4, topks=(2, 8, 9, -2)).state_dict()))
    return path


PICTURE = Path(__file__).parents[3] / "sample_images" / "animal.jpg"


def test_a_report_says_under_its_figures_what_was_assumed_or_given(
        weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    asked = ["inspect", str(PICTURE), "--model", str(weights), "--side", "96", "-o", str(out)]
    assert main(asked) == 0
    assert "n_win 7 · topk 1 · weights from weights.pth; settings assumed as published (n_win 7, topk 1, 4, 16," in \
        out.read_text()
    assert "note: settings assumed as published" in capsys.readouterr().err
    assert main([*asked, "--n-win", "4", "--topks=2,8,9,-2"]) == 0
    assert "n_win 4 · topk 2 · weights from weights.pth; n_win 4 and topk 2, 8, 9 as given" in out.read_text()
    assert main([*asked, "--layer", "stages.1.0.attn", "--n-win", "4", "--topks=2,8,9,-2", "--topk", "3"]) == 0
    assert "stages.1.0.attn · n_win 4 · topk 3" in out.read_text()


def test_comparisons_costs_and_sweeps_take_and_say_it_too(
        weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--topks=2,8,9,-2"]
    page = tmp_path / "a.html"
    assert main(["compare", str(PICTURE), "--model", str(weights), "--side", "96", "--n-win", "2", "--topk", "1",
                 "--model-n-win", "4", *given, "-o", str(page)]) == 0
    assert "n_win 4 and topk 2, 8, 9 as given" in page.read_text()
    capsys.readouterr()
    assert main(["cost", str(weights), "--imgsz", "64", "--n-win", "4", *given]) == 0
    assert "note: n_win 4 and topk 2, 8, 9 as given" in capsys.readouterr().err
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.jpg").write_bytes(PICTURE.read_bytes())
    assert main(["sweep", str(pictures), "--model", str(weights), "--side", "96", "--n-win", "2", "--topk", "1", "-o",
                 str(tmp_path / "out")]) == 0
    assert "settings assumed as published" in (tmp_path / "out" / "report.html").read_text()
    told = model_line({"settings": {"model": "own"}, "assumed": [to_plain(message("{n} more like these", n=2))]})
    assert told.endswith("2 more like these.")
    in_chinese(told)
    for strange in ("x", [{"template": "{a.__class__}", "values": {"a": 1}}], [3], ["x" * 9999]):
        assert "{" not in model_line({"settings": {"model": "own"}, "assumed": strange})[:9]


def test_a_list_of_topks_is_numbers(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cost", str(weights), "--topks", "many"])
    assert "'many' is not a list of numbers: write --topks=1,4,16,-2" in capsys.readouterr().err
