"""Names that strangers chose, in a link, of a file or in a table, stay words in a real browser: no link, no picture."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from bra.experiments.compare import SettingRow
from bra.experiments.sweep_table import table_of, to_parquet

pytestmark = pytest.mark.browser
LINKS = '[data-testid="stMain"] a[href]'
NAME = "www.evil.example :smile: a@b.example.png"
"""As it can be of a file; what stands in a table may hold slashes too."""
EVIL = "![](https://evil.example/a) [in](http://x.y) www.x.y a@b.c :material_home: $x$"


def without_joiners(text: str) -> str:
    return text.replace("\N{WORD JOINER}", "")


def opened(context: Any, url: str) -> Any:
    page = context.new_page()
    page.goto(url)
    return page


def test_a_link_names_a_layer_that_looks_like_an_address(context: Any, app_url: str) -> None:
    page = opened(context, f"{app_url}/?model=similarity&layer=www.evil.example&lang=en")
    page.wait_for_selector(".stage[data-ready]")
    message = page.get_by_test_id("stAlert").filter(has_text="This model has no layer")
    expect(message).to_be_visible()
    assert without_joiners(message.inner_text()) == "This model has no layer www.evil.example; this is another."
    assert page.locator(LINKS).count() == 0


def test_a_picture_is_called_like_an_address(context: Any, app_url: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(buffer, "PNG")
    page = opened(context, f"{app_url}/?model=similarity&lang=en")
    page.wait_for_selector(".stage[data-ready]")
    page.locator('input[type="file"]').set_input_files({"name": NAME, "mimeType": "image/png",
                                                        "buffer": buffer.getvalue()})
    page.wait_for_function("() => location.search.includes('picture=upload')")
    heading = page.locator('[data-testid="stMain"] strong', has_text="evil").first
    expect(heading).to_be_visible()
    page.wait_for_selector(".stage[data-ready]")
    assert without_joiners(heading.inner_text()) == f"{NAME}."
    assert page.locator(LINKS).count() == 0


def test_a_table_says_that_it_is_of_a_model_with_a_picture_in_its_name(context: Any, app_url: str) -> None:
    row = SettingRow(4, 2, 16, 0.0, 0.5, 0.125, 0.4, 0.9, 0.5, 1000, 2000)
    data = to_parquet(table_of([(f"{n}.png", "www.evil.example", row) for n in range(3)],
                               {"name": EVIL, "settings": {"model": "x", "side": 224}}))
    assert EVIL in json.loads(table_of([], {"name": EVIL}).schema.metadata[b"routescope"])["name"]
    page = opened(context, f"{app_url}/compare?tab=sweeps&model=similarity&side=224&lang=en")
    zone = page.locator(".st-key-sweep_uploader")
    zone.locator('input[type="file"]').set_input_files({"name": "rows.parquet", "mimeType": "", "buffer": data})
    line = page.get_by_test_id("stMarkdownContainer").filter(has_text="3 pictures.")
    expect(line).to_be_visible()
    assert without_joiners(line.inner_text()) == f"3 pictures. Model {EVIL}, pictures at 224 px."
    assert line.locator("img, a, .katex, [role=img]").count() == 0
    assert page.locator(LINKS).count() == 0
