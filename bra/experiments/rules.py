"""Rules of routing over a folder of pictures: the table of a sweep with `--rules`, and its medians."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bra.experiments.compare import GivenLayer, Setting, traces_of
from bra.experiments.sweep_table import schema_of
from bra.metrics.overlap import Boxes, LabelMap, labels_on_grid
from bra.metrics.rules import RuleRow, try_rules

RULE_SCHEMA: Final = schema_of(RuleRow)


@dataclass(frozen=True, slots=True)
class RuleSummary:
    """All rules in one layer under one setting over all pictures.

    Attributes:
        layer: its name.
        pictures: how many.
        rows: the medians of each rule's numbers.
    """

    layer: str
    pictures: int
    rows: tuple[RuleRow, ...]


def rules_of(given: GivenLayer, setting: Setting, labels: Boxes | LabelMap | None = None,
             progress: Callable[[int, int], None] = lambda done, todo: None) -> tuple[RuleRow, ...]:
    """`try_rules` of a layer under a setting; labels as `read_labels` gives them.

    Raises:
        BRAError: the setting cannot be.
    """
    trace = traces_of(given, [setting])[0]
    on_grid = None if labels is None or not len(labels) else labels_on_grid(trace.grid, labels)
    return try_rules(trace, on_grid, progress=progress)


def rule_summaries(table: pa.Table) -> tuple[RuleSummary, ...]:
    """Medians over pictures of each layer and setting, in the order in which they first appear."""
    found: dict[tuple[str, int, int], dict[str, list[Mapping[str, Any]]]] = {}
    for row in table.to_pylist():
        found.setdefault((row["layer"], row["n_win"], row["topk"]), {}).setdefault(row["rule"], []).append(row)
    return tuple(RuleSummary(layer, max(map(len, rules.values())),
                             tuple(_median(name, rows) for name, rows in rules.items()))
                 for (layer, _, _), rules in found.items())


def _median(rule: str, rows: list[Mapping[str, Any]]) -> RuleRow:
    def of(name: str) -> float:
        return float(np.median([row[name] for row in rows]))

    known = [row["overlap"] for row in rows if row["overlap"] is not None]
    return RuleRow(rule, rows[0]["n_win"], rows[0]["topk"], of("recall"), of("change"), round(of("macs")),
                   round(of("kv_bytes")), float(np.median(known)) if known else None)
