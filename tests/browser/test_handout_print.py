"""The handout as Chromium prints it: two A4 pages, with room to spare for another font."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bra.teaching.example import FIRST, run_example
from dashboard.learn.handout import handout
from dashboard.state.example_view import NUDGED, ExampleView

pytestmark = pytest.mark.browser
A4 = (595, 842)
"""Points."""
PRINTED = (297 - 12 - 10) / 25.4 * 96
"""Height of what is printed on a page, in CSS pixels: A4 without the margins."""


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("solved", [False, True])
def test_it_prints_on_exactly_two_pages_of_a4(context: Any, language: str, solved: bool) -> None:
    nudged = run_example(ExampleView().with_number(*NUDGED).tokens)
    page = context.new_page()
    page.set_content(handout(run_example(FIRST), nudged, solved, language))
    printed = page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 2
    boxes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", printed)
    assert {(round(float(w)), round(float(h))) for w, h in boxes} == {A4}
    page.emulate_media(media="print")
    heights = page.locator(".paper").evaluate_all("papers => papers.map(paper => paper.getBoundingClientRect().height)")
    assert len(heights) == 2
    assert max(heights) < 0.95 * PRINTED, heights
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
