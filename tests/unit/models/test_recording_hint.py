"""The lines that record a model where it runs are those of its code base, for the very file."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from bra.errors import BRAError, ForeignModelError
from bra.models.recording_hint import code_base, record_lines
from bra.opening import open_file

pytest.importorskip("ultralytics")

BACKBONE = "nc: 3\n{anchors}backbone:\n  [[-1, 1, Conv, [16, 6, 2, 2]],\n   [-1, 1, {name}, [16]]]\nhead:\n" \
           "  [[[1], 1, {head}, [nc{more}]]]\n"


@pytest.mark.parametrize(("name", "head", "anchors", "line"), [
    ("CBAM", "Detect", False, 'record(YOLO("a.yaml"), "picture.jpg", "run.bra")'),
    ("CBAM", "RTDETRDecoder", False, 'record(RTDETR("a.yaml"), "picture.jpg", "run.bra")'),
    ("C3BRA", "Detect", True, 'record(Model("a.yaml").eval(), "picture.jpg", "run.bra")'),
    ("SPPCSPC", "IDetect", True, 'record(Model("a.yaml").eval(), "picture.jpg", "run.bra")')])
def test_a_model_file(name: str, head: str, anchors: bool, line: str) -> None:
    text = BACKBONE.format(name=name, head=head, anchors="anchors: 3\n" if anchors else "",
                           more=", anchors" if anchors else "")
    with pytest.raises(ForeignModelError) as caught:
        open_file(text.encode(), "a.yaml")
    first, second = caught.value.lines.splitlines()
    assert first.startswith("from bra_record import record; from ")
    assert second == line
    compile(caught.value.lines, "lines", "exec")
    assert str(caught.value).endswith(line)     # the command line says it too


def test_what_is_no_model_gets_no_lines() -> None:
    for text in (b"train: a\nval: b\n", b"nc: ["):
        with pytest.raises(BRAError) as caught:
            open_file(text, "a.yaml")
        assert not isinstance(caught.value, ForeignModelError)


class Model(nn.Module):
    """Stands for a whole pickled model of another code base."""

    def __init__(self, head: str) -> None:
        super().__init__()
        kind: Any = type(head, (nn.Module,), {"__module__": "models.yolo"})
        sys.modules["models.yolo"].__dict__[head] = kind
        self.model = nn.Sequential(nn.Conv2d(3, 16, 3), kind())
        self.yaml = {"nc": 1, "anchors": 3, "backbone": [[-1, 1, "Conv", [16, 3, 2]]],
                     "head": [[[0], 1, head, ["nc", "anchors"]]]}


@pytest.fixture
def their_module() -> Iterator[types.ModuleType]:
    theirs = types.ModuleType("models.yolo")
    Model.__module__, theirs.Model = "models.yolo", Model       # type: ignore[attr-defined]
    sys.modules["models"], sys.modules["models.yolo"] = types.ModuleType("models"), theirs
    yield theirs
    Model.__module__ = __name__
    del sys.modules["models"], sys.modules["models.yolo"]


@pytest.mark.parametrize(("head", "lines"), [
    ("Detect", 'import torch\nrecord(torch.hub.load(".", "custom", "best.pt", source="local"), '),
    ("IDetect", 'from models.experimental import attempt_load\nrecord(attempt_load("best.pt"), '),
    ("DualDDetect", 'from models.experimental import attempt_load\nrecord(attempt_load("best.pt"), ')])
def test_a_whole_checkpoint_of_another_code_base(their_module: types.ModuleType, head: str, lines: str) -> None:
    file = io.BytesIO()
    torch.save({"model": Model(head), "epoch": -1}, file)
    with pytest.raises(ForeignModelError) as caught:
        open_file(file.getvalue(), "best.pt")
    assert caught.value.lines == f'from bra_record import record; {lines}"picture.jpg", "run.bra")'


def test_weights_that_nobody_knows() -> None:
    file = io.BytesIO()
    torch.save({"encoder.0.weight": torch.zeros(3, 3)}, file)
    with pytest.raises(ForeignModelError) as caught:
        open_file(file.getvalue(), "net.pth")
    assert caught.value.lines == 'from bra_record import record\nrecord(model, "picture.jpg", "run.bra")'


def test_a_files_name_cannot_end_its_quotes() -> None:
    assert record_lines('a".__import__("os").pt', code_base("ultralytics.nn.tasks.DetectionModel", (), False)) == (
        "from bra_record import record; from ultralytics import YOLO\n"
        'record(YOLO("a_.__import__(_os_).pt"), "picture.jpg", "run.bra")')
    assert code_base("ultralytics.nn.tasks.YOLOv10DetectionModel", (), False) == "yolov10"
