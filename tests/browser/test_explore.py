"""A visitor's way through Explore, in a real browser, against the numbers of `ret_attn_mask`."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect

from bra.models.catalog import ModelSettings, build, grid_on
from bra.photo import Photo, to_tensor
from bra.viewer.pack import locate
from dashboard.samples import GALLERY

pytestmark = pytest.mark.browser
SAMPLES = Path(__file__).parents[2] / "sample_images"


@pytest.fixture(scope="module")
def blobs() -> bytes:
    """A picture no one has seen: soft colour blobs, 300 wide, 220 high."""
    rng = np.random.default_rng(11)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((300, 220), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def truth(data: bytes, settings: ModelSettings) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    model = build(settings)
    with torch.inference_mode():
        tokens = model.embed(to_tensor(Photo.from_bytes(data).resized(settings.side)))
        _, r_weight, r_idx, attn = model.layers[0](tokens, ret_attn_mask=True)
    return r_weight[0], r_idx[0], attn


def open_app(context: Any, url: str) -> Any:
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(".stage[data-ready]")
    return page


def canvas(page: Any) -> Any:
    return page.locator('[data-part="canvas"]')


def at(page: Any, x: float, y: float) -> dict[str, float]:
    """Position on the stage of (x, y) given as shares of the canvas."""
    box = canvas(page).bounding_box()
    return {"x": x * box["width"], "y": y * box["height"]}


def shown(page: Any) -> tuple[int, list[int], list[float]]:
    """Query window, its routed windows, and their weights in per cent, as the sentence under the stage says."""
    text = page.locator('[data-part="readout"]').inner_text()
    query = int(re.match(r"Window (\d+)", text)[1])
    pairs = re.findall(r"window (\d+) \(<?([\d.]+) %\)", text)
    return query, [int(w) for w, _ in pairs], [float(p) for _, p in pairs]


def assert_shows(page: Any, window: int, r_weight: torch.Tensor, r_idx: torch.Tensor) -> None:
    query, windows, percents = shown(page)
    assert query == window
    assert windows == r_idx[window].tolist()[:8]
    np.testing.assert_allclose(percents, 100 * r_weight[window][:8], atol=0.51)


def test_upload_point_pin_and_change_topk_show_the_modules_numbers(context: Any, app_url: str, blobs: bytes) -> None:
    page = open_app(context, f"{app_url}/?model=similarity")
    before = page.locator(".stage").get_attribute("data-ready")
    page.locator('input[type="file"]').set_input_files({"name": "blobs.png", "mimeType": "image/png", "buffer": blobs})
    page.wait_for_function("(v) => document.querySelector('[data-testid=stBidiComponentIsolated]') && "
                           "[...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')].some((e) => "
                           "{ const s = e.shadowRoot?.querySelector('.stage') ?? e.querySelector('.stage'); "
                           "return s && s.dataset.ready && s.dataset.ready !== v; })", arg=before)

    settings = ModelSettings()
    r_weight, r_idx, attn = truth(blobs, settings)
    grid = grid_on(settings, Photo.from_bytes(blobs))
    canvas(page).hover(position=at(page, 0.36, 0.22))               # row 1, column 2 of 7
    expect(page.locator(".stage")).to_have_attribute("data-window", "9")
    assert_shows(page, 9, r_weight, r_idx)

    canvas(page).click(position=at(page, 0.36, 0.22))
    expect(page.locator('[data-part="a"]')).to_contain_text("window 9")
    page.wait_for_function("() => location.search.includes('a=')")
    told = page.get_by_text(re.compile("A attends to: token .* of window 9"))
    expect(told).to_be_visible()
    token = int(re.search(r"token (\d+)", told.inner_text())[1])
    plot = page.locator(".js-plotly-plot").first
    plot.locator(".heatmaplayer image").first.wait_for(state="attached")
    row, col = grid.token_of_window(int(r_idx[9, 0]), 0)
    wanted = 100 * attn[9, :, token, 0].mean().item()
    # The chart of the query before is there until this one's is drawn.
    page.wait_for_function("([row, col, wanted]) => { const z = document.querySelector('.js-plotly-plot')"
                           "?.calcdata?.[0]?.[0]?.z; return z && Math.abs((z[row]?.[col] ?? 0) - wanted) < 1e-3; }",
                           arg=[row, col, wanted])

    slider = page.get_by_role("slider", name="Routed windows, topk")
    slider.focus()
    slider.press("ArrowRight")
    expect(page.locator('[data-part="caption"]').first).to_contain_text("topk 5")
    page.mouse.move(5, 5)
    r_weight, r_idx, _ = truth(blobs, ModelSettings(topk=5))
    assert_shows(page, 9, r_weight, r_idx)                          # the pin survived the new setting
    rows = page.locator('[data-part="rows"] tr')
    assert [int(r.get_attribute("data-window")) for r in rows.all()] == r_idx[9].tolist()


def test_two_pins_a_reload_and_another_grid_keep_their_places(context: Any, app_url: str) -> None:
    page = open_app(context, f"{app_url}/?model=similarity")
    canvas(page).click(position=at(page, 0.5, 0.5))
    canvas(page).click(position=at(page, 0.1, 0.1))
    page.locator('[data-part="arrows"]').click()
    page.locator('[data-part="tint"]').select_option("affinity")
    page.wait_for_function("() => location.search.includes('show=arrows.affinity')")
    page.wait_for_function("() => location.search.includes('b=')")
    expect(page.locator('[data-part="a"]')).to_contain_text("window 24")
    expect(page.locator('[data-part="b"]')).to_contain_text("window 0")
    page.reload()
    page.wait_for_selector(".stage[data-ready]")
    expect(page.locator('[data-part="a"]')).to_contain_text("window 24")
    expect(page.locator('[data-part="b"]')).to_contain_text("window 0")
    expect(page.locator('[data-part="arrows"]')).to_have_attribute("aria-pressed", "true")
    expect(page.locator('[data-part="tint"]')).to_have_value("affinity")
    slider = page.get_by_role("slider", name="Windows per side, n_win")
    slider.focus()
    slider.press("ArrowLeft")
    expect(page.locator('[data-part="caption"]').first).to_contain_text("n_win 6")
    place = re.search(r"a=(\d+)\.(\d+)", page.url)
    page.get_by_role("link", name="How to read it").click()
    page.get_by_role("heading", name="How to read it").wait_for()
    page.get_by_role("link", name="Explore").click()
    page.wait_for_selector(".stage[data-ready]")
    expect(page.locator('[data-part="a"]')).not_to_contain_text("click")
    page.wait_for_function("() => location.search.includes('a=')")
    assert f"a={place[1]}.{place[2]}" in page.url


def test_the_gallery_is_chosen_by_pointer_and_by_keyboard(context: Any, app_url: str) -> None:
    page = open_app(context, f"{app_url}/?model=similarity")
    strip = page.get_by_role("radiogroup", name="Built-in pictures")
    strip.get_by_role("radio", name="Coffee").click()
    page.wait_for_function("() => location.search.includes('picture=still_life')")
    expect(strip.get_by_role("radio", name="Coffee")).to_have_attribute("aria-checked", "true")
    strip.get_by_role("radio", name="Coffee").press("ArrowRight")
    page.wait_for_function("() => location.search.includes('picture=repeated_objects')")
    data = (SAMPLES / "repeated_objects.jpg").read_bytes()
    _, r_idx, _ = truth(data, ModelSettings())
    photo = Photo.from_bytes(data)
    window, _ = locate(grid_on(ModelSettings(), photo), photo, GALLERY["repeated_objects"].focus)
    expect(page.locator(".stage")).to_have_attribute("data-window", str(window))
    rows = page.locator('[data-part="rows"] tr')
    expect(rows.first).to_have_attribute("data-window", str(int(r_idx[window, 0])))


LATE_PICTURES = """
    const decode = window.createImageBitmap.bind(window);
    window.decoded = []; window.slow = false;
    window.createImageBitmap = async (blob) => {
      const late = window.slow; window.slow = false;
      if (late) await new Promise((done) => setTimeout(done, 4000));
      const bitmap = await decode(blob);
      window.decoded.push([bitmap.width, bitmap.height, late]);
      return bitmap;
    };"""


def test_a_picture_that_was_overtaken_is_never_shown(context: Any, app_url: str) -> None:
    # The first picture asked for is decoded last: it must not come to lie under the second one's routing.
    page = context.new_page()
    page.add_init_script(LATE_PICTURES)
    page.goto(f"{app_url}/?model=similarity")
    page.wait_for_selector(".stage[data-ready]")
    pixels = "(c) => c.toDataURL()"
    strip = page.get_by_role("radiogroup", name="Built-in pictures")
    stage = page.locator(".stage")
    before = stage.get_attribute("data-ready")
    strip.get_by_role("radio", name="Portrait").click()
    page.wait_for_function("() => location.search.includes('picture=portrait')")
    expect(stage).not_to_have_attribute("data-ready", before)
    portrait = stage.get_attribute("data-ready")
    page.mouse.move(5, 5)
    page.wait_for_timeout(500)
    expected = canvas(page).evaluate(pixels)
    strip.get_by_role("radio", name="Cat").click()
    page.wait_for_function("() => !location.search.includes('picture=')")
    page.evaluate("window.slow = true")
    strip.get_by_role("radio", name="Coffee").click()
    page.wait_for_function("() => location.search.includes('picture=still_life')")
    page.wait_for_timeout(500)
    strip.get_by_role("radio", name="Portrait").click()
    page.wait_for_function("() => window.decoded.some(([, , late]) => late)")
    expect(stage).to_have_attribute("data-ready", portrait)
    page.mouse.move(5, 5)
    page.wait_for_timeout(500)
    assert canvas(page).evaluate(pixels) == expected


def test_topk_stays_when_n_win_changes(context: Any, app_url: str) -> None:
    page = open_app(context, f"{app_url}/?model=similarity&topk=7")
    slider = page.get_by_role("slider", name="Windows per side, n_win")
    slider.focus()
    for n_win in (8, 9, 10):
        slider.press("ArrowRight")
        expect(page.locator('[data-part="caption"]').first).to_contain_text(f"n_win {n_win} · topk 7")
    page.get_by_role("slider", name="Routed windows, topk").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator('[data-part="caption"]').first).to_contain_text("n_win 10 · topk 8")


def test_an_upload_can_be_left_returned_to_and_removed(context: Any, app_url: str, blobs: bytes) -> None:
    page = open_app(context, f"{app_url}/?model=similarity")
    name = "a*b*$c$.png"
    page.locator('input[type="file"]').set_input_files({"name": name, "mimeType": "image/png", "buffer": blobs})
    expect(page.get_by_text(name, exact=True).first).to_be_visible()
    strip = page.get_by_role("radiogroup", name="Built-in pictures")
    strip.get_by_role("radio", name="Coffee").click()
    page.wait_for_function("() => location.search.includes('picture=still_life')")
    strip.get_by_role("radio", name=name).click()
    page.wait_for_function("() => location.search.includes('picture=upload')")
    strip.get_by_role("radio", name="Coffee").click()
    page.wait_for_function("() => location.search.includes('picture=still_life')")
    page.get_by_role("button", name=re.compile("^Remove ")).click()
    expect(strip.get_by_role("radio", name=name)).to_have_count(0)
    expect(strip.get_by_role("radio", name="Coffee")).to_have_attribute("aria-checked", "true")


def test_the_keyboard_does_what_the_pointer_does(context: Any, app_url: str) -> None:
    page = open_app(context, f"{app_url}/?model=similarity&picture=portrait")
    stage = page.locator(".stage")
    first = int(stage.get_attribute("data-window"))
    canvas(page).focus()
    page.keyboard.press("ArrowRight")
    expect(stage).to_have_attribute("data-window", str(first + 1))
    page.keyboard.press("ArrowDown")
    expect(stage).to_have_attribute("data-window", str(first + 8))
    expect(page.locator('[data-part="live"]')).to_contain_text(f"Window {first + 8} ")
    page.keyboard.press("Enter")
    expect(page.locator('[data-part="a"]')).to_contain_text(f"window {first + 8}")
    page.keyboard.press("r")
    expect(page.locator('[data-part="readout"]')).to_contain_text("is chosen by")
    page.keyboard.press("Escape")
    expect(page.locator('[data-part="a"]')).to_contain_text("click")
    page.wait_for_function("() => !location.search.includes('a=')")


def test_who_routes_here_lists_the_windows_that_chose_it(context: Any, app_url: str) -> None:
    page = open_app(context, f"{app_url}/?model=similarity&picture=portrait&n_win=4&topk=3&a=5000.5000")
    page.locator('[data-part="reverse"]').click()
    _, r_idx, _ = truth((SAMPLES / "portrait.jpg").read_bytes(), ModelSettings(n_win=4, topk=3))
    window = int(page.locator(".stage").get_attribute("data-window"))
    chosen_by = {q for q in range(16) if window in r_idx[q].tolist()}
    rows = page.locator('[data-part="rows"] tr')
    expect(rows).to_have_count(len(chosen_by))
    assert {int(r.get_attribute("data-window")) for r in rows.all()} == chosen_by


@pytest.mark.parametrize("context",
                            [{"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}],
                            indirect=True)
def test_touch_pins_on_a_phone_and_nothing_overflows(context: Any, app_url: str) -> None:
    page = open_app(context, f"{app_url}/?model=similarity")
    canvas(page).scroll_into_view_if_needed()
    canvas(page).tap(position=at(page, 0.5, 0.5))
    expect(page.locator('[data-part="a"]')).to_contain_text("window 24")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_downloads_hold_what_is_shown(context: Any, app_url: str) -> None:
    page = open_app(context, f"{app_url}/?model=similarity&n_win=4&topk=2&a=5000.5000")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as got:
        page.get_by_role("button", name="Routing, CSV").click()
    lines = list(csv.DictReader(io.StringIO(got.value.path().read_text())))
    r_weight, r_idx, _ = truth((SAMPLES / "animal.jpg").read_bytes(), ModelSettings(n_win=4, topk=2))
    assert [int(line["key_window"]) for line in lines] == r_idx.flatten().tolist()
    np.testing.assert_allclose([float(line["weight"]) for line in lines], r_weight.flatten(), atol=1e-6)
    with page.expect_download() as got:
        page.get_by_role("button", name="Trace, NPZ").click()
    with np.load(got.value.path()) as npz:
        np.testing.assert_array_equal(npz["r_idx"], r_idx)
    page.keyboard.press("Escape")
    shown_at = canvas(page).bounding_box()
    for factor in (2, 4):
        page.locator('[data-part="size"]').select_option(str(factor))
        with page.expect_download() as got:
            page.locator('[data-part="save"]').click()
        assert f"n4_k2_a6_{factor}x.png" in got.value.suggested_filename
        with Image.open(got.value.path()) as saved:
            assert saved.format == "PNG"
            assert saved.width == pytest.approx(factor * shown_at["width"], abs=factor)
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as got:
        page.get_by_role("button", name="Report, HTML").click()
    report = context.new_page()
    path = got.value.path().with_suffix(".html")
    path.write_bytes(got.value.path().read_bytes())
    report.goto(path.as_uri())
    report.wait_for_selector(".stage[data-ready]")
    expect(report.locator(".figure .js-plotly-plot")).to_have_count(4)
    assert_shows(report, 6, r_weight, r_idx)  # the pin's window, not the one where the picture opens


def test_a_hostile_file_name_stays_text(context: Any, app_url: str, blobs: bytes) -> None:
    page = open_app(context, f"{app_url}/?model=similarity")
    name = "<img src=x onerror=alert(1)>.png"
    page.on("dialog", lambda dialog: pytest.fail("a file name ran code"))
    page.locator('input[type="file"]').set_input_files({"name": name, "mimeType": "image/png", "buffer": blobs})
    page.wait_for_function("() => location.search.includes('picture=upload')")
    page.wait_for_selector(".stage[data-ready]")
    assert page.locator("img[src=x]").count() == 0
