"""Rules of routing on the built-in pictures: medians over pictures and routed layers, and how alike layers choose.

    python tests/bench/rules.py [flowers cells photos]
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from bra.experiments.compare import layer_inputs
from bra.experiments.rules import rules_of
from bra.metrics.between_layers import LayerPair, consecutive
from bra.metrics.rules import RULES, RuleRow
from bra.models.catalog import CATALOG, ModelSettings
from bra.opening import open_model
from bra.photo import Photo

PICTURES = sorted((Path(__file__).parents[2] / "sample_images").glob("*.jpg"))


def table(key: str) -> str:
    """One model: a line per rule, a line on its layers."""
    model, side = open_model(ModelSettings(key)), CATALOG[key].side
    found: dict[str, list[RuleRow]] = {name: [] for name in RULES}
    best: Counter[str] = Counter()
    pairs: list[LayerPair] = []
    seconds = []
    for path in PICTURES:
        photo = Photo.from_bytes(path.read_bytes())
        for given in layer_inputs(model, photo, side).values():
            began = time.process_time()
            rows = rules_of(given, given.own)
            seconds.append(time.process_time() - began)
            best[max((row for row in rows if not RULES[row.rule].control), key=lambda row: row.recall).rule] += 1
            for row in rows:
                found[row.rule].append(row)
        pairs += consecutive(model.look(photo, side).trace.layers)
    of = len(seconds)
    lines = [f"{key} at {side} px: {len(PICTURES)} pictures, {of} layers in all, {np.median(seconds):.2f} s a layer",
             f"{'':27}  keeps  change  keeps most of   MACs/BRA  bytes/BRA"]
    for name, rows in found.items():
        macs, read = (np.median([getattr(row, field) / getattr(bra, field) for row, bra in
                                 zip(rows, found["bra"], strict=True)]) for field in ("macs", "kv_bytes"))
        kept, change = (100 * np.median([getattr(row, field) for row in rows]) for field in ("recall", "change"))
        wins = "" if RULES[name].control else f"{best[name]} of {of}"
        lines.append(f"{RULES[name].name:27} {kept:5.1f} % {change:5.1f} % {wins:>13} {macs:10.2f} {read:10.2f}")
    if pairs:
        alike, by_chance, own, taken = (100 * np.nanmedian([getattr(pair, field) for pair in pairs]) for field in
                                        ("overlap", "chance", "recall", "carried"))
        lines.append(f"consecutive layers: overlap {alike:.1f} % (chance {by_chance:.1f} %); own choice keeps "
                     f"{own:.1f} %, that of the layer before {taken:.1f} %")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or ("flowers", "cells", "photos"):
        print(table(wanted), end="\n\n", flush=True)
