"""What is opened of somebody's YOLO is the layer that its author has, or it says what was assumed."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("ultralytics")

from chinese import in_chinese
from model_files import TINY, half, outputs, refusal, tiny, written
from test_tutorial_compat import Pasted, saved
from ultralytics import YOLO
from ultralytics.nn.modules import block

import bra.yolo
from bra import attention
from bra.errors import BRAError, YoloError
from bra.models.base import FileOptions, OpenModel
from bra.opening import open_file
from bra.readers.checkpoint import read_checkpoint
from bra.yolo.build import build_checked, open_checkpoint

pytestmark = pytest.mark.usefixtures("no_network")
ROW = "[-1, 1, BiLevelRoutingAttention, [4, 2]]"


def opened(text: str, **options: Any) -> OpenModel:
    return open_file(text.encode(), "mine.yaml", options=FileOptions(**options))


def with_attention(args: str) -> str:
    assert ROW in TINY
    return TINY.replace(ROW, f"[-1, 1, BiLevelRoutingAttention, {args}]")


def settings(model: Any) -> list[tuple[int, int, int]]:
    return [(layer.spec.n_win, layer.spec.num_heads, layer.spec.topk) for layer in model.modules()
            if isinstance(layer, attention.BiLevelRoutingAttention)]


def trained(**options: Any) -> Any:
    """The tiny model whose attention has these options, with batch norms that do something."""
    model = build_checked(tiny(head=[[-1, 1, "BiLevelRoutingAttention", [options]], *tiny()["head"][1:]]))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5)
    return model.half().float()


def fork(model: Any, path: Path, monkeypatch: pytest.MonkeyPatch, row: list[Any], **changed: Any) -> bytes:
    """The checkpoint of an installation that was edited by hand, whose row 2 is written so."""
    theirs = copy.deepcopy(model)
    layer = theirs.model[2]
    theirs.model[2] = Pasted(layer, i=layer.i, f=layer.f, type=layer.type, np=layer.np, kv_per_win=-1, **changed)
    theirs.yaml["head"][0] = row
    saved(monkeypatch, path, half(theirs))
    return path.read_bytes()


# checkpoints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [
    [-1, 1, "BiLevelRoutingAttention", []], [-1, 1, "BiLevelRoutingAttention", [4, 8]],
    [-1, 1, "Router", [4, 8]], [-1, 1, "Router", [64, "whatever"]], [-1, 1, "BRABlock", []]], ids=str)
def test_a_checkpoint_gives_the_class_and_the_attributes_whatever_its_row_says(
        row: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork may have 4 heads by default, take the heads first, or import the class under another name."""
    model = trained(n_win=3, num_heads=4, topk=5)
    data = fork(model, tmp_path / "theirs.pt", monkeypatch, row)
    found = open_file(data, "theirs.pt")
    assert settings(found.module) == [(3, 4, 5)]
    assert (found.assumptions, found.notes) == ((), ())
    torch.testing.assert_close(outputs(found.module), outputs(model), atol=1e-5, rtol=1e-5)


def test_repeated_rows_have_their_attributes_too() -> None:
    model = build_checked(tiny(head=[[-1, 2, "BiLevelRoutingAttention", [{"n_win": 3, "num_heads": 4}]],
                                     *tiny()["head"][1:]], scales={"n": [1.0, 0.25, 64]}))
    wanted = outputs(model.half())
    theirs = copy.deepcopy(model)
    theirs.yaml["head"][0] = [-1, 2, "BiLevelRoutingAttention", [4, 2]]
    found = open_file(written(half(theirs)), "theirs.pt")
    assert settings(found.module) == [(3, 4, 4)] * 2
    torch.testing.assert_close(outputs(found.module), wanted, atol=1e-5, rtol=1e-5)


class Renamed(Pasted):
    __module__ = "ultralytics.nn.modules.block"
    __qualname__ = "RegionRouter"


