"""The file of a watched training in Explore: a slider over its epochs, its curves, and what is made of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sent_figures import array, figures
from streamlit.testing.v1 import AppTest
from test_models import ask, message, upload
from torch import nn

import bra
from bra.readers.timeline import read_timeline, recording_of
from bra.reports.timeline import animation_webp, shown_epochs, timeline_html
from dashboard.state import timeline as state

APP = Path(__file__).parents[2] / "dashboard" / "app.py"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Four epochs of a layer whose routing changes, and which is collapsed in all of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), bra.BiLevelRoutingAttention(16, n_win=4, num_heads=2, topk=2))
    w = bra.watch(model, torch.rand(1, 3, 96, 128), tmp_path_factory.mktemp("watched"))
    for epoch in (1, 2, 3, 7):
        assert w(epoch)
        with torch.no_grad():
            for weights in model.parameters():
                weights += 0.3 * torch.randn_like(weights)
    return w.path.read_bytes()


@pytest.fixture
def app(watched: bytes) -> AppTest:
    made = ask(AppTest.from_file(str(APP), default_timeout=120), model="own")
    upload(made, "routing.bra", watched, "")
    assert not made.exception
    assert not made.error
    return made


def test_it_opens_on_its_last_epoch_and_the_slider_moves_the_stage(app: AppTest, watched: bytes) -> None:
    timeline = read_timeline(watched)
    for place, epoch in ((3, 7), (1, 2)):
        if epoch != 7:
            app.select_slider(key="timeline_epoch").set_value(epoch).run()
        assert not app.exception
        header, arrays = message(app, "stage")
        layer = recording_of(timeline, watched, place).trace.layers["1"]
        np.testing.assert_array_equal(arrays["r_idx"], layer.r_idx[0])
        assert f"after epoch {epoch}" in header["caption"]
        assert any(f"epoch={epoch})" in one.value for one in app.code) == (epoch != 7)


def test_the_pictures_query_and_layer_stay_from_epoch_to_epoch(app: AppTest) -> None:
    before = message(app, "stage")[0]
    app.select_slider(key="timeline_epoch").set_value(1).run()
    after = message(app, "stage")[0]
    assert (before["photo"], before["parts"][1], before["focus"]) == (after["photo"], after["parts"][1], after["focus"])


def test_play_goes_from_the_end_to_the_first_and_stops_by_hand(app: AppTest) -> None:
    app.button(key="timeline_play").click().run()
    assert app.select_slider(key="timeline_epoch").value == 1
    assert app.button(key="timeline_play").label == "Stop"
    app.select_slider(key="timeline_epoch").set_value(3).run()
    assert app.button(key="timeline_play").label == "Play"
    app.button(key="timeline_play").click().run()
    assert app.select_slider(key="timeline_epoch").value == 3        # goes on from where one is
    app.button(key="timeline_play").click().run()
    assert app.button(key="timeline_play").label == "Play"


def test_a_slider_that_comes_late_with_the_clock_is_no_hand(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    app.button(key="timeline_play").click().run()
    with monkeypatch.context() as of_the_clock:
        of_the_clock.setattr(state.job_status, "is_fragment_run", lambda: True)
        app.select_slider(key="timeline_epoch").set_value(7).run()
    assert app.button(key="timeline_play").label == "Stop"
    assert app.select_slider(key="timeline_epoch").value == 1
    app.select_slider(key="timeline_epoch").set_value(7).run()
    assert app.button(key="timeline_play").label == "Play"
    assert app.select_slider(key="timeline_epoch").value == 7


def test_curves_are_the_numbers_of_the_file(app: AppTest, watched: bytes) -> None:
    app.selectbox(key="timeline_curves").set_value("shared_choices").run()
    assert not app.exception
    wanted = [one.layers["1"].shared_choices for one in read_timeline(watched).epochs]
    found = [trace for figure in figures(app) for trace in figure["data"] if trace["name"] == "1"]
    assert found
    np.testing.assert_allclose(array(found[0]["y"]), wanted)


def test_downloads_are_there(app: AppTest) -> None:
    labels = {button.proto.label for button in app.get("download_button")}
    assert {"Animation, WebP", "Epochs, HTML"} <= labels


def test_other_pages_open_it_too(app: AppTest) -> None:
    for page in ("compare", "cost", "models"):
        app.switch_page(f"views/{page}.py").run()
        assert not app.exception


def test_the_animation_has_a_picture_for_each_epoch(watched: bytes) -> None:
    timeline = read_timeline(watched)
    moving = animation_webp(timeline, watched, "1", {"a": (2500, 2500), "b": (7500, 7500)})
    with Image.open(io.BytesIO(moving)) as image:
        assert (image.format, image.n_frames, image.size) == ("WEBP", 4, (480, 382))
    page = timeline_html(timeline, moving, "1", 3, "<b>.bra")
    assert "data:image/webp;base64," in page
    assert "<b>" not in page.replace("<body>", "")
    assert page.count("<tr") == 1 + 4
    assert shown_epochs(5) == (0, 1, 2, 3, 4)
    assert shown_epochs(1000, 5) == (0, 250, 500, 749, 999)
