"""Every page runs, and shows the module's numbers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sent_figures import figures, maps
from streamlit.testing.v1 import AppTest

from bra.models.catalog import ModelSettings, build
from bra.opening import look
from bra.photo import Photo, to_tensor
from bra.viewer.pack import unpack
from dashboard.state.view import Selection

APP = Path(__file__).parents[2] / "dashboard" / "app.py"


@pytest.fixture
def app() -> AppTest:
    """The app, about to open on the model whose settings are all the visitor's."""
    made = AppTest.from_file(str(APP), default_timeout=60)
    made.query_params["model"] = "similarity"
    made.session_state["stage_drawn"] = True        # as a browser says
    return made


def messages(app: AppTest) -> dict[str, tuple[dict, bytes, dict[str, np.ndarray]]]:
    """What the components were sent, by "picture" and "stage"."""
    found = {}
    for block in app.get("bidi_component"):
        name = block.proto.component_name
        if name in ("routescope_picture", "routescope_stage"):
            found[name.removeprefix("routescope_")] = unpack(block.proto.bytes)
    return found


def expected(settings: ModelSettings, picture: Path | bytes) -> tuple[torch.Tensor, ...]:
    """r_weight, r_idx and attn of the first layer, from `ret_attn_mask` itself."""
    data = picture if isinstance(picture, bytes) else picture.read_bytes()
    model = build(settings)
    with torch.inference_mode():
        tokens = model.embed(to_tensor(Photo.from_bytes(data).resized(settings.side)))
        return model.layers[0](tokens, ret_attn_mask=True)[1:]


CAT = APP.parents[1] / "sample_images" / "animal.jpg"


def test_explore_opens_on_a_picture_with_the_modules_numbers(app: AppTest) -> None:
    app.run()
    assert not app.exception
    header, picture, arrays = messages(app)["stage"]
    # The picture comes by itself, so that a new topk does not bring it again.
    assert not picture
    alone, picture, _ = messages(app)["picture"]
    assert alone["photo"] == header["photo"]
    r_weight, r_idx, attn = expected(ModelSettings(), CAT)
    np.testing.assert_array_equal(arrays["r_idx"], r_idx[0])
    np.testing.assert_allclose(arrays["r_weight"], r_weight[0], atol=1e-6)
    assert Image.open(io.BytesIO(picture)).format == "WEBP"
    assert "not learned" in header["caption"]

    assert len(figures(app)) == 1                                   # the others are made when their tabs are opened
    first = maps(figures(app)[0])
    app.selectbox(key="heads").set_value("every").run()
    query, grid = figures(app)[0]["layout"]["meta"]["queries"][0], header["grid"]
    rows = attn[query["window"], :, query["token"]]
    drawn = maps(figures(app)[0])
    assert drawn.shape == (2 + 8, grid["H"], grid["W"])
    np.testing.assert_array_equal(first, drawn[:2])
    for rank, window in enumerate(r_idx[0, query["window"]].tolist()):
        j, i = divmod(window, grid["n_win"])
        h, w = grid["window_h"], grid["window_w"]
        tile = drawn[2:, j * h:(j + 1) * h, i * w:(i + 1) * w].reshape(8, -1)
        np.testing.assert_allclose(tile, rows[:, rank * h * w:(rank + 1) * h * w], atol=1e-6)
    np.testing.assert_allclose(drawn[0], drawn[2:].mean(0), atol=1e-7)
    np.testing.assert_allclose(drawn[1], drawn[2:].max(0), atol=1e-7)


def test_the_first_visit_meets_a_trained_model_on_a_picture() -> None:
    app = AppTest.from_file(str(APP), default_timeout=60).run()
    assert not app.exception
    header, _, arrays = messages(app)["stage"]
    first = Selection()
    layer = look(first.settings, Photo.from_bytes(CAT.read_bytes())).trace.layers[first.settings.entry.layer]
    np.testing.assert_array_equal(arrays["r_idx"], layer.r_idx[0])
    assert "taught on photographs, without labels" in header["caption"]
    assert app.query_params == {}


def test_changing_settings_changes_numbers_and_link(app: AppTest) -> None:
    app.run()
    app.slider(key="n_win").set_value(5).run()
    app.slider(key="topk").set_value(3).run()
    assert not app.exception
    _, r_idx, _ = expected(ModelSettings(n_win=5, topk=3), CAT)
    np.testing.assert_array_equal(messages(app)["stage"][2]["r_idx"], r_idx[0])
    assert app.query_params["n_win"] == "5"
    assert app.query_params["topk"] == "3"


def test_topk_follows_when_the_windows_become_fewer(app: AppTest) -> None:
    app.run()
    app.slider(key="topk").set_value(49).run()
    app.slider(key="n_win").set_value(2).run()
    assert not app.exception
    assert messages(app)["stage"][0]["topk"] == 4


