"""What the fuzzers borrow from the tests of YOLO models, and Ultralytics kept off the network and the home folder."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

HOME = tempfile.mkdtemp(prefix="bra-fuzz-")
for name, value in {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": HOME}.items():
    os.environ.setdefault(name, value)
YOLO = str(Path(__file__).parents[1] / "yolo")
if YOLO not in sys.path:
    sys.path.append(YOLO)
