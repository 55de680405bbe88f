"""Words stand out from what lies behind them: at least 4.5 to 1 on every page, light and dark, as a browser says."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser
LEAST = 4.5
PAGES = {"explore": "?model=similarity", "compare": "compare?model=similarity&side=224", "cost": "cost?model=yolo",
         "models": "models", "learn": "learn", "guide": "guide", "presenter": "learn?present=1&step=1&scene=try"}
DARK = {"presenter": "rgb(0, 0, 0)"}
MEASURE = """() => {
  const parse = (colour) => {
    const hex = colour.match(/^#([0-9a-f]{6})/i);
    if (hex) return [0, 2, 4].map((at) => parseInt(hex[1].slice(at, at + 2), 16)).concat(1);
    const srgb = colour.match(/^color\\(srgb ([^)]+)\\)/);
    const parts = (srgb ? srgb[1] : colour).match(/[\\d.]+(?:e-?\\d+)?/g).map(Number);
    const [r, g, b, a = 1] = srgb ? [...parts.slice(0, 3).map((x) => 255 * x), parts[3]] : parts;
    return [r, g, b, a]; };
  const over = ([r, g, b, a], below) => [r, g, b].map((x, n) => x * a + below[n] * (1 - a));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((x) => x / 255).map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const up = (node) => node.assignedSlot ?? node.parentElement
    ?? (node.getRootNode() instanceof ShadowRoot ? node.getRootNode().host : null);
  const found = [], seen = new Set();
  const judge = (element, text) => {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height || box.bottom <= 0 || seen.has(element)) return;    // as a skip link
    seen.add(element);
    const chain = []; for (let node = element; node; node = up(node)) chain.push(node);
    const styles = chain.map((node) => getComputedStyle(node));
    if (styles.some((s) => s.visibility === 'hidden' || s.display === 'none' || Number(s.opacity) < 0.05
      || s.clipPath.includes('inset(50%'))) return;
    const left = ['katex-mathml', 'modebar', ...document.querySelector('.st-key-stand_in') ? ['st-key-result'] : []];
    if (chain.some((n) => n.disabled || n.getAttribute('aria-disabled') === 'true'
      || left.some((name) => n.classList.contains(name)))) return;
    let ground = [255, 255, 255];
    // Of what holds it, only what lies behind it: the number of a slider stands beside its thumb. What it is scrolled
    // out of lies behind it when one looks.
    const middle = [box.x + box.width / 2, box.y + box.height / 2];
    const scrolls = styles.map((s) => s.overflowY !== 'visible');
    chain.map((node, n) => [node.getBoundingClientRect(), styles[n], scrolls.slice(0, n + 1).some(Boolean)])
      .reverse().forEach(([r, s, scrolled]) => {
      const [x, y] = middle, holds = scrolled || (x >= r.left && x <= r.right && y >= r.top && y <= r.bottom);
      if (holds) ground = over(parse(s.backgroundColor), ground); });
    const svg = element instanceof SVGElement, plot = element.closest('.js-plotly-plot');
    if (svg && plot) ground = parse(plot._fullLayout.paper_bgcolor).slice(0, 3);
    // Words on a bar or a cell lie on that, not on the paper.
    if (svg && element.closest('.slice, .point, .heatmaplayer, .hm, .hoverlayer')) return;
    const fill = svg ? styles[0].fill : styles[0].color;
    if (!/^(rgb|color)/.test(fill)) return;
    const colour = parse(fill);
    colour[3] *= styles.reduce((all, s) => all * Number(s.opacity), 1) * (svg ? Number(styles[0].fillOpacity) : 1);
    const [a, b] = [light(over(colour, ground)), light(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([Math.round(100 * ratio) / 100, text.slice(0, 50),
      element.tagName + '.' + (element.getAttribute('class') ?? '').slice(0, 40)]);
  };
  const walk = (root) => {
    const nodes = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    for (let node = nodes.nextNode(); node; node = nodes.nextNode()) {
      if (node.shadowRoot) walk(node.shadowRoot);
      const parent = node.parentElement;
      if (node.nodeType === 3 && parent && /[\\p{L}\\p{N}]/u.test(node.textContent)
        && !['STYLE', 'SCRIPT', 'OPTION', 'TITLE', 'NOSCRIPT'].includes(parent.tagName)
        && !/material|icon/i.test(getComputedStyle(parent).fontFamily)) judge(parent, node.textContent.trim());
    } };
  walk(document.body);
  return found; }"""

DRAWN = """() => !document.querySelector('[data-stale=true], [data-testid=stSpinner], [data-testid^=stSkeleton]')
  && document.getAnimations().every((one) => one.playState !== 'running')"""


def measured(page: Any) -> list[tuple[float, str, str]]:
    """(contrast, words, element) of everything that is written on a page."""
    found: list[tuple[float, str, str]] = page.evaluate(MEASURE)
    return found


def at_rest(page: Any) -> list[tuple[float, str, str]]:
    """What is `measured` of a page that is drawn: charts are drawn anew in another theme, and what is new fades in."""
    for _ in range(20):
        page.wait_for_timeout(300)
        page.wait_for_selector('.stApp[data-test-script-state="notRunning"]', timeout=120_000)
        page.wait_for_function(DRAWN)
        found = measured(page)
        if all(ratio >= LEAST for ratio, *_ in found):
            break
    return found


@pytest.mark.parametrize("place", list(PAGES))
def test_words_stand_out(context: Any, app_url: str, place: str) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 1440, "height": 1600})
    page.emulate_media(color_scheme="light")
    page.goto(f"{app_url}/{PAGES[place]}")
    ready = {"explore": ".stage[data-ready]", "guide": "h1, h2, h3"}.get(place, ".js-plotly-plot .main-svg")
    page.wait_for_selector(ready, state="attached", timeout=120_000)
    for theme, paper in (("light", "rgb(255, 255, 255)"), ("dark", DARK.get(place, "rgb(23, 22, 20)"))):
        page.emulate_media(color_scheme=theme)
        page.wait_for_function(
            "(paper) => getComputedStyle(document.querySelector('.stApp')).backgroundColor === paper", arg=paper)
        found = at_rest(page)
        assert len(found) > 20
        assert sorted(one for one in found if one[0] < LEAST) == [], theme


def test_the_measure_finds_grey_on_grey(browser: Any) -> None:
    page = browser.new_page()
    page.set_content('<body style="background:#fff"><p style="color:#777">a</p><p style="color:#000;opacity:.4">b</p>'
                     '<p style="color:#757575">c</p><div style="background:#000;height:40px;overflow:auto">'
                     '<p style="color:#fff;margin-top:300px">d</p></div></body>')
    found = {words: ratio for ratio, words, _ in measured(page)}
    page.close()
    assert found == {"a": 4.48, "b": pytest.approx(2.85, abs=0.02), "c": pytest.approx(4.61, abs=0.01), "d": 21}
