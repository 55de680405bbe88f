"""What a model pays for BRA, in sentences, and the words for the parts of a BRA layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bra.costing import Cost, CostRow
from bra.messages import said

PARTS: Final[Mapping[str, str]] = {
    "qkv": said("projection to q, k, v"), "routing": said("routing between windows"),
    "pooling": said("pooling of k, v"), "QKᵀ": said("queries × keys (QKᵀ)"), "AV": said("weights × values (AV)"),
    "LePE": said("local position (LePE)"), "output": said("output projection")}
"""Parts of `bra.formula`, for people."""
REST: Final = said("everything else")
NO_BREAK: Final = "\u00a0"


def part_words(name: str) -> str:
    """"attn.0.attn QKᵀ" and "QKᵀ" -> its words; what is no part of a BRA layer is everything else."""
    return PARTS.get(name.rpartition(" ")[2], REST)


def short(name: str) -> str:
    """A row's name, the longest class of all by its usual letters."""
    return name.replace("BiLevelRoutingAttention", "BRA") if "BiLevelRoutingAttention" in name else name


def summary(cost: Cost, plain: Cost) -> tuple[str, ...]:
    """Three sentences: what the model pays for BRA, where most of that sits, and what it needs at its worst moment.

    Args:
        cost: of the model.
        plain: of the same model without BRA, at the same size.
    """
    total, rows = cost.total, [row for row in cost.rows if row.layers]
    size = f"{cost.input[2]}×{cost.input[3]}"
    whole = said("{params} parameters and takes {macs} multiply-adds per image of {size}",
                 params=_millions(total.params), macs=_billions(total.macs), size=size)
    if not rows:
        return (said("This model has {whole}, none of it for BRA: it has no BRA layer.", whole=whole),)
    params, macs = total.params - plain.total.params, total.macs - plain.total.macs
    layers = sum(len(row.layers) for row in rows)
    written = max(layer.explicit_peak_bytes for row in rows for layer in row.layers)
    return (
        said("This model has {whole}; BRA adds {params} ({params_share}) and {macs} ({macs_share}) of that, in "
             "{layers}.", whole=whole, params=_millions(params),
             params_share=share(params, total.params), macs=_billions(macs),
             macs_share=share(macs, total.macs),
             layers=said("{n} layers", n=layers) if layers > 1 else said("1 layer")),
        _where(rows),
        said("At its worst moment one image needs {memory} beside the weights, {plain} without BRA; with attention "
             "written out, as the usual copies of the module do, one layer alone would take {written}.",
             memory=_mega(total.peak_bytes), plain=_mega(plain.total.peak_bytes), written=_mega(written)))


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
    sentence = said("Of BRA's multiply-adds {share} are in {row}, {h}×{w} tokens of {channels} channels: {attending} "
                    "of them attend (QKᵀ, AV), {projecting} project (q, k, v, output)",
                    share=share(here, sum(macs.values())), row=short(busiest.name), h=grid.h, w=grid.w,
                    channels=busiest.layers[0].spec.dim, attending=share(attending, here),
                    projecting=share(parts["qkv"] + parts["output"], here))
    if len(rows) == 1:
        return said("{sentence}.", sentence=sentence)
    return said("{sentence}; of its parameters {share} are in {row}.", sentence=sentence,
                share=share(params[largest.name], sum(params.values())), row=short(largest.name))


def share(part: float, whole: float) -> str:
    """A share in per cent."""
    return said("{n:.1f}\u00a0%", n=100 * part / whole if whole else 0)


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f}{NO_BREAK}M"


def _billions(number: int) -> str:
    return f"{number / 1e9:.2f}{NO_BREAK}G"


def _mega(size: int) -> str:
    return f"{size / 1e6:,.1f}{NO_BREAK}MB"
