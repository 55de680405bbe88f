"""The catalogue: every text of the app is in it, nothing else is, and values stand on both sides."""

from __future__ import annotations

import ast
import json
import pickle
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from bra import viewer
from bra.errors import PhotoError
from bra.messages import Message, message
from dashboard import i18n

ROOT = Path(__file__).parents[2]
PYTHON = [path for folder in ("bra", "dashboard") for path in sorted((ROOT / folder).rglob("*.py"))
          if path.name != "i18n.py"]
SCRIPTS = [path for folder in ("bra", "dashboard") for path in sorted((ROOT / folder).rglob("*.js"))]
SKELETONS = sorted((ROOT / "bra").rglob("*.html"))
CARDS = sorted((ROOT / "bra" / "weights").glob("*.json"))
ZH = i18n.CATALOGUES["zh"]
WRAPPERS = ("tr", "tr_noop", "message")
RECORDER = ("bra/bra_record.py", "bra/hooks.py", "bra/tracing.py")
"""They hand on sentences of the one-file recorder, which is used without this package and has its own Chinese."""


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WRAPPERS:
            yield node


def texts_of(path: Path) -> set[str]:
    return {node.args[0].value for node in calls(path) if isinstance(node.args[0], ast.Constant)}


def texts_of_card(path: Path) -> set[str]:
    """What a model card says in words; its file stays English, and the page that shows it translates."""
    card = json.loads(path.read_text(encoding="utf-8"))
    return {card["title"], card["title"].partition(":")[0], card["data"], card["licence"], *card["limits"],
            *card["classes"]}


def used() -> set[str]:
    found: set[str] = set()
    for path in PYTHON:
        found |= texts_of(path)
    for path in SCRIPTS:
        found |= viewer.texts_of_script(path.read_text(encoding="utf-8"))
    for path in SKELETONS:
        found |= viewer.texts_of_skeleton(path.read_text(encoding="utf-8"))
    for path in CARDS:
        found |= texts_of_card(path)
    return found


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def formats(template: str) -> set[tuple[str, str | None, str | None]]:
    return {(name, form, how) for _, name, form, how in string.Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("path", PYTHON, ids=short)
def test_a_text_is_written_out_where_it_is_used(path: Path) -> None:
    if short(path) not in RECORDER:
        assert not [node.lineno for node in calls(path) if not isinstance(node.args[0], ast.Constant)]


@pytest.mark.parametrize("path", PYTHON, ids=short)
def test_the_values_of_a_text_are_those_that_it_names(path: Path) -> None:
    for node in calls(path):
        given = {keyword.arg for keyword in node.keywords}
        if given and None not in given:
            assert fields(node.args[0].value) == given, node.lineno


def test_no_text_is_missing_in_chinese() -> None:
    assert sorted(used() - set(ZH)) == []


def test_no_text_in_the_catalogue_is_stale() -> None:
    assert sorted(set(ZH) - used()) == []


def test_both_languages_name_the_same_values() -> None:
    with_values = {node.args[0].value for path in PYTHON for node in calls(path)
                   if node.keywords and isinstance(node.args[0], ast.Constant)}
    with_values |= {text for path in SCRIPTS for text in viewer.texts_of_script(path.read_text(encoding="utf-8"))}
    assert [text for text in sorted(with_values) if fields(text) != fields(ZH[text])] == []
    # A format that does not suit its value would break the page in one language only.
    assert [text for text in sorted(with_values) if formats(text) != formats(ZH[text])] == []


def test_the_catalogue_is_sorted_and_holds_no_text_twice() -> None:
    pairs = json.loads((i18n.TEXT / "zh.json").read_text(encoding="utf-8"), object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    assert keys == sorted(set(keys))


def test_every_chapter_is_in_every_language() -> None:
    names = {language: {path.name for path in (i18n.TEXT / language).iterdir()} for language in i18n.LANGUAGES}
    assert names["en"] == names["zh"] != set()


def test_a_sentence_remembers_how_it_was_made() -> None:
    made = message("{n} of {what}", n=1200, what=message("many"))
    assert made == "1200 of many"
    assert (made.template, made.values["n"], made.values["what"].template) == ("{n} of {what}", 1200, "many")
    assert message("a {brace} without values") == "a {brace} without values"


def test_a_sentence_crosses_from_process_to_process_whole() -> None:
    back = pickle.loads(pickle.dumps(PhotoError(message("{n:,} pixels", n=1200))))
    assert str(back) == "1,200 pixels"
    assert isinstance(back.args[0], Message)
    assert back.args[0].values == {"n": 1200}
