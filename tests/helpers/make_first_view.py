"""Writes `dashboard/first_view.zip`, the view that a visit without a link begins with, from what the app computes.

    python tests/helpers/make_first_view.py
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from streamlit.testing.v1 import AppTest

from dashboard.i18n import LANGUAGES
from dashboard.services.first_view import FILE
from dashboard.services.start import start

APP = Path(__file__).parents[2] / "dashboard" / "app.py"


def computed() -> dict[str, bytes]:
    """The parts of the file by their names, as the app computes them now."""
    assert start().wait() is None      # else the page would begin with the file itself
    found: dict[str, bytes] = {}
    for language in LANGUAGES:
        app = AppTest.from_file(str(APP), default_timeout=180)
        app.query_params["lang"] = language
        app.run()
        assert not app.exception
        found |= _of_page(app, language)
    return found


def _of_page(app: AppTest, language: str) -> dict[str, bytes]:
    parts = [one for one in app.main if one.type in ("markdown", "caption", "bidi_component")]
    sent: dict[str, Any] = {one.proto.component_name.removeprefix("routescope_").removesuffix(f"_{language}"): one.proto
                            for one in parts if one.type == "bidi_component"}
    at = {name: next(n for n, one in enumerate(parts) if one.type == "bidi_component"
                     and one.proto is proto) for name, proto in sent.items()}
    heading = [one.value for one in parts[at["gallery"]:at["rail"]] if one.type == "markdown"]
    notes = [one.value for one in parts[at["rail"]:at["picture"]] if one.type == "caption"]
    assert len(heading) == 1
    thumbnails = {f"thumbnails/{one['key']}": base64.b64decode(one["src"].partition(",")[2])
                  for one in json.loads(sent["gallery"].json)["items"]}
    words = json.dumps({"heading": heading[0], "notes": notes}, ensure_ascii=False, indent=1)
    return thumbnails | {"picture": sent["picture"].bytes, "rail": sent["rail"].bytes,
                         f"{language}/stage": sent["stage"].bytes, f"{language}/words.json": words.encode()}


def main() -> None:
    with ZipFile(FILE, "w", ZIP_DEFLATED) as file:
        for name, data in sorted(computed().items()):
            file.writestr(ZipInfo(name), data, ZIP_DEFLATED)
    print(f"{FILE.name}: {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
