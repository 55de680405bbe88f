"""`bra cost`: the table of a model on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Final

from torch import nn

from bra.cost_table import cost_csv, cost_json, cost_markdown, cost_text
from bra.costing import Cost, cost
from bra.errors import BRAError
from bra.models.biformer import biformer_base, biformer_small, biformer_stl, biformer_tiny
from bra.models.catalog import CATALOG, ModelSettings, build

BIFORMERS: Final = {"biformer_tiny": biformer_tiny, "biformer_small": biformer_small, "biformer_base": biformer_base,
                    "biformer_stl": biformer_stl}
FORMATS: Final = {"json": cost_json, "csv": cost_csv, "md": cost_markdown}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bra cost`."""
    parser.add_argument("model", help="a YOLO model file or name such as yolov8n-bra.yaml, a .pt file, or one of "
                                      f"{', '.join([*CATALOG, *BIFORMERS])}")
    parser.add_argument("--imgsz", type=_size, default=(640, 640), metavar="N|HxW",
                        help="side of the picture in pixels, or height x width such as 416x736; default 640")
    parser.add_argument("--time", type=int, default=0, metavar="ROUNDS",
                        help="also time every row on this machine, the median of so many forwards")
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
    is_yolo = args.model not in CATALOG and args.model not in BIFORMERS
    if is_yolo and not args.model.endswith((".yaml", ".yml", ".pt")):
        raise BRAError(f"model {args.model!r} is not known: give a .yaml or .pt file, or one of "
                       f"{', '.join([*CATALOG, *BIFORMERS])}.")
    _say(f"counting {args.model} at {args.imgsz[0]}×{args.imgsz[1]} …")
    model = yolo_network(args.model) if is_yolo else _ours(args.model)
    counted = cost(model, args.imgsz, rounds=args.time, progress=_progress)
    print(FORMATS[args.format](counted) if args.format else cost_text(counted))
    if is_yolo and not args.format:
        print(yolo_words(model, counted))
    return 0


def _ours(name: str) -> nn.Module:
    return BIFORMERS[name]() if name in BIFORMERS else build(ModelSettings(name))


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
