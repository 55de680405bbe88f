"""Every family of models opens in Explore with its own numbers, strangers' files too; cards tell all they know."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from app_pages import opened
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

from bra.metrics.between_layers import consecutive, leaves_out, overlap
from bra.metrics.routing import received
from bra.models.base import Change
from bra.models.biformer import BiFormer
from bra.models.card import cards
from bra.models.catalog import CATALOG, ModelSettings
from bra.models.class_map import class_map
from bra.opening import open_model
from bra.photo import Photo
from bra.viewer.pack import unpack
from dashboard.widgets.picture import plain
from dashboard.widgets.tables import run_table, score_table

pytest.importorskip("ultralytics")

ROOT = Path(__file__).parents[2]
APP = ROOT / "dashboard" / "app.py"
CAT = ROOT / "sample_images" / "animal.jpg"
BUTTONS = ROOT / "sample_images" / "repeated_objects.jpg"
CFG = ROOT / "bra" / "yolo" / "cfg"


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_file(str(APP), default_timeout=120)


def message(app: AppTest, name: str) -> tuple[dict, dict[str, np.ndarray]]:
    for block in app.get("bidi_component"):
        if block.proto.component_name == f"routescope_{name}":
            header, _, arrays = unpack(block.proto.bytes)
            return header, arrays
    raise AssertionError(f"no {name} on the page")


def ask(app: AppTest, **query: str) -> AppTest:
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


@pytest.mark.parametrize("key", [key for key, entry in CATALOG.items() if entry.family in ("yolo", "biformer")])
def test_every_model_opens_with_its_own_numbers(app: AppTest, key: str) -> None:
    ask(app, model=key, side="224", picture="repeated_objects")
    header, arrays = message(app, "stage")
    opened = open_model(ModelSettings(key))
    look = opened.look(Photo.from_bytes(BUTTONS.read_bytes()), 224)
    name = CATALOG[key].layer or next(iter(look.trace.layers))
    layer = look.trace.layers[name]
    np.testing.assert_array_equal(arrays["r_idx"], layer.r_idx[0])
    assert header["caption"].startswith(f"{opened.label} · {name}")
    assert opened.provenance in header["caption"]
    assert [label for label, _ in header["found"]] == [found.label for found in look.answer.detections]
    boxes = np.array([found.box for found in look.answer.detections]).reshape(-1, 4)
    np.testing.assert_allclose(arrays["boxes"], boxes, atol=1e-6)

    if len(look.trace.layers) == 1:
        assert "routescope_rail" not in [block.proto.component_name for block in app.get("bidi_component")]
        return
    rail, counts = message(app, "rail")
    assert [one["name"] for one in rail["layers"]] == list(look.trace.layers)
    assert rail["chosen"] == name
    for at, trace in enumerate(look.trace.layers.values()):
        if not trace.routed:        # what each window gets of all attention
            np.testing.assert_allclose(counts[f"in_degree_{at}"], received(trace), atol=1e-6)
            continue
        chosen = np.bincount(trace.r_idx[0].flatten().numpy(), minlength=trace.grid.n_windows)
        np.testing.assert_array_equal(counts[f"in_degree_{at}"], chosen)
    for i, a in enumerate(look.trace.layers.values()):
        for j, b in enumerate(look.trace.layers.values()):
            wanted = np.nan if not (leaves_out(a) and leaves_out(b)) else 1 if i == j else overlap(a, b)[0]
            assert counts["alike"][i, j] == pytest.approx(wanted, nan_ok=True)


def test_layers_are_held_against_the_one_before(app: AppTest) -> None:
    app.session_state["explore_tabs"] = "Do layers choose alike?"
    ask(app, model="flowers", side="224")
    shown = app.dataframe[0].value
    layers = open_model(ModelSettings("flowers")).look(Photo.from_bytes(CAT.read_bytes()), 224).trace.layers
    pairs = consecutive(layers)
    assert shown["layer"].tolist() == [pair.layer for pair in pairs]
    assert shown["before it"].tolist() == [pair.before for pair in pairs]
    for head, name in (("overlap", "overlap"), ("chance", "chance"), ("keeps", "recall"),
                       ("with the choice before", "carried"), ("lost, points", "lost")):
        assert shown[head].tolist() == pytest.approx([100 * getattr(pair, name) for pair in pairs], abs=0.051)


def test_hubs_are_told_of_where_they_are_and_not_where_all_is_chosen(app: AppTest) -> None:
    ask(app, model="flowers", layer="stages.2.2.attn")
    header, arrays = message(app, "stage")
    counts = np.sort(np.bincount(arrays["r_idx"].flatten()))[::-1]
    share = counts[:header["topk"]].sum() / counts.sum()
    assert share > 0.8
    words = f"Collapsed: {100 * share:.0f} % of all choices in this layer fall on the same 8 windows"
    assert any(warning.value.startswith(words) for warning in app.warning)
    other = ask(AppTest.from_file(str(APP), default_timeout=120), model="flowers", layer="stages.3.0.attn")
    assert not any("of all choices" in said.value for said in (*other.caption, *other.warning))


def test_a_layer_gets_other_windows_and_the_caption_says_so(app: AppTest) -> None:
    ask(app, model="cells", layer="model.19.attn")
    assert any("built with n_win 7, topk 4" in caption.value for caption in app.sidebar.caption)
    app.toggle(key="changed").set_value(True).run()
    app.slider(key="n_win").set_value(5).run()
    assert not app.exception
    header, arrays = message(app, "stage")
    expected = open_model(ModelSettings("cells")).look(
        Photo.from_bytes(CAT.read_bytes()), 224, Change("model.19.attn", 5, 4)).trace.layers["model.19.attn"]
    np.testing.assert_array_equal(arrays["r_idx"], expected.r_idx[0])
    assert "windows changed" in header["caption"]
    assert app.query_params["changed"] == "1"


def test_trained_and_untrained_are_one_switch_apart(app: AppTest) -> None:
    ask(app, model="cells")
    trained = message(app, "stage")
    app.segmented_control(key="weights_cells").set_value("untrained").run()
    assert not app.exception
    untrained = message(app, "stage")
    assert "trained on blood cells" in trained[0]["caption"]
    assert "untrained, random weights" in untrained[0]["caption"]
    assert not np.array_equal(trained[1]["affinity"], untrained[1]["affinity"])


def test_a_layer_that_attends_to_everything_has_no_windows_to_change(app: AppTest) -> None:
    ask(app, model="biformer", side="224", layer="stages.3.0.attn")
    header, _ = message(app, "stage")
    assert header["topk"] == header["grid"]["n_win"] ** 2
    assert any("This layer does not route" in caption.value for caption in app.sidebar.caption)


def upload(app: AppTest, name: str, data: bytes, kind: str) -> AppTest:
    app.sidebar.file_uploader[0].upload(name, data, kind).run()
    assert not app.exception
    return app


def test_ones_own_model_file_opens_and_a_bad_one_gives_a_sentence(app: AppTest) -> None:
    app.query_params["model"] = "own"
    app.run()
    assert not app.exception
    assert not app.error
    assert any("Drop a model file" in info.value for info in app.info)
    assert message(app, "stage")[0]["caption"].startswith("Content similarity")      # never an empty page
    upload(app, "yolov8n-mine.yaml", (CFG / "yolov8-bra-p5.yaml").read_bytes(), "text/yaml")
    header, _ = message(app, "stage")
    assert header["caption"].startswith("yolov8n-mine.yaml · model.10")
    assert "untrained" in header["caption"]

    evil = b"backbone: [[-1, 1, 'torch.hub.load', [x]]]\nhead: [[[0], 1, Detect, [nc]]]\n"
    upload(app, "evil.yaml", evil, "text/yaml")
    assert len(app.error) == 1
    assert "\n" not in app.error[0].value
    assert message(app, "stage")[0]["caption"].startswith("Content similarity")


@pytest.mark.parametrize("scale", [1e19, 3e38])
def test_weights_whose_attention_overflows_get_a_sentence(app: AppTest, scale: float) -> None:
    """Every weight is finite, and so is every mean over a window where it is small enough; their products are not."""
    model = BiFormer((1, 1, 1, 1), (32, 32, 32, 32), num_classes=2)
    state = {name: t.clone() for name, t in model.state_dict().items()}
    state["stages.0.0.attn.qkv.qkv.bias"].fill_(scale)
    ask(app, model="own")
    upload(app, "huge.safetensors", save(state), "")
    wanted = plain("Layer 'stages.0.0.attn' computes numbers that are not finite on this picture: choose a checkpoint "
                   "of a healthy training.")
    assert [error.value for error in app.error] == [wanted]
    assert message(app, "stage")[0]["caption"].startswith("Content similarity")
    for tab in ("grid", "versus", "probes"):
        app.query_params["tab"] = tab
        app.switch_page("views/compare.py").run()
        assert not app.exception
        assert [error.value for error in app.error] == [wanted], tab


def test_nobody_sees_anothers_model(app: AppTest) -> None:
    ask(app, model="own")
    upload(app, "secret-plan.yaml", (CFG / "yolov8-bra-p5.yaml").read_bytes(), "text/yaml")
    other = AppTest.from_file(str(APP), default_timeout=120)
    ask(other, model="own")
    assert any("Drop a model file" in info.value for info in other.info)
    assert "secret-plan" not in str(other.main)


def test_one_file_under_two_names_is_two_models_and_no_visitor_sees_the_others_name(app: AppTest) -> None:
    # The name says the scale, and it is its visitor's own: equal bytes are not enough to share a model.
    text = (CFG / "yolov8-bra-p5.yaml").read_bytes()
    upload(ask(app, model="own"), "yolov8n-secret.yaml", text, "text/yaml")
    other = upload(ask(AppTest.from_file(str(APP), default_timeout=120), model="own"), "yolov8s-mine.yaml", text,
                   "text/yaml")
    for page, name, channels in ((app, "yolov8n-secret.yaml", 256), (other, "yolov8s-mine.yaml", 512)):
        assert message(page, "stage")[0]["caption"].startswith(f"{name} · ")
        assert any(f"{channels} channels" in caption.value for caption in page.sidebar.caption)


def test_models_page_shows_every_card(app: AppTest) -> None:
    app.run()
    app.switch_page("views/models.py").run()
    assert not app.exception
    for name, card in cards().items():
        app.segmented_control(key="card").set_value(name).run()
        assert not app.exception
        text = " ".join(block.value for block in app.markdown)
        assert card.title in text
        assert all(sentence in text for sentence in (*card.verdict, *card.limits))
        assert card.command in app.code[0].value
    next(one for one in app.button if one.label == "Look into it").click().run()
    assert not app.exception


@pytest.mark.parametrize("name", cards())
def test_the_table_of_scores_has_a_line_for_each_variant(name: str) -> None:
    card = cards()[name]
    table = score_table(card)
    assert [row["variant"] for row in table] == list(card.scores)


def test_the_routing_of_all_runs_is_the_cards_and_stands_on_its_page() -> None:
    """Of a card with three seeds; numbers are worked out here from the file's own."""
    card = json.loads((ROOT / "bra" / "weights" / "photos.json").read_text(encoding="utf-8"))
    runs = [card["quality"][run] for run in ("trained", "seed1", "seed2")]
    table = run_table(cards()["photos"])
    assert [row["layer"] for row in table] == [row["layer"] for row in runs[0]]
    assert {row["seeds"] for row in table} == {3}
    for row, *same in zip(table, *runs, strict=True):
        for column, field in (("overlap, %", "overlap"), ("shared choices, %", "shared"),
                              ("depends on the query, %", "query_dependence")):
            values = [100 * one[field] for one in same]
            low, high = f"{min(values):.0f}", f"{max(values):.0f}"
            assert row[column] == f"{sum(values) / 3:.0f}" + (f" ({low} to {high})" if low != high else "")
    shown = [one.value for one in opened("models", {"card": "photos"}).dataframe if "overlap, %" in one.value]
    assert [one["overlap, %"].tolist() for one in shown] == [[row["overlap, %"] for row in table]]
    assert run_table(cards()["flowers"]) != []


def test_the_class_heat_map_is_computed_when_it_is_asked_for_and_is_that_of_the_model(app: AppTest) -> None:
    ask(app, model="flowers", side="224")
    header, arrays = message(app, "stage")
    assert header["heat_offered"]
    assert arrays["heat"].size == 0
    other = ask(AppTest.from_file(str(APP), default_timeout=120), model="flowers", side="224", show="class_map")
    header, arrays = message(other, "stage")
    found = class_map(open_model(ModelSettings("flowers")), Photo.from_bytes(CAT.read_bytes()), 224)
    step = -(-max(found.heat.shape) // 160)
    expected = np.round(255 * found.heat[::step, ::step])
    assert header["heat_size"] == list(expected.shape)
    np.testing.assert_allclose(arrays["heat"].reshape(expected.shape), expected, atol=1)
    assert any("it is no attention" in one.value for one in other.caption)


def test_a_model_that_answers_nothing_offers_no_heat_map(app: AppTest) -> None:
    ask(app, model="flowers", untrained="1", show="class_map")
    header, arrays = message(app, "stage")
    assert not header["heat_offered"]
    assert arrays["heat"].size == 0
