"""Bi-level routing attention in Ultralytics YOLO, with Ultralytics unedited: `import bra.yolo` is all it takes."""

from bra.yolo.version import check_version

check_version()     # before anything that an old Ultralytics lacks is imported

from bra.yolo.modules import BiLevelRoutingAttention, BRABlock, C2fBRA  # noqa: E402
from bra.yolo.registration import CFG, register  # noqa: E402
from bra.yolo.training.watching import watch  # noqa: E402

register()

__all__ = ["CFG", "BRABlock", "BiLevelRoutingAttention", "C2fBRA", "register", "watch"]
