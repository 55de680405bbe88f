"""What a visitor's file cannot tell is asked for in the side bar, and stands under the pictures until it is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save
from sent_figures import figures, texts
from streamlit.testing.v1 import AppTest
from test_models import ask, message, upload

from bra.models.biformer import BiFormer

pytest.importorskip("ultralytics")

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
ROWS = b"""
nc: 3
segHead: [[1, 1, Conv, [8]]]
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, BiLevelRoutingAttention, [4, 8]]
head:
  - [[2], 1, Detect, [nc]]
"""


@pytest.fixture
def app() -> AppTest:
    return ask(AppTest.from_file(str(APP), default_timeout=120), model="own")


def caption(app: AppTest) -> str:
    found: str = message(app, "stage")[0]["caption"]
    return found


def beside(app: AppTest, words: str) -> bool:
    return any(words in one.value.replace("\\", "") for one in app.sidebar.caption)


def test_weights_alone_are_asked_for_their_windows(app: AppTest) -> None:
    state = BiFormer((1, 1, 1, 1), (32, 32, 32, 32), n_win=4, topks=(2, 8, 9, -2), num_classes=2).state_dict()
    upload(app, "mine.safetensors", save(state), "")
    assert "n_win 7 · topk 1 · weights from mine.safetensors; settings assumed as published" in caption(app)
    assert beside(app, "Settings assumed as published (n_win 7, topk 1, 4, 16")
    key = next(one.key for one in app.sidebar.selectbox if one.key.endswith("_n_win"))
    app.selectbox(key=key).set_value("4").run()
    topks = next(one.key for one in app.sidebar.text_input if one.key.endswith("_topks"))
    app.text_input(key=topks).set_value("2, 8, 9, −2").run()
    assert not app.exception
    assert "n_win 4 · topk 2 · " in caption(app)
    assert "n_win 4 and topk 2, 8, 9 as given" in caption(app)
    assert beside(app, "N_win 4 and topk 2, 8, 9 as given")
    app.switch_page("views/compare.py").run()
    assert not app.exception
    assert "as given" in message(app, "multiples")[0]["caption"]
    app.switch_page("views/cost.py").run()
    assert not app.exception
    assert any("as given" in text.replace("<br>", " ") for figure in figures(app) for text in texts(figure))
    app.switch_page("views/guide.py").run()
    app.switch_page("views/explore.py").run()
    assert "n_win 4 and topk 2, 8, 9 as given" in caption(app), "pages between do not ask for it"
    app.text_input(key=topks).set_value("many").run()
    assert beside(app, "Write whole numbers with commas")


def test_a_routed_fourth_stage_is_refused_with_the_question_beside_it(app: AppTest) -> None:
    state = BiFormer((1, 1, 1, 1), (32, 32, 32, 32), topks=(1, 2, 3, 4), num_classes=2).state_dict()
    upload(app, "mine.safetensors", save(state), "")
    assert "give the topk of each stage" in app.error[0].value
    topks = next(one.key for one in app.sidebar.text_input if one.key.endswith("_topks"))
    app.text_input(key=topks).set_value("1,2,3,4").run()
    assert not app.exception
    assert not app.error
    assert "topk 1, 2, 3, 4" in caption(app)


def test_rows_of_two_readings_offer_the_other_one(app: AppTest) -> None:
    upload(app, "mine.yaml", ROWS, "text/yaml")
    assert "n_win 4 · topk 4 · untrained, random weights; assumes the tutorial's class" in caption(app)
    assert beside(app, "The rows under 'segHead' are left out")
    order = next(one.key for one in app.sidebar.segmented_control if one.key.endswith("_order"))
    app.segmented_control(key=order).set_value("heads").run()
    assert not app.exception
    assert "n_win 8 · topk 4 · " in caption(app)
    assert "heads first, as the authors' class" in caption(app)
    assert "file" not in app.query_params
