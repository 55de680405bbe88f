"""Ultralytics kept off the network and out of the home folder, before any page imports it; what a page run need not
wait for here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache

import pytest
from streamlit.components.v2 import manifest_scanner

HOME = tempfile.mkdtemp(prefix="bra-app-")
for name, value in {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": HOME}.items():
    os.environ.setdefault(name, value)


@pytest.fixture(scope="session", autouse=True)
def _nothing_waited_for() -> Iterator[None]:
    from dashboard.state import first_visit

    with pytest.MonkeyPatch.context() as patch:
        # A server looks once through everything installed for components of others; AppTest at every run, for 0.4 s.
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        patch.setattr(first_visit, "STYLE_SECONDS", 0)      # no browser fetches anything
        yield
