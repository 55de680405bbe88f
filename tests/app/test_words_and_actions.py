"""Kinds of words and actions that misled people, held on every page: silent buttons, hidden rows, numbers from 1."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from app_pages import opened
from streamlit.testing.v1 import AppTest

from dashboard.i18n import CATALOGUES
from dashboard.widgets.tables import WIDE

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "dashboard").rglob("*.py")) + sorted((ROOT / "bra").rglob("*.py"))
SCRIPTS = sorted((ROOT / "dashboard").rglob("*.js")) + sorted((ROOT / "bra").rglob("*.js"))
SPEAKS = {"tr", "tr_in", "message"}
COUNTED = {"rank", "n_before"}
"""What is counted from 1, since it is an order and no address."""
PAGES: tuple[tuple[str, dict[str, str]], ...] = (
    ("explore", {"model": "similarity", "side": "224"}), ("learn", {"part": "numbers"}), ("learn", {"step": "3"}),
    ("compare", {"model": "similarity", "side": "224"}),
    ("compare", {"model": "similarity", "side": "224", "tab": "probes"}),
    ("cost", {"model": "cells", "cost_height": "320", "cost_width": "320", "cost_tab": "change"}),
    ("models", {"card": "cells"}), ("guide", {}))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            yield node.func.id if isinstance(node.func, ast.Name) else node.func.attr, node


def test_no_word_says_one_direction_where_a_sign_says_another() -> None:
    """“Above … by -0.012”: a number with a sign stands by itself, and a word of direction only beside one without."""
    signed = [text for text in CATALOGUES["zh"] if re.search(r"\{\w+:\+", text)]
    assert len(signed) > 4
    assert [text for text in signed if re.search(
        r"\b(more|less|fewer|higher|lower|saved?|saves|lost|gained) (by|than)\b|\bby \{\w+:\+", text)] == []
    assert [text for text in CATALOGUES["zh"] if re.search(r"\b[Ww]hat if\b", text) and "{" not in text] == []


def test_every_table_shows_its_rows_or_says_how_many_there_are() -> None:
    tables = [(path, node) for path in SOURCES if "dashboard" in path.parts for name, node in calls(path)
              if name == "dataframe"]
    assert len(tables) > 5
    assert [path.name for path, node in tables if not any(
        option.arg == "height" and isinstance(option.value, ast.Constant) and option.value.value == "content"
        for option in node.keywords)] == ["tables.py"]         # whose function says it, see below


def test_a_long_table_says_how_many_rows_it_has() -> None:
    def page(rows: int) -> None:
        from dashboard.widgets.tables import table

        table([{"row": number, "parameters": 1} for number in range(rows)])

    few, many = (AppTest.from_function(page, args=(rows,)).run() for rows in (26, 41))
    assert [caption.value for caption in few.caption] == []
    assert [caption.value for caption in many.caption] == ["41 rows: scroll in the table for those below."]


def test_what_has_an_address_is_numbered_from_0() -> None:
    """Windows, rows, columns, tokens, heads and layers: on the screen as in the link, in files and in Python."""
    from_1 = [(path.name, option.arg) for path in SOURCES for name, node in calls(path) if name in SPEAKS
              for option in node.keywords if option.arg not in COUNTED for part in ast.walk(option.value)
              if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add)
              and isinstance(part.right, ast.Constant) and part.right.value == 1]
    assert [found for found in from_1 if found[1] in ("row", "column", "window", "token", "head", "layer", "n")] == \
        [("example_steps.py", "n"), ("handout.py", "n")]       # x₁ and x₂, as the formulas have them
    assert [path.name for path in SCRIPTS
            if re.search(r"\b(row|column|window|token|head): [^,}]*\+ 1", path.read_text(encoding="utf-8"))] == []


def cut_cells(app: AppTest) -> list[str]:
    """Cells of sortable tables with more letters than their columns have room for; sentences stand in other tables."""
    room = {name: pixels // 7 for name, pixels in WIDE.items()}
    return [text for one in app.dataframe for name, column in one.value.items() for text in column
            if isinstance(text, str) and len(text) > room.get(str(name), 40)]


def seen(app: AppTest) -> list[str]:
    """What a visitor reads on the page: words, values of choices, and what pops up."""
    return [f"{one.type} {getattr(one, 'value', '')}" for kind in (
        "markdown", "caption", "subheader", "info", "warning", "error", "selectbox", "segmented_control", "toggle",
        "number_input", "slider", "toast") for one in app.get(kind)]


@pytest.mark.parametrize(("page", "query"), PAGES, ids=[f"{page} {' '.join(query.values())}" for page, query in PAGES])
def test_no_button_is_silent(page: str, query: dict[str, str]) -> None:
    app = opened(page, query, stage_drawn=True)
    assert cut_cells(app) == []
    buttons = [one.key for one in app.button if one.key != "language_switch" and not one.disabled]
    for at in range(len(buttons)):
        if at:
            app = opened(page, query, stage_drawn=True)
        before = seen(app)
        button = [one for one in app.button if one.key != "language_switch" and not one.disabled][at]
        button.click().run()
        assert not app.exception
        assert seen(app) != before, button.label
