"""The rules that keep the house habitable, read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = (
    "wording", "errors", "spec", "grid", "chunked", "functional", "flex", "kv_pool", "record",
    "attention", "worked", "worked_source", "tracing", "photo_file", "photo",
    "fidelity", "layer_maps", "dense", "dense_grids", "areas", "overlap", "scorecard", "svg",
    "formula", "operators", "model_rows", "timing", "costing", "cost_table", "advice",
    "variants", "cost_words",
    "process", "pickled", "torchfile", "unpack", "checkpoint", "weights_file",
    "weights", "models", "models.card", "models.untrained", "models.patches", "models.full_attention",
    "models.layout", "models.biformer", "models.nano", "models.steps", "models.opened", "models.resumed",
    "compare", "versus", "probes", "lesson", "models.families", "models.catalog",
    "viewer", "viewer.pack", "export", "report", "compare_table", "viewer.multiples",
    "training", "training.state", "training.photographs", "training.classifier", "training.quality",
    "training.flowers",
    "yolo.modules", "yolo.handmade", "yolo.rows", "yolo.registration", "yolo", "yolo.transplant",
    "yolo.wiring", "yolo.rewrite", "yolo.resettle", "yolo.gate", "yolo.budget", "yolo.untrusted", "yolo.lint",
    "yolo.printed", "yolo.training", "yolo.tiles", "yolo.demo", "yolo.opened", "yolo.shipping", "yolo.command",
    "opening", "cost_command", "unpack_table", "sweep_table", "sweep", "sweep_report", "compare_command", "cli")
"""A file of bra imports only from files before it; `bra/__init__.py` is the shop window and may import them all."""
BRA = sorted((ROOT / "bra").rglob("*.py"))
DASHBOARD = sorted((ROOT / "dashboard").rglob("*.py"))
SERVICES = ("services.py", "cost_services.py", "worked_services.py", "lesson_services.py",
            "explore_services.py", "office.py")
SESSION = ("state.py", "held.py", "words.py", "worked_state.py", "lesson_state.py")     # words.py: the language alone
CODE = [path for folder in ("bra", "dashboard") for ending in ("py", "js", "css", "html")
        for path in sorted((ROOT / folder).rglob(f"*.{ending}"))]


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """bra/models/patches.py -> models.patches; a package's __init__ -> the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(part for part in parts if part != "__init__")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), short(path))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions, by full name; `from a import b` as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{short(path)} imports relatively"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def names_and_attributes(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_the_files_are_found() -> None:
    assert len(BRA) >= 15
    assert len(DASHBOARD) >= 5
    assert {module_of(path) for path in BRA} - {""} == set(ORDER)


@pytest.mark.parametrize("path", BRA, ids=short)
def test_bra_knows_nothing_of_the_dashboard(path: Path) -> None:
    assert not roots(path) & {"streamlit", "plotly", "dashboard", "tests"}


@pytest.mark.parametrize("path", [path for path in BRA if module_of(path)], ids=short)
def test_a_file_of_bra_imports_only_files_above_it(path: Path) -> None:
    above = {f"bra.{name}" for name in ORDER[:ORDER.index(module_of(path))]}
    modules = {f"bra.{name}" for name in ORDER}
    assert imported(path) & modules <= above
    # A name of the shop window would be every module at once.
    assert not {name for name in imported(path) if name.startswith("bra.")
                and name not in modules and name.rpartition(".")[0] not in modules}


@pytest.mark.parametrize("path", [path for path in DASHBOARD if path.name not in SERVICES], ids=short)
def test_only_services_may_touch_torch(path: Path) -> None:
    assert not roots(path) & {"torch", "torchvision"}


@pytest.mark.parametrize("path", [path for path in DASHBOARD if path.name not in SESSION], ids=short)
def test_only_state_reads_and_writes_the_session_and_the_link(path: Path) -> None:
    assert not set(names_and_attributes(path)) & {"session_state", "query_params"}


@pytest.mark.parametrize("path", [path for path in DASHBOARD if path.name not in SERVICES], ids=short)
def test_only_services_caches(path: Path) -> None:
    assert not [name for name in names_and_attributes(path) if name.startswith("cache") or name == "lru_cache"]


@pytest.mark.parametrize("path", sorted((ROOT / "dashboard" / "views").glob("*.py")), ids=short)
def test_a_view_only_chooses_asks_and_draws(path: Path) -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, kinds)]


@pytest.mark.parametrize("path", [*BRA, *DASHBOARD], ids=short)
def test_nobody_hooks_into_modules(path: Path) -> None:
    assert not [name for name in names_and_attributes(path) if name.startswith("register_") and "hook" in name]


@pytest.mark.parametrize("path", BRA, ids=short)
def test_no_lambda_is_kept_on_an_object(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Attribute) for target in node.targets):
            assert not [part for part in ast.walk(node.value) if isinstance(part, ast.Lambda)], node.lineno


@pytest.mark.parametrize("path", BRA, ids=short)
def test_no_state_at_module_level_but_the_recorder(path: Path) -> None:
    for node in tree_of(path).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            mutable = isinstance(node.value, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp))
            assert target.isupper() or target == "__all__" or not mutable, target
    assert not [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, ast.Global)]
    assert module_of(path) == "record" or "ContextVar" not in names_and_attributes(path)


@pytest.mark.parametrize("path", CODE, ids=short)
def test_no_file_has_two_subjects(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_torch_is_the_only_heavy_import_of_the_package() -> None:
    known = {"bra", "torch", "torchvision", "einops", "numpy", "PIL", "safetensors", "joblib", "pyarrow", "ray"}
    outside = [path for path in BRA if path.parent.name != "yolo"]
    assert {name for path in outside for name in roots(path)} - known <= sys.stdlib_module_names


def test_only_the_yolo_package_names_ultralytics() -> None:
    inside = [path for path in BRA if path.parent.name == "yolo"]
    known = {"bra", "torch", "numpy", "ultralytics", "thop", "yaml"}
    assert {name for path in inside for name in roots(path)} - known <= sys.stdlib_module_names
    assert not [path for path in BRA if path not in inside and "bra.yolo" in {n[:8] for n in imported(path)}
                and module_of(path) not in ("opening", "cli")]
