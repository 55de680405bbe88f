"""Every page in both languages, on a desk and on a phone: nothing is cut off, no page scrolls sideways, and a page in
Chinese says nothing in English, whether Streamlit wrote it, a script drew it, or a style sheet put it there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.helpers.late_messages import LateMessages

pytest.importorskip("ultralytics")

pytestmark = pytest.mark.browser
SIZES = {"desk": (1440, 900), "phone": (390, 844)}
LINKS = ("/?model=similarity&n_win=9&show=in_degree", "/?model=cells&picture=smear&a=5000.5000&b=2000.3000",
         "/?model=own", "/compare?side=224&model=similarity", "/compare?side=224&tab=versus&b_model=similarity",
         "/compare?side=224&model=similarity&tab=probes", "/compare?side=224&model=similarity&tab=rules",
         "/compare?side=224&tab=sweeps",
         "/cost?model=cells&cost_height=320&cost_width=320",
         "/cost?model=cells&cost_height=320&cost_width=320&cost_tab=change",
         "/cost?model=cells&cost_height=320&cost_width=320&cost_tab=places",
         "/cost?model=cells&cost_height=320&cost_width=320&cost_tab=otherwise",
         "/models?card=cells", "/guide", "/learn")
READ_ALL = r"""() => {
  const found = [];
  const visit = (root) => {
    for (const node of root.childNodes) {
      if (node.nodeType === 3 && node.textContent.trim()) found.push(node.textContent.trim());
      if (node.nodeType !== 1 || ["STYLE", "SCRIPT", "CODE", "PRE"].includes(node.tagName)) continue;
      if (node.tagName === "TABLE" && node.closest("canvas")) continue;       // what a table's canvas tells readers
      const style = getComputedStyle(node);
      if (style.display === "none" || node.matches("[data-testid=stIconMaterial], [data-testid=stMainMenu], " +
          "[data-testid=stStatusWidget], [data-testid=stElementToolbar], [data-testid=stHeader] button")) continue;
      const after = getComputedStyle(node, "::after").content;
      if (/^".*[A-Za-z\u4e00-\u9fff]/.test(after)) found.push(after);
      for (const name of ["title", "alt"]) if (node.getAttribute(name)) found.push(node[name]);
      if (node.placeholder && !node.value) found.push(node.placeholder);
      visit(node.shadowRoot ?? node);
    }
  };
  visit(document.querySelector("[data-testid=stApp]"));
  return found;
}"""
CUT = r"""() => {
  const found = [];
  const visit = (root) => {
    for (const node of root.querySelectorAll("*")) {
      if (node.shadowRoot) visit(node.shadowRoot);
      if (!node.matches("button, label, nav a, h1, h2, h3, h4, p, td, th, figcaption, summary, [role=radio], " +
          "[data-testid=stMetricValue], [data-testid=stSidebarNav] *, select, option, span")) continue;
      const style = getComputedStyle(node), box = node.getBoundingClientRect();
      if (!box.width || !box.height || box.height < 4 || style.visibility === "hidden") continue;
      const hidden = ["hidden", "clip"].includes(style.overflowX);
      if (hidden && node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 2 && node.textContent.trim())
        found.push(`${node.tagName} ${node.textContent.trim().slice(0, 60)}`);
    }
  };
  visit(document);
  return found;
}"""
SIDEWAYS = """() => ["[data-testid=stMain]", "[data-testid=stSidebarContent]", "html"]
  .map((name) => document.querySelector(name)).filter(Boolean)
  .filter((node) => node.clientWidth > 200)      // a side bar that is folded away has none
  .map((node) => [node.dataset.testid, node.scrollWidth - node.clientWidth]).filter(([, over]) => over > 1)"""
PROPER = re.compile(r"RouteScope|BiFormer|YOLO\w*|Ultralytics|KIT AIS Data Set|KIT AIS|BCCD Dataset|TensorFlow|"
                    r"github\S*|n_win|topk|tokens?|\bpx\b|softmax|[A-Za-z]+_\w+|\S*\d\S*|\S+\.\w+|MACs|English|LePE|"
                    r"BRA|Shift|PNG|JPE?G|WEBP|BMP|GIF|TIFF?|YA?ML|PTH?|SAFETENSORS|PARQUET|CC-BY|MIT|Escape|Enter|"
                    r"Skip to main content", re.IGNORECASE)       # the last is Streamlit's, for who uses the keyboard
ENGLISH = re.compile(r"[A-Za-z]{2,}[,:;.]?\s+[A-Za-z]{2,}")


def at_last(page: Any, script: str) -> Any:
    """What a script finds once charts and pictures have taken the page's width: how soon is the computer's matter."""
    for _ in range(200):
        page.wait_for_timeout(150)
        found = page.evaluate(script)
        if not found:
            break
    return found


def opened(context: Any, url: str) -> Any:
    page = context.new_page()
    page.goto(url)
    at_rest(page)
    return page


def at_rest(page: Any) -> None:
    """Wait until a page is drawn and no fragment, chart or stage is still to come."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.wait_for_function("""() => !document.querySelector('[data-testid=stSpinner], [data-stale=true]') &&
        [...document.querySelectorAll('.stPlotlyChart')].every((one) => one.querySelector('.main-svg'))""")
    if page.evaluate("location.pathname") == "/":
        page.wait_for_selector(".stage[data-ready]")


@pytest.mark.parametrize("link", LINKS)
def test_nothing_is_cut_off_or_left_in_english(context: Any, app_url: str, link: str) -> None:
    page = opened(context, f"{app_url}{link}{'&' if '?' in link else '?'}lang=en")
    for tag in ("en", "zh-CN"):
        if tag == "zh-CN":
            page.set_viewport_size({"width": 1440, "height": 900})
            page.get_by_role("button", name="中文").click()
        expect(page.locator("html")).to_have_attribute("lang", tag)
        at_rest(page)
        for name, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            assert at_last(page, f"() => [...({SIDEWAYS})(), ...({CUT})()]") == [], (tag, name)
        texts = page.evaluate(READ_ALL)
        assert len(texts) > 15
    assert [text for text in texts if ENGLISH.search(PROPER.sub("·", text))] == []


def test_what_is_cut_off_or_too_wide_is_found(context: Any) -> None:
    page = context.new_page()
    page.set_content('<div data-testid="stApp"><div data-testid="stMain" style="width: 300px; overflow: auto">'
                     '<button style="width: 60px; overflow: hidden; white-space: nowrap">Much too long</button>'
                     '<button>Long enough</button><p style="width: 500px; margin: 0">wide</p></div></div>')
    assert page.evaluate(CUT) == ["BUTTON Much too long"]
    assert page.evaluate(SIDEWAYS) == [["stMain", 200]]
    assert page.evaluate(READ_ALL) == ["Much too long", "Long enough", "wide"]


def test_the_uploader_speaks_chinese_and_still_takes_a_file(context: Any, app_url: str) -> None:
    page = opened(context, f"{app_url}/compare?tab=sweeps&side=224&lang=zh")
    zone = page.locator(".st-key-sweep_uploader")
    expect(zone.get_by_role("button", name="上传", exact=True)).to_be_visible()
    expect(zone.get_by_text("Upload", exact=True)).to_be_hidden()
    expect(zone.get_by_text("per file")).to_be_hidden()
    zone.locator('input[type="file"]').set_input_files({"name": "rows.parquet", "mimeType": "", "buffer": b"PAR1?"})
    expect(page.get_by_text("此表已损坏")).to_be_visible()


def test_the_language_is_changed_by_a_button_and_the_view_stays(context: Any, app_url: str) -> None:
    page = opened(context, f"{app_url}/?model=similarity&n_win=5&side=224&lang=en")
    canvas = page.locator('[data-part="canvas"]')
    box = canvas.bounding_box()
    canvas.click(position={"x": 0.9 * box["width"], "y": 0.1 * box["height"]})
    page.wait_for_function("() => location.search.includes('a=')")
    window = page.locator(".stage").get_attribute("data-window")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="路由注意力在看哪里")).to_be_visible()
    expect(page.locator('.st-key-stage_zh [data-part="readout"]')).to_contain_text("窗口")
    expect(page.locator(".stage")).to_have_count(1)     # for a moment the one in English is there too
    expect(page.locator(".stage")).to_have_attribute("data-window", window)
    expect(page.get_by_role("slider", name="每边窗口数 n_win")).to_have_value("5")
    assert "lang=zh" in page.url
    assert "a=" in page.url


def test_pins_stay_when_a_browser_says_those_of_the_other_language_again(context: Any, app_url: str) -> None:
    """It does so until it knows that the run which changed the language has ended."""
    page = context.new_page()
    late = LateMessages(page)
    page.goto(f"{app_url}/?model=similarity&n_win=5&side=224&lang=en")
    page.wait_for_selector(".stage[data-ready]")
    canvas = page.locator('[data-part="canvas"]')
    canvas.click(position={"x": 100, "y": 40})
    page.wait_for_function("() => location.search.includes('a=')")
    page.wait_for_selector('.stApp[data-test-script-state="notRunning"]')
    late.hold("script_finished")
    page.get_by_role("button", name="中文").click()
    page.wait_for_selector(".st-key-stage_zh .stage[data-ready]")
    late.wait()
    page.get_by_role("tab", name="路由矩阵").click()
    page.wait_for_timeout(200)          # for the click's way to the server
    late.release()
    expect(page.get_by_text("拖出一个方框：其首行")).to_be_visible()
    expect(page.locator('.st-key-stage_zh [data-part="a"]')).not_to_be_empty()
    page.wait_for_selector('.stApp[data-test-script-state="notRunning"]')
    assert "a=" in page.url
