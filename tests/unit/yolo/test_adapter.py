"""YOLO models in the app: the same pixels in and the same boxes out as Ultralytics' own predict, grids on the photo."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ultralytics")

import ultralytics
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionPredictor

from bra.errors import BRAError, YoloError
from bra.experiments.compare import layer_inputs
from bra.models.base import Change
from bra.models.catalog import CATALOG, ModelSettings
from bra.models.rerun import run_from
from bra.opening import look, open_file, open_model
from bra.photo import Photo
from bra.yolo.adapter import OpenYolo
from bra.yolo.registration import CFG
from bra.yolo.transplant import write_checkpoint

SAMPLES = Path(__file__).parents[3] / "sample_images"
BUTTONS = Photo.from_bytes((SAMPLES / "repeated_objects.jpg").read_bytes())
CELLS = ModelSettings("cells", side=320)
# Before 8.4.100 or so Ultralytics took the letterbox off with one rounding less than it had put it on with: its boxes
# are up to a pixel of the model's input away from where they were found.
UNBOXING = 1e-2 if tuple(map(int, ultralytics.__version__.split(".")[1:3])) > (4, 100) else 2.5


def photo(height: int, width: int) -> Photo:
    return Photo.from_array(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped detector as Ultralytics would save it."""
    opened = open_model(CELLS)
    opened.module.names = dict(enumerate(opened.classes))
    path = tmp_path_factory.mktemp("weights") / "cells.pt"
    write_checkpoint(opened.module, path)
    return path


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (33, 500), (224, 224), (101, 77)])
@pytest.mark.parametrize("side", [224, 320, 600])
def test_the_model_reads_what_predict_would_feed_it(height: int, width: int, side: int) -> None:
    opened, picture = open_model(CELLS), photo(height, width)
    prepared = opened.prepare(picture, side)
    predictor = DetectionPredictor(
        overrides={"imgsz": -(-side // 32) * 32, "device": "cpu", "verbose": False, "rect": True})
    predictor.setup_model(opened.module, verbose=False)
    predictor.imgsz = [-(-side // 32) * 32] * 2
    theirs = predictor.preprocess([np.ascontiguousarray(picture.rgb[..., ::-1])])
    assert prepared.x.shape == theirs.shape
    torch.testing.assert_close(prepared.x, theirs.float(), atol=1e-6, rtol=0)
    inside = prepared.x[:, :, prepared.top:prepared.top + prepared.height, prepared.left:prepared.left + prepared.width]
    grey = torch.ones_like(prepared.x, dtype=torch.bool)
    grey[:, :, prepared.top:prepared.top + prepared.height, prepared.left:prepared.left + prepared.width] = False
    assert prepared.x[grey].numel() == 0 or torch.allclose(prepared.x[grey], torch.tensor(114 / 255))
    assert inside.std() > 0.02


def test_its_boxes_are_those_of_predict(checkpoint: Path) -> None:
    theirs = YOLO(str(checkpoint)).predict(np.ascontiguousarray(BUTTONS.rgb[..., ::-1]), imgsz=320, verbose=False,
                                           device="cpu")[0]
    assert len(theirs.boxes) >= 5       # it takes buttons for white cells, which is all that is needed here
    for opened in (open_model(CELLS), open_file(checkpoint.read_bytes(), "cells.pt")):
        found = opened.look(BUTTONS, 320).answer.detections
        boxes = np.array([one.box for one in found]) * np.array([BUTTONS.width, BUTTONS.height] * 2)
        np.testing.assert_allclose(boxes, theirs.boxes.xyxy.numpy(), atol=UNBOXING)
        np.testing.assert_allclose([one.score for one in found], theirs.boxes.conf.numpy(), atol=1e-4)
        assert [one.label for one in found] == [theirs.names[int(n)] for n in theirs.boxes.cls]


def test_grids_lie_on_the_photo_with_the_letterbox_taken_off() -> None:
    # 400×200 at 320: scaled by 0.8 to 320×160, no letterbox; 210 high: 168, 24 rows short of 192, 12 above.
    layer = look(CELLS, photo(210, 400)).trace.layers["model.15.attn"]
    assert (layer.grid.h, layer.grid.w) == (24, 40)
    assert layer.grid.origin == (-12.0, 0.0)
    assert layer.grid.image == (168, 320)
    assert layer.grid.stride == (8.0, 8.0)
    assert layer.grid.box_of_token(0, 0) == (-12.0, 0.0, -4.0, 8.0)


def test_the_trace_is_the_modules_own(checkpoint: Path) -> None:
    opened = open_file(checkpoint.read_bytes(), "cells.pt")
    layer = opened.look(BUTTONS, 320).trace.layers["model.19.attn"]
    block = opened.module.model[19]
    x = opened.prepare(BUTTONS, 320).x
    with torch.inference_mode():
        maps: list[torch.Tensor] = []
        for row in opened.module.model[:19]:
            sources = [x if f == -1 else maps[f] for f in (row.f if isinstance(row.f, list) else [row.f])]
            x = row(sources if isinstance(row.f, list) else sources[0])
            maps.append(x)
        normed = block.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        seen = block.attn(normed, ret_attn_mask=True)
    assert torch.equal(layer.r_idx, seen[2])
    torch.testing.assert_close(layer.r_weight, seen[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(layer.attention(24), seen[3][24], atol=1e-5, rtol=0)


def test_other_windows_share_the_weights_and_leave_the_model_alone() -> None:
    opened = open_model(CELLS)
    before = {name: tensor.clone() for name, tensor in opened.module.state_dict().items()}
    usual = opened.look(BUTTONS, 320)
    changed = opened.look(BUTTONS, 320, Change("model.19.attn", 5, 9))
    assert (changed.trace.layers["model.19.attn"].grid.n_win, changed.trace.layers["model.19.attn"].spec.topk) == (5, 9)
    assert changed.trace.layers["model.19.attn"].r_idx.shape == (1, 25, 9)
    assert torch.equal(changed.trace.layers["model.15.attn"].r_idx, usual.trace.layers["model.15.attn"].r_idx)
    assert changed.trace.layers["model.15.attn"].spec == usual.trace.layers["model.15.attn"].spec
    again = opened.look(BUTTONS, 320)
    assert torch.equal(again.trace.layers["model.19.attn"].affinity, usual.trace.layers["model.19.attn"].affinity)
    assert all(torch.equal(tensor, before[name]) for name, tensor in opened.module.state_dict().items())
    with pytest.raises(BRAError, match=r"no windows to change: choose one of model\.15\.attn"):
        opened.look(BUTTONS, 320, Change("model.2", 5, 9))
    with pytest.raises(BRAError, match="topk=99"):
        opened.look(BUTTONS, 320, Change("model.19.attn", 5, 99))


@pytest.mark.parametrize("path", sorted(CFG.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_opens_and_finds_nothing_untrained(path: Path) -> None:
    name = path.stem.replace("yolov8", "yolov8n").replace("yolo11", "yolo11n")
    assert name in CATALOG["yolo"].variants
    opened = open_model(ModelSettings("yolo", variant=name))
    seen = opened.look(BUTTONS, 160)
    assert opened.provenance == "untrained, random weights"
    assert tuple(seen.trace.layers) == (*opened.specs, *opened.attending)       # those that route are first
    assert bool(opened.attending) == ("yolo11" in name and "c2psa" not in name)     # of C2PSA, which YOLO11 has
    assert seen.answer.detections == ()


def test_random_weights_are_the_same_for_every_visitor() -> None:
    one, two = (open_model(ModelSettings("cells", untrained=True)).module.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], tensor) for name, tensor in two.items())
    trained = open_model(ModelSettings("cells")).module.state_dict()
    assert not torch.equal(one["model.0.conv.weight"], trained["model.0.conv.weight"])
    assert torch.equal(one["model.25.dfl.conv.weight"], trained["model.25.dfl.conv.weight"])      # never learned


def test_a_file_of_ones_own_opens_at_the_scale_of_its_name() -> None:
    text = (CFG / "yolov8-bra-p5.yaml").read_bytes()
    small, medium = (open_file(text, name) for name in ("yolov8n-mine.yaml", "yolov8m-mine.yml"))
    assert isinstance(small, OpenYolo)
    assert small.provenance == "untrained, random weights"
    assert [spec.dim for spec in small.specs.values()] == [256]
    assert [spec.dim for spec in medium.specs.values()] == [576]


@pytest.mark.parametrize(("data", "name"), [
    (b"backbone: [[-1, 1, os.system, [ls]]]\nhead: []\n", "evil.yaml"), (b"PK\x03\x04 no zip", "evil.pt"),
    (b"", "empty.pth"), (b"\x00" * 64, "x.safetensors"), (b"nc: 80", "x.yaml"), (b"\xff\xfe\x00", "x.yaml")])
def test_a_file_that_is_none_is_refused_in_one_sentence(data: bytes, name: str) -> None:
    with pytest.raises(BRAError) as error:
        open_file(data, name)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_an_unknown_name_is_refused() -> None:
    from bra.yolo.adapter import open_named

    with pytest.raises(YoloError, match="no model file"):
        open_named("yolov9000n-bra", "", "")


def test_a_model_that_runs_at_one_size_only_is_a_sentence_at_another() -> None:
    rows = """
nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, nn.MaxPool2d, [60]]
head:
  - [-1, 1, BiLevelRoutingAttention, [2, 2]]
  - [-1, 1, Classify, [nc]]
"""
    model = open_file(rows.encode(), "x.yaml")
    wide = Photo.from_array(np.full((64, 96, 3), 99, np.uint8))
    for use in (model.look, partial(run_from, model), partial(layer_inputs, model)):
        with pytest.raises(BRAError, match=r"does not run on a picture of 96×64 px \(.*too small\): choose") as caught:
            use(wide, 96)
        assert "\n" not in str(caught.value)
    assert model.look(wide, 640).trace.layers, "and the model is free for the next"
