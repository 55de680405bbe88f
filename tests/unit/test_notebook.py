"""The example notebook runs from top to bottom, in two minutes at most, and shows what its words promise."""

from __future__ import annotations

import ast
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bra import View
from bra.experiments.compare import Compared
from bra.profiling.model_cost import Cost
from bra.tracing import ModelTrace

ROOT = Path(__file__).parents[2]
CELLS = json.loads((ROOT / "bra" / "example.ipynb").read_text(encoding="utf-8"))["cells"]
SECONDS = 120


def shown_by(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does: the value of its last line, if that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "example.ipynb", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "example.ipynb", "eval"), names)


def test_the_notebook_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "sample_images" / "animal.jpg", "photo.jpg")
    names: dict[str, Any] = {}
    before = time.process_time()
    shown = [shown_by("".join(cell["source"]), names) for cell in CELLS if cell["cell_type"] == "code"]
    assert time.process_time() - before < SECONDS
    assert [type(one) for one in shown if one is not None] == [View, ModelTrace, View, Cost, Compared]
    assert all("<" in one._repr_html_() for one in shown if one is not None)
    assert "layers.0" in capsys.readouterr().out


def test_the_notebook_is_kept_without_outputs_and_in_the_words_of_the_readme() -> None:
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in CELLS)
    words = "".join(text for cell in CELLS if cell["cell_type"] == "markdown" for text in cell["source"])
    sentence = re.search(r"Bi-level routing attention \(BRA\) lets .*?itself\.", words)
    assert sentence is not None
    readme = re.sub(r"\(BRA, from \[BiFormer\]\([^)]*\)\)", "(BRA)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert sentence[0] in " ".join(readme.split())
