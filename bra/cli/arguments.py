"""Arguments that several commands share: the model, counts, files to write."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

from bra.cli.file_options import add_file_options, file_options, say_assumptions
from bra.models.base import FileOptions, OpenModel
from bra.models.catalog import CATALOG, ModelSettings
from bra.opening import model_and_variant, open_file, open_model
from bra.spec import KVDownsampleMode


def add_model(parser: argparse.ArgumentParser, default: str = ModelSettings().model) -> None:
    """Which model, with which weights, and how large it reads the picture."""
    usual = ModelSettings()
    parser.add_argument("--model", default=default, metavar="NAME|FILE",
                        help=f"{', '.join(key for key in CATALOG if key != 'own')}; a variant such as yolov8n-bra, "
                             "biformer_tiny; or your own file (YAML, .pt, .pth, .safetensors); default %(default)s")
    parser.add_argument("--untrained", action="store_true", help="random weights in place of trained ones")
    parser.add_argument("--side", type=int, help="longer side in pixels, default what suits the model")
    parser.add_argument("--heads", type=int, default=usual.num_heads, help="of a patch model, default %(default)s")
    parser.add_argument("--stride", type=int, default=usual.stride,
                        help="pixels per token of a patch model, default %(default)s")
    parser.add_argument("--pool", choices=get_args(KVDownsampleMode), default=usual.kv_downsample_mode,
                        help="pooling of k and v in a patch model, default %(default)s")
    parser.add_argument("--pool-ratio", type=int, default=usual.kv_downsample_ratio, help="default %(default)s")
    parser.add_argument("--mask-padding", action="store_true", help="a patch model leaves padded tokens out")


def add_patch_windows(parser: argparse.ArgumentParser) -> None:
    """The windows that a patch model is built with, where --n-win and --topk are taken for what is compared; and what
    a file cannot tell."""
    usual = ModelSettings()
    parser.add_argument("--model-n-win", type=int, metavar="N",
                        help=f"of a patch model, default {usual.n_win}; of every stage, where a file of BiFormer "
                             "weights does not hold it")
    parser.add_argument("--model-topk", type=int, default=usual.topk, help="of a patch model, default %(default)s")
    add_file_options(parser)


def model_asked_for(args: argparse.Namespace) -> tuple[ModelSettings, bytes]:
    """The model that the arguments of `add_model` name, and its bytes where it is a file.

    Raises:
        BRAError: there is no such model, or its settings cannot be.
    """
    key, variant = model_and_variant(args.model)
    entry = CATALOG[key]
    settings = ModelSettings(key, num_heads=args.heads, stride=args.stride, variant=variant, untrained=args.untrained,
                             side=entry.side if args.side is None else args.side,
                             kv_downsample_mode=args.pool, kv_downsample_ratio=args.pool_ratio,
                             mask_padding=args.mask_padding,
                             file=file_options(args) if entry.needs_file else FileOptions())
    if entry.is_built_from_settings:
        own = "model_" if hasattr(args, "model_n_win") else ""
        asked = {name: getattr(args, own + name) for name in ("n_win", "topk")}
        settings = replace(settings, **{name: value for name, value in asked.items() if value is not None})
    return settings, Path(args.model).read_bytes() if entry.needs_file else b""


def open_asked_for(args: argparse.Namespace) -> tuple[OpenModel, ModelSettings]:
    """The model of `model_asked_for`, opened; what was assumed of a file is said on the error stream.

    Raises:
        BRAError: there is no such model, its settings cannot be, or its file cannot be opened.
    """
    settings, file = model_asked_for(args)
    model = open_file(file, Path(args.model).name, options=settings.file) if settings.entry.needs_file else \
        open_model(settings)
    say_assumptions(model)
    return model, settings


def count(text: str) -> int:
    """A number of rounds: 0 or more."""
    if not text.isdecimal() or int(text) > 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not possible: a whole number from 0 to 10000")
    return int(text)


def output_file(text: str) -> Path:
    """A file to write; its folder must be there, which is better known before the work than after it."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: the folder {path.parent} does not exist: make it first")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file in it")
    return path
