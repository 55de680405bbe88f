"""What a stranger's model would take is learned before it is made: memory, what is moved, what a look keeps of it."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ultralytics")
from chinese import in_chinese
from model_files import OURS, THEIRS, TINY, half, refusal, tiny, unbuildable, with_row, written
from torch import Tensor, nn
from ultralytics.nn import tasks

from bra.errors import YoloError
from bra.opening import open_file
from bra.photo import Photo
from bra.readers.checkpoint import read_checkpoint
from bra.yolo.budget import Budget, dry_run
from bra.yolo.build import ModelLimits, build_checked, check_model, open_checkpoint
from bra.yolo.edit import as_text

pytestmark = pytest.mark.usefixtures("no_network")
LARGE = [*OURS, *(THEIRS[name] for name in ("yolov8", "yolov8-p2", "yolo11", "yolo12", "yolo26-p2", "rtdetr-x"))]


class NotWantedError(Exception):
    """As the line raises when nobody waits any more."""


def chain(rows: list[Any], channels: int = 100) -> dict[str, Any]:
    """A classifier that does something with a map of the picture's size, then makes it small."""
    return {"nc": 1, "scales": {"n": [1.0, 1.0, 8192]}, "backbone": [
        [-1, 1, "Conv", [channels, 1, 1]], *rows, [-1, 1, "nn.MaxPool2d", [32, 32]]],
        "head": [[-1, 1, "Classify", ["nc"]]]}


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_the_largest_that_are_shipped_need_a_part_of_what_is_given(path: Path) -> None:
    model = check_model(path.read_bytes())
    largest = {**model, "scale": "x"} if "scales" in model else model
    given = ModelLimits()
    dry_run(largest, ModelLimits(moved_bytes=given.moved_bytes // 4, trace_bytes=given.trace_bytes // 2,
                                 activation_bytes=given.activation_bytes // 2))


@pytest.mark.parametrize("row", [
    [-1, 100, "nn.ZeroPad2d", [[1, -1, 0, 0]]], [-1, 100, "nn.Upsample", [[640, 640], None, "bicubic"]],
    [-1, 100, "nn.Upsample", [[640, 640], None, "nearest"]], [-1, 100, "nn.Upsample", [[639, 640], None, "area"]]],
    ids=str)
def test_work_that_multiplies_nothing_has_a_bound(row: list[Any]) -> None:
    assert "reads and writes more than 50 GB" in unbuildable(chain([row] * 20))
    assert build_checked(chain([[*row[:1], 2, *row[2:]]], 4), None, ModelLimits(imgsz=256))


def test_bytes_moved_are_those_of_what_is_read_and_written() -> None:
    """A 4×6 map of 3 channels is 288 bytes."""
    x = torch.empty(1, 3, 4, 6, device="meta")
    for work, moved in ((lambda: x + x, 3 * 288), (lambda: x.view(-1), 0), (lambda: x.relu(), 2 * 288),
                        (lambda: nn.ZeroPad2d([2, -2, 0, 0])(x), None),
                        (lambda: nn.Upsample((4, 6), None, "bicubic")(x), (1 + 4) * 288),
                        (lambda: nn.Upsample((8, 6), None, "bilinear")(x), (1 + 2 * 2) * 288)):
        with Budget(ModelLimits(), 2**20, "", lambda: None) as budget:
            work()
        assert budget.moved == moved if moved is not None else budget.moved >= 2 * 288


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("args", [[[5, 7]], [None, 2], [None, (0.5, 1.5)]], ids=str)
def test_a_map_is_resized_in_a_dry_run_as_for_real(mode: str, args: list[Any]) -> None:
    resize = nn.Upsample(*args, *([None] if len(args) == 1 else []), mode)
    with Budget(ModelLimits(), 2**30, "", lambda: None):
        found = resize(torch.empty(2, 3, 6, 9, device="meta"))
    real = resize(torch.empty(2, 3, 6, 9))
    assert (found.shape, found.dtype, found.is_meta) == (real.shape, real.dtype, True)


def test_resizing_is_tried_dry_at_once() -> None:
    started = time.monotonic()
    dry_run(check_model(chain([[-1, 1, "nn.MaxPool2d", [128, 128]],
                               *[[-1, 100, "nn.Upsample", [[40, 40], None, "bicubic"]]] * 10], 4)), ModelLimits())
    assert time.monotonic() - started < 20      # a thousand of them, at 70 ms each


def test_a_dry_run_can_be_called_off_and_says_nothing_of_the_model() -> None:
    asked = 0

    def still(*parts: int) -> None:
        nonlocal asked
        if "dry_run" in [frame.name for frame in traceback.extract_stack()]:
            asked += 1
            if asked > 3:
                raise NotWantedError

    slow = chain([[-1, 100, "nn.Identity", []], *[[-1, 100, "nn.ZeroPad2d", [[1, -1, 0, 0]]]] * 3], 4)
    saved = written(half(build_checked(slow)))
    for opening in (lambda: build_checked(slow, None, None, still),
                    lambda: open_checkpoint(read_checkpoint(saved), still=still),
                    lambda: open_file(as_text(slow).encode(), "mine.yaml", still),
                    lambda: open_file(saved, "mine.pt", still)):
        asked = 0
        with pytest.raises(NotWantedError):
            opening()
        assert asked == 4


def test_what_a_look_keeps_is_known_before() -> None:
    text = TINY.replace("[4, 2]]", "[4, 2, null, null, 4, 2, null, avgpool]]").replace(
        "  - [-1, 2, C2f", "  - [-1, 1, BRABlock, [{n_win: 3, topk: 2, mask_padding: True, soft_routing: True, "
                           "num_heads: 2}]]\n  - [-1, 2, C2f").replace("[1, 3]", "[1, 4]").replace("[3, 4]", "[4, 5]")
    photo = Photo.from_array(np.zeros((64, 64, 3), np.uint8))
    look = open_file(text.encode(), "mine.yaml").look(photo, 640)
    assert len(look.trace.layers) == 2
    kept = 0
    for layer in look.trace.layers.values():
        tensors = (layer.q, layer.k, layer.v, layer.lepe, layer.affinity, layer.r_idx, layer.r_weight, layer.factor,
                   layer.real_keys, *(layer.wo or ()))
        kept += sum(t.nbytes for t in tensors if isinstance(t, Tensor))
    model = check_model(text)
    dry_run(model, ModelLimits(trace_bytes=kept))
    with pytest.raises(YoloError, match=r"for a picture of 640 px, hand over \d+ MB to be looked into: \d+ MB at most"):
        dry_run(model, ModelLimits(trace_bytes=kept - 1))


def test_what_layers_hand_over_stays_alive_while_a_model_is_looked_into() -> None:
    row = [-1, 1, "BiLevelRoutingAttention", [{"n_win": 1, "topk": 1, "num_heads": 1, "param_attention": "none",
                                               "side_dwconv": 0}]]
    model = {"nc": 1, "scales": {"n": [1.0, 1.0, 8192]}, "backbone": [
        [-1, 1, "nn.MaxPool2d", [32, 32]], [-1, 1, "Conv", [8192, 1, 1]], *[row] * 60],
        "head": [[-1, 1, "Classify", ["nc"]]]}
    assert "MB at one time" in unbuildable(model)
    assert "hand over" in unbuildable(model, ModelLimits(activation_bytes=2**34))


def test_a_layer_that_could_not_be_run_with_all_windows_is_refused() -> None:
    """A page offers every topk up to n_win², and one run of a layer cannot be called off."""
    row = [-1, 1, "BiLevelRoutingAttention", [{"n_win": 16, "topk": 1, "num_heads": 1, "side_dwconv": 0}]]
    assert "works on 640×640 tokens: with all windows routed" in unbuildable(chain([row], 2))
    eight_heads = [*row[:3], [{"n_win": 16, "topk": 1}]]
    assert "works on 320×320 tokens" in unbuildable(chain([[-1, 1, "nn.MaxPool2d", [2, 2]], eight_heads], 128))
    quarter = [-1, 1, "nn.MaxPool2d", [4, 4]]
    n, m, c = 160 * 160, 4, 64
    exact = m * n * n * (2 * c // m + 32)
    model = check_model(chain([quarter, [*row[:3], [{"n_win": 16, "topk": 1, "num_heads": m}]]], c))
    dry_run({**model, "scale": "n"}, ModelLimits(full_macs=exact))
    with pytest.raises(YoloError, match="works on 160×160 tokens"):
        dry_run({**model, "scale": "n"}, ModelLimits(full_macs=exact - 1))
    assert exact < ModelLimits().full_macs / 4


def test_a_full_attention_by_pairs_of_windows_stays_small() -> None:
    assert "row 2 asks for n_win=17: 16 at most" in refusal(
        tiny(head=[[-1, 1, "BiLevelRoutingAttention", [17]], [-1, 1, "Classify", ["nc"]]]))
    assert "row 1 asks for n_win=64: 16 at most" in refusal(with_row([-1, 1, "C2fBRA", [64, True, {"n_win": 64}]]))
    assert "row 1 asks for num_heads=256: 128 at most" in refusal(with_row([-1, 1, "BRABlock", [{"num_heads": 256}]]))
    check_model(with_row([-1, 1, "BRABlock", [16, 128]]))
    with pytest.raises(YoloError, match="starts at n_win"):
        build_checked(with_row([-1, 1, "BRABlock", [256]]))


def test_fusing_that_fails_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_checked(tiny())
    model.fuse(verbose=False)
    saved = read_checkpoint(written(half(model)))
    assert open_checkpoint(saved)[1].fused

    def broken(*args: Any, **kwargs: Any) -> None:
        raise KeyError("bn")

    monkeypatch.setattr(tasks.BaseModel, "fuse", broken)     # as another version of Ultralytics might
    with pytest.raises(YoloError, match=r"saved fused, .* \(KeyError: .*bn.*\): save it before") as caught:
        open_checkpoint(saved)
    in_chinese(caught.value.args[0])
