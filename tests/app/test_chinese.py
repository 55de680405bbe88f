"""No English slips by: neither in the code of the pages nor on a page that is shown in Chinese."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from app_pages import opened
from sent_figures import texts as figure_texts
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

from bra.viewer.pack import unpack
from dashboard.i18n import CATALOGUES

pytest.importorskip("ultralytics")      # half of the models

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "dashboard"
CODE = [path for path in sorted(DASHBOARD.rglob("*.py")) if path.name not in ("i18n.py", "config.py", "code.py")]
"""Without the catalogue itself, the table of settings, which who runs a server reads in a terminal, and the programs of
the lesson, which are the same in every language."""
VIEWS = sorted(path for path in (DASHBOARD / "views").glob("*.py") if path.name != "__init__.py")
WRAPPERS = {"tr", "translate", "tr_noop", "message", "chapter"}
LETTERS = re.compile(r"(?<!_)\b[A-Za-z]{2,}(?!\w)")     # no name such as soft_routing
PROSE = re.compile(r"[A-Za-z]{2,}[,:;.]? [A-Za-z]{2,}")


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# the code -------------------------------------------------------------------------------------------------

SHOWN = {"markdown", "caption", "subheader", "header", "title", "write", "info", "error", "warning", "success",
         "metric", "button", "download_button", "selectbox", "segmented_control", "pills", "slider", "toggle", "radio",
         "checkbox", "file_uploader", "spinner", "expander", "tabs", "select_slider", "number_input", "text_input",
         "badge", "link_button", "page_link", "multiselect", "popover", "toast", "Column", "NumberColumn", "TextColumn"}
"""Calls whose first argument a visitor reads; so are these by name."""
READ = {"label", "help", "placeholder", "title", "text", "body"}
NAMES = {"bra_record.py", "topk", "n_win", "CSV", "JSON", "Markdown", "RouteScope", "LePE"}
"""Words that are the same in every language."""
KINDS = {"as it is", "without BRA"}
"""Values that stand in the code by the words that they are shown as."""


def literals(node: ast.AST) -> Iterator[ast.Constant]:
    """The texts in an expression that are neither wrapped, nor code, nor an index or what is compared with."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in {*WRAPPERS, "code"}:
        return
    if isinstance(node, (ast.Compare, ast.Subscript, ast.Raise)):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from literals(child)


def faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in SHOWN:
            read = node.args[:2 if node.func.attr == "metric" else 1]
            read += [keyword.value for keyword in node.keywords if keyword.arg in READ]
            yield from ((one.lineno, one.value) for value in read for one in literals(value)
                        if LETTERS.search(re.sub(r":material/\w+:", "", one.value)) and one.value not in NAMES)
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "title":
                    yield from ((one.lineno, one.value) for one in literals(value) if one.value not in NAMES)
                if isinstance(key, ast.Constant) and key.value == "tooltip" and isinstance(value, ast.List):
                    yield from ((line.lineno, "a tooltip without a title") for line in value.elts
                                if not {"title"} & {k.value for k in line.keys} and line.values[0].value not in NAMES)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
            # Prose anywhere, whatever becomes of it; style sheets and pages are known by their brackets.
            yield from ((one.lineno, one.value) for child in node.body if not isinstance(child, ast.Raise)
                        for one in literals(child) if id(one) not in docstrings and PROSE.search(one.value)
                        and not re.search("[<{]", one.value) and one.value not in KINDS)


@pytest.mark.parametrize("path", CODE, ids=short)
def test_every_text_in_the_code_is_asked_for_in_the_visitors_language(path: Path) -> None:
    assert sorted(set(faults(ast.parse(path.read_text(encoding="utf-8"))))) == []


@pytest.mark.parametrize("code", [
    'st.caption("All of it")', 'st.button(f"Use {n}")', 'x = {"title": "epoch"}', 'name = "nearest windows"',
    'st.metric(tr("Ours"), "none")', 'chart = {"tooltip": [{"field": "why"}]}', 'left.toggle(tr("A"), help="Why not")',
    'st.column_config.Column("keeps")', 'def f():\n    return "two words"'])
