"""How the page answers in Chromium: from its HTML to a stage that answers, from page to page, another topk, an upload
to its picture, and repainting while one points and clicks.

A visit is timed from the arrival of the HTML, cold in a server that was just started and warm in one that has answered
before: the first paint, the frame (title and stage have their places), the picture (which answers to pointing at once),
the whole page; and how far things jumped meanwhile (cumulative layout shift, as Chromium counts it).

The repaint is measured from the pointer's event to the end of drawing, and from the event to the next frame; beside it
stands the time of an empty frame, since a frame is the floor.

`--against FOLDER` measures the first view and the clicks of another checkout too, the two in turn.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

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

CLICK = """() => {     // times what is clicked from outside, from the input to the frame after the repaint
  const find = (root) => root.querySelector('[data-part=canvas]') ?? [...root.querySelectorAll('*')]
    .filter((e) => e.shadowRoot).map((e) => find(e.shadowRoot)).find(Boolean);
  const canvas = find(document);
  globalThis.clicks = [];
  canvas.addEventListener('click', (event) => requestAnimationFrame(() => setTimeout(() =>
    clicks.push(performance.now() - event.timeStamp))), { capture: true });
  const box = canvas.getBoundingClientRect();
  return [box.x, box.y, box.width, box.height];
}"""
TOPK = """(stage) => {     // times each key, from its event to the stage with another message, drawn
  let pressed = 0, shown = stage.dataset.ready;
  globalThis.took = [];
  addEventListener('keydown', (event) => { pressed = event.timeStamp; }, { capture: true });
  new MutationObserver(() => {
    if (pressed && stage.dataset.ready !== shown) { took.push(performance.now() - pressed); pressed = 0; }
    shown = stage.dataset.ready;
  }).observe(stage, { attributes: true, attributeFilter: ['data-ready'] });
}"""
VISIT = """(() => {
  const seen = globalThis.visit = { shift: 0, moved: [] };
  new PerformanceObserver((list) => { for (const entry of list.getEntries()) if (!entry.hadRecentInput) {
    seen.shift += entry.value;
    seen.moved.push([Math.round(entry.startTime), entry.value, ...entry.sources.map((one) => one.node?.className)]);
  } }).observe({ type: "layout-shift", buffered: true });
  const stage = () => [...document.querySelectorAll('[data-testid^=stBidiComponent]')]
    .map((host) => (host.shadowRoot ?? host.querySelector('*')?.shadowRoot)?.querySelector('.stage')).find(Boolean);
  const look = () => {
    const now = performance.now(), at = stage();
    const button = document.querySelector('.st-key-language_switch');      // the page's style lays it into the header
    const heading = document.querySelector('[data-testid=stMain] h3');
    if (!seen.content && heading) seen.content = now;
    if (!seen.frame && heading && at?.getBoundingClientRect().height > 300
        && button && getComputedStyle(button).position === 'fixed') seen.frame = now;
    if (!seen.stage && at?.dataset.ready) seen.stage = now;
    if (!seen.page && seen.stage && document.querySelector('[data-testid=stSidebar] [data-testid=stSelectbox]')
        && document.querySelector('[data-test-script-state=notRunning]')) seen.page = now;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})()"""
VISITED = """() => {
  const html = performance.getEntriesByType('navigation')[0].responseEnd, { frame, stage, page, shift, moved } = visit;
  const paint = performance.getEntriesByName('first-contentful-paint')[0]?.startTime;
  return { times: [paint, frame, stage, page].map((time) => (time ?? NaN) - html), shift, moved };
}"""
STEPS = ("first paint", "frame", "picture and stage", "page")
PAGES = {"Learn": "/learn", "Compare": "/compare", "Cost": "/cost", "Models": "/models", "How to read it": "/guide",
         "Explore": "/"}
FIRST_VIEWS = ("/?model=similarity&n_win=7&topk=4", "/?model=biformer&n_win=7&topk=4")


def line(values: list[float]) -> str:
    return f"median {statistics.median(values):6.1f}, p95 {np.percentile(values, 95):6.1f} ms"


def wait_for_stage(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector(".stage[data-ready]", timeout=120_000)


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The app of a checkout, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.headless=true",
         f"--server.port={port}"], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()


def opened(page: Page, url: str) -> None:
    """A page of a server that may not listen yet."""
    while True:
        try:
            page.goto(url)
            break
        except Exception:  # not listening yet
            time.sleep(0.05)
    page.wait_for_selector(".stage[data-ready]", timeout=120_000)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--against", type=Path, help="another checkout, whose first view and clicks are measured too")
    options.add_argument("--rounds", type=int, default=9)
    asked = options.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        if asked.against:
            with served(ROOT) as now, served(asked.against) as before:
                compare(browser, {"now": now, "before": before}, asked.rounds)
        else:
            alone(browser)
        browser.close()


def alone(browser: Browser) -> None:
    """What is measured of this checkout by itself."""
    visits(browser)
    with served(ROOT) as url:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        opened(page, url)
        pages(page, url)
        cost_page(page, url)
        other_topk(page, url)
        wait_for_stage(page, url)
        uploads(page)
        for n_win in (7, 16):
            wait_for_stage(page, f"{url}/?picture=portrait&n_win={n_win}")
            got = page.evaluate(POINT, 200)
            print(f"n_win {n_win:2}: drawing {line(got['drawn'])}; event to frame {line(got['shown'])}; "
                  f"two empty frames {line(got['empty'])}")


def visited(browser: Browser, url: str) -> tuple[list[float], float]:
    """Milliseconds from the HTML to each of STEPS, and the layout shift, of a newcomer's visit."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(VISIT)
    page = context.new_page()
    opened(page, url)
    page.wait_for_function("() => visit.page", timeout=120_000)
    page.wait_for_timeout(1500)         # charts come after the stage, and may push something
    got = page.evaluate(VISITED)
    context.close()
    return got["times"], got["shift"]


def visits(browser: Browser, cold: int = 3, warm: int = 7) -> None:
    """Visits to servers that were just started, and to one that was not."""
    found: dict[str, list[tuple[list[float], float]]] = {"cold": [], "warm": []}
    for at in range(cold):
        with served(ROOT) as url:
            wait_until_listening(url)
            found["cold"].append(visited(browser, url))
            found["warm"] += [visited(browser, url) for _ in range(warm if at == 0 else 0)]
    for kind, results in found.items():
        steps = zip(STEPS, zip(*(times for times, _ in results), strict=True), strict=True)
        print(f"{kind} server, from HTML: " + ", ".join(
            f"{name} {statistics.median(times) / 1000:.2f} s" for name, times in steps)
            + f"; layout shift {statistics.median(shift for _, shift in results):.3f} (medians of {len(results)})")


def wait_until_listening(url: str) -> None:
    """A server that answers at all; its first page is still to be drawn."""
    while True:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
                return
        except OSError:
            time.sleep(0.05)


def turned(page: Page, name: str) -> float:
    """Seconds from the click on a page's name to that page, drawn and at rest."""
    began = time.perf_counter()
    page.get_by_role("link", name=name, exact=True).click()
    page.wait_for_function("""(path) => location.pathname === path &&
      document.querySelector('[data-test-script-state=notRunning]') && !document.querySelector('[data-stale=true]')""",
                           arg=PAGES[name], timeout=120_000)
    return time.perf_counter() - began


def pages(page: Page, url: str) -> None:
    """From page to page: the first round draws what nobody asked for before, the second what is there."""
    for kind in ("first", "second"):
        print(f"page to page, {kind} round: " + ", ".join(f"{name} {turned(page, name):.2f} s" for name in PAGES))


def cost_page(page: Page, url: str) -> None:
    """The page Cost of a YOLO that is open already, the first time and once more."""
    wait_for_stage(page, f"{url}/?model=yolo")
    times = []
    for _ in range(2):
        times.append(turned(page, "Cost"))
        turned(page, "Explore")
    print(f"Cost of yolov8n-bra: first visit {times[0]:.2f} s, second {times[1]:.2f} s")


def other_topk(page: Page, url: str) -> None:
    """From the key on the slider to the stage with another topk, by the browser's own clock."""
    for model in ("photos", "yolo"):
        wait_for_stage(page, f"{url}/?model={model}&changed=1")
        page.wait_for_timeout(2000)         # the charts come after the stage
        page.locator(".stage").evaluate(TOPK)
        slider = page.get_by_role("slider", name="topk")
        for done in range(1, 8):
            slider.press("ArrowRight")
            page.wait_for_function("(done) => took.length === done", arg=done, timeout=60_000)
            page.wait_for_timeout(2000)
        took = page.evaluate("took")
        print(f"another topk, {model}: key to stage {line(took)} of {len(took)}")


def compare(browser: Browser, urls: dict[str, str], rounds: int) -> None:
    """First view and clicks of several servers, in turn; each visit in a context of its own, as a newcomer has it."""
    for view in FIRST_VIEWS:
        first: dict[str, list[float]] = {name: [] for name in urls}
        clicks: dict[str, list[float]] = {name: [] for name in urls}
        busy: dict[str, list[float]] = {name: [] for name in urls}
        for at in range(rounds + 1):
            for name, url in urls.items():
                context = browser.new_context(viewport={"width": 1440, "height": 900})
                page = context.new_page()
                if at == 0:                 # the server's own first run
                    opened(page, url + view)
                else:
                    session = context.new_cdp_session(page)
                    session.send("Performance.enable", {"timeDomain": "threadTicks"})
                    began = time.perf_counter()
                    wait_for_stage(page, url + view)
                    first[name].append(1000 * (time.perf_counter() - began))
                    # Of the processor, and so the same whoever else works on this machine.
                    found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
                    busy[name].append(1000 * found["TaskDuration"])
                    page.wait_for_timeout(2000)
                    clicks[name] += clicked(page)
                context.close()
        load = os.getloadavg()[0]
        for name in urls:
            print(f"{view} {name:6}: page to stage {line(first[name])}, of the browser's main thread "
                  f"{line(busy[name])}; click to repaint {line(clicks[name])} of {len(clicks[name])}; load {load:.1f}",
                  flush=True)
        print(f"{view} now / before: page to stage {ratio(first):.2f}, main thread {ratio(busy):.2f}", flush=True)


def ratio(times: dict[str, list[float]]) -> float:
    return statistics.median(times["now"]) / statistics.median(times["before"])


def clicked(page: Page) -> list[float]:
    """Milliseconds from each of a few clicks on the stage to its repaint; Python answers each before the next."""
    left, top, width, height = page.evaluate(CLICK)
    for x, y in ((0.2, 0.3), (0.7, 0.4), (0.4, 0.6), (0.85, 0.2), (0.1, 0.5)):
        page.mouse.click(left + x * width, top + y * min(height, 500))
        page.wait_for_timeout(900)
    found: list[float] = page.evaluate("clicks")
    return found


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
