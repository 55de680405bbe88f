"""Runs a program of a page in a process of its own, forked from one that has imported torch and nothing of the test."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "numpy", "PIL.Image", "ultralytics", "bra.opening", "bra.yolo.registration",
                                "bra.experiments.compare", "bra.experiments.reroute", "bra.profiling.model_cost",
                                "sympy", "torch._dynamo"])      # what counting on "meta" imports


def _execute(text: str, keep: str, folder: Path) -> None:
    """In the process of its own: run the program in a folder, and keep the value or the error there."""
    os.chdir(folder)
    printed, names = io.StringIO(), {"__name__": "__main__"}
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(text, "program.py", "exec"), names)
        torch.save((eval(keep, names | {"torch": torch}), printed.getvalue()), "kept.pt")
    except BaseException:
        Path("error.txt").write_text(traceback.format_exc(), encoding="utf-8")


def ran(text: str, keep: str, folder: Path) -> Any:
    """The value of an expression at the end of a program, which must print something and raise nothing."""
    for name in ("kept.pt", "error.txt"):
        (folder / name).unlink(missing_ok=True)
    process = SERVER.Process(target=_execute, args=(text, keep, folder))
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")        # or the new process would import pytest, for two seconds
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
    process.join(300)
    process.kill()
    assert not (folder / "error.txt").exists(), (folder / "error.txt").read_text(encoding="utf-8")
    value, printed = torch.load(folder / "kept.pt", weights_only=True)
    assert printed.strip()
    return value
