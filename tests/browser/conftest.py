"""A running app and a real Chromium that may speak to this computer only."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"]
OPTIONS = {"viewport": {"width": 1440, "height": 1000}, "accept_downloads": True, "reduced_motion": "reduce"}
"""Without a graphics card what moves while a page loads takes long to draw."""
SEEN = """() => [
  `script ${document.querySelector(".stApp")?.dataset.testScriptState}, ${document.visibilityState}`,
  ...[...document.querySelectorAll("[data-stale=true]")].slice(0, 5).map((one) => `stale: ${one.dataset.testid}`),
  document.body.innerText.slice(0, 3000)].join("\\n")"""
OURS = ("http://127.0.0.1", "http://localhost", "ws://127.0.0.1", "ws://localhost", "blob:", "data:", "file:", "about:")


@pytest.fixture(scope="session")
def chromium_type() -> Iterator[Any]:
    """Playwright's launcher."""
    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium on this machine, and CI must have one")
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # the server, the browser and this test share two cores
    with sync_playwright() as play:
        yield play.chromium


@pytest.fixture(scope="session")
def browser(chromium_type: Any) -> Iterator[Any]:
    running = chromium_type.launch(executable_path=CHROMIUM, args=FLAGS)
    yield running
    running.close()


@pytest.fixture(scope="session")
def profile(chromium_type: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser profile for all tests: it keeps the page's scripts, read and compiled, from one page to the next."""
    running = chromium_type.launch_persistent_context(
        tmp_path_factory.mktemp("profile"), executable_path=CHROMIUM, args=FLAGS, **OPTIONS)
    yield running
    running.close()


@pytest.fixture(scope="session")
def app_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.headless=true",
             f"--server.port={port}"], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    try:
        for _ in range(120):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(log.read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def context(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A visitor with an empty store; the test fails when anything but this computer was asked for, or a script failed.

    With a parameter it is a browser context of these options and of nobody else's scripts.
    """
    options = getattr(request, "param", None)
    if options is None:
        made = request.getfixturevalue("profile")
    else:
        made = request.getfixturevalue("browser").new_context(**OPTIONS | options)
    made.set_default_timeout(60_000)
    asked: set[str] = set()
    errors: list[str] = []

    def note_request(sent: Any) -> None:
        asked.add(sent.url)

    def note_error(error: Any) -> None:
        errors.append(str(error.error))

    made.on("request", note_request)
    made.on("weberror", note_error)
    yield made
    if options is not None:
        made.close()
    else:
        made.remove_listener("request", note_request)
        made.remove_listener("weberror", note_error)
        _emptied(made, {"/".join(url.split("/")[:3]) for url in asked if url.startswith("http")})
    assert [url for url in asked if not url.startswith(OURS)] == []
    assert errors == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a visitor saw when a test failed: it stands in the report, since the next run may not fail."""
    report = yield
    context = getattr(item, "funcargs", {}).get("context")
    if report.when == "call" and report.failed and context:
        for page in context.pages:
            try:
                report.sections.append((f"page {page.url}", page.evaluate(SEEN)))
            except Exception as error:              # a page that has crashed says so
                report.sections.append((f"page {page.url}", str(error)))
    return report


def _emptied(profile: Any, origins: set[str]) -> None:
    """Close a profile's pages and forget what they stored, but for files from the server."""
    page = profile.new_page()
    for other in profile.pages:
        if other != page:
            other.close()
    session = profile.new_cdp_session(page)
    for origin in origins:
        session.send("Storage.clearDataForOrigin", {
            "origin": origin, "storageTypes": "cookies,local_storage,indexeddb,cache_storage,service_workers"})
    session.detach()
    profile.clear_permissions()
