"""What an import brings along: `bra` itself next to nothing but torch, Ultralytics only for YOLO models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAVY = ("ultralytics", "plotly", "pandas", "pyarrow", "streamlit", "joblib", "torchvision", "PIL", "cv2",
         "safetensors", "yaml", "torch._dynamo", "torch._inductor", "torch.utils.flop_counter",
         "torch.nn.attention.flex_attention")
TIMED = """
import sys, time
start = time.perf_counter()
import torch
middle, had = time.perf_counter(), set(sys.modules)
import bra
end = time.perf_counter()
print(middle - start, end - middle, *sorted(set(sys.modules) - had))
"""
OPENED = """
import sys
from bra.models.catalog import ModelSettings
from bra.opening import open_model, stay_offline
stay_offline()
for key in ("similarity", "untrained", "flowers", "biformer"):
    open_model(ModelSettings(key))
print("ultralytics" in sys.modules)
open_model(ModelSettings("cells"))
print("ultralytics" in sys.modules)
"""
PAGE = """
import os, sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file(os.path.abspath("dashboard/app.py"), default_timeout=200).run()
assert not app.exception
print("ultralytics" in sys.modules)
app.selectbox(key="model").set_value("cells").run()
assert not app.exception
print("ultralytics" in sys.modules)
"""


def run(code: str) -> list[str]:
    path = str(ROOT)
    code = f"import sys; sys.path.insert(0, {path!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_is_a_small_part_of_importing_torch() -> None:
    torch_seconds, own_seconds, *modules = run(TIMED)
    assert "bra.attention" in modules
    assert not [name for name in modules if name.startswith(HEAVY)]
    # 50 ms where torch takes 1.5 s; a ratio, since a busy machine slows both.
    assert float(own_seconds) < float(torch_seconds) / 20


@pytest.mark.parametrize("code", [OPENED, PAGE], ids=["library", "app"])
def test_ultralytics_is_imported_for_yolo_models_alone(code: str) -> None:
    pytest.importorskip("ultralytics")
    assert run(code)[-2:] == ["False", "True"]
