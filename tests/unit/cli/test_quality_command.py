"""`bra quality`: the numbers of the measures, in a table or as JSON, from masks or boxes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bra.cli.main import main
from bra.errors import BRAError
from bra.metrics.overlap import semantic_overlap
from bra.metrics.query_dependence import query_dependence
from bra.metrics.routing import shared_choices
from bra.models.catalog import DEFAULT, ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.training.labelled import evenly, labelled_files, read_labels

KEYS = ["layer", "n_win", "topk", "overlap", "overlap_chance", "overlap_nearest", "overlap_oracle", "shared_choices",
        "query_dependence", "recall"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures with a bright disc each, its mask, and for the second a box file in place of the mask."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    y, x = np.mgrid[:96, :128]
    for n in range(3):
        disc = (x - 40 - 20 * n) ** 2 + (y - 40) ** 2 < 24**2
        rgb = np.random.default_rng(n).integers(0, 60, (96, 128, 3), np.uint8)
        rgb[disc] += 150
        Image.fromarray(rgb).save(tmp_path / "images" / f"p{n}.png")
        mask = Image.fromarray(disc.astype(np.uint8) * 7)
        if n == 1:
            (tmp_path / "labels" / "p1.txt").write_text("7 0.47 0.417 0.375 0.5\n\n")
        else:
            mask.save(tmp_path / "labels" / f"p{n}.png")
    Image.fromarray(rgb).save(tmp_path / "images" / "unlabelled.png")
    return tmp_path


def asked(data: Path, *more: str) -> list[str]:
    return ["quality", str(data / "images"), "--labels", str(data / "labels"), "--model", "similarity", "--side", "128",
            *more]


def test_the_json_is_the_mean_of_the_measures(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(data, "--json", "--limit", "1")) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["model", "layers"]
    assert found["model"] == "similarity"
    assert [list(layer) for layer in found["layers"]] == [KEYS, KEYS]
    photo = Photo.from_bytes((data / "images" / "p0.png").read_bytes())
    trace = open_model(ModelSettings("similarity")).look(photo, 128).trace.layers["layers.0"]
    mask = np.asarray(Image.open(data / "labels" / "p0.png")).astype(int)
    means = semantic_overlap(trace, mask).to_dict()
    layer = found["layers"][0]
    assert layer["overlap"] == pytest.approx(means["routed"], abs=1e-5)
    assert layer["overlap_nearest"] == pytest.approx(means["nearest"], abs=1e-5)
    assert layer["overlap_oracle"] == pytest.approx(means["oracle"], abs=1e-5)
    assert layer["shared_choices"] == pytest.approx(shared_choices(trace), abs=1e-5)
    assert layer["query_dependence"] == pytest.approx(query_dependence(trace), abs=1e-5)
    assert (layer["n_win"], layer["topk"]) == (7, 4)


def test_the_table_says_the_same_and_what_is_good(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(data)) == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0] == "Content similarity: 3 pictures at 128 px"        # the fourth has no labels
    assert text[1].split() == KEYS
    assert len(text[1]) == len(text[2]) == len(text[3])
    assert main(asked(data, "--json")) == 0
    found = json.loads(capsys.readouterr().out)["layers"][1]
    assert text[3].split()[3:] == [f"{found[key]:.3f}" for key in KEYS[3:]]
    assert text[4].startswith("Good: overlap above overlap_nearest")


def test_ignored_classes_count_nowhere(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(data, "--json", "--limit", "1", "--ignore", "0")) == 0
    found = json.loads(capsys.readouterr().out)["layers"][0]
    assert found["overlap"] == found["overlap_chance"] == found["overlap_oracle"] == 1.0        # one class is left
    assert main(asked(data, "--json", "--limit", "1", "--ignore", "0", "7")) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["overlap"] is None


def test_without_labels_the_rest_is_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quality", str(data / "images"), "--json", "--limit", "1", "--side", "128"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == DEFAULT
    assert all(layer["overlap"] is None and 0 <= layer["shared_choices"] <= 1 for layer in found["layers"])


def test_masks_of_another_size_are_laid_on_the_picture(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlaps = []
    for scale in (1, 3):
        mask = Image.open(data / "labels" / "p0.png")
        mask.resize((mask.width * scale, mask.height * scale), Image.Resampling.NEAREST).save(
            data / "labels" / "p0.png")
        assert main(asked(data, "--json", "--limit", "1")) == 0
        overlaps.append(json.loads(capsys.readouterr().out)["layers"][0]["overlap"])
    assert overlaps[0] == overlaps[1]


def test_boxes_are_corners_in_shares(data: Path) -> None:
    np.testing.assert_allclose(read_labels(data / "labels" / "p1.txt"), [[7, 0.2825, 0.167, 0.6575, 0.667]])
    assert read_labels(data / "labels" / "p0.png").max() == 7


def test_pictures_are_evenly_spread_and_need_labels(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [(Path(str(n)), None) for n in range(10)]
    assert [path.name for path, _ in evenly(files, 4)] == ["0", "2", "5", "7"]
    assert len(evenly(files, 60)) == 10
    assert [path.name for path, _ in labelled_files(data / "images", data / "labels")] == ["p0.png", "p1.png", "p2.png"]
    with pytest.raises(BRAError, match=r"for p0\.png it would be p0\.png or p0\.txt"):
        labelled_files(data / "images", data)
    with pytest.raises(BRAError, match="holds no pictures"):
        labelled_files(data, None)
    assert main(asked(data, "--limit", "0")) == 2
    assert "--limit is 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "content", "words"), [
    ("p0.png", b"not a PNG", "no PNG that can be read"), ("p1.txt", b"7 0.5 0.5\n", "is no box"),
    ("p1.txt", b"cat 1 1 1 1", "is no box")])
def test_labels_that_cannot_be_read_are_named(data: Path, name: str, content: bytes, words: str,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    (data / "labels" / name).write_bytes(content)
    assert main(asked(data)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert name in error


def test_a_coloured_mask_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (128, 96)).save(data / "labels" / "p0.png")
    assert main(asked(data)) == 2
    assert "each pixel of a mask is the number of its class" in capsys.readouterr().err
