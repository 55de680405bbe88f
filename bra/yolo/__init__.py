"""Bi-level routing attention in Ultralytics YOLO, with Ultralytics unedited: `import bra.yolo` is all it takes."""

from bra.yolo.modules import BiLevelRoutingAttention, BRABlock, C2fBRA
from bra.yolo.registration import CFG, register

register()

__all__ = ["CFG", "BRABlock", "BiLevelRoutingAttention", "C2fBRA", "register"]
