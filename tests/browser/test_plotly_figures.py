"""Plotly figures in a real browser: hover, legend, clicks on bars and cells, a box that the stage follows, export."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from bra.models.catalog import ModelSettings
from bra.opening import look, open_model
from bra.photo import Photo
from bra.profiling.model_cost import cost
from dashboard.services.models import SAMPLES
from tests.helpers.late_messages import LateMessages

pytestmark = pytest.mark.browser
PLOT = ".js-plotly-plot"


def opened(context: Any, url: str) -> Any:
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(f"{PLOT} .main-svg", state="attached", timeout=90_000)
    return page


def hover_text(page: Any, plot: Any, x: float, y: float) -> str:
    """What a figure says where one points, at shares of its width and height."""
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + x * box["width"] - 3, box["y"] + y * box["height"])
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
    plot.locator(".hoverlayer .hovertext").first.wait_for()
    return str(plot.locator(".hoverlayer").text_content())


def test_attention_is_read_by_pointing_and_a_box_in_the_matrix_moves_the_stage(context: Any, app_url: str) -> None:
    page = opened(context, f"{app_url}/?model=similarity&n_win=4&topk=3")
    page.wait_for_selector(".stage[data-ready]")
    plot = page.locator(PLOT).first
    maps = plot.locator(".heatmaplayer image")
    expect(maps).to_have_count(2)
    page.get_by_role("tab", name="Routing matrix").click()
    plot = page.locator(PLOT).first
    plot.locator(".heatmaplayer image").first.wait_for()
    expect(plot.locator(".heatmaplayer image")).to_have_count(1)
    said = hover_text(page, plot, 0.5, 0.5)
    assert re.search(r"query window: \d+", said)
    assert re.search(r"affinity: ", said)
    area = plot.locator(".draglayer .nsewdrag").first.bounding_box()
    cell = area["height"] / 16
    page.mouse.move(area["x"] + 2, area["y"] + 5.6 * cell)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + 7 * cell, steps=4)
    page.mouse.move(area["x"] + area["width"] - 2, area["y"] + 9.4 * cell, steps=4)
    page.mouse.up()
    expect(page.locator('[data-part="a"]')).to_contain_text("window 5")
    expect(page.locator('[data-part="b"]')).to_contain_text("window 9")
    page.wait_for_function("() => location.search.includes('b=')")
    photo = Photo.from_bytes((SAMPLES / "animal.jpg").read_bytes())
    lt = look(ModelSettings(n_win=4, topk=3), photo).trace.layers["layers.0"]
    page.mouse.move(5, 5)
    first = page.locator('[data-part="rows"] tr').first
    expect(first).to_have_attribute("data-window", re.compile(f"^({lt.r_idx[0, 5, 0]}|{lt.r_idx[0, 9, 0]})$"))


def test_a_choice_that_a_browser_repeats_undoes_nothing(context: Any, app_url: str) -> None:
    """A click on a bar opens another part of the page; the next click comes before the browser knows that the run of
    the first has ended, and says once more what was chosen in the chart."""
    page = context.new_page()
    late = LateMessages(page)
    page.goto(f"{app_url}/cost?model=yolo&variant=yolov8n-bra&cost_height=320&cost_width=320")
    plot = page.locator(PLOT).first
    plot.locator(".barlayer .trace").first.wait_for(state="attached", timeout=90_000)
    page.wait_for_selector('.stApp[data-test-script-state="notRunning"]')
    row = plot.evaluate("(plot) => plot.data.find((trace) => trace.name === 'projection to q, k, v').y[0]")
    place = point_at_bar(page, plot, row)
    plot.locator(".hoverlayer .hovertext").first.wait_for()     # a click is of what is pointed at, once that is known
    late.hold("script_finished")
    page.mouse.click(*place)
    expect(page.get_by_text("Which n_win?")).to_be_in_viewport()
    late.wait()
    page.get_by_role("radio", name="What it costs").click()
    page.wait_for_timeout(200)          # for the click's way to the server
    late.release()
    expect(page.get_by_role("tab", name="Parameters as a tree")).to_be_visible()
    expect(page.get_by_role("radio", name="What it costs")).to_be_checked()


def point_at_bar(page: Any, plot: Any, row: int) -> tuple[float, float]:
    """Point at the middle of a row's first bar; returns the place on the page."""
    at = plot.evaluate("""(plot, row) => {      // pixels inside its figure
        const { _offset: left } = plot._fullLayout.xaxis, { _offset: top } = plot._fullLayout.yaxis;
        const trace = plot.data.find((t) => t.y.includes(row)), n = trace.y.indexOf(row);
        return [left + plot._fullLayout.xaxis.d2p(trace.x[n]) / 2, top + plot._fullLayout.yaxis.d2p(row)]; }""", row)
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    x, y = box["x"] + at[0], box["y"] + at[1]
    page.mouse.move(x - 2, y)
    page.mouse.move(x, y, steps=3)
    return x, y


