"""What is the browser's own: going back, and files that are dropped or pasted anywhere on a page."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
GIVE = """([kind, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const carrier = new DataTransfer();
  carrier.items.add(new File([bytes], 'mine.png', { type: 'image/png' }));
  const event = kind === 'paste'
    ? new ClipboardEvent('paste', { clipboardData: carrier, bubbles: true, cancelable: true })
    : new DragEvent('drop', { dataTransfer: carrier, bubbles: true, cancelable: true });
  const at = kind === 'paste' ? document.body : document.querySelector('.stMainBlockContainer h3');
  return !at.dispatchEvent(event); }"""


def picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), (20, 90, 160)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_file_is_taken_wherever_it_is_given(context: Any, app_url: str, kind: str) -> None:
    page = context.new_page()
    page.goto(f"{app_url}/?model=similarity")
    page.wait_for_selector(".stage[data-ready]")
    assert page.evaluate(GIVE, [kind, picture()]), "taken, so that the browser does nothing with it itself"
    expect(page.get_by_text("mine.png").first).to_be_visible()
    page.wait_for_function("() => location.search.includes('picture=upload')")
    assert page.evaluate("location.pathname") == "/"


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_file_waits_for_a_field_that_is_not_there_yet(context: Any, app_url: str, kind: str) -> None:
    page = context.new_page()
    held: list[Any] = []
    page.route(re.compile(r"/FileUploader\.[^/]*\.js$"), lambda script: held.append(script))
    page.goto(f"{app_url}/?model=similarity")
    page.wait_for_selector(".stage[data-ready]")
    assert page.locator('input[type="file"]').count() == 0
    assert page.evaluate(GIVE, [kind, picture()]), "taken, so that the browser does nothing with it itself"
    page.wait_for_selector('.stApp[data-test-script-state="notRunning"]')
    page.wait_for_timeout(300)
    for script in held:
        script.continue_()
    expect(page.get_by_text("mine.png").first).to_be_visible()
    page.wait_for_function("() => location.search.includes('picture=upload')")


def test_back_leads_to_the_page_before(context: Any, app_url: str) -> None:
    page = context.new_page()
    page.goto(f"{app_url}/guide")
    page.locator("h1, h2, h3").first.wait_for()
    page.get_by_role("link", name="Explore", exact=True).click()
    page.wait_for_selector(".stage[data-ready]")
    for name, key in (("Portrait", "portrait"), ("Coffee", "still_life")):
        page.get_by_role("radio", name=name).click()
        page.wait_for_function("(key) => location.search.includes('picture=' + key)", arg=key)
    page.go_back()
    page.wait_for_function("() => location.pathname.endsWith('/guide')")
    expect(page.locator(".stage")).to_have_count(0)
    # What Streamlit does when the page before was still running.
    page.evaluate("() => { for (const path of ['/', '/guide']) history.pushState({}, '', path); }")
    page.go_forward()
    page.wait_for_selector(".stage[data-ready]")
    page.wait_for_function("() => location.search.includes('picture=still_life')")
