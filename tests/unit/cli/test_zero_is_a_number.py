"""A value that was given counts, 0 too; and a grid of settings is looked at before anything runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bra import BRASpec
from bra.attention import TopkRouting
from bra.cli.main import main
from bra.errors import BRAError
from bra.experiments.sweep import Plan, sweep
from bra.models.catalog import ModelSettings


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)).save("photo.png")
    return tmp_path / "photo.png"


REFUSED = {
    "inspect photo.png --n-win 0 --topk 0": "n_win=0 is not possible", "inspect photo.png --topk 0": "topk=0",
    "inspect photo.png --side 0": "side=0", "inspect photo.png --heads 0": "num_heads=0",
    "inspect photo.png --stride 0": "stride=0", "inspect photo.png --pool avgpool --pool-ratio 0": "kv_per_win=0",
    "inspect photo.png --model biformer_tiny --n-win 0": "n_win=0",
    "inspect photo.png --model flowers --topk 0": "topk=0",
    "inspect photo.png --model flowers --layer nowhere --topk 2": "there is no layer 'nowhere'",
    "inspect photo.png --layer nowhere": "--layer nowhere does not exist",
    "compare photo.png --side 0": "side=0", "compare photo.png --topk 999": "topk is at most 16 with n_win 4, 49 with",
    "compare photo.png --equal-coverage 0": "--equal-coverage 0 is not possible", "compare photo.png --time -1": "'-1'",
    "compare photo.png -o table.txt": "neither .csv nor .html", "compare photo.png -o none/table.csv": "does not exist",
    "compare photo.png --n-win 0": "'0' is not a list of numbers", "cost similarity --time -3": "'-3' is not possible",
    "sweep . --topk 999": "--topk 999 leaves no setting", "sweep . --side 0": "side=0",
    "sweep . --jobs 0": "--jobs 0 is not possible", "probe photo.png --side 0": "side=0",
    "train-demo flowers . --epochs 0": "--epochs and --imgsz are 1 or more",
    "train-demo flowers . --imgsz 0": "--epochs and --imgsz are 1 or more",
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_cannot_be_is_refused_before_any_work(command: str, picture: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main(command.split())
    except SystemExit as left:
        status = left.code
    assert status == 2
    assert REFUSED[command] in capsys.readouterr().err
    assert sorted(path.name for path in picture.parent.iterdir()) == ["photo.png"]


def test_settings_that_cannot_be_are_named_and_left_out(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "photo.png", "--n-win", "2,4", "--topk", "3,5", "--side", "64"]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["left out, since topk is at most n_win²: n_win 2, topk 5"]
    assert re.findall(r"^\*? +(\d+) +(\d+) ", printed.out, re.MULTILINE) == [("2", "3"), ("4", "3"), ("4", "5")]


def test_a_sweep_without_rows_is_no_success(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture.write_bytes(b"no picture")
    assert main(["sweep", ".", "--n-win", "2", "--topk", "1", "--side", "64", "-o", "out"]) == 2
    assert "none of the pictures could be used" in capsys.readouterr().err
    assert [*json.loads(Path("out/skipped.json").read_text())] == ["photo.png"]
    with pytest.raises(BRAError, match="holds no settings"):
        sweep(Plan(ModelSettings(), ()), picture.parent, picture.parent / "other")


def test_none_stands_for_a_default_and_zero_does_not() -> None:
    assert TopkRouting(16, qk_scale=0.0).scale == 0.0
    assert TopkRouting(16).scale == 0.25
    assert BRASpec(16, num_heads=2).scale == 0.25
    assert BRASpec(16, num_heads=2, kv_downsample_ratio=3).kernel == 3
    for name in ("qk_scale", "qk_dim", "kv_downsample_kernel"):
        with pytest.raises(BRAError, match=f"{name}=0"):
            BRASpec(16, num_heads=2, **{name: 0})
