"""Files that are dropped anywhere on a page: pictures of one's own by name, and a word of those that are not taken."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
DROP = """(files) => {
  const carrier = new DataTransfer();
  for (const [name, type, data] of files)
    carrier.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: carrier, bubbles: true, cancelable: true })); }"""


def picture(name: str, colour: str) -> tuple[str, str, str]:
    buffer = io.BytesIO()
    Image.new("RGB", (120, 90), colour).save(buffer, "PNG")
    return name, "image/png", base64.b64encode(buffer.getvalue()).decode()


def test_several_pictures_are_taken_by_name_and_a_table_is_refused_in_words(context: Any, app_url: str) -> None:
    page = context.new_page()
    page.goto(f"{app_url}/?model=similarity&side=224")
    page.wait_for_selector(".stage[data-ready]")
    page.evaluate(DROP, [picture("red.png", "red"), picture("blue.png", "blue"), ("rows.csv", "text/csv", "YSxi")])
    expect(page.get_by_text("rows.csv is not opened: here, files end in .png")).to_be_visible()
    strip = page.locator(".gallery")
    for name in ("red.png", "blue.png"):
        expect(strip.get_by_role("radio", name=name)).to_be_visible()
    strip.get_by_role("radio", name="red.png").click()
    expect(strip.get_by_role("radio", name="red.png")).to_have_attribute("aria-checked", "true")
    expect(strip.get_by_role("radio", name="blue.png")).to_have_attribute("aria-checked", "false")
    page.get_by_role("button", name="Remove blue.png").click()
    expect(strip.get_by_role("radio", name="blue.png")).to_have_count(0)
    expect(strip.get_by_role("radio", name="red.png")).to_have_attribute("aria-checked", "true")
