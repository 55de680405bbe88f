"""A checkpoint of YOLOv5's code base is refused, recorded where it runs with what the page hands out, and looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "sample_images" / "repeated_objects.jpg"
YOLO_PY = """
from torch import nn
from wild_models import Pasted

class Conv(nn.Conv2d):
    pass

class Detect(nn.Identity):
    pass

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.yaml = {"nc": 2, "anchors": [[10, 13]], "head": [[[2], 1, "Detect", ["nc"]]],
                     "backbone": [[-1, 1, "Conv", [32, 8, 8]], [-1, 1, "Pasted", []], [-1, 1, "Conv", [8, 1]]]}
        self.model = nn.Sequential(Conv(3, 32, 8, 8), Pasted(32, 5, 4), Conv(32, 8, 1), Detect())

    def forward(self, x):
        return self.model(x)
"""
HUBCONF = """
import torch

def custom(path):
    return torch.load(path, weights_only=False)["model"].float().eval()
"""
SAVE = "import torch; from models.yolo import Model; torch.save({'model': Model().half(), 'epoch': -1}, 'best.pt')"


def run_there(folder: Path, program: str) -> str:
    """What a program prints in a process of its own, in a folder of code that this package is no part of."""
    return subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, capture_output=True, text=True,
                          timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "helpers"),
                                            "LANG": "en_US.UTF-8", "OMP_NUM_THREADS": "1"}).stdout


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as YOLOv5's: its code, a checkpoint and a picture."""
    folder = tmp_path_factory.mktemp("yolov5")
    (folder / "models").mkdir()
    (folder / "models" / "__init__.py").write_text("")
    (folder / "models" / "yolo.py").write_text(YOLO_PY)
    (folder / "hubconf.py").write_text(HUBCONF)
    (folder / "picture.jpg").write_bytes(PICTURE.read_bytes())
    run_there(folder, SAVE)
    return folder


def test_from_refusal_to_picture(context: Any, app_url: str, theirs: Path) -> None:
    page = context.new_page()
    page.goto(f"{app_url}/?model=own")
    file = page.locator('[data-testid="stSidebar"] input[type="file"]')
    file.set_input_files(theirs / "best.pt")
    code = page.locator('[data-testid="stCode"]', has_text="record(")
    expect(code).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="run these two lines there")).to_have_count(1)
    with page.expect_download() as got:
        page.get_by_role("button", name="bra_record.py").click()
    got.value.save_as(theirs / "bra_record.py")
    assert "run.bra: 1 layers" in run_there(theirs, code.locator("code").inner_text())
    file.set_input_files(theirs / "run.bra")
    expect(page.locator('[data-part="caption"]').first).to_contain_text("run.bra · model.1 · n_win 5 · topk 4")
    page.wait_for_selector(".stage[data-ready]")
    expect(page.locator('[data-part="readout"]')).to_contain_text("routes to")
    expect(code).to_have_count(0)
