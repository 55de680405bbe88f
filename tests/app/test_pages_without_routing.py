"""Models whose attention does not route: the stage and its words, controls that are not there, and A against B."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from app_pages import opened
from streamlit.testing.v1 import AppTest

from bra.metrics.routing import full_softmax
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.viewer.pack import unpack

pytest.importorskip("ultralytics")

ROOT = Path(__file__).parents[2]
CAT = Photo.from_bytes((ROOT / "sample_images" / "animal.jpg").read_bytes())
REASON = "no n_win and no topk to choose"


def page(**query: str) -> AppTest:
    return opened("explore", query)


def sent(app: AppTest, name: str) -> tuple[dict, dict[str, np.ndarray]]:
    found = next(block.proto for block in app.get("bidi_component")
                 if block.proto.component_name == f"routescope_{name}")
    header, _, arrays = unpack(found.bytes)
    return header, arrays


@pytest.mark.parametrize(("variant", "layer", "reach"), [
    ("yolo11n", "model.10.m.0.attn", ["whole"]), ("yolo12n", "model.6.m.0.0.attn", ["stripes", 4])])
def test_stock_yolo_is_shown_without_windows_to_choose(variant: str, layer: str, reach: list) -> None:
    app = page(model="stock", variant=variant, side="224")
    header, arrays = sent(app, "stage")
    lt = open_model(ModelSettings("stock", variant=variant)).look(CAT, 224).trace.layers[layer]
    assert header["routed"] is False
    assert header["reach"] == reach
    np.testing.assert_allclose(arrays["affinity"], full_softmax(lt), atol=1e-6)
    assert any(REASON in caption.value for caption in app.sidebar.caption)
    assert not {"n_win", "topk"} & {slider.key for slider in app.slider}
    assert not app.error
    assert any("untrained" in warning.value.lower() for warning in app.warning)
    assert any("It does not route" in text.value for text in app.markdown)


def test_of_a_model_with_both_what_routes_is_shown_first() -> None:
    app = page(model="yolo", variant="yolo11n-bra-p5", side="224")
    assert sent(app, "stage")[0]["routed"] is True
    assert [layer["name"] for layer in sent(app, "rail")[0]["layers"]] == ["model.10", "model.11.m.0.attn"]
    assert {slider.key for slider in app.slider} == set()
    app = page(model="yolo", variant="yolo11n-bra-p5", side="224", layer="model.11.m.0.attn")
    assert sent(app, "stage")[0]["routed"] is False
    assert any(REASON in caption.value for caption in app.sidebar.caption)


def test_a_checkpoint_of_ones_own_opens_by_the_same_door(tmp_path: Path) -> None:
    from ultralytics import YOLO

    from bra.yolo.transplant import write_checkpoint

    app = page(model="own", side="224")
    for name, words in (("yolo11n", None), ("yolov8n", "no other attention over the tokens of a picture")):
        write_checkpoint(YOLO(f"{name}.yaml").model, tmp_path / f"{name}.pt")
        app.sidebar.file_uploader[0].upload(f"{name}.pt", (tmp_path / f"{name}.pt").read_bytes(), "").run()
        assert not app.exception
        assert not app.error
        said = [info.value for info in app.info if "no other attention" in info.value]
        if words is None:
            assert not said
            assert sent(app, "stage")[0]["caption"].startswith("yolo11n.pt · model.10.m.0.attn")
        else:
            assert words in said[0]


def test_bra_in_place_of_c2psa_is_held_against_it() -> None:
    app = opened("compare", {"tab": "versus", "model": "stock", "side": "224", "b_model": "yolo",
                             "b_variant": "yolo11n-bra-c2psa"})
    assert not app.error
    header, arrays = sent(app, "multiples")
    assert [cell["reach"] for cell in header["cells"]] == [["whole"], []]
    assert "share_0" in arrays
    assert "share_1" not in arrays
    assert any("A does not route. Of its attention, **" in text.value for text in app.markdown)
    table = app.dataframe[0].value
    assert table["A"].tolist()[:3] == ["–", "–", "–"]
    app.segmented_control(key="tab").set_value("grid").run()
    assert not app.exception
    assert any("no routing to see" in info.value for info in app.info)
