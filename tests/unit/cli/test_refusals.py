"""What cannot be is refused in one sentence: on the command line with status 2, in Python by a BRAError."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bra
from bra import BiLevelRoutingAttention, BRAError
from bra.cli.main import main
from bra.errors import LayerNameError
from bra.models.biformer import biformer_tiny
from bra.models.catalog import ModelSettings
from bra.opening import open_model

ROWS = "nc: 3\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc]]\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one file of each wrong kind."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((64, 80, 3), 90, np.uint8)).save("photo.png")
    Path("table.csv").write_text("a,b\n1,2\n")
    Path("noise.pt").write_bytes(bytes(range(7, 250)))
    torch.save({"a": 1}, "mapping.pt")
    torch.save([1, 2], "list.pt")
    Path("broken.yaml").write_text("a: [")
    Path("list.yaml").write_text("[1, 2]")
    Path("rowless.yaml").write_text("nc: 3\n")
    Path("noise.yaml").write_bytes(bytes(range(100, 250)))
    Path("folder.pt").mkdir()
    Path("rows.yaml").write_text(ROWS)
    return tmp_path


REFUSED = {
    "lint table.csv": "table.csv is no model file", "lint noise.pt": "noise.pt is no model file",
    "lint photo.png": "photo.png is no model file", "lint .": ". is no model file",
    "lint broken.yaml": "this is not YAML", "lint list.yaml": "this one a list", "lint rowless.yaml": "backbone",
    "lint noise.yaml": "not text in UTF-8", "lint none.yaml": "none.yaml does not exist",
    "transplant photo.png rows.yaml": "photo.png is neither weights nor a model file",
    "transplant noise.pt rows.yaml": "cannot open noise.pt", "transplant list.pt rows.yaml": "cannot open list.pt",
    "transplant mapping.pt rows.yaml": "cannot open mapping.pt", "transplant folder.pt rows.yaml": "folder.pt: ",
    "transplant rows.yaml none.yaml": "none.yaml does not exist", "transplant rows.yaml broken.yaml": "not YAML",
    "transplant rows.yaml rowless.yaml": "backbone", "transplant rows.yaml table.csv": "table.csv is neither",
    "transplant rows.yaml rows.yaml -o none/init.pt": "the folder none does not exist",
    "cost none.yaml": "none.yaml does not exist", "cost table.csv": "not a checkpoint",
    "inspect none.png": "none.png: ", "compare none.png": "none.png: ", "probe none.png": "none.png: ",
    "sweep none": "no picture lies under none",
}


def status(command: str) -> object:
    """The exit status of `bra`; argparse leaves by itself."""
    try:
        return main(command.split())
    except SystemExit as left:
        return left.code


@pytest.mark.parametrize("command", REFUSED)
def test_a_command_is_refused_in_a_sentence(command: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(command) == 2
    printed = capsys.readouterr().err.strip().splitlines()[-1]
    assert printed.startswith("bra")
    assert REFUSED[command] in printed
    assert "None" not in printed


def test_an_error_that_names_no_file_says_what_it_says(capsys: pytest.CaptureFixture[str],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise FileNotFoundError("'lost.yaml' does not exist")

    monkeypatch.setattr("bra.cli.main.open_asked_for", refuse)
    assert main(["inspect", os.devnull]) == 2
    assert capsys.readouterr().err == "bra: 'lost.yaml' does not exist: check the path.\n"


# in Python ------------------------------------------------------------------------------------------------


def test_cost_takes_whatever_names_a_model(files: Path) -> None:
    opened = open_model(ModelSettings("similarity"))
    assert bra.cost(opened, 64) == bra.cost(opened.module, 64) == bra.cost("similarity", 64)
    assert bra.cost("biformer_tiny", 64).total.params == sum(p.numel() for p in biformer_tiny().parameters())
    pytest.importorskip("ultralytics")
    assert bra.cost(files / "rows.yaml", 64).rows[0].params == 3 * 16 * 9 + 2 * 16


@pytest.mark.parametrize(("model", "words"), [
    ("resnet", "resnet is neither a file nor a model"), (3, "int is no model"), (None, "NoneType is no model")])
def test_cost_refuses_what_names_none(model: object, words: str) -> None:
    with pytest.raises(BRAError, match=words):
        bra.cost(model)


def test_a_trace_is_had_of_an_opened_model_too() -> None:
    opened, x = open_model(ModelSettings("similarity")), torch.rand(1, 3, 64, 64)
    chosen = [bra.trace(model, x).layers["layers.0"].r_idx for model in (opened, opened.module)]
    assert torch.equal(*chosen)
    with pytest.raises(BRAError, match="str is no model"):
        bra.trace("similarity", x)


LAYER = BiLevelRoutingAttention(16, 2, 2, topk=1)
WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "channels last": (lambda: torch.rand(1, 8, 8, 16), r"\(1, 8, 8, 16\).*permute\(0, 3, 1, 2\)"),
    "no batch": (lambda: torch.rand(16, 8, 8), r"\(16, 8, 8\).*x\[None\]"),
    "other channels": (lambda: torch.rand(1, 12, 8, 8), "dim=12"), "tokens": (lambda: torch.rand(1, 64, 16), "rows"),
    "no rows": (lambda: torch.rand(1, 16, 0, 8), "rows and columns"),
    "an array": (lambda: np.zeros((1, 16, 8, 8)), "ndarray"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("with_rows", [False, True])
def test_a_layer_says_which_map_it_reads(name: str, with_rows: bool) -> None:
    make, words = WRONG[name]
    with pytest.raises(BRAError, match=words):
        LAYER(make(), ret_attn_mask=with_rows)
    with pytest.raises(BRAError, match=words):
        bra.trace(nn.Sequential(LAYER), make())


def test_an_unknown_layer_is_answered_with_those_that_there_are() -> None:
    found = bra.trace(nn.Sequential(LAYER), torch.rand(2, 16, 8, 8))
    for layers in (found.layers, open_model(ModelSettings("similarity")).specs):
        with pytest.raises(LayerNameError, match="there is no layer 'attn': choose one of '") as refused:
            layers["attn"]
        assert isinstance(refused.value, (BRAError, KeyError))
        assert "attn" not in layers
        assert layers.get("attn") is None
    assert str(refused.value).startswith("there is no layer 'attn': choose one of 'layers.0'")
    with pytest.raises(BRAError, match="image 2 is not in this trace, which holds 2: choose 0 to 1"):
        found.layers["0"].attention(0, image=2)
    with pytest.raises(BRAError, match="image -1"):
        found.layers["0"].attention_map(0, image=-1)
