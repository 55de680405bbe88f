"""`bra quality`: whether a model's routing depends on the query and brings like to like, on pictures of one's own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bra.cli.arguments import add_model, add_patch_windows, open_asked_for
from bra.errors import BRAError
from bra.models.card import LayerQuality
from bra.models.catalog import DEFAULT
from bra.training.labelled import evenly, labelled_files, read_labelled
from bra.training.quality import routing_quality


def add_quality(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bra quality`."""
    parser.set_defaults(run=run_quality)
    parser.add_argument("folder", type=Path, help="of pictures")
    parser.add_argument("--labels", type=Path, metavar="MASKS",
                        help="folder with a file per picture, of the same stem: PNG whose pixels are numbers of "
                             "classes, or YOLO .txt boxes; without it nothing is said of overlap")
    add_model(parser, DEFAULT)
    add_patch_windows(parser)
    parser.add_argument("--ignore", type=int, nargs="+", default=[], metavar="CLASS", help="classes that do not count")
    parser.add_argument("--limit", type=int, default=60, help="most pictures, evenly spread; default %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_quality(args: argparse.Namespace) -> int:
    """Print one line of numbers per routed layer, or JSON."""
    if args.limit < 1:
        raise BRAError("--limit is 1 or more.")
    chosen = evenly(labelled_files(args.folder, args.labels), args.limit)
    model, settings = open_asked_for(args)
    rows = routing_quality(model, read_labelled(chosen), settings.side, lambda line: print(line, file=sys.stderr),
                           args.ignore)
    if args.json:
        print(json.dumps({"model": args.model, "layers": [layer_of(row) for row in rows]}, indent=1))
    else:
        print(f"{model.label}: {len(chosen)} pictures at {settings.side} px\n{table(rows)}")
    return 0


def layer_of(row: LayerQuality) -> dict[str, Any]:
    """One layer as it stands in the JSON."""
    return {"layer": row.layer, "n_win": row.n_win, "topk": row.topk, "overlap": row.overlap,
            "overlap_chance": row.overlap_chance, "overlap_nearest": row.overlap_nearest,
            "overlap_oracle": row.overlap_oracle, "shared_choices": row.shared,
            "query_dependence": row.query_dependence, "recall": row.recall}


def table(rows: Sequence[LayerQuality]) -> str:
    """One line per layer under a header, and what to look for."""
    names = [*layer_of(rows[0])]
    cells = [names, *([value if isinstance(value, str) else "–" if value is None else
                       str(value) if isinstance(value, int) else f"{value:.3f}" for value in layer_of(row).values()]
                      for row in rows)]
    wide = [max(len(line[n]) for line in cells) for n in range(len(names))]
    lines = ["  ".join(cell.ljust(w) if n == 0 else cell.rjust(w)
                       for n, (cell, w) in enumerate(zip(line, wide, strict=True))) for line in cells]
    lines = [line + ("  collapsed" if at and rows[at - 1].collapsed else "") for at, line in enumerate(lines)]
    return "\n".join([*lines, "Good: overlap above overlap_nearest, shared_choices low, query_dependence high. "
                              "Recall alone says little: it is high in a layer whose attention collapsed too."])
