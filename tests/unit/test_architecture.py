"""Rules of the house that import-linter cannot hold, read from the source; the layers stand in pyproject.toml."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
BRA = sorted((ROOT / "bra").rglob("*.py"))
DASHBOARD = sorted((ROOT / "dashboard").rglob("*.py"))
LISTENS = {"bra/recorder.py"}
"""The one place with a ContextVar."""


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), path.name)


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def names_in(path: Path) -> Iterator[tuple[int, str]]:
    """Every name and attribute, with its line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def test_only_state_and_the_language_read_the_session_and_the_link() -> None:
    outside = [path for path in DASHBOARD if path.parent.name != "state" and path.name != "i18n.py"]
    assert outside
    assert not [(short(path), line) for path in outside for line, name in names_in(path)
                if name in ("session_state", "query_params")]


def test_only_services_cache() -> None:
    outside = [path for path in DASHBOARD if path.parent.name not in ("services", "runtime")]
    assert outside
    assert not [(short(path), line) for path in outside for line, name in names_in(path)
                if name.startswith("cache_") or name in ("lru_cache", "cache", "cached")]


def test_nobody_hooks_into_modules_that_visitors_share() -> None:
    assert not [(short(path), line) for path in [*BRA, *DASHBOARD] if short(path) not in HOOKS
                for line, name in names_in(path) if name.startswith("register_") and "hook" in name]


HOOKS: frozenset[str] = frozenset({"bra/bra_record.py"})
"""What may hook a model that its caller owns, for one call."""


def test_no_lambda_is_kept_on_an_object() -> None:
    kept = [(short(path), node.lineno) for path in BRA for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Assign) and any(isinstance(target, ast.Attribute) for target in node.targets)
            and any(isinstance(part, ast.Lambda) for part in ast.walk(node.value))]
    assert kept == []


def test_no_state_at_module_level_but_the_recorder() -> None:
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    found = []
    for path in BRA:
        for node in tree_of(path).body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
                made = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in ("set", "list", "dict")
                if (isinstance(node.value, mutable) or made) and not name.isupper() and name != "__all__":
                    found.append((short(path), name))
        found += [(short(path), "global") for node in ast.walk(tree_of(path)) if isinstance(node, ast.Global)]
        if short(path) not in LISTENS:
            found += [(short(path), name) for _, name in names_in(path) if name == "ContextVar"]
    assert found == []


def test_imports_are_absolute() -> None:
    assert not [short(path) for path in [*BRA, *DASHBOARD] for node in ast.walk(tree_of(path))
                if isinstance(node, ast.ImportFrom) and node.level]


def test_no_page_script_has_a_bare_text_after_its_docstring() -> None:
    """Streamlit shows a bare text of a page's script to the visitor."""
    pages = [path for path in (ROOT / "dashboard" / "views").glob("*.py") if path.name != "__init__.py"]
    assert pages
    assert not [(short(path), node.lineno) for path in pages for node in tree_of(path).body[1:]
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
