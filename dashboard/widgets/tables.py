"""Tables: how they are drawn, and the rows of those of Cost and Models by the heads of their columns in English."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import pandas as pd
import streamlit as st

from bra.figures.card import metric_name, variant_name, variant_of
from bra.models.card import LayerQuality, ModelCard
from bra.profiling.advice import Choice, SettingChange
from bra.profiling.model_cost import Cost
from bra.units import quantity
from dashboard.i18n import tr, tr_noop, translate

Table = list[dict[str, Any]]
AMOUNTS = MappingProxyType({
    "parameters": "", "multiply-adds": "", tr_noop("peak memory"): "B", tr_noop("memory, fused"): "B",
    tr_noop("memory, written out"): "B", tr_noop("parameters saved"): "", tr_noop("multiply-adds saved"): "",
    tr_noop("memory saved"): "B"})
"""Large numbers of the page Cost by their columns, and their units."""


def bra_after(cost: Cost, plain: Cost) -> set[str]:
    """Names, without BRA, of the rows that a BRA row stands after."""
    found, at = set(), -1
    for row in cost.rows:
        kind = row.name.partition(" ")[2].removesuffix("BRA")
        if at + 1 < len(plain.rows) and plain.rows[at + 1].name.partition(" ")[2] == kind:
            at += 1
        elif row.layers and at >= 0:
            found.add(plain.rows[at].name)
    return found


def row_table(cost: Cost) -> Table:
    """The rows, those with BRA first, numbers as they are, fit to be sorted."""
    found = []
    for row in sorted(cost.rows, key=lambda row: not row.layers):
        grid = row.grid
        line: dict[str, Any] = {
            tr_noop("row"): translate(row.name), tr_noop("parameters"): row.params, tr_noop("multiply-adds"): row.macs,
            tr_noop("share, %"): 100 * row.share, tr_noop("peak memory"): row.peak_bytes}
        if row.ms is not None:
            line |= {tr_noop("time, ms"): row.ms, tr_noop("of the time, %"): 100 * (row.time_share or 0)}
        line[tr_noop("tokens")] = f"{grid.h}×{grid.w}" if grid else ""
        line[tr_noop("padding")] = tr("{share:.1f} %", share=100 * grid.padding_share) if grid else ""
        found.append(line)
    return found


def against_table(costs: dict[str, Cost]) -> Table:
    """One line per way to have the model: its totals, and each in per cent of the first."""
    first = next(iter(costs.values())).total
    names = {tr_noop("parameters"): "params", tr_noop("multiply-adds"): "macs", tr_noop("peak memory"): "peak_bytes"}
    shares = {tr_noop("parameters, %"): "params", tr_noop("multiply-adds, %"): "macs", tr_noop("peak, %"): "peak_bytes"}
    return [{"": translate(kind), **{name: getattr(cost.total, field) for name, field in names.items()},
             **{name: 100 * getattr(cost.total, field) / (getattr(first, field) or 1)
                for name, field in shares.items()}} for kind, cost in costs.items()]


def choice_table(choices: Sequence[Choice]) -> Table:
    """Ways to cut a map at equal coverage."""
    over = {(): "", ("explicit",): tr_noop("attention written out"), ("fused",): tr_noop("fused"),
            ("explicit", "fused"): tr_noop("attention written out and fused")}
    return [{"n_win": one.n_win, "topk": one.topk, tr_noop("covers, %"): 100 * one.coverage,
             tr_noop("padding, %"): 100 * one.padding_share, tr_noop("multiply-adds"): one.layer.macs,
             tr_noop("memory, fused"): one.layer.peak_bytes,
             tr_noop("memory, written out"): one.layer.explicit_peak_bytes,
             tr_noop("over 1 GiB"): translate(over[one.explodes])} for one in choices]


def setting_change_table(setting_changes: Sequence[SettingChange]) -> Table:
    """What each change of one setting saves."""
    return [{tr_noop("change"): one.change, tr_noop("parameters saved"): one.params, tr_noop("multiply-adds "
                                                                                             "saved"): one.macs,
             tr_noop("memory saved"): one.peak_bytes, tr_noop("why"): translate(one.why)} for one in setting_changes]


def routing_table(card: ModelCard) -> Table:
    """One row per layer of the shipped weights: whether its routing depends on the query and brings like to like."""
    rows = []
    for layer in card.quality["trained"]:
        shares = {tr_noop("shared choices"): layer.shared, tr_noop("depends on the query"): layer.query_dependence,
                  tr_noop("overlap"): layer.overlap, tr_noop("overlap of the nearest"): layer.overlap_nearest}
        rows.append({tr_noop("layer"): layer.layer,
                     **{name: 100 * share for name, share in shares.items() if share is not None},
                     tr_noop("collapsed"): translate(tr_noop("yes")) if layer.collapsed else ""})
    return rows


def score_table(card: ModelCard) -> list[dict[str, str]]:
    """One row per variant: each metric's mean over seeds, and its smallest and largest value."""
    rows = []
    for variant, metrics in card.scores.items():
        row = {tr_noop("variant"): variant, tr_noop("seeds"): str(len(next(iter(metrics.values()))))}
        for metric, values in metrics.items():
            row[metric_name(metric)] = _spread(values, 3)
        rows.append(row)
    return rows


