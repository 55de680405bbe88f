"""`bra compare`, `bra probe` and `bra sweep` on the command line."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

from bra.cli.file_options import add_file_options, file_options, say_assumptions
from bra.errors import BRAError
from bra.experiments.compare import CostName, compare, layer_input, settings_of
from bra.experiments.probes import PROBES, probe
from bra.experiments.sweep import Plan, Progress, sweep
from bra.experiments.sweep_table import SweepTable
from bra.models.base import OpenModel
from bra.models.catalog import CATALOG, ModelSettings
from bra.opening import model_and_variant, open_file, open_model
from bra.photo import Photo
from bra.reports.tables import compare_csv, compare_html, compare_text, sweep_html


def add_compare(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bra compare`."""
    parser.set_defaults(run=_compare)
    parser.add_argument("picture", type=Path)
    _add_model(parser)
    _add_windows(parser)
    parser.add_argument("--layer", default="", help="name of the layer; default: the first that is routed")
    parser.add_argument("--cost", choices=get_args(CostName), default="macs", help="what the best are chosen by")
    parser.add_argument("--time", type=int, default=0, metavar="ROUNDS", help="time so many forwards of each setting")
    parser.add_argument("-o", "--output", type=Path, help="write a .csv or .html file instead of the table")


def add_probe(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bra probe`."""
    parser.set_defaults(run=_probe)
    parser.add_argument("picture", type=Path)
    _add_model(parser)
    parser.add_argument("--probes", nargs="+", choices=list(PROBES), default=list(PROBES), metavar="NAME",
                        help="; ".join(f"{name}: {one.about}" for name, one in PROBES.items()).replace("%", "%%"))


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bra sweep`."""
    parser.set_defaults(run=_sweep)
    parser.add_argument("folder", type=Path, help="of pictures; folders inside it count too")
    _add_model(parser)
    _add_windows(parser)
    parser.add_argument("--layers", nargs="+", default=[], metavar="NAME", help="default: every routed layer")
    parser.add_argument("-o", "--output", type=Path, default=Path("sweep"),
                        help="folder for the results; a run that was cut off there goes on; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at once, -1 for all processors; default %(default)s")
    parser.add_argument("--backend", default="loky", help="loky: processes here; dask, ray: a running cluster")
    parser.add_argument("--cluster", default="", metavar="ADDRESS", help="of Dask's scheduler, such as tcp://host:8786")


def _add_model(parser: argparse.ArgumentParser) -> None:
    usual = ModelSettings()
    parser.add_argument("--model", default=usual.model, metavar="NAME|FILE",
                        help=f"{', '.join(CATALOG)}; a variant such as yolov8n-bra; or a file; default: %(default)s")
    parser.add_argument("--untrained", action="store_true", help="random weights in place of trained ones")
    parser.add_argument("--side", type=int, help="longer side in pixels, default what suits the model")
    parser.add_argument("--heads", type=int, default=usual.num_heads, help="of a patch model, default %(default)s")
    parser.add_argument("--stride", type=int, default=usual.stride, help="of a patch model, default %(default)s")
    add_file_options(parser, "--model-n-win")


def _add_windows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n-win", type=_numbers, default=(4, 7, 8), metavar="N,…", help="default 4,7,8")
    parser.add_argument("--topk", type=_numbers, default=(1, 2, 4, 8), metavar="K,…", help="default 1,2,4,8")
    parser.add_argument("--equal-coverage", type=int, metavar="N",
                        help="the topks are meant for n_win N, and scaled with n_win² for others")


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.replace(" ", "").split(",")
    if not all(part.isdecimal() and 0 < int(part) < 10_000 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers: write 4,7,8")
    return tuple(int(part) for part in parts)


def _settings(args: argparse.Namespace) -> tuple[ModelSettings, bytes]:
    """The model that is named, and its bytes where it is a file."""
    key, variant = model_and_variant(args.model)
    settings = ModelSettings(key, num_heads=args.heads, stride=args.stride, side=args.side or CATALOG[key].side,
                             variant=variant, untrained=args.untrained, file=file_options(args))
    return settings, Path(args.model).read_bytes() if key == "own" else b""


def _open(args: argparse.Namespace) -> tuple[OpenModel, int]:
    settings, file = _settings(args)
    model = open_file(file, Path(args.model).name, options=settings.file) if file else open_model(settings)
    say_assumptions(model)
    return model, settings.side


def _compare(args: argparse.Namespace) -> int:
    if args.cost == "seconds" and args.time < 1:
        raise BRAError("--cost seconds needs a measurement: add --time 5.")
    model, side = _open(args)
    given = layer_input(model, Photo.from_bytes(args.picture.read_bytes()), side, args.layer)
    rows = compare(given, settings_of(args.n_win, args.topk, args.equal_coverage), args.time).rows
    ending = args.output.suffix.lower() if args.output else ""
    if args.output is None:
        print(compare_text(rows, args.cost))
    elif ending == ".csv":
        args.output.write_text(compare_csv(rows, model.provenance), encoding="utf-8")
    elif ending in (".html", ".htm"):
        about = f"{model.label}, layer {given.name}, {side} px, {model.origin}."
        args.output.write_text(compare_html(rows, f"Settings on {args.picture.name}", about, args.cost,
                                            untrained=model.untrained), encoding="utf-8")
    else:
        raise BRAError(f"-o {args.output.name} is neither .csv nor .html: choose one of these.")
    return 0


def _probe(args: argparse.Namespace) -> int:
    model, side = _open(args)
    rows = probe(model, Photo.from_bytes(args.picture.read_bytes()), side, args.probes)
    print(f"{'layer':24}{'probe':12}{'survived':>10}{'stayed':>10}{'nearest':>10}{'chance':>10}")
    for row in rows:
        shares = "".join(f"{100 * share:>8.1f} %" for share in (row.survived, row.stayed, row.nearest, row.chance))
        print(f"{row.layer:24}{row.probe:12}{shares}")
    return 0


def _sweep(args: argparse.Namespace) -> int:
    if args.jobs == 0 or args.jobs < -1:
        raise BRAError(f"--jobs {args.jobs} is not possible: 1 or more, or -1 for all processors.")
    settings, file = _settings(args)
    plan = Plan(settings, settings_of(args.n_win, args.topk, args.equal_coverage), tuple(args.layers), file,
                Path(args.model).name if file else "")
    if file:
        model = plan.open()
        say_assumptions(model)
        plan = replace(plan, assumed=model.assumptions)
    table = sweep(plan, args.folder, args.output, args.jobs, args.backend, args.cluster, _tell)
    skipped = json.loads((args.output / "skipped.json").read_text(encoding="utf-8"))
    (args.output / "report.html").write_text(sweep_html(SweepTable(table, plan.about()), skipped), encoding="utf-8")
    for name, why in sorted(skipped.items()):
        print(f"skipped {name}: {why}", file=sys.stderr)
    print(f"{args.output / 'rows.parquet'}: {table.num_rows} rows; {args.output / 'report.html'}")
    return 0


def _tell(progress: Progress) -> None:
    print(progress, file=sys.stderr, flush=True)
