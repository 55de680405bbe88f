"""`bra compare`, `bra probe` and `bra sweep` on the command line."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

from bra.cli.arguments import add_model, add_patch_windows, count, model_asked_for, open_asked_for, output_file
from bra.cli.file_options import say_assumptions
from bra.errors import BRAError
from bra.experiments.compare import MAX_SETTINGS, CostName, Setting, compare, layer_input, settings_of
from bra.experiments.probes import PROBES, probe
from bra.experiments.rules import rule_summaries
from bra.experiments.sweep import Plan, Progress, sweep
from bra.experiments.sweep_table import SweepTable
from bra.photo import Photo
from bra.reports.rules import rules_html, rules_text
from bra.reports.tables import compare_csv, compare_html, compare_text, probe_text, sweep_html
from bra.spec import MAX_N_WIN


def add_compare(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bra compare`."""
    parser.set_defaults(run=_compare)
    parser.add_argument("picture", type=Path)
    add_model(parser)
    add_patch_windows(parser)
    _add_windows(parser)
    parser.add_argument("--layer", default="", help="name of the layer; default: the first that is routed")
    parser.add_argument("--cost", choices=get_args(CostName), default="macs", help="what the best are chosen by")
    parser.add_argument("--time", type=count, default=0, metavar="ROUNDS", help="time so many forwards of each setting")
    parser.add_argument("-o", "--output", type=output_file, help="write a .csv or .html file instead of the table")


