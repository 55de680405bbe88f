"""The link is an input: whatever stands in it, each page opens, with a sentence where something is not possible."""

from __future__ import annotations

import hostile_links
import pytest
from app_pages import APP, opened

PAGES = {"explore": (), "compare": hostile_links.COMPARE, "cost": hostile_links.COST, "models": hostile_links.CARDS,
         "learn": hostile_links.LEARN}
OTHERS = [path.stem for path in sorted((APP.parent / "views").glob("*.py")) if path.stem not in (*PAGES, "__init__")]
# Each of the links of all pages on one page, in turn, since a page takes seconds; and each page's own.
CASES = [(page, query) for page, own in PAGES.items() for query in own] + [
    ([*PAGES, *OTHERS][n % len([*PAGES, *OTHERS])], query) for n, query in enumerate(hostile_links.EVERYWHERE)] + [
    ("explore", query) for query in hostile_links.EVERYWHERE]


@pytest.mark.parametrize(("page", "query"), CASES, ids=lambda value: str(value)[:60])
def test_any_link_opens_its_page(page: str, query: dict[str, str]) -> None:
    app = opened(page, query)
    assert app.main.children
    for error in app.error:
        assert error.value.replace("\\", "").rstrip().endswith(("." , "。"))
        assert "Traceback" not in error.value
    # What the page puts into the address is a possible view, which opens again.
    opened(page, {name: found[-1] if isinstance(found, list) else found for name, found in app.query_params.items()})


def test_what_a_link_asks_for_in_vain_is_said_once() -> None:
    app = opened("explore", {"model": "similarity", "n_win": "5", "topk": "many", "stride": "7"})
    assert [one.value for one in app.info if "asks for" in one.value] == [
        "This link asks for what cannot be: topk, stride. The usual values stand in their place."]
    app.slider(key="topk").set_value(3).run()
    assert not any("asks for" in one.value for one in app.info)
