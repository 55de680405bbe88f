"""How the page answers in Chromium: cold start, upload to picture, and repainting while one points.

The repaint is measured from the pointer's event to the end of drawing, and from the event to the next frame; beside it
stands the time of an empty frame, since a frame is the floor.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
POINT = """async (n) => {
  const find = (root) => root.querySelector('[data-part=canvas]') ?? [...root.querySelectorAll('*')]
    .filter((e) => e.shadowRoot).map((e) => find(e.shadowRoot)).find(Boolean);
  const canvas = find(document), box = canvas.getBoundingClientRect(), stage = canvas.closest('.stage');
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const drawn = [], shown = [], empty = [];
  for (let i = 0; i < n; i++) {
    await frame();
    let start = performance.now(); await frame(); await frame(); empty.push(performance.now() - start);
    start = performance.now();
    canvas.dispatchEvent(new PointerEvent('pointermove', { bubbles: true,
      clientX: box.x + box.width * ((i * 0.37) % 1), clientY: box.y + box.height * ((i * 0.61) % 1) }));
    await frame(); drawn.push(Number(stage.dataset.painted)); await frame(); shown.push(performance.now() - start);
  }
  return { drawn, shown, empty };
}"""


def line(values: list[float]) -> str:
    return f"median {statistics.median(values):6.1f}, p95 {np.percentile(values, 95):6.1f} ms"


def wait_for_stage(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector(".stage[data-ready]", timeout=120_000)


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.headless=true",
         f"--server.port={url.rsplit(':', 1)[1]}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            while True:
                try:
                    page.goto(url)
                    break
                except Exception:  # not listening yet
                    time.sleep(0.05)
            page.wait_for_selector(".stage[data-ready]", timeout=120_000)
            print(f"cold start: server's start to a stage that answers {time.perf_counter() - began:.1f} s")
            paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
            print(f"            first contentful paint {paint / 1000:.1f} s after the page was asked for")
            warm = []
            for _ in range(5):
                began = time.perf_counter()
                wait_for_stage(page, url)
                warm.append(time.perf_counter() - began)
            print(f"warm start, page to stage: median {statistics.median(warm):.1f} s of {len(warm)}")
            uploads(page)
            for n_win in (7, 16):
                wait_for_stage(page, f"{url}/?picture=portrait&n_win={n_win}")
                got = page.evaluate(POINT, 200)
                print(f"n_win {n_win:2}: drawing {line(got['drawn'])}; event to frame {line(got['shown'])}; "
                      f"two empty frames {line(got['empty'])}")
            browser.close()
    finally:
        server.terminate()


def uploads(page: Page) -> None:
    rng, took = np.random.default_rng(0), []
    for _ in range(5):
        buffer = io.BytesIO()
        small = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
        small.resize((4000, 3000), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        before = page.locator(".stage").get_attribute("data-ready")
        began = time.perf_counter()
        page.locator('input[type="file"]').set_input_files(
            {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": buffer.getvalue()})
        page.locator(f'.stage:not([data-ready="{before}"])').wait_for(timeout=60_000)
        took.append(time.perf_counter() - began)
    print(f"a 12-megapixel JPEG, upload to its stage: median {statistics.median(took):.2f} s of {len(took)}")


if __name__ == "__main__":
    os.environ.setdefault("STREAMLIT_BROWSER_GATHER_USAGE_STATS", "false")
    main()