def test_a_link_opens_its_view(app: AppTest) -> None:
    for name, value in {"picture": "portrait", "n_win": "8", "topk": "6", "layer": "layers.1", "model": "untrained",
                        "num_heads": "4", "a": "2500.2500", "b": "7600.9900", "whole": "1"}.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    header, _, _ = messages(app)["stage"]
    assert header["pins"] == {"a": [2500, 2500], "b": [7600, 9900]}
    assert header["grid"]["n_win"] == 8
    assert "layers.1" in header["caption"]
    assert "untrained" in header["caption"]
    queries = figures(app)[0]["layout"]["meta"]["queries"]
    assert [q["window"] for q in queries] == [2 * 8 + 2, 7 * 8 + 6]
    assert all(q["token"] is None for q in queries)


@pytest.mark.parametrize("query", [
    {"n_win": "999"}, {"n_win": "-1", "topk": "x"}, {"picture": "../../etc/passwd"}, {"picture": "upload"},
    {"a": "nan.nan"}, {"layer": "layers.9"}, {"model": "<script>"}])
def test_a_bad_link_still_opens(app: AppTest, query: dict[str, str]) -> None:
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    assert "stage" in messages(app)


def picture(size: tuple[int, int]) -> bytes:
    rng, buffer = np.random.default_rng(3), io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_uploaded_picture_is_shown(app: AppTest) -> None:
    app.run()
    data = picture((90, 133))
    app.file_uploader[0].upload("mine.png", data, "image/png").run()
    assert not app.exception
    _, r_idx, _ = expected(ModelSettings(), data)
    header, _, arrays = messages(app)["stage"]
    np.testing.assert_array_equal(arrays["r_idx"], r_idx[0])
    assert header["name"] == "mine.png"
    assert app.query_params["picture"] == "upload"


def test_a_file_that_is_no_picture_gives_one_sentence_and_the_page_stays(app: AppTest) -> None:
    app.run()
    app.file_uploader[0].upload("mine.png", b"<svg onload=alert(1)>", "image/png").run()
    assert not app.exception
    assert len(app.error) == 1
    assert "<svg" not in app.error[0].value
    assert "stage" in messages(app)


def test_pooling_that_does_not_fit_is_not_offered(app: AppTest) -> None:
    app.query_params["stride"] = "32"
    app.query_params["n_win"] = "16"
    app.query_params["kv_downsample_mode"] = "maxpool"
    app.run()
    assert not app.exception
    assert list(app.selectbox(key="kv_downsample_mode").options) == ["none"]
    assert any("too small to pool" in caption.value for caption in app.sidebar.caption)


@pytest.mark.parametrize("mode", ["maxpool", "avgpool", "ada_maxpool", "ada_avgpool", "fracpool", "conv"])
@pytest.mark.parametrize("mask", ["0", "1"])
def test_every_pooling_is_explored(app: AppTest, mode: str, mask: str) -> None:
    app.query_params["kv_downsample_mode"] = mode
    app.query_params["mask_padding"] = mask
    app.run()
    assert not app.exception
    np.testing.assert_allclose(maps(figures(app)[0])[0].sum(), 1, atol=1e-5)
    assert mask == "0" or not any("falls on padding" in block.value for block in app.markdown)


def test_the_guide_opens_and_the_view_is_still_there_afterwards(app: AppTest) -> None:
    app.run()
    app.slider(key="n_win").set_value(6).run()
    app.switch_page("views/guide.py").run()
    assert not app.exception
    assert any("How to read it" in block.value for block in app.markdown)
    app.switch_page("views/explore.py").run()
    assert not app.exception
    assert messages(app)["stage"][0]["grid"]["n_win"] == 6


def test_the_link_says_the_language_and_keeps_it() -> None:
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.query_params["lang"] = "zh"
    app.query_params["model"] = "similarity"
    app.run()
    assert app.button(key="language_switch").label == "English"
    assert app.query_params["lang"] == "zh"
    app.button(key="language_switch").click().run()
    assert app.button(key="language_switch").label == "中文"
    assert app.query_params["lang"] == "en"
    assert app.query_params["model"] == "similarity"


@pytest.mark.parametrize("asked", ["", "de", "zh-TW", "en\0"])
def test_a_language_that_is_not_there_is_not_kept(asked: str) -> None:
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.query_params["lang"] = asked
    app.query_params["model"] = "similarity"
    app.run()
    assert not app.exception
    assert app.button(key="language_switch").label == "中文"
    assert "lang" not in app.query_params


def test_charts_wait_until_the_stage_is_drawn() -> None:
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.query_params["model"] = "similarity"
    app.run()
    assert figures(app) == [], "a browser would load plotly before one can point"
    app.session_state["stage_drawn"] = True
    app.run()
    assert len(figures(app)) == 1
