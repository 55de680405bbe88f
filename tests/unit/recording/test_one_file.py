"""`bra_record.py` alone is enough: old syntax, nothing imported but torch and numpy, read by today's package.

The oldest Python and torch that can be installed are those of an environment that `make old-python` builds: Python
3.8 with torch 1.10.0, which are the oldest that the file promises.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bra
from bra import bra_record

FILE = Path(bra_record.__file__)
NET = Path(__file__).with_name("old_net.py")
OLD = Path(os.environ.get("BRA_OLD_PYTHON", Path.home() / ".cache/routescope/python3.8/bin/python"))
PROMISED = (3, 8)


def test_its_syntax_is_that_of_the_oldest_python() -> None:
    for path in (FILE, NET):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=PROMISED)


def test_it_imports_torch_numpy_and_perhaps_pillow() -> None:
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    roots = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names} | {str(node.module).split(".")[0] for node in ast.walk(tree)
                                         if isinstance(node, ast.ImportFrom)}
    assert roots - set(sys.stdlib_module_names) == {"torch", "numpy", "PIL"}


def recorded_by(python: str, folder: Path) -> str:
    shutil.copy(FILE, folder)
    ran = subprocess.run([python, "-s", str(NET), str(folder)], capture_output=True, text=True, cwd=folder, check=False,
                         env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "LANG": "zh_CN.UTF-8",
                              "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}, timeout=240)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def check(folder: Path) -> None:
    one, two = (bra.load(folder / name).layers["2"] for name in ("one.bra", "two.bra"))
    for lt in (one, two):
        assert lt.proof is not None
        assert lt.proof.attention
        assert lt.proof.difference is not None
        assert lt.proof.difference < 1e-5
        assert (lt.grid.h, lt.grid.w, lt.grid.H, lt.grid.W) == (20, 25, 21, 28)
        torch.testing.assert_close(lt.attention(5).sum(-1), torch.ones(8, 12))
    assert torch.equal(one.r_idx, two.r_idx)
    assert not (folder / "three.bra").exists()


def test_alone_beside_a_script_of_today(tmp_path: Path) -> None:
    message = recorded_by(sys.executable, tmp_path)
    assert "没有双层路由注意力层" in message
    check(tmp_path)


@pytest.mark.skipif(not OLD.is_file(), reason="no old Python here: make old-python builds it (900 MB are fetched)")
def test_alone_beside_a_script_of_the_oldest_python(tmp_path: Path) -> None:
    message = recorded_by(str(OLD), tmp_path)
    print(message.splitlines()[-1])
    assert "python 3.8" in message
    assert "torch 1.10" in message
    check(tmp_path)
