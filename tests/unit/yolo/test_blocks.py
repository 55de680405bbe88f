"""C2PSA with BRA in it and a BiFormer block, as rows, under the names that people give them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("ultralytics")
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.nn.modules.block import C2PSA

import bra
import bra.yolo
from bra.errors import BRAError
from bra.opening import open_file
from bra.yolo.blocks import C2PSABRA, BiFormerBlock, PSABlockBRA, canonical_name
from bra.yolo.edit import with_row_settings, without_rows
from bra.yolo.rows import rows_of

SPELLED = ("C2PSABRA", "C2PSA_BRA", "C2PSA_BiFormer", "C2PSA_BIFormer", "C2PSA_Biformer", "c2psa_biformer",
           "C2PSABiFormer", "C2PSA_BiLevelRoutingAttention")


def yolo11(name: str, args: list[Any], at: int = 10) -> dict[str, Any]:
    """YOLO11n with its C2PSA row, number 10, or the one after it, given another name."""
    model: dict[str, Any] = tasks.yaml_model_load("yolo11n.yaml")
    assert model["backbone"][10][2] == "C2PSA"
    if at == 10:
        model["backbone"][10] = [-1, 2, name, args]
    else:
        model["head"].insert(-1, [-1, 1, name, args])
    return model


def built(model: dict[str, Any]) -> nn.Sequential:
    with torch.device("meta"):
        layers, _ = tasks.parse_model(copy.deepcopy(model), 3, verbose=False)
    return layers


@pytest.mark.parametrize("name", SPELLED)
def test_people_spell_it_in_many_ways(name: str) -> None:
    row = built(yolo11(name, [1024]))[10]
    assert type(row) is C2PSABRA
    assert (row.c, row.m[0].attn.dim, row.m[0].attn.n_win, row.m[0].attn.topk) == (128, 128, 7, 4)
    assert row.i == 10


@pytest.mark.parametrize("args", [[1024, {"n_win": 5, "topk": 8}], [1024, 0.25, {"n_win": 5, "topk": 8}],
                                  [1024, 0.5, {"n_win": 5, "topk": 8, "num_heads": 4}]], ids=str)
def test_its_options_reach_the_attention(args: list[Any]) -> None:
    row = built(yolo11("C2PSABRA", args))[10]
    share = args[1] if isinstance(args[1], float) else 0.5
    assert row.c == int(256 * share)
    for part in row.m:
        assert isinstance(part, PSABlockBRA)
        assert (part.attn.n_win, part.attn.topk) == (5, 8)


def test_it_is_c2psa_around_another_attention() -> None:
    theirs, ours = C2PSA(64, 64, 2), C2PSABRA(64, 64, 2, 0.5, {"n_win": 3})
    outside = {name for name in theirs.state_dict() if ".attn." not in name}
    assert outside == {name for name in ours.state_dict() if ".attn." not in name}
    ours.load_state_dict({name: t for name, t in theirs.state_dict().items() if name in outside}, strict=False)
    for model in (theirs, ours):
        for part in model.eval().m:
            part.attn = nn.Identity()           # with the same attention both are the same
    x = torch.randn(1, 64, 9, 9)
    torch.testing.assert_close(ours(x), theirs(x))


def test_a_biformer_block_is_three_shortcuts() -> None:
    block, x = BiFormerBlock(16, 3, 2).eval(), torch.randn(1, 16, 9, 9)
    assert block.attn.n_win == 3
    for weights in (block.pos_embed, block.attn.wo, block.mlp[2]):
        nn.init.zeros_(weights.weight)
        nn.init.zeros_(weights.bias)
    torch.testing.assert_close(block(x), x)


def test_a_biformer_block_is_a_row() -> None:
    row = built(yolo11("BiFormer_Block", [5, 8], at=23))[23]
    assert type(row) is BiFormerBlock
    assert (row.attn.dim, row.attn.n_win, row.attn.num_heads) == (256, 5, 8)


@pytest.mark.parametrize(("name", "args", "at"), [("C2PSA_BiFormer", [1024, {"n_win": 5}], 10),
                                                  ("BiFormerBlock", [5], 23)])
def test_they_open_trace_and_cost(name: str, args: list[Any], at: int) -> None:
    import yaml

    text = yaml.safe_dump(yolo11(name, args, at)).encode()
    model = open_file(text, "yolo11n-mine.yaml")
    traced = bra.trace(model.module, torch.rand(1, 3, 160, 160))
    routed = [lt for lt in traced.layers.values() if lt.routed]     # beside YOLO11's own attention
    assert routed
    assert all(lt.spec.n_win == 5 and lt.proof is None for lt in routed)
    assert bra.cost(model.module, 160).total.macs > 0


def test_they_train_save_and_open_again(tmp_path: Any) -> None:
    model = YOLO("yolo11n.yaml")
    model.model = tasks.DetectionModel(yolo11("C2PSA_BRA", [1024, {"n_win": 2}]), verbose=False)
    out = model.model.train()(torch.rand(1, 3, 64, 64))
    assert out is not None
    torch.save({"model": model.model.half()}, tmp_path / "mine.pt")
    opened = open_file((tmp_path / "mine.pt").read_bytes(), "mine.pt")
    assert any(name.endswith("attn") for name in opened.specs)


def test_edits_know_them() -> None:
    model = yolo11("C2PSABRA", [1024, {"n_win": 5}])
    assert rows_of(without_rows(model))[10].name == "C2PSA"
    assert "n_win: 3" in with_row_settings(model, n_win=3)


def test_other_names_stay_what_they_are() -> None:
    for name in ("C2PSA", "Conv", "C2fBRA", "BRABlock", "BiFormer", "C2PSA_CBAM"):
        assert canonical_name(name) == name
    with pytest.raises(BRAError, match="C2PSABRA"):
        open_file(b"nc: 2\nbackbone:\n - [-1, 1, Conv, [16, 3, 2]]\n - [-1, 1, CBAMX, [16]]\nhead:\n"
                  b" - [[1], 1, Detect, [nc]]\n", "x.yaml")
