"""What the fuzzers borrow from the tests of YOLO models, and Ultralytics kept off the network and the home folder."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

HOME = tempfile.mkdtemp(prefix="bra-fuzz-")
QUIET = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": HOME, "YOLO_VERBOSE": "false"}
for name, value in QUIET.items():
    os.environ.setdefault(name, value)
TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS.parent), str(TESTS / "helpers")]     # `make fuzz` runs without pytest, which knows both
