"""What to paste beside the code of a model that cannot be opened here, so that it is recorded where it runs."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

PICTURE: Final = "picture.jpg"
RECORD: Final = 'record({model}, "{picture}", "run.bra")'
ULTRALYTICS: Final = "ultralytics."
V7: Final = frozenset({"IDetect", "IAuxDetect", "IBin", "IKeypoint", "SPPCSPC", "RepConv_OREPA", "ReOrg", "MP",
                       "GhostSPPCSPC"})
V9: Final = frozenset({"DDetect", "DualDDetect", "TripleDDetect", "Silence", "CBLinear", "CBFuse", "RepNCSPELAN4"})


def code_base(root: str, names: Collection[str], anchors: bool) -> str:
    """Which code base a model is of: "ultralytics", "rtdetr", "yolov10", "yolov5", "yolov7", "yolov9", or "" for one
    that is not known.

    Args:
        root: class of a checkpoint's model as "module.name"; "" for a model file, or for weights alone.
        names: classes of its rows; empty for a model without rows.
        anchors: whether its file has a key `anchors`.
    """
    if "RTDETR" in root or "RTDETRDecoder" in names:
        return "rtdetr"
    if "YOLOv10" in root:
        return "yolov10"
    if root.startswith(ULTRALYTICS):
        return "ultralytics"
    if root.startswith("models.yolo.") or (anchors and not root):
        return "yolov7" if V7 & {*names} else "yolov9" if V9 & {*names} else "yolov5"
    return "ultralytics" if names and not root else ""


def record_lines(file: str, base: str) -> str:
    """Two lines of Python that record a model of somebody's own, to be run in the folder of its code.

    Args:
        file: name of its file: a model file (YAML) or a checkpoint.
        base: its code base, as `code_base` names it.

    >>> print(record_lines("best.pt", "ultralytics"))
    from bra_record import record; from ultralytics import YOLO
    record(YOLO("best.pt"), "picture.jpg", "run.bra")
    """
    name = re.sub(r"""[\\"'\x00-\x1f\x7f]""", "_", file)
    described = file.lower().endswith((".yaml", ".yml"))
    classes = {"ultralytics": "YOLO", "rtdetr": "RTDETR", "yolov10": "YOLOv10"}
    if base in classes:
        needs, made = f"from ultralytics import {classes[base]}", f'{classes[base]}("{name}")'
    elif base and described:
        needs, made = "from models.yolo import Model", f'Model("{name}").eval()'
    elif base == "yolov5":
        needs, made = "import torch", f'torch.hub.load(".", "custom", "{name}", source="local")'
    elif base:
        needs, made = "from models.experimental import attempt_load", f'attempt_load("{name}")'
    else:
        needs, made = "", "model"
    first = "from bra_record import record" + (f"; {needs}" if needs else "")
    return f"{first}\n{RECORD.format(model=made, picture=PICTURE)}"