def _spread(values: Sequence[float], decimals: int) -> str:
    """The mean of numbers, and in brackets their smallest and largest where these are not written alike."""
    mean, low, high = (f"{one:.{decimals}f}" for one in (sum(values) / len(values), min(values), max(values)))
    return mean if low == high else tr("{mean} ({low} to {high})", mean=mean, low=low, high=high)


def run_table(card: ModelCard) -> Table:
    """One row per variant and layer, over all runs whose routing was measured: mean over seeds, and smallest and
    largest value."""
    found: dict[tuple[str, str], list[LayerQuality]] = {}
    for run, layers in {card.shipped: card.quality["trained"], **card.quality}.items():
        for layer in layers if run in card.curves else ():
            found.setdefault((variant_of(run), layer.layer), []).append(layer)

    def per_cent(values: list[float | None]) -> str:
        known = [100 * value for value in values if value is not None]
        return _spread(known, 0) if known else "–"

    return [{tr_noop("variant"): variant_name(variant, translate), tr_noop("layer"): layer, tr_noop("seeds"): len(rows),
             tr_noop("overlap, %"): per_cent([row.overlap for row in rows]),
             tr_noop("of the nearest, %"): per_cent([row.overlap_nearest for row in rows]),
             tr_noop("shared choices, %"): per_cent([row.shared for row in rows]),
             tr_noop("depends on the query, %"): per_cent([row.query_dependence for row in rows])}
            for (variant, layer), rows in found.items()]


# How tables are drawn. ----------------------------------------------------------------------------------------------

WIDE: Final[Mapping[str, int]] = MappingProxyType({"weighed": 400, "over 1 GiB": 220, "probe": 620})
"""Columns of short sentences, and the pixels that they get."""


def heads(names: Iterable[str], percents: Collection[str] = ()) -> dict[str, Any]:
    """The heads of columns in the visitor's language, over fields whose names stay as they are.

    Args:
        names: the fields, which are the heads in English.
        percents: those that hold per cents.
    """
    return {name: st.column_config.NumberColumn(translate(name), format=tr("%.1f %%")) if name in percents
            else st.column_config.Column(translate(name), width=WIDE.get(name)) for name in names if name}


def _amount(value: float, unit: str) -> str:
    """2610000000 -> "2.61 G", -1200 bytes -> "−1.2 kB"."""
    gap = " " if unit and abs(value) < 1000 else ""
    return ("−" if value < 0 else "") + quantity(abs(value)) + gap + unit


MOST_ROWS, LONG_TABLE = 40, 640
"""Rows that a table shows at once, and the height in pixels of one that has more."""


def table(rows: list[dict[str, Any]], decimals: Collection[str] = (),
          amounts: Mapping[str, str] = MappingProxyType({}), percents: Collection[str] = ()) -> None:
    """A sortable table of numbers with thousands apart; one that does not show all its rows at once says how many.

    Args:
        rows: the lines, by the heads of their columns in English.
        decimals: columns whose numbers are shown with one decimal.
        amounts: columns whose numbers are shown with three digits and a letter, as 2.61 G, and the unit behind it; what
            is sorted, copied and saved stays exact.
        percents: columns that hold per cents.
    """
    frame = pd.DataFrame(rows)
    short = {name: unit for name, unit in amounts.items() if name in frame}
    formats = heads(frame.columns, percents)
    formats |= {name: st.column_config.NumberColumn(translate(name),
                                                    format="%.1f" if name in decimals else "localized")
                for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])
                and name not in short and name not in percents}
    written = {name: partial(_amount, unit=unit) for name, unit in short.items()}
    long = len(frame) > MOST_ROWS
    st.dataframe(frame.style.format(written) if written else frame, hide_index=True, width="stretch",
                 height=LONG_TABLE if long else "content", column_config=formats)
    if long:
        st.caption(tr("{n} rows: scroll in the table for those below.", n=len(frame)))


def sentence_table(rows: list[dict[str, Any]], amounts: Mapping[str, str]) -> None:
    """A small table with whole sentences in it, which go on in a next line; arguments as for `table`."""
    frame = pd.DataFrame(rows)
    written = {translate(name): partial(_amount, unit=unit) for name, unit in amounts.items() if name in frame}
    frame.columns = pd.Index([translate(name) for name in frame])
    st.table(frame.style.format(written), hide_index=True)