def test_a_text_that_slipped_by_is_found(code: str) -> None:
    assert list(faults(ast.parse(code)))


# the pages ------------------------------------------------------------------------------------------------

PROPER = re.compile(
    r"```(?s:.*?)```|`[^`]*`|https?://\S+|github[\w./ ]*|[\w./-]*\.(?:pt|pth|yaml|yml|safetensors|parquet|jpg|png)\b|"
    r"CC-BY|MIT|n_win|topk|softmax|tokens?|\bpx\b|\bepoch\b|BCCD Dataset|KIT AIS Data Set|KIT AIS|TensorFlow|"
    r"rayleizhu|ImageNet|Weights & Biases|"
    r"head Linear|embed PatchEmbedding|BiFormer|RouteScope|Ultralytics|YOLO\w*|YAML|README|GFLOPs|BRA|LePE|MACs|"
    r"Shift|Enter|Escape|PNG|JPEG|WebP|BMP|GIF|TIFF|[A-Za-z]+_\w+|\w+\.\w[\w.#]*|\w*\d\w*", re.IGNORECASE)
"""What is the same in every language: names, units, keys of the keyboard, what stands between backticks."""
ENGLISH = re.compile(r"[A-Za-z]{2,}[,:;.]?\s+[A-Za-z]{2,}")
VARIANTS = {"none"}
"""Names of runs on a model card, which stand so in its file too."""
ZH = CATALOGUES["zh"]
WORDLESS = "routescope_picture_zh"
READABLE = {"label", "body", "help", "options", "placeholder", "title", "caption", "alt", "content"}


def texts(message: Any) -> Iterator[str]:
    """Every text of an element that a visitor reads."""
    for field, value in message.ListFields():
        many = value if field.is_repeated else [value]
        for one in many:
            if field.message_type is not None:
                if not field.message_type.GetOptions().map_entry:
                    yield from texts(one)
            elif isinstance(one, str) and field.name in READABLE:
                yield one


def cells(table: bytes) -> Iterator[str]:
    frame = convert_arrow_bytes_to_pandas_df(table)
    for name in frame.columns:
        yield from (str(value) for value in frame[name] if isinstance(value, str))


def strings(plain: Any, skip: frozenset[str]) -> Iterator[str]:
    if isinstance(plain, dict):
        for key, value in plain.items():
            if key not in skip:
                yield from strings(value, skip)
    elif isinstance(plain, list):
        for value in plain:
            yield from strings(value, skip)
    elif isinstance(plain, str):
        yield plain


MACHINERY = frozenset({"arrays", "photo", "version", "roles", "layers", "kind", "names"})


def shown(app: AppTest) -> Iterator[str]:
    """Everything that stands on the page, but for what scripts say, which the browser's tests read."""
    assert not app.exception
    for element in app:
        kind, proto = element.type, getattr(element, "proto", None)
        if kind == "code" or proto is None:
            continue
        if kind == "html":
            yield re.sub("<style>.*</style>|<script>.*</script>|<[^>]*>", " · ", proto.body, flags=re.DOTALL)
        elif kind == "dataframe":
            heads = json.loads(proto.columns or "{}")
            frame = convert_arrow_bytes_to_pandas_df(proto.arrow_data.data)
            yield from (heads.get(name, {}).get("label") or name for name in map(str, frame.columns))
            yield from cells(proto.arrow_data.data)
        elif kind == "plotly_chart":
            # What plotly reads in a hover text, a place for a number or a new line, is no word.
            yield from (re.sub(r"%\{[^}]*\}|<[^>]*>", " · ", text) for text in figure_texts(json.loads(proto.spec)))
        elif kind == "bidi_component":
            if proto.bytes:
                header, _, _ = unpack(proto.bytes)
                yield from strings(header, MACHINERY)
        else:
            yield from texts(proto)


def english(text: str) -> bool:
    """Whether a text has English words in a row, or is a text that the catalogue has in Chinese."""
    translate = ZH.get(text, text) != text and text not in VARIANTS
    return translate or bool(ENGLISH.search(PROPER.sub("·", re.sub(r"\\(.)", r"\1", text))))


