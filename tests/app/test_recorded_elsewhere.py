"""A file that cannot be opened here comes with the way to open it: recorded where it runs, mended, or given BRA."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest
from test_models import ask, message, upload

from dashboard.i18n import CATALOGUES

pytest.importorskip("ultralytics")
from ultralytics.nn.tasks import DetectionModel

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
HEAD = b"nc: 3\nscales:\n  n: [0.33, 0.25, 1024]\nbackbone:\n  - [-1, 1, Conv, [64, 3, 2]]\n"
THEIRS = HEAD + b"  - [-1, 1, CBAM, [64]]\nhead:\n  - [[1], 1, Detect, [nc]]\n"
CHANNELS = HEAD + b"  - [-1, 1, BiLevelRoutingAttention, [64, 8]]    # theirs\nhead:\n  - [[1], 1, Detect, [nc]]\n"


@pytest.fixture
def app() -> AppTest:
    return ask(AppTest.from_file(str(APP), default_timeout=120), model="own")


@pytest.fixture(scope="module")
def plain() -> bytes:
    model = DetectionModel("yolov8n.yaml", verbose=False)
    file = io.BytesIO()
    torch.save({"model": model.half(), "train_args": {}, "epoch": -1}, file)
    return file.getvalue()


@pytest.mark.parametrize("page", ["explore", "compare", "cost"])
def test_a_refusal_ends_with_the_lines_that_record_it(app: AppTest, page: str) -> None:
    app.switch_page(f"views/{page}.py").run()
    upload(app, "my net.yaml", THEIRS, "")
    (error,) = app.error
    assert "CBAM" in error.value
    assert "these two lines" in error.value
    code = next(one.value for one in app.code if "bra\\_record" not in one.value and "record" in one.value)
    assert code == ('from bra_record import record; from ultralytics import YOLO\n'
                    'record(YOLO("my net.yaml"), "picture.jpg", "run.bra")')
    assert any(button.proto.label == "bra_record.py" for button in app.get("download_button"))


def test_rows_that_begin_with_their_channels_are_mended_and_opened(app: AppTest) -> None:
    upload(app, "yolov8n-x.yaml", CHANNELS.replace(b"[64, 8]", b"[256, 8]"), "")
    windows, heads = (button for button in app.button if button.label.startswith("Mend and open"))
    assert "n_win" in windows.label
    heads.click().run()
    assert not app.exception
    assert not app.error
    header, arrays = message(app, "stage")
    assert header["caption"].startswith("yolov8n-x-mended.yaml")
    assert arrays["r_idx"].shape == (49, 4)     # the class's own n_win 7, since the 8 are its heads


def test_side_b_of_a_comparison_is_mended_in_its_own_place() -> None:
    app = ask(AppTest.from_file(str(APP), default_timeout=120), tab="versus", b_model="own", side="224")
    app.switch_page("views/compare.py").run()
    uploader = next(one for one in app.file_uploader if one.label == "B: model file")
    smaller = HEAD + 4 * b"  - [-1, 1, Conv, [64, 3, 2]]\n"     # a map of few tokens, since all of them are compared
    uploader.upload("theirs.yaml", CHANNELS.replace(HEAD, smaller).replace(b"[64, 8]", b"[256, 8]")
                    .replace(b"[[1], 1", b"[[5], 1"), "").run()
    assert len(app.error) == 1
    next(button for button in app.button if button.label.startswith("Mend and open")).click().run()
    assert not app.exception
    assert not app.error
    assert "theirs-mended.yaml" in str(message(app, "multiples")[0])


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("page", ["explore", "compare", "cost"])
def test_a_checkpoint_without_attention_gets_one_sentence_with_what_can_be_done(plain: bytes, page: str,
                                                                               language: str) -> None:
    app = ask(AppTest.from_file(str(APP), default_timeout=120), model="own", lang=language)
    app.switch_page(f"views/{page}.py").run()
    upload(app, "plain.pt", plain, "")
    assert not app.error
    word = "has no layer of bi-level routing attention" if language == "en" else "没有双层路由注意力层"
    assert word in (CATALOGUES["zh"] | {word: word})[word]
    assert sum(word in info.value.replace("\\", "") for info in app.info) == 1
    assert any("transplant" in info.value for info in app.info)
