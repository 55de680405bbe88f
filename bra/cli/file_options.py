"""Arguments about a model's file: what it cannot tell, where whoever made it knows."""

from __future__ import annotations

import argparse
import sys

from bra.models.base import FileOptions, OpenModel


def add_file_options(parser: argparse.ArgumentParser, n_win: str = "") -> None:
    """The arguments of `file_options`.

    Args:
        parser: of a command that opens a model's file.
        n_win: name of the argument for its windows; "" where the command has `--model-n-win`, or an `--n-win` that is
            one number, which serves.
    """
    if n_win:
        parser.add_argument(n_win, dest="file_n_win", type=int, metavar="N",
                            help="windows per side of BiFormer weights, which a file of tensors does not hold")
    parser.add_argument("--topks", type=_topks, default=(), metavar="K,…",
                        help="routed windows in each stage of such weights, -2 for full attention: --topks=2,8,8,-2")
    parser.add_argument("--heads-first", action="store_true",
                        help="rows of BiLevelRoutingAttention in a YOLO model file begin with the heads, as in the "
                             "authors' class; the tutorial's begin with n_win")


def file_options(args: argparse.Namespace) -> FileOptions:
    """What was said of the file."""
    asked = (getattr(args, name, None) for name in ("file_n_win", "model_n_win", "n_win"))
    return FileOptions(next((n for n in asked if isinstance(n, int)), None), args.topks, args.heads_first)


def say_assumptions(model: OpenModel) -> None:
    """Print what was assumed of a file and left out of it, on the error stream."""
    for sentence in (*model.assumptions, *model.notes):
        print(f"note: {sentence}", file=sys.stderr, flush=True)


def _topks(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers: write --topks=1,4,16,-2") from None
