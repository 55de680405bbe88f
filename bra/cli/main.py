"""`bra …` on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Final

from bra.cli.arguments import add_model, open_asked_for, output_file
from bra.cli.compare import add_compare, add_probe, add_sweep
from bra.cli.cost import add_arguments, run_cost
from bra.cli.file_options import add_file_options
from bra.cli.quality import add_quality
from bra.errors import BRAError, brief
from bra.models.base import Change
from bra.models.catalog import ModelSettings
from bra.opening import stay_offline, yolo
from bra.photo import Photo
from bra.reports.layer_html import report_html
from bra.viewer.pack import FULL, Caption, Place

ULTRALYTICS: Final = ("train", "predict")
"""Commands whose arguments are Ultralytics' own."""
OWN_BLOCKS: Final = ("inspect", "lint", "cost", "compare")
"""Commands that take a person's own module file."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 2 for a request that was refused."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        if given[:1] and given[0] in ULTRALYTICS:
            return int(_yolo().ultralytics_command(given[0], given[1:]))
        args = _parser().parse_args(given)
        if getattr(args, "modules", None):
            yolo()      # says what is missing
            from bra.yolo.plugins import import_modules

            import_modules(args.modules)
        status: int = args.run(args)
    except BRAError as error:
        print(f"bra: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # Not every library says which file: then what it says itself is all there is.
        words = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else brief(error)
        print(f"bra: {words}: check the path.", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bra", description="See where bi-level routing attention looks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="write a stand-alone HTML report of one picture")
    inspect.set_defaults(run=_inspect)
    usual = ModelSettings()
    inspect.add_argument("picture", type=Path, help="PNG, JPEG, WebP, BMP, GIF or TIFF")
    inspect.add_argument("-o", "--output", type=output_file, default=Path("report.html"), help="default: %(default)s")
    add_model(inspect)
    inspect.add_argument("--layer", help="name of the layer; default: the first")
    inspect.add_argument("--n-win", type=int, help=f"windows per side, default {usual.n_win}, or the layer's own; of "
                                                   "every stage, where a file of BiFormer weights does not hold it")
    add_file_options(inspect)
    inspect.add_argument("--topk", type=int, help=f"routed windows, default {usual.topk}, or the layer's own")
    for role in "ab":
        inspect.add_argument(f"--{role}", type=_place, metavar="X,Y",
                             help=f"query {role.upper()} in per cent of width and height, such as 50,30")
    inspect.add_argument("--window-mean", action="store_true", help="attention of the whole window, not of one token")
    for mode in ULTRALYTICS:
        commands.add_parser(mode, help=f"yolo {mode}, with rows of attention known; its own arguments", add_help=False)
    cost = commands.add_parser("cost", help="what every layer of a model costs")
    cost.set_defaults(run=lambda args: run_cost(args, lambda name: _yolo().network_of(name),
                                                lambda model, counted: _yolo().reported_flops(model, counted)))
    add_arguments(cost)
    add_compare(commands.add_parser("compare", help="one layer on one picture under many settings"))
    add_probe(commands.add_parser("probe", help="whether routing follows what is in the picture"))
    add_sweep(commands.add_parser("sweep", help="a folder of pictures under many settings, into one table"))
    add_quality(commands.add_parser("quality", help="whether a model's routing brings like to like, by your labels"))
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
    transplant.add_argument("-o", "--output", type=output_file, default=Path("init.pt"), help="default: %(default)s")
    demo = commands.add_parser("train-demo", help="train a model of this package again, from a folder of its data")
    demo.set_defaults(run=_train_demo)
    demo.add_argument("name", choices=("bccd", "flowers", "aerial", "photos"))
    demo.add_argument("folder", type=Path, nargs="+", help="of the data; several for photos")
    demo.add_argument("-o", "--output", type=Path, help="default: runs/NAME; a run that was cut off there goes on")
    demo.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    demo.add_argument("--epochs", type=int, help="default: the recipe's")
    demo.add_argument("--judge", nargs=3, action="append", default=[], metavar=("NAME", "PICTURES", "LABELS"),
                      help="judge the routing of photos on these labelled pictures; may be given again")
    demo.add_argument("--imgsz", type=int, help="side in pixels, default: the recipe's")
    for name in OWN_BLOCKS:
        commands.choices[name].add_argument("--modules", metavar="FILE", help="a Python file of your own that defines "
                                            "blocks which rows name; it is run")
    return parser


def _train_demo(args: argparse.Namespace) -> int:
    if any(value is not None and value < 1 for value in (args.epochs, args.imgsz)) or min(args.seeds) < 0:
        raise BRAError("--epochs and --imgsz are 1 or more, --seeds 0 or more.")
    out = args.output or Path("runs") / args.name
    if args.name == "photos":
        from bra.training import distillation
        from bra.training.photos import train_photos

        usual = distillation.Recipe()
        recipe = replace(usual, epochs=args.epochs or usual.epochs, side=args.imgsz or usual.side)
        judged = {name: (Path(pictures), Path(labels)) for name, pictures, labels in args.judge}
        print("\n".join(train_photos(args.folder, out, args.seeds, recipe, judged).verdict))
        return 0
    if len(args.folder) > 1:
        raise BRAError(f"{args.name} learns from one folder: give one.")
    folder = args.folder[0]
    if args.name == "flowers":
        from bra.training.classifier import Recipe
        from bra.training.flowers import train_flowers

        asked = {"epochs": args.epochs, "side": args.imgsz}
        settings = replace(Recipe(), **{name: value for name, value in asked.items() if value is not None})
        card = train_flowers(folder, out, args.seeds, settings)
    else:
        stay_offline()      # nothing of a demonstration is fetched
        card = _yolo().run_demo(args.name, folder, out, args.seeds, args.epochs, args.imgsz)
    print("\n".join(card.verdict))
    return 0


def _yolo() -> ModuleType:
    """The commands that need Ultralytics; imported when asked for, since it is optional and takes seconds."""
    yolo()      # says what is missing
    from bra.cli import yolo as yolo_cli

    return yolo_cli


def _place(text: str) -> Place:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a place: write two numbers such as 50,30") from None
    if not (0 <= x <= 100 and 0 <= y <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not on the picture: give 0 to 100 per cent each")
    return round(x * FULL / 100), round(y * FULL / 100)


def _inspect(args: argparse.Namespace) -> int:
    asked = {name: value for name in ("n_win", "topk") if (value := getattr(args, name)) is not None}
    model, settings = open_asked_for(args)
    photo = Photo.from_bytes(args.picture.read_bytes())
    name = next(iter((*model.specs, *model.attending)), "") if args.layer is None else args.layer
    change = None
    if asked and not settings.entry.is_built_from_settings:
        spec = model.specs[name]
        change = Change(name, **{"n_win": spec.n_win, "topk": spec.topk, **asked})
    look = model.look(photo, settings.side, change)
    layers = look.trace.layers
    if name not in layers:
        raise BRAError(f"--layer {name} does not exist: choose one of {', '.join(layers)}.")
    pins = {role: place for role, place in (("a", args.a), ("b", args.b)) if place is not None}
    caption = Caption(model.label, name, model.origin, args.picture.name, model.untrained)
    page = report_html(photo, layers[name], caption, (FULL // 2, FULL // 2), pins, args.window_mean,
                       detections=look.answer.detections)
    args.output.write_text(page, encoding="utf-8")
    print(f"{args.output}: {len(page) / 1e6:.1f} MB")
    return 0
