"""Ultralytics kept off the network and out of the home folder, before any page imports it."""

from __future__ import annotations

import os
import tempfile

HOME = tempfile.mkdtemp(prefix="bra-app-")
for name, value in {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": HOME}.items():
    os.environ.setdefault(name, value)
