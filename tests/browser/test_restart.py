"""A server that stops and comes back: the browser connects again by itself, and the view is there."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from raw_visitor import serving

PICTURE = Path(__file__).parents[2] / "sample_images" / "text.jpg"


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.browser
def test_after_the_server_was_killed_the_view_comes_back_and_an_upload_is_asked_for_again(
        context: Any, port: int, tmp_path: Path) -> None:
    page, uploads, sent = context.new_page(), context.new_page(), []
    page.on("websocket", lambda socket: socket.on("framesent", lambda one: sent.append(one)))
    with serving(tmp_path / "one.txt", port=port) as (host, server):
        page.goto(f"http://{host}/?model=similarity&n_win=5&topk=5&picture=street&a=3000.3000")
        page.wait_for_selector(".stage[data-ready]")
        expect(page.locator('[data-part="a"]')).to_contain_text("window 6")
        page.evaluate("window.same = true")
        uploads.goto(f"http://{host}/?model=similarity")
        uploads.wait_for_selector(".stage[data-ready]")
        uploads.locator('input[type="file"]').set_input_files(PICTURE)
        uploads.wait_for_function("() => location.search.includes('picture=upload')")
        server.send_signal(signal.SIGKILL)
        server.wait()
        sent.clear()
    app = page.locator(".stApp")
    expect(app).not_to_have_attribute("data-test-connection-state", "CONNECTED")
    with serving(tmp_path / "two.txt", port=port):
        expect(app).to_have_attribute("data-test-connection-state", "CONNECTED", timeout=90_000)
        # The page runs again by itself: otherwise the next click would be lost.
        expect(app).to_have_attribute("data-test-script-state", "running")
        expect(app).to_have_attribute("data-test-script-state", "notRunning", timeout=90_000)
        assert any(b"style" in one for one in sent), "the server need not wait for what is there"
        slider = page.get_by_role("slider", name="Routed windows, topk")
        slider.focus()
        slider.press("ArrowRight")
        expect(page.locator('[data-part="caption"]').first).to_contain_text("n_win 5 · topk 6", timeout=90_000)
        expect(page.locator('[data-part="a"]')).to_contain_text("window 6")
        page.wait_for_function("() => location.search.includes('topk=6')")
        assert page.evaluate("window.same"), "it was not even loaded anew"
        assert {"n_win=5", "picture=street", "a=3000.3000"} <= set(page.url.partition("?")[2].split("&"))
        expect(uploads.get_by_text("This link was made with an uploaded picture")).to_be_visible(timeout=90_000)
        uploads.wait_for_selector(".stage[data-ready]")
        for one in (page, uploads):
            assert one.get_by_test_id("stException").count() == 0