def test_cost_is_hovered_switched_and_clicked(context: Any, app_url: str) -> None:
    page = opened(context, f"{app_url}/cost?model=yolo&variant=yolov8n-bra&cost_height=320&cost_width=320")
    counted = cost(open_model(ModelSettings("yolo", variant="yolov8n-bra")).module, 320)
    with_bra = [at for at, row in enumerate(counted.rows) if row.layers]
    plot = page.locator(PLOT).first
    bars = plot.locator(".barlayer .trace")
    before = bars.count()
    assert before > 3
    plot.locator(".legendtoggle").last.click()
    expect(plot.locator(".barlayer .trace")).to_have_count(before - 1)      # everything else is hidden
    wanted = with_bra[-1]
    place = point_at_bar(page, plot, wanted)
    expect(plot.locator(".hoverlayer")).to_contain_text(counted.rows[wanted].name)
    page.mouse.click(*place)
    page.wait_for_function("() => /cost_row=2.*cost_tab=change/.test(location.search)")
    expect(page.get_by_text("Which n_win?")).to_be_in_viewport()     # what to change is not looked for further down

    page.get_by_role("radio", name="What it costs").click()
    page.get_by_role("tab", name="Parameters as a tree").click()
    tree = page.locator(f"{PLOT}:has(.iciclelayer)").first
    tree.locator("g.slice").first.wait_for()
    row = counted.rows[with_bra[0]]
    cell = tree.locator("g.slice", has_text=re.compile(rf"^{row.name.replace('BiLevelRoutingAttention', 'BRA')}")).first
    cell.click()
    page.wait_for_function("() => !location.search.includes('cost_row=2')")
    expect(page.get_by_text(re.compile("“What to change” tells of"))).to_be_visible()


def test_a_setting_is_opened_by_a_click_and_a_chart_is_saved_with_its_caption(context: Any, app_url: str) -> None:
    page = opened(context, f"{app_url}/compare?model=similarity&side=224")
    page.get_by_role("button", name="Export").click()
    page.get_by_text("SVG", exact=True).click()
    page.keyboard.press("Escape")
    plot = page.locator(PLOT).first
    # The switch draws the chart anew: what stood there before is gone.
    page.wait_for_function(
        "() => document.querySelector('.js-plotly-plot')?._context?.toImageButtonOptions?.format === 'svg'")
    plot.hover()
    with page.expect_download() as got:
        plot.locator('[data-title^="Download plot"]').click()
    assert got.value.suggested_filename.endswith("macs.svg")
    saved = got.value.path().read_text()
    assert "Pareto front" in saved
    assert "not learned" in " ".join(re.sub(r"<[^>]+>", " ", saved).split())      # a caption may go on in a new line
    page.wait_for_selector('.stApp[data-test-script-state="notRunning"]')       # or it may move from under the pointer
    point = plot.locator(".scatterlayer .points path").last
    point.hover(force=True)
    plot.locator(".hoverlayer .hovertext").first.wait_for()     # a click is of what is pointed at, once that is known
    point.click(force=True)
    page.wait_for_selector(".stage[data-ready]")