def test_a_class_of_another_name_is_known_by_what_it_keeps_and_named(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(n_win=3, num_heads=4)
    theirs = copy.deepcopy(model)
    layer = theirs.model[2]
    theirs.model[2] = Renamed(layer, i=layer.i, f=layer.f, type=layer.type, np=layer.np)
    theirs.yaml["head"][0] = [-1, 1, "RegionRouter", [8, 3]]
    with monkeypatch.context() as edited:
        edited.setattr(block, "RegionRouter", Renamed, raising=False)
        torch.save(half(theirs), tmp_path / "theirs.pt")
    found = open_file((tmp_path / "theirs.pt").read_bytes(), "theirs.pt")
    assert settings(found.module) == [(3, 4, 4)]
    assert found.assumptions == (
        "model.2 is their class ultralytics.nn.modules.block.RegionRouter, read as bi-level routing attention by what "
        "it keeps",)
    assert found.assumptions[0] in found.origin
    in_chinese(found.origin)
    torch.testing.assert_close(outputs(found.module), outputs(model), atol=1e-5, rtol=1e-5)


class Block(nn.Module):
    """Norm, attention and an MLP: what others call BRABlock."""

    __module__ = "ultralytics.nn.modules.block"
    __qualname__ = "BRABlock"

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm1, self.attn, self.mlp = nn.LayerNorm(16), layer.attn, nn.Linear(16, 16)


def test_a_block_of_our_name_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_checked(tiny(head=[[-1, 1, "BRABlock", [4, 2]], *tiny()["head"][1:]]))
    open_checkpoint(read_checkpoint(written(half(model))))      # ours is
    layer = model.model[2]
    model.model[2] = Block(layer)
    model.model[2].i, model.model[2].f, model.model[2].type, model.model[2].np = layer.i, layer.f, layer.type, layer.np
    with monkeypatch.context() as edited:
        edited.setattr(block, "BRABlock", Block, raising=False)
        torch.save(half(model), tmp_path / "theirs.pt")
    with pytest.raises(YoloError, match=r"their class 'ultralytics\.nn\.modules\.block\.BRABlock' in this") as caught:
        open_file((tmp_path / "theirs.pt").read_bytes(), "theirs.pt")
    in_chinese(caught.value.args[0])


def test_an_activation_that_ultralytics_has_dropped_since_is_kept() -> None:
    """Its SPPF of before 8.4 has one between its convolutions; every released yolov8n.pt computes with it."""
    model = YOLO("yolov8n.yaml").model.eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5)
    for other in (nn.SiLU(), nn.Identity(), nn.LeakyReLU(0.2)):
        model.model[9].cv1.act = other
        found, _ = open_checkpoint(read_checkpoint(written(half(model))))
        assert type(found.model[9].cv1.act) is type(other)
        torch.testing.assert_close(outputs(found), outputs(model.half()), atol=1e-4, rtol=1e-4)


def test_activations_and_epsilons_of_a_fork_are_its_own() -> None:
    model = trained()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 0.5
    for row in model.model[:2]:
        row.act = nn.Hardswish()
    found, _ = open_checkpoint(read_checkpoint(written(half(model))))
    torch.testing.assert_close(outputs(found), outputs(model.half()), atol=1e-5, rtol=1e-5)
    assert isinstance(build_checked(tiny()).model[0].act, nn.SiLU), "nothing that models share was changed"


class Odd(nn.Module):
    __module__ = "ultralytics.nn.modules.activation"
    __qualname__ = "Odd"


@pytest.mark.parametrize(("change", "words"), [
    (lambda m: setattr(m.model[3].m[0], "add", False), r"model\.3\.m\.0 of this checkpoint has add=False"),
    (lambda m: setattr(m.model[1].conv, "dilation", (2, 2)), r"has dilation=\[2, 2\]"),
    (lambda m: setattr(m.model[4], "d", 2), r"model\.4 .*has d=2"),
    (lambda m: setattr(m.model[1], "act", Odd()), "is Odd, and the layer made here SiLU")])
def test_another_inside_of_a_known_name_is_refused(change: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.nn.modules import activation

    model = trained()
    change(model)
    monkeypatch.setattr(activation, "Odd", Odd, raising=False)
    with pytest.raises(BRAError, match=words) as caught:
        open_checkpoint(read_checkpoint(written(half(model))))
    in_chinese(caught.value.args[0])


def test_rows_that_are_in_the_checkpoint_are_not_asked_for() -> None:
    model = trained()
    model.model[0].conv.register_buffer("extra", torch.ones(1))
    with pytest.raises(YoloError, match=r"the rows are its own.*look into it where it was trained, with bra\.trace"):
        open_checkpoint(read_checkpoint(written(half(model))))
    bare = read_checkpoint(written(model.state_dict()))
    with pytest.raises(YoloError, match="give the model file and scale that it was trained with"):
        open_checkpoint(bare, model=TINY)


# model files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "said"), [
    ("[]", ("assumes the tutorial's class (8 heads, n_win 7, topk 4)",)), ("[{n_win: 4}]", (
        "assumes the tutorial's class (8 heads, n_win 7, topk 4)",)),
    ("[{n_win: 4, num_heads: 2, topk: 3}]", ())])
