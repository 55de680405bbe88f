"""`bra cost`: the table of a model on the command line."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Final

from torch import nn

from bra.cli.arguments import count
from bra.cli.file_options import add_file_options, file_options, say_assumptions
from bra.errors import BRAError
from bra.models.base import FileOptions
from bra.models.catalog import CATALOG, ModelSettings
from bra.opening import model_and_variant, open_file, open_model, stay_offline, yolo
from bra.profiling.format import cost_csv, cost_json, cost_markdown, cost_text, summary
from bra.profiling.model_cost import Cost, cost
from bra.profiling.variants import without_bra

FORMATS: Final = {"json": cost_json, "csv": cost_csv, "md": cost_markdown}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bra cost`."""
    known = ", ".join(key for key in CATALOG if key != "own")
    parser.add_argument("model", help="a file of your own, the name of a YOLO model file such as yolov8n-bra.yaml, a "
                                      f"size such as biformer_tiny, or one of {known}")
    parser.add_argument("--imgsz", type=_size, default=(640, 640), metavar="N|HxW",
                        help="side of the picture in pixels, or height x width such as 416x736; default 640")
    parser.add_argument("--time", type=count, default=0, metavar="ROUNDS",
                        help="also time every row on this machine, the median of so many forwards")
    add_file_options(parser, "--n-win")
    formats = parser.add_mutually_exclusive_group()
    for name in FORMATS:
        formats.add_argument(f"--{name}", dest="format", action="store_const", const=name, help=f"print {name.upper()}")


def run_cost(args: argparse.Namespace, yolo_network: Callable[[str], nn.Module],
             yolo_words: Callable[[nn.Module, Cost], object]) -> int:
    """Print the table.

    Args:
        args: of `add_arguments`.
        yolo_network: builds the network of a YOLO file.
        yolo_words: what to say of one below its table.
    """
    stay_offline()
    _say(f"counting {args.model} at {args.imgsz[0]}×{args.imgsz[1]} …")
    model, marked = _network(args.model, yolo_network, file_options(args))
    counted = marked(cost(model, args.imgsz, rounds=args.time, progress=_progress))
    if args.format:
        print(FORMATS[args.format](counted))
        return 0
    width = shutil.get_terminal_size((100, 24)).columns
    print(cost_text(counted, width))
    sentences = [*summary(counted, cost(without_bra(model), args.imgsz))]
    if hasattr(model, "yaml"):
        sentences.append(str(yolo_words(model, counted)))
    print(*(textwrap.fill(sentence, width) for sentence in sentences), sep="\n")
    return 0


def _network(name: str, yolo_network: Callable[[str], nn.Module],
             options: FileOptions) -> tuple[nn.Module, Callable[[Cost], Cost]]:
    """What a name or a file means everywhere; a model file of Ultralytics' own, by its name, too.

    Of a file with rows that are not known stand-ins are counted, and what is made of the cost says which.
    """
    try:
        key, variant = model_and_variant(name)
    except BRAError:
        if name.endswith((".yaml", ".yml", ".pt")):
            return yolo_network(name), _as_it_is
        raise
    file = Path(name)
    if key == "own" and file.suffix in (".yaml", ".yml"):
        yolo()      # says what is missing
        from bra.yolo.guesses import guessed_text

        guesses, text = guessed_text(file.read_text(encoding="utf-8"))
        if guesses.rows:
            _say(guesses.sentence)
            return open_file(text, file.name, options=options).module, guesses.named
    if key == "own":
        opened = open_file(file.read_bytes(), file.name, options=options)
        say_assumptions(opened)
        return opened.module, _as_it_is
    return open_model(ModelSettings(key, variant=variant)).module, _as_it_is


def _as_it_is(counted: Cost) -> Cost:
    return counted


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write 640, or 416x736 for height and width")
    return int(sides[0]), int(sides[-1])


def _progress(done: int, of: int) -> None:
    _say(f"forward {done} of {of}")


def _say(words: str) -> None:
    """On the error stream, so that what is printed can be piped into a file."""
    print(words, file=sys.stderr, flush=True)
