"""How much work an answer takes: a changed topk runs from its layer on, a changed query runs no module at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("ultralytics")

from bra import functional as BF
from bra.models.base import Change
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.viewer.pack import unpack
from dashboard.services import models as model_services
from dashboard.services import server
from dashboard.state import session

ROOT = Path(__file__).parents[2]
APP = ROOT / "dashboard" / "app.py"
CAT = ROOT / "sample_images" / "animal.jpg"


@pytest.fixture
def fresh_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing worked out yet, and all work on one thread as here: sums in another order turn near ties of a routing."""
    monkeypatch.setattr(server, "_share_processors", lambda _working: torch.set_num_threads(1))
    model_services.server.clear()
    yield
    model_services.server.clear()


@pytest.fixture
def app() -> AppTest:
    made = AppTest.from_file(str(APP), default_timeout=120)
    made.query_params["side"] = "224"
    return made


@contextmanager
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[nn.Module]]:
    """Every call of a module, in whatever thread."""
    called: list[nn.Module] = []
    call = nn.Module.__call__
    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "__call__", lambda self, *a, **k: called.append(self) or call(self, *a, **k))
        yield called


def stage(app: AppTest) -> dict[str, np.ndarray]:
    assert not app.exception
    return next(unpack(block.proto.bytes)[2] for block in app.get("bidi_component")
                if block.proto.component_name == "routescope_stage")


@pytest.mark.parametrize(("model", "layer", "first"), [
    ("yolo", "model.23", False), ("yolo", "model.15", False), ("cells", "model.19.attn", False),
    ("flowers", "stages.2.2.attn", False), ("cells", "model.19.attn", True)])
def test_another_topk_runs_from_its_layer_on_and_shows_what_the_whole_model_would(
        app: AppTest, model: str, layer: str, first: bool, fresh_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    app.query_params["model"], app.query_params["layer"] = model, layer
    if first:       # a link that opens on other windows
        app.query_params["changed"], app.query_params["topk"] = "1", "3"
    app.run()
    if not first:
        app.toggle(key="changed").set_value(True).run()
    n_win = app.slider(key="n_win").value
    settings = ModelSettings(model, side=224)
    steps = model_services.load_model(settings).model.steps()
    at = next(n for n, step in enumerate(steps) if step.holds(layer))
    LazyText = {module for step in steps[at + 1:] if isinstance(step.run, nn.Module) for module in step.run.modules()}
    before = {module for step in steps[:at] if isinstance(step.run, nn.Module) for module in step.run.modules()}
    for topk in (9, 2):
        with calls(monkeypatch) as called:
            app.slider(key="topk").set_value(topk).run()
        assert not set(called) & (before - LazyText)
        assert set(called) & LazyText
        whole = open_model(settings).look(Photo.from_bytes(CAT.read_bytes()), 224, Change(layer, n_win, topk))
        np.testing.assert_array_equal(stage(app)["r_idx"], whole.trace.layers[layer].r_idx[0])
        np.testing.assert_array_equal(stage(app)["affinity"], whole.trace.layers[layer].affinity[0])


def test_going_back_to_a_topk_runs_nothing(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    app.query_params["model"], app.query_params["changed"] = "cells", "1"
    app.run()
    app.slider(key="topk").set_value(9).run()
    with calls(monkeypatch) as called:
        app.slider(key="topk").set_value(4).run()
    assert not called


class Work(TorchDispatchMode):
    """Counts operations that multiply or take a softmax, and the largest result of any."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, out = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
        self.found[name] += 1
        if name in ("matmul", "bmm", "mul", "add", "softmax", "_softmax", "index_select", "mean", "sum"):
            self.largest = max(self.largest, out.numel())
        return out


@pytest.mark.parametrize("model", ["flowers", "yolo", "similarity"])
def test_another_query_computes_the_asked_rows_and_nothing_else(app: AppTest, model: str,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    app.query_params["model"] = model
    app.run()
    stage(app)
    work, asked, rows = Work(), [], BF.attention_rows
    with monkeypatch.context() as patch, calls(monkeypatch) as called:
        def begun() -> tuple[str, ...]:      # among the first things a page does, in the thread that runs it
            work.__enter__()
            return ()

        patch.setattr(session, "refused_of_link", begun)
        patch.setattr(BF, "attention_rows", lambda q, *a: asked.append(tuple(q.shape)) or rows(q, *a))
        # What the stage's callback does with a click.
        app.session_state["selection"] = replace(app.session_state["selection"], a=(2500, 2500), b=(7600, 7600))
        app.run()
    assert not app.exception
    assert app.query_params["a"] == "2500.2500"
    assert not called
    heads = {"flowers": 4, "yolo": 8, "similarity": 8}[model]
    assert [(shape[1], shape[3]) for shape in asked] == [(heads, 1)] * 2        # one token of each of two queries
    # Of each query: its row over the keys, and two to spread pooled keys over their tokens.
    assert work.found["matmul"] + work.found["bmm"] == 6
    assert work.found["softmax"] + work.found["_softmax"] == 2
    assert not [name for name in work.found if "conv" in name or name in ("linear", "addmm", "topk", "layer_norm")]
    layer = model_services.model_run(
        model_services.load_model(ModelSettings(model, side=224)), model_services.sample("animal")).trace.layers
    shown = layer.get("stages.2.2.attn", next(iter(layer.values())))
    # The gathered keys and values of one window are the most that is touched, or one map per head.
    assert work.largest <= shown.spec.topk * shown.k[0, :, 0].numel()