def test_a_model_file_says_whose_class_is_assumed(args: str, said: tuple[str, ...]) -> None:
    found = opened(with_attention(args))
    assert found.assumptions == said
    assert found.asks == ()
    assert found.origin == "; ".join(["untrained, random weights", *said])
    in_chinese(found.origin)


@pytest.mark.parametrize(("args", "first", "second"), [
    ("[4, 2]", (4, 2, 4), (2, 4, 4)), ("[8]", (8, 8, 4), (7, 8, 4)), ("[4, 8, {topk: 9}]", (4, 8, 9), (8, 4, 9))])
def test_two_readings_are_said_and_the_other_is_offered(args: str, first: Any, second: Any) -> None:
    found = opened(with_attention(args))
    assert settings(found.module) == [first]
    assert found.asks == ("heads_first",)
    assert "rows 2 read with n_win first" in found.origin
    other = opened(with_attention(args), heads_first=True)
    assert settings(other.module) == [second]
    assert other.asks == ("heads_first",)
    assert "rows 2 read with the heads first" in other.origin
    for one in (found, other):
        in_chinese(one.origin)


@pytest.mark.parametrize("args", ["[5, 2]", "[4, 4]", "[3]", "[{n_win: 4, num_heads: 2}]"])
def test_where_one_reading_is_possible_there_is_nothing_to_offer(args: str) -> None:
    """Heads divide 16 channels, so neither 5 nor 3 are heads; and equal numbers are the same either way."""
    assert opened(with_attention(args)).asks == ()


def test_heads_beyond_any_windows_open_with_the_heads_first() -> None:
    text = with_attention("[16, 4]").replace("0.25", "1.0")
    assert settings(opened(text, heads_first=True).module) == [(4, 16, 4)]


def test_it_is_said_whose_block_is_meant() -> None:
    found = opened(TINY.replace("BiLevelRoutingAttention", "BRABlock"))
    assert found.assumptions == ("BRABlock meant as the block of this package, not another's of that name",)
    in_chinese(found.origin)


@pytest.mark.parametrize(("before", "after", "words"), [
    ("nc: 3", "nc: 3\nsegHead:\n  - [4, 1, Conv, [8]]\nneck: [[1, 1, Conv, [8]]]", "under 'segHead', 'neck' are left"),
    ("nc: 3", "nc: 3\nanchors: [[10, 13], [16, 30]]", "keys of the file are left out, .*'anchors'"),
    ("[nc]", "[nc, anchors]", "Ultralytics' heads have none"), ("0.25, 64]", "0.25, 64, 7]", "first three numbers")])
def test_what_is_left_out_is_said_and_the_rest_opens(before: str, after: str, words: str) -> None:
    found = opened(TINY.replace(before, after))
    note, = found.notes
    assert re.search(words, note), note
    in_chinese(note)
    assert found.origin == opened(TINY).origin
    torch.testing.assert_close(outputs(found.module), outputs(opened(TINY).module))


def test_a_checkpoint_says_what_of_its_rows_was_left_out() -> None:
    model = trained()
    model.yaml["segHead"] = [[4, 1, "Conv", [8]]]
    assert "under 'segHead'" in open_file(written(half(model)), "a.pt").notes[0]


def test_all_unknown_rows_are_named_at_once() -> None:
    head = tiny()["head"]
    words = refusal(tiny(head=[[-1, 1, "CBAM", []], [-1, 1, "SE", [16]], [-1, 1, "CBAM", []], *head]))
    assert words.startswith("rows 2 'CBAM', 3 'SE', 4 'CBAM' are not layers opened here (3 in all): use ")
    many = refusal(tiny(head=[[-1, 1, f"x{n}" * 99, []] for n in range(99)]))
    assert "(99 in all)" in many
    assert ", …" in many


# an old Ultralytics -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["8.0.20", "8.2.103"])
def test_an_old_ultralytics_is_called_too_old(version: str, tmp_path: Path) -> None:
    """Its modules lie elsewhere: the import itself would fail with a name that says nothing."""
    (tmp_path / "ultralytics").mkdir()
    (tmp_path / "ultralytics" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    done = subprocess.run([sys.executable, "-c", "import bra.yolo"], capture_output=True, text=True, timeout=300,
                          env={"PYTHONPATH": f"{tmp_path}:{Path(bra.yolo.__file__).parents[2]}"}, check=False)
    assert done.returncode
    assert f"YoloError: ultralytics {version} is too old: 8.3 or newer is needed" in done.stderr