LINKS = [
    ("explore.py", {}), ("explore.py", {"model": "similarity", "n_win": "9", "mask_padding": "1"}),
    ("explore.py", {"model": "similarity", "stride": "32", "n_win": "16"}),
    ("explore.py", {"model": "cells", "picture": "smear", "changed": "1", "layer": "model.99"}),
    ("explore.py", {"model": "own", "picture": "upload"}), ("explore.py", {"model": "yolo", "picture": "nothing"}),
    ("explore.py", {"model": "flowers", "side": "224", "elsewhere": "nearest"}),
    ("explore.py", {"model": "flowers", "side": "224", "elsewhere": "swap"}),
    ("explore.py", {"model": "cells", "picture": "smear", "layer": "model.15.attn", "elsewhere": "chance"}),
    ("explore.py", {"elsewhere": "all"}),
    ("explore.py", {"model": "biformer", "side": "224"}), ("explore.py", {"model": "vehicles", "untrained": "1"}),
    ("compare.py", {"model": "similarity", "side": "224", "cost": "seconds", "equal": "1"}),
    ("compare.py", {"side": "224", "tab": "versus", "b_model": "cells", "b_changed": "1"}),
    ("compare.py", {"side": "224", "tab": "versus", "b_model": "own"}),
    ("compare.py", {"side": "224", "tab": "versus", "b_model": "biformer"}),
    ("compare.py", {"model": "similarity", "side": "224", "tab": "probes"}),
    ("compare.py", {"model": "similarity", "side": "224", "tab": "rules"}),
    ("compare.py", {"side": "224", "tab": "sweeps"}),
    ("cost.py", {"model": "cells", "cost_height": "64", "cost_width": "64", "cost_narrow": "2",
                 "cost_projections": "none", "cost_tab": "otherwise"}),
    ("cost.py", {"model": "yolo", "variant": "yolo11n-bra-p3", "cost_measure": "peak_bytes", "cost_tab": "places"}),
    ("cost.py", {"model": "yolo", "cost_height": "320", "cost_tab": "change"}),
    ("cost.py", {"model": "yolo", "cost_height": "320", "cost_tab": "ultralytics"}),
    ("cost.py", {"model": "own"}), ("cost.py", {"model": "biformer", "cost_measure": "params", "cost_height": "224"}),
    ("models.py", {"card": "flowers"}), ("models.py", {"card": "cells"}), ("models.py", {"card": "vehicles"}),
    ("learn.py", {"part": "example"}), ("learn.py", {"part": "photo"}), ("learn.py", {"part": "predict"}),
    *((path.name, {"model": "similarity", "side": "224"}) for path in VIEWS)]


def chinese(view: str, query: dict[str, str]) -> AppTest:
    return opened(view.removesuffix(".py"), {**query, "lang": "zh"}, stage_drawn=True)


@pytest.mark.parametrize(("view", "query"), LINKS, ids=lambda part: part if isinstance(part, str) else
                            "-".join(part.values()) or "first")
def test_a_page_in_chinese_says_nothing_in_english(view: str, query: dict[str, str]) -> None:
    app = chinese(view, query)
    found = list(shown(app))
    assert any(re.search("[\u4e00-\u9fff]", text) for text in found)
    assert [text for text in found if english(text)] == []
    # One with the same key in every language would go on in the language in which it was made.
    assert [part.proto.component_name for part in app.get("bidi_component") if part.proto.component_name.endswith("_zh")
            and not part.proto.id.endswith("_zh") and part.proto.component_name != WORDLESS] == []


@pytest.mark.parametrize("text", ["Keeps 38 % of all windows", "the model", "nearest", "Not counted, since",
                                     "Wrapped\nlines", "层 n_win 5: many heads"])
def test_english_is_told_from_names(text: str) -> None:
    assert english(text)


@pytest.mark.parametrize("text", ["花卉，已训练（BiFormer） · stages.2.2.attn · n_win 5 · topk 8", "`bra inspect`",
                                     "15 BRABlock：80×80 个 token", "PNG、JPEG、WebP", "weights.pt 与 best.pth",
                                     "qk_dim=48, num_heads=4"])
def test_names_are_no_english(text: str) -> None:
    assert not english(text)