def add_probe(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bra probe`."""
    parser.set_defaults(run=_probe)
    parser.add_argument("picture", type=Path)
    add_model(parser)
    add_patch_windows(parser)
    parser.add_argument("--probes", nargs="+", choices=list(PROBES), default=list(PROBES), metavar="NAME",
                        help="; ".join(f"{name}: {one.about}" for name, one in PROBES.items()).replace("%", "%%"))


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bra sweep`."""
    parser.set_defaults(run=_sweep)
    parser.add_argument("folder", type=Path, help="of pictures; folders inside it count too")
    add_model(parser)
    add_patch_windows(parser)
    _add_windows(parser)
    parser.add_argument("--layers", nargs="+", default=[], metavar="NAME", help="default: every routed layer")
    parser.add_argument("--rules", action="store_true",
                        help="try other rules of routing at equal cost, under each layer's own windows where neither "
                             "--n-win nor --topk is given")
    parser.add_argument("--labels", type=Path, metavar="MASKS",
                        help="with --rules: folder with a file per picture, of the same stem: PNG whose pixels are "
                             "numbers of classes, or YOLO .txt boxes")
    parser.add_argument("-o", "--output", type=Path, default=Path("sweep"),
                        help="folder for the results; a run that was cut off there goes on; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at once, -1 for all processors; default %(default)s")
    parser.add_argument("--backend", default="loky", help="loky: processes here; dask: a running cluster")
    parser.add_argument("--cluster", default="", metavar="ADDRESS", help="of Dask's scheduler, such as tcp://host:8786")


def _add_windows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n-win", type=_numbers, metavar="N,…", help="default 4,7,8")
    parser.add_argument("--topk", type=_numbers, metavar="K,…", help="default 1,2,4,8")
    parser.add_argument("--equal-coverage", type=int, metavar="N",
                        help="the topks are meant for n_win N, and scaled with n_win² for others")


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.replace(" ", "").split(",")
    if not all(part.isdecimal() and 0 < int(part) < 10_000 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers: write 4,7,8")
    return tuple(int(part) for part in parts)


def _windows(args: argparse.Namespace) -> tuple[Setting, ...]:
    """The settings that are asked for, looked at before anything runs.

    Raises:
        BRAError: none of them can be, or they are too many.
    """
    if args.equal_coverage is not None and not 1 <= args.equal_coverage <= MAX_N_WIN:
        raise BRAError(f"--equal-coverage {args.equal_coverage} is not possible: 1 to {MAX_N_WIN} windows per side.")
    n_wins, topks = args.n_win or (4, 7, 8), args.topk or (1, 2, 4, 8)
    made = settings_of(n_wins, topks, args.equal_coverage)
    if not made:
        most = ", ".join(f"{n * n} with n_win {n}" for n in n_wins)
        raise BRAError(f"--topk {','.join(map(str, topks))} leaves no setting: topk is at most {most}.")
    if len(made) > MAX_SETTINGS:
        raise BRAError(f"{len(made)} settings are too many: give at most {MAX_SETTINGS}.")
    left_out = [f"n_win {n}, topk {k}" for n in n_wins for k in topks if k > n * n]
    if left_out and args.equal_coverage is None:
        print(f"left out, since topk is at most n_win²: {'; '.join(left_out)}", file=sys.stderr)
    return made


def _compare(args: argparse.Namespace) -> int:
    if args.cost == "seconds" and args.time < 1:
        raise BRAError("--cost seconds needs a measurement: add --time 5.")
    ending = args.output.suffix.lower() if args.output else ""
    if ending not in ("", ".csv", ".html", ".htm") or (args.output and not ending):
        raise BRAError(f"-o {args.output.name} is neither .csv nor .html: choose one of these.")
    windows = _windows(args)
    model, settings = open_asked_for(args)
    given = layer_input(model, Photo.from_bytes(args.picture.read_bytes()), settings.side, args.layer)
    rows = compare(given, windows, args.time).rows
    if args.output is None:
        print(compare_text(rows, args.cost))
    elif ending == ".csv":
        args.output.write_text(compare_csv(rows, model.provenance), encoding="utf-8")
    else:
        about = f"{model.label}, layer {given.name}, {settings.side} px, {model.origin}."
        args.output.write_text(compare_html(rows, f"Settings on {args.picture.name}", about, args.cost,
                                            untrained=model.untrained), encoding="utf-8")
    return 0


def _probe(args: argparse.Namespace) -> int:
    model, settings = open_asked_for(args)
    rows = probe(model, Photo.from_bytes(args.picture.read_bytes()), settings.side, args.probes)
    print(probe_text(rows))
    return 0


def _sweep(args: argparse.Namespace) -> int:
    if args.jobs == 0 or args.jobs < -1:
        raise BRAError(f"--jobs {args.jobs} is not possible: 1 or more, or -1 for all processors.")
    if args.labels is not None and not args.rules:
        raise BRAError("--labels judges rules of routing: add --rules.")
    if args.labels is not None and not args.labels.is_dir():
        raise BRAError(f"--labels {args.labels} is no folder: give one with a file for each picture.")
    own = args.rules and args.n_win is None and args.topk is None
    windows = () if own else _windows(args)
    settings, file = model_asked_for(args)
    plan = Plan(settings, windows, tuple(args.layers), file, Path(args.model).name if file else "", rules=args.rules,
                labels=args.labels.name if args.labels else "")
    if file:
        model = plan.open()
        say_assumptions(model)
        plan = replace(plan, assumed=model.assumptions)
    table = sweep(plan, args.folder, args.output, args.jobs, args.backend, args.cluster, _tell, args.labels)
    skipped = json.loads((args.output / "skipped.json").read_text(encoding="utf-8"))
    found = rule_summaries(table) if args.rules else ()
    page = rules_html(found, plan.about(), skipped) if args.rules else \
        sweep_html(SweepTable(table, plan.about()), skipped)
    (args.output / "report.html").write_text(page, encoding="utf-8")
    if found:
        print(rules_text(found))
    for name, why in sorted(skipped.items()):
        print(f"skipped {name}: {why}", file=sys.stderr)
    print(f"{args.output / 'rows.parquet'}: {table.num_rows} rows; {args.output / 'report.html'}")
    if not table.num_rows:
        raise BRAError("none of the pictures could be used: the lines above say why.")
    return 0


def _tell(progress: Progress) -> None:
    print(progress, file=sys.stderr, flush=True)
