"""A recording opens in Explore on its own picture, with its own numbers; other pages say what it cannot do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest
from test_models import ask, message, upload
from wild_models import KINDS

from bra.listening import record
from bra.opening import open_file

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
KIND = KINDS[0]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    model = KIND.make().eval()
    x = torch.rand(1, 3, 64, 96)
    return Path(record(model, x, tmp_path_factory.mktemp("recording") / "run.bra")).read_bytes()


@pytest.fixture
def app() -> AppTest:
    return ask(AppTest.from_file(str(APP), default_timeout=120), model="own")


def test_it_opens_on_its_own_picture_with_the_recorded_routing(app: AppTest, recording: bytes) -> None:
    upload(app, "run.bra", recording, "")
    assert not app.exception
    assert not app.error
    header, arrays = message(app, "stage")
    trace = open_file(recording, "run.bra").recording.trace
    layer = next(iter(trace.layers.values()))
    np.testing.assert_array_equal(arrays["r_idx"], layer.r_idx[0])
    np.testing.assert_allclose(arrays["affinity"], layer.affinity[0], rtol=1e-6)
    assert "recorded with" in header["caption"]
    assert any("own picture" in one.value for one in app.markdown)


def test_another_topk_is_computed_from_what_was_recorded(app: AppTest, recording: bytes) -> None:
    upload(app, "run.bra", recording, "")
    app.toggle(key="changed").set_value(True).run()
    app.slider(key="topk").set_value(2).run()
    assert not app.exception
    assert message(app, "stage")[1]["r_idx"].shape[1] == 2


@pytest.mark.parametrize("page", ["compare", "cost", "models", "guide"])
def test_no_page_breaks_on_it(app: AppTest, recording: bytes, page: str) -> None:
    upload(app, "run.bra", recording, "")
    app.switch_page(f"views/{page}.py").run()
    assert not app.exception
