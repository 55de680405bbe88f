"""What a model pays for BRA, in sentences, and the words for the parts of a BRA layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bra.costing import Cost, CostRow

PARTS: Final[Mapping[str, str]] = {
    "qkv": "projection to q, k, v", "routing": "routing between windows", "pooling": "pooling of k, v",
    "QKᵀ": "queries × keys (QKᵀ)", "AV": "weights × values (AV)", "LePE": "local position (LePE)",
    "output": "output projection"}
"""Parts of `bra.formula`, for people."""
REST: Final = "everything else"
NO_BREAK: Final = "\u00a0"


def part_words(name: str) -> str:
    """"attn.0.attn QKᵀ" and "QKᵀ" -> its words; what is no part of a BRA layer is everything else."""
    return PARTS.get(name.rpartition(" ")[2], REST)


def short(name: str) -> str:
    """A row's name, the longest class of all by its usual letters."""
    return name.replace("BiLevelRoutingAttention", "BRA")


def summary(cost: Cost, plain: Cost) -> tuple[str, ...]:
    """Three sentences: what the model pays for BRA, where most of that sits, and what it needs at its worst moment.

    Args:
        cost: of the model.
        plain: of the same model without BRA, at the same size.
    """
    total, rows = cost.total, [row for row in cost.rows if row.layers]
    size = f"{cost.input[2]}×{cost.input[3]}"
    whole = f"{_millions(total.params)} parameters and takes {_billions(total.macs)} multiply-adds per image of {size}"
    if not rows:
        return (f"This model has {whole}, none of it for BRA: it has no BRA layer.",)
    params, macs = total.params - plain.total.params, total.macs - plain.total.macs
    layers = sum(len(row.layers) for row in rows)
    written = max(layer.explicit_peak_bytes for row in rows for layer in row.layers)
    return (
        f"This model has {whole}; BRA adds {_millions(params)} ({share(params, total.params)}) and {_billions(macs)} "
        f"({share(macs, total.macs)}) of that, in {layers} layer{'s' * (layers > 1)}.",
        _where(rows),
        f"At its worst moment one image needs {_mega(total.peak_bytes)} beside the weights, "
        f"{_mega(plain.total.peak_bytes)} without BRA; with attention written out, as the usual copies of the module "
        f"do, one layer alone would take {_mega(written)}.")


def _where(rows: list[CostRow]) -> str:
    macs, params = ({row.name: sum(getattr(layer, what) for layer in row.layers) for row in rows}
                    for what in ("macs", "params"))
    busiest, largest = max(rows, key=lambda row: macs[row.name]), max(rows, key=lambda row: params[row.name])
    parts: dict[str, int] = {}
    for layer in busiest.layers:
        for part in layer.parts:
            parts[part.name] = parts.get(part.name, 0) + part.macs
    attending = parts.get("QKᵀ", 0) + parts.get("AV", 0)
    grid, here = busiest.layers[0].grid, macs[busiest.name]
    sentence = (f"Of BRA's multiply-adds {share(here, sum(macs.values()))} are in {short(busiest.name)}, "
                f"{grid.h}×{grid.w} tokens of {busiest.layers[0].spec.dim} channels: {share(attending, here)} of them "
                f"attend (QKᵀ, AV), {share(parts['qkv'] + parts['output'], here)} project (q, k, v, output)")
    if len(rows) == 1:
        return f"{sentence}."
    return (f"{sentence}; of its parameters {share(params[largest.name], sum(params.values()))} are in "
            f"{short(largest.name)}.")


def share(part: float, whole: float) -> str:
    """A share in per cent."""
    return f"{100 * part / whole if whole else 0:.1f}{NO_BREAK}%"


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f}{NO_BREAK}M"


def _billions(number: int) -> str:
    return f"{number / 1e9:.2f}{NO_BREAK}G"


def _mega(size: int) -> str:
    return f"{size / 1e6:,.1f}{NO_BREAK}MB"
