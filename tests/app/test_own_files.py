"""Files of the visitor's own: what is held is shown and can be taken away, and nothing else passes for it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from bra.viewer.pack import unpack
from dashboard.runtime.config import Limits
from dashboard.services import uploads as upload_services
from dashboard.state.upload import uploaded

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "bra" / "yolo" / "cfg" / "yolov8-bra-p5.yaml").read_bytes()


def picture(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()


def opened(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=120)
    for name, value in {"side": "224", **query}.items():
        app.query_params[name] = value
    return app.run()


def give(app: AppTest, key: str, name: str, data: bytes) -> AppTest:
    app.file_uploader(key=key).upload(name, data, "application/octet-stream").run()
    assert not app.exception
    return app


def on_page(app: AppTest, page: str) -> AppTest:
    app.switch_page(f"views/{page}.py").run()
    assert not app.exception
    return app


def said(app: AppTest) -> list[str]:
    return [one.value.replace("\\", "") for one in app.markdown]


def shown_picture(app: AppTest) -> str:
    return next(unpack(block.proto.bytes)[0]["name"] for block in app.get("bidi_component")
                if block.proto.component_name == "routescope_stage")


def dimmed(app: AppTest) -> bool:
    """Whether what the page found stands in the part that is drawn in grey."""
    return any("stand_in" in getattr(block.proto, "id", "") for block in blocks(app.main))


def blocks(node: object) -> list:
    found = []
    for child in getattr(node, "children", {}).values():
        if hasattr(child, "children"):
            found += [child, *blocks(child)]
    return found


def test_a_picture_that_is_in_use_is_said_on_every_page_that_uses_it_and_can_be_removed() -> None:
    app = give(opened(model="similarity"), "uploader", "mine.png", picture())
    assert "In use: mine.png" not in said(app), "the uploader itself says so"
    on_page(app, "cost")
    for page in ("compare", "explore"):
        assert "In use: mine.png" in said(on_page(app, page))
    assert shown_picture(app) == "mine.png"
    app.button(key="uploader_remove").click().run()
    assert "In use: mine.png" not in said(app)
    assert shown_picture(app) != "mine.png"
    assert "picture" not in app.query_params


def test_a_model_that_is_in_use_is_said_on_every_page_and_can_be_removed() -> None:
    app = give(opened(model="own"), "model_uploader", "yolov8n-mine.yaml", MODEL)
    for page in ("compare", "cost", "explore"):
        assert "In use: yolov8n-mine.yaml" in said(on_page(app, page))
    app.button(key="model_uploader_remove").click().run()
    assert any("Drop a model file" in one.value for one in app.info)


@pytest.mark.parametrize("data", [b"<svg>", bytes(9)], ids=["drawing", "noise"])
def test_nothing_of_another_picture_follows_a_refusal_at_full_strength(data: bytes) -> None:
    app = opened(model="similarity")
    assert not dimmed(app)
    give(app, "uploader", "mine.png", data)
    for page in ("explore", "compare"):
        on_page(app, page)
        assert len(app.error) == 1
        assert dimmed(app)
        assert any("is not your file" in one.value for one in app.warning)
    give(on_page(app, "explore"), "uploader", "mine.png", picture())
    assert not dimmed(app)


@pytest.mark.parametrize(("name", "data"), [("best.pt", b"no checkpoint"), ("mine.yaml", b"backbone: [")])
def test_nothing_of_another_model_follows_a_refusal_at_full_strength(name: str, data: bytes) -> None:
    app = give(opened(model="own"), "model_uploader", name, data)
    assert len(app.error) == 1
    assert dimmed(app)
    assert any("is not your file" in one.value for one in app.warning)
    for page in ("compare", "cost"):
        assert on_page(app, page).error
        assert not {block.proto.component_name for block in app.get("bidi_component")} & {
            "routescope_stage", "routescope_multiples"}
        assert not app.get("arrow_data_frame")


@pytest.mark.parametrize("query", [{"model": "untrained"}, {"model": "flowers", "untrained": "1"}])
def test_untrained_weights_are_a_banner_on_every_page(query: dict[str, str]) -> None:
    app = opened(**query)
    for page in ("explore", "compare", "cost"):
        assert [one.value for one in on_page(app, page).warning if "Untrained weights" in one.value], page
    header = next(unpack(block.proto.bytes)[0] for block in on_page(app, "explore").get("bidi_component")
                  if block.proto.component_name == "routescope_stage")
    assert header["untrained"], "the saved picture says so too"


def test_trained_weights_have_no_such_banner() -> None:
    app = opened(model="flowers")
    for page in ("explore", "compare", "cost"):
        assert not [one.value for one in on_page(app, page).warning if "Untrained" in one.value], page


def test_several_pictures_are_held_and_each_is_removed_by_itself() -> None:
    app = opened(model="similarity")

    def names() -> list[str]:
        return [one.name for one in app.session_state["own_pictures"]]

    give(app, "uploader", "red.png", picture())
    field = app.file_uploader(key="uploader")
    field.set_value([("red.png", picture(), "image/png"), ("blue.png", picture("blue"), "image/png"),
                     ("green.png", picture("green"), "image/png")]).run()
    assert not app.exception
    assert names() == ["green.png", "blue.png", "red.png"]
    assert shown_picture(app) == "green.png"
    app.session_state["own_pictures"] = app.session_state["own_pictures"][1:]      # as if it had been the first to go
    app.file_uploader(key="uploader").set_value([("blue.png", picture("blue"), "image/png")]).run()
    assert not app.exception
    assert "red.png" not in names()
    assert shown_picture(app) == "blue.png"


def test_no_more_pictures_are_held_than_the_server_takes_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_services, "limits", lambda: Limits(picture_mb=1))
    large = [uploaded(f"{n}.png", bytes([n]) * 400_000) for n in range(4)]
    assert upload_services._last_few(large[0], large[1:]) == large[:2]
    small = [uploaded(f"{n}.png", bytes([n])) for n in range(6)]
    assert upload_services._last_few(small[0], small[1:]) == small[:4]
    assert upload_services._last_few(small[0], small[:2]) == small[:2]      # the same picture again is held once
