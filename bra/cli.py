"""`bra …` on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final, get_args

from bra.cost_command import add_arguments, run_cost
from bra.errors import BRAError
from bra.models.catalog import CATALOG, ModelSettings, look
from bra.photo import Photo
from bra.report import report_html
from bra.spec import KVDownsampleMode
from bra.viewer.pack import FULL, Caption, Place

ULTRALYTICS: Final = ("train", "predict")
"""Commands whose arguments are Ultralytics' own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 2 for a request that was refused."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        if given[:1] and given[0] in ULTRALYTICS:
            return int(_yolo().ultralytics_command(given[0], given[1:]))
        args = _parser().parse_args(given)
        status: int = args.run(args)
    except BRAError as error:
        print(f"bra: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"bra: {error.filename}: {error.strerror}: check the path.", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bra", description="See where bi-level routing attention looks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="write a stand-alone HTML report of one picture")
    inspect.set_defaults(run=_inspect)
    usual = ModelSettings()
    inspect.add_argument("picture", type=Path, help="PNG, JPEG, WebP, BMP, GIF or TIFF")
    inspect.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="default: %(default)s")
    inspect.add_argument("--model", choices=CATALOG, default=usual.model)
    inspect.add_argument("--layer", help="name of the layer; default: the first")
    inspect.add_argument("--n-win", type=int, default=usual.n_win, help="windows per side, default %(default)s")
    inspect.add_argument("--topk", type=int, default=usual.topk, help="routed windows, default %(default)s")
    inspect.add_argument("--heads", type=int, default=usual.num_heads, help="default %(default)s")
    inspect.add_argument("--stride", type=int, default=usual.stride, help="pixels per token, default %(default)s")
    inspect.add_argument("--side", type=int, default=usual.side, help="longer side in pixels, default %(default)s")
    inspect.add_argument("--pool", choices=get_args(KVDownsampleMode), default="identity", help="pooling of k and v")
    inspect.add_argument("--pool-ratio", type=int, default=usual.kv_downsample_ratio, help="default %(default)s")
    inspect.add_argument("--mask-padding", action="store_true", help="leave padded tokens out")
    for role in "ab":
        inspect.add_argument(f"--{role}", type=_place, metavar="X,Y",
                             help=f"query {role.upper()} in per cent of width and height, such as 50,30")
    inspect.add_argument("--window-mean", action="store_true", help="attention of the whole window, not of one token")
    for mode in ULTRALYTICS:
        commands.add_parser(mode, help=f"yolo {mode}, with rows of attention known; its own arguments", add_help=False)
    cost = commands.add_parser("cost", help="what every layer of a model costs")
    cost.set_defaults(run=lambda args: run_cost(args, lambda name: _yolo().network_of(name),
                                                lambda model, counted: _yolo().printed(model, counted)))
    add_arguments(cost)
    lint = commands.add_parser("lint", help="check a YOLO model file")
    lint.set_defaults(run=lambda args: _yolo().run_lint(args))
    lint.add_argument("model", help="a file, or a name such as yolov8n-bra.yaml")
    lint.add_argument("--imgsz", type=int, default=640, help="side of the picture in pixels, default %(default)s")
    lint.add_argument("--base", help="the model that rows were inserted into, such as yolov8.yaml; default: by name")
    lint.add_argument("--fix", action="store_true", help="correct the file")
    transplant = commands.add_parser("transplant", help="carry pretrained weights into a model with more rows")
    transplant.set_defaults(run=lambda args: _yolo().run_transplant(args))
    transplant.add_argument("weights", type=Path, help="pretrained weights, such as yolov8n.pt")
    transplant.add_argument("model", help="a file, or a name such as yolov8n-bra.yaml")
    transplant.add_argument("-o", "--output", type=Path, default=Path("init.pt"), help="default: %(default)s")
    return parser


def _yolo() -> ModuleType:
    """The commands that need Ultralytics; imported when asked for, since it is optional and takes seconds."""
    try:
        from bra.yolo import command
    except ModuleNotFoundError as error:
        if error.name != "ultralytics":
            raise
        raise BRAError("ultralytics is not installed, which this command needs: run pip install 'bra[yolo]' or "
                       "pip install ultralytics.") from error
    return command


def _place(text: str) -> Place:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a place: write two numbers such as 50,30") from None
    if not (0 <= x <= 100 and 0 <= y <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not on the picture: give 0 to 100 per cent each")
    return round(x * FULL / 100), round(y * FULL / 100)


def _inspect(args: argparse.Namespace) -> int:
    settings = ModelSettings(args.model, args.n_win, args.topk, args.heads, args.stride, args.pool, args.pool_ratio,
                             args.mask_padding, args.side)
    photo = Photo.from_bytes(args.picture.read_bytes())
    layers = look(settings, photo).layers
    name = next(iter(layers)) if args.layer is None else args.layer
    if name not in layers:
        raise BRAError(f"--layer {name} does not exist: choose one of {', '.join(layers)}.")
    pins = {role: place for role, place in (("a", args.a), ("b", args.b)) if place is not None}
    caption = Caption(settings.entry.label, name, settings.entry.provenance, args.picture.name)
    page = report_html(photo, layers[name], caption, (FULL // 2, FULL // 2), pins, args.window_mean)
    args.output.write_text(page, encoding="utf-8")
    print(f"{args.output}: {len(page) / 1e6:.1f} MB")
    return 0
