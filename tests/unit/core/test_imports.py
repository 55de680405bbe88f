"""What an import brings along: `bra` itself next to nothing but torch, Ultralytics only for YOLO models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow        # each in a process of its own
ROOT = Path(__file__).parents[3]
HEAVY = ("ultralytics", "plotly", "pandas", "pyarrow", "streamlit", "joblib", "torchvision", "PIL", "cv2",
         "safetensors", "yaml", "torch._dynamo", "torch._inductor", "torch.utils.flop_counter",
         "torch.nn.attention.flex_attention")
TIMED = """
import sys, time
start = time.process_time()
import torch
middle, had = time.process_time(), set(sys.modules)
from bra import BiLevelRoutingAttention, trace
end = time.process_time()
print(middle - start, end - middle, *sorted(set(sys.modules) - had))
"""
ALONE = """
import sys
import bra
from bra.errors import BRAError
print("torch" in sys.modules, bra.BRAError is BRAError, hasattr(bra, "nothing_of_that_name"))
print(bra.BiLevelRoutingAttention.__module__, "torch" in sys.modules, bra.scorecard.__name__)
"""
FIRST = """
import os, sys
import streamlit as st
from streamlit.testing.v1 import AppTest
from dashboard.services import start
start._load, st.rerun = (lambda: None), st.stop        # what is drawn first, and nothing after it
for query in ({}, {"lang": "zh"}, {"model": "cells"}):
    app = AppTest.from_file(os.path.abspath("dashboard/app.py"), default_timeout=100)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    sent = [one.proto for one in app.get("bidi_component")]
    print(*(f"{one.component_name.removeprefix('routescope_')}:{len(one.bytes)}" for one in sent), ";")
    st.cache_resource.clear()
print([name for name in sys.modules if name.partition(".")[0] == "torch"])
"""
OPENED = """
import sys
from bra.models.catalog import ModelSettings
from bra.opening import open_model, stay_offline
from bra.photo import Photo
stay_offline()
for key in ("similarity", "untrained", "flowers", "biformer"):
    open_model(ModelSettings(key))
print("ultralytics" in sys.modules)
open_model(ModelSettings("cells")).look(Photo.from_bytes(open("sample_images/smear.jpg", "rb").read()), 224)
print("ultralytics" in sys.modules, "torch._dynamo" in sys.modules, "sympy" in sys.modules)
"""
PAGE = """
import os, sys, time
from streamlit.testing.v1 import AppTest
app = AppTest.from_file(os.path.abspath("dashboard/app.py"), default_timeout=200).run()
assert not app.exception
print("ultralytics" in sys.modules)
app.selectbox(key="model").set_value("cells").run()
assert not app.exception
print("ultralytics" in sys.modules, "torch._dynamo" in sys.modules, "sympy" in sys.modules)
"""


def run(code: str) -> list[str]:
    path = str(ROOT)
    code = f"import sys; sys.path.insert(0, {path!r})\n{code}"
    compiled_once = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}     # an image of a container sets it, as a rule
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=280,
                          env=compiled_once)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_is_a_small_part_of_importing_torch() -> None:
    shares = []
    for _ in range(3):      # the first may compile what was never imported before
        torch_seconds, own_seconds, *modules = run(TIMED)
        assert "bra.attention" in modules
        assert not [name for name in modules if name.startswith(HEAVY)]
        shares.append(float(own_seconds) / float(torch_seconds))
    assert min(shares) < 1 / 20, shares      # 45 ms of processor time, where torch takes 3 s


def test_the_package_by_itself_brings_no_torch_until_it_is_asked_for() -> None:
    assert run(ALONE) == ["False", "True", "False", "bra.attention", "True", "bra.scorecard"]


def test_a_page_draws_its_frame_and_the_first_view_its_picture_before_torch_is_there() -> None:
    """A link that asks for another view is not shown the first one."""
    english, chinese, other, modules = (part.split() for part in " ".join(run(FIRST)).split(";"))
    for drawn, tail in ((english, ""), (chinese, "_zh")):
        sizes = {name.removesuffix(tail): int(size) for name, size in (one.split(":") for one in drawn)}
        assert sizes.keys() - {"reconnect", "browser"} == {"gallery", "rail", "picture", "stage"}
        assert min(sizes[name] for name in ("rail", "picture", "stage")) > 500
    assert {one.partition(":")[0] for one in other} == {"gallery", "reconnect", "browser"}
    assert modules == ["[]"]


@pytest.mark.parametrize("code", [OPENED, PAGE], ids=["library", "app"])
def test_ultralytics_is_imported_for_yolo_models_alone_and_torchs_compiler_not_even_then(code: str) -> None:
    pytest.importorskip("ultralytics")
    assert run(code)[-4:] == ["False", "True", "False", "False"]
