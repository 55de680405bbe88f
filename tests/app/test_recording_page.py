"""A recording opens in Explore on its own picture, with its own numbers; other pages say what it cannot do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest
from test_models import ask, message, upload
from wild_models import KINDS

from bra.hooks import record
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


def test_its_settings_are_compared_from_what_was_recorded(app: AppTest, recording: bytes) -> None:
    upload(app, "run.bra", recording, "")
    app.switch_page("views/compare.py").run()
    assert not app.exception
    assert not app.error
    header, arrays = message(app, "multiples")
    opened = open_file(recording, "run.bra")
    cell = next(at for at, one in enumerate(header["cells"]) if (one["n_win"], one["topk"]) == (4, 2))
    alone = opened.trace_with(next(iter(opened.specs)), 4, 2)
    np.testing.assert_array_equal(arrays[f"r_idx_{cell}"], alone.r_idx[0])
    assert "seconds" not in app.segmented_control[1].options        # nothing that could be timed runs


def test_cost_is_the_recorded_table(app: AppTest, recording: bytes) -> None:
    upload(app, "run.bra", recording, "")
    app.switch_page("views/cost.py").run()
    assert not app.exception
    table = open_file(recording, "run.bra").table
    shown = app.dataframe[0].value
    assert shown["multiply-adds"].tolist() == [row.macs for row in table]
    assert shown["parameters"].tolist() == [row.params for row in table]
    assert any("were counted" in one.value for one in app.markdown)
    assert any("Memory and time were not recorded" in one.value for one in app.caption)


def test_downloads_and_the_link_are_of_the_recording(app: AppTest, recording: bytes) -> None:
    upload(app, "run.bra", recording, "")
    app.toggle(key="changed").set_value(True).run()
    app.slider(key="n_win").set_value(4).run()
    labels = [button.proto.label for button in app.get("download_button")]
    assert {"Routing, CSV", "Trace, NPZ", "Report, HTML"} <= set(labels)
    link = {name: value[0] if isinstance(value, list) else value for name, value in app.query_params.items()}
    other = ask(AppTest.from_file(str(APP), default_timeout=120), **link)
    upload(other, "run.bra", recording, "")
    assert message(other, "stage")[0]["caption"] == message(app, "stage")[0]["caption"]
    assert message(other, "stage")[0]["grid"]["n_win"] == 4
