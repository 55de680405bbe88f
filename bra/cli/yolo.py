"""The commands `bra train`, `predict`, `lint`, `transplant` and `train-demo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bra.errors import YoloError
from bra.models.card import ModelCard
from bra.yolo.entrypoint import ultralytics_command
from bra.yolo.lint import lint, model_file
from bra.yolo.training.demos import train_demo
from bra.yolo.training.release import demo_named, ship_demo
from bra.yolo.transplant import transplant
from bra.yolo.ultralytics_flops import network_of, reported_flops

__all__ = ["network_of", "reported_flops", "run_demo", "run_lint", "run_transplant", "ultralytics_command"]


def run_lint(args: argparse.Namespace) -> int:
    """Print what is wrong with a model file; with --fix, correct it. 1 when errors are left."""
    report = lint(args.model, args.imgsz, args.base)
    fixable = [finding for finding in report.findings if finding.fix is not None]
    path = model_file(args.model)
    if fixable and args.fix and not Path(args.model).is_file():
        raise YoloError(f"{args.model} was found at {path}, not where you are: copy it to correct it.")
    for finding in report.findings:
        print(f"{'corrected' if args.fix and finding.fix is not None else finding.level}: {finding.text}")
    for sentence in report.assumptions:
        print(f"note: {sentence}")
    left = [finding for finding in report.errors if finding.fix is None or not args.fix]
    if fixable and args.fix:
        path.write_text(report.fixed, encoding="utf-8")
        print(f"{path}: {len(fixable)} corrected")
    elif fixable:
        print(f"{len(fixable)} can be corrected with --fix")
    elif not (report.findings or report.assumptions):
        print("nothing to say")
    return 1 if left else 0


def run_transplant(args: argparse.Namespace) -> int:
    """Write an initial checkpoint and print what was carried into it."""
    print(transplant(args.weights, args.model, args.output))
    print(f"{args.output}: train it with bra train model={args.output} data=…")
    return 0


def run_demo(name: str, source: Path, out: Path, seeds: Sequence[int], epochs: int | None,
             imgsz: int | None) -> ModelCard:
    """Train a detector's demonstration, then measure it and write its weights and card."""
    demo = demo_named(name)
    train_demo(demo, source, out, seeds, epochs, imgsz)
    return ship_demo(demo, out, seeds)
