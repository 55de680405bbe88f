"""What leaves the program: messages to the browser, CSV, NPZ, the report, and the command that writes it."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import sent_figures
import torch
from plotly.offline import get_plotlyjs

from bra.cli.main import main
from bra.errors import TraceError
from bra.models.catalog import ModelSettings
from bra.opening import look
from bra.photo import Photo
from bra.reports.files import routing_csv, trace_npz
from bra.reports.layer_html import report_html
from bra.tracing import LayerTrace
from bra.viewer.pack import FULL, Caption, locate, pack, stage_message, unpack

CAPTION = Caption("Model", "layers.0", "not learned", "picture")


@pytest.fixture(scope="module")
def photo() -> Photo:
    return Photo.from_array(np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def layer(photo: Photo) -> LayerTrace:
    return look(ModelSettings(n_win=3, topk=2, num_heads=2), photo).trace.layers["layers.0"]


def test_a_message_comes_back_as_it_was_sent() -> None:
    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.float32([1.5, -np.inf]), "c": np.uint8([7])}
    header, picture, back = unpack(pack({"word": "é"}, b"12345", arrays))
    assert header["word"] == "é"
    assert picture == b"12345"
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


def test_a_message_refuses_what_the_browser_would_misread() -> None:
    with pytest.raises(TypeError, match="float64"):
        pack({}, b"", {"a": np.zeros(2)})
    with pytest.raises(TraceError, match="not finite: choose another layer"):
        pack({"bad": float("nan")}, b"", {})


def test_equal_views_have_equal_versions_and_others_do_not(photo: Photo, layer: LayerTrace) -> None:
    def version(**pins: tuple[int, int]) -> str:
        return unpack(stage_message(photo, layer, CAPTION, (5000, 5000), pins))[0]["version"]

    assert version() == version()
    assert version() != version(a=(1, 1))


def test_the_stage_gets_the_routing_of_every_window(photo: Photo, layer: LayerTrace) -> None:
    header, _, arrays = unpack(stage_message(photo, layer, CAPTION, (0, 0), {}))
    np.testing.assert_array_equal(arrays["affinity"], layer.affinity[0])
    np.testing.assert_array_equal(arrays["r_idx"], layer.r_idx[0])
    assert arrays["in_degree"].sum() == 9 * 2
    assert header["caption"] == "Model · layers.0 · n_win 3 · topk 2 · not learned"
    assert header["chance"] == pytest.approx(2 / 9)


@pytest.mark.parametrize(("place", "window"), [
    ((0, 0), 0), ((FULL, 0), 2), ((0, FULL), 6), ((FULL, FULL), 8), ((5000, 5000), 4), ((2 * FULL, 2 * FULL), 8)])
def test_a_place_finds_its_window(photo: Photo, layer: LayerTrace, place: tuple[int, int], window: int) -> None:
    assert locate(layer.grid, photo, place)[0] == window


def test_csv_has_a_line_for_every_window_and_rank(layer: LayerTrace) -> None:
    lines = list(csv.DictReader(io.StringIO(routing_csv(layer))))
    assert len(lines) == 9 * 2
    for line in lines:
        query, key, rank = (int(line[name]) for name in ("query_window", "key_window", "rank"))
        assert layer.r_idx[0, query, rank - 1] == key
        assert float(line["affinity"]) == layer.affinity[0, query, key].item()
        assert float(line["weight"]) == layer.r_weight[0, query, rank - 1].item()
        assert (int(line["key_row"]), int(line["key_column"])) == divmod(key, 3)


def test_npz_opens_without_pickle_and_holds_the_trace(layer: LayerTrace) -> None:
    with np.load(io.BytesIO(trace_npz(layer)), allow_pickle=False) as npz:
        for name in ("q", "k", "affinity", "r_idx", "r_weight"):
            np.testing.assert_array_equal(npz[name], getattr(layer, name)[0])
        assert json.loads(str(npz["spec"])) == layer.spec.to_dict()
        assert json.loads(str(npz["grid"]))["image"] == [60, 100]


def test_the_report_holds_the_messages_escapes_names_and_asks_for_nothing(photo: Photo, layer: LayerTrace) -> None:
    caption = Caption("Model", "layers.0", "not learned", "</script><script>alert(1)</script>.png")
    page = report_html(photo, layer, caption, (0, 0), {"b": (FULL, FULL)}, show=["reverse"])
    assert "<script>alert" not in page
    # plotly.js knows addresses, of maps and of its makers; the page's policy lets nothing be loaded from there.
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page.replace(get_plotlyjs(), ""))
    assert "default-src 'none'" in page
    stage = unpack(base64.b64decode(re.search(r'"stage", "([^"]+)"\)', page)[1]))
    assert stage[0]["pins"] == {"b": [FULL, FULL]}
    assert stage[0]["show"] == ["reverse"]
    assert stage[0]["name"] == caption.picture
    drawn = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]
    assert len(drawn) == 4                      # attention, ranking, matrix, in-degree
    query = drawn[0]["layout"]["meta"]["queries"][0]
    assert (query["role"], query["window"]) == ("b", 8)
    np.testing.assert_allclose(sent_figures.maps(drawn[0])[2:], layer.attention_map(8, query["token"]), atol=1e-7)
    np.testing.assert_allclose(sent_figures.array(drawn[2]["data"][0]["z"]), layer.affinity[0], atol=1e-6)
    assert page.count("plotly.js v") == 1
    assert all("template" not in one["layout"] for one in drawn)


PICTURE = Path(__file__).parents[3] / "sample_images" / "animal.jpg"


def test_inspect_writes_the_report_of_what_was_asked(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["inspect", str(PICTURE), "--n-win", "5", "--topk", "3", "--heads", "4", "--layer", "layers.1",
                 "--a", "10,20", "-o", str(out)]) == 0
    header, _, arrays = unpack(base64.b64decode(re.search(r'"stage", "([^"]+)"\)', out.read_text())[1]))
    expected = look(ModelSettings(n_win=5, topk=3, num_heads=4), Photo.from_bytes(PICTURE.read_bytes())).trace
    np.testing.assert_array_equal(arrays["r_idx"], expected.layers["layers.1"].r_idx[0])
    assert header["pins"] == {"a": [1000, 2000]}


@pytest.mark.parametrize(("arguments", "words"), [
    (["--topk", "99"], "topk=99"), (["--n-win", "256"], "n_win=256"), (["--heads", "7"], "num_heads=7"),
    (["--layer", "nowhere"], "layers.0"), (["--stride", "1000"], "stride=1000")])
def test_inspect_refuses_in_one_sentence(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["inspect", str(PICTURE), "-o", str(tmp_path / "r.html"), *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_inspect_refuses_a_file_that_is_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    assert main(["inspect", str(tmp_path / "x.png")]) == 2
    assert main(["inspect", str(tmp_path / "missing.png")]) == 2
    assert torch.is_grad_enabled()
