"""A cost as a table: for a terminal, as Markdown, as CSV, as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bra.grid import WindowGrid
from bra.messages import message
from bra.profiling.formula import Part
from bra.profiling.meter import Shape
from bra.profiling.model_cost import Cost, CostRow
from bra.units import billions, megabytes, millions

CSV_COLUMNS = ("line", "name", "params", "macs", "executed_macs", "share", "peak_bytes", "alive_bytes", "basis",
               "given", "returned", "tokens", "padded", "n_win", "padding_share", "ms", "time_share", "calls",
               "elements")


def cost_text(cost: Cost) -> str:
    """For a terminal: millions of multiply-adds, megabytes of 10⁶."""
    lines = list(_lines(cost, exact=False))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = (0, *range(_figures(cost), len(widths)))
    rows = ["  ".join(cell.ljust(n) if i in left else cell.rjust(n) for i, (cell, n) in
                      enumerate(zip(line, widths, strict=True))).rstrip() for line in lines]
    rule = "-" * max(map(len, rows))
    return "\n".join([rows[0], rule, *rows[1:-1], rule, rows[-1], f"not counted: {_left_out(cost)}"])


def cost_markdown(cost: Cost) -> str:
    """A Markdown table with whole numbers."""
    head, *lines = [[cell.replace("|", r"\|") for cell in line] for line in _lines(cost, exact=True)]
    aligned = ["--:" if 0 < i < _figures(cost) else ":--" for i in range(len(head))]
    left_out = ["not counted", *[""] * (len(head) - 2), _left_out(cost)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, aligned, *lines, left_out])


def cost_csv(cost: Cost) -> str:
    """One line per row, part and operator left out; the column `line` says which. Shapes are written 1x64x80x80."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for row in (*cost.rows, cost.total):
        grid = row.grid
        where: dict[str, Any] = {} if grid is None else {
            "tokens": f"{grid.h}x{grid.w}", "padded": f"{grid.H}x{grid.W}", "n_win": grid.n_win,
            "padding_share": grid.padding_share}
        figures = {name: getattr(row, name) for name in CSV_COLUMNS if name in CostRow.__slots__}
        shapes = {name: " ".join("x".join(map(str, shape)) for shape in getattr(row, name))
                  for name in ("given", "returned")}
        writer.writerow({"line": "total" if row is cost.total else "row", **figures, **shapes, **where})
        for part in row.parts:
            writer.writerow({"line": "part", **{name: getattr(part, name) for name in Part.__slots__}})
    for one in cost.not_counted:
        writer.writerow({"line": "not counted", "name": one.name, "calls": one.calls, "elements": one.elements})
    return text.getvalue()


def cost_json(cost: Cost) -> str:
    """`Cost.to_dict` as JSON."""
    return json.dumps(cost.to_dict(), indent=1, ensure_ascii=False)


def _figures(cost: Cost) -> int:
    """Index of the first column that holds words again."""
    return 7 if cost.rounds else 5


def _lines(cost: Cost, exact: bool) -> Iterator[list[str]]:
    timed = ["ms", "time"] if cost.rounds else []
    yield ["row", "params", "MACs" if exact else "M MACs", "share", "peak bytes" if exact else "peak MB", *timed,
           "from", "in", "out", "tokens and padding"]
    for row in (*cost.rows, cost.total):
        times = [f"{row.ms:.3f}", f"{row.time_share:.1%}"] if row.ms is not None else [""] * len(timed)
        yield [row.name, *_numbers(row, row.share, exact), *times, row.basis, _shapes(row.given), _shapes(row.returned),
               _tokens(row.grid)]
        for part in row.parts:
            share = part.macs / cost.total.macs if cost.total.macs else 0.0
            yield [f"  {part.name}", *_numbers(part, share, exact), *[""] * len(timed), part.basis, "", "", ""]


def _numbers(line: CostRow | Part, share: float, exact: bool) -> list[str]:
    if exact:
        return [f"{line.params:,}", f"{line.macs:,}", f"{share:.1%}", f"{line.peak_bytes:,}"]
    return [f"{line.params:,}", f"{line.macs / 1e6:,.3f}", f"{share:.1%}", f"{line.peak_bytes / 1e6:,.2f}"]


def _shapes(shapes: tuple[Shape, ...]) -> str:
    """Without the leading 1 of the batch; of many, the first."""
    shown = " + ".join("×".join(map(str, shape[1:] or shape)) for shape in shapes[:2])
    return f"{shown} + {len(shapes) - 2} more" if len(shapes) > 2 else shown


def _tokens(grid: WindowGrid | None) -> str:
    if grid is None:
        return ""
    windows = f"{grid.h}×{grid.w} in {grid.n_win}×{grid.n_win} windows"
    return f"{windows}, padded to {grid.H}×{grid.W}, {grid.padding_share:.1%}" if grid.padding_share else windows


def _left_out(cost: Cost) -> str:
    return ", ".join(f"{one.name} {one.calls}×" for one in cost.not_counted) or "nothing"


# What a model pays for BRA, in sentences, and the words for the parts of a BRA layer. -------------------------------

PARTS: Final[Mapping[str, str]] = {
    "qkv": message("projection to q, k, v"), "routing": message("routing between windows"),
    "pooling": message("pooling of k, v"), "QKᵀ": message("queries × keys (QKᵀ)"), "AV": message("weights × values "
                                                                                                 "(AV)"),
    "LePE": message("local position (LePE)"), "output": message("output projection")}
"""Names of `formula.Part`s, as people read them."""
REST: Final = message("everything else")


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
    whole = message("{params} parameters and takes {macs} multiply-adds per image of {size}",
                    params=millions(total.params), macs=billions(total.macs), size=size)
    if not rows:
        return (message("This model has {whole}, none of it for BRA: it has no BRA layer.", whole=whole),)
    params, macs = total.params - plain.total.params, total.macs - plain.total.macs
    layers = sum(len(row.layers) for row in rows)
    written = max(layer.explicit_peak_bytes for row in rows for layer in row.layers)
    return (
        message("This model has {whole}; BRA adds {params} ({params_share}) and {macs} ({macs_share}) of that, in "
                "{layers}.", whole=whole, params=millions(params),
                params_share=share(params, total.params), macs=billions(macs),
                macs_share=share(macs, total.macs),
                layers=message("{n} layers", n=layers) if layers > 1 else message("1 layer")),
        _where(rows),
        message("At its worst moment one image needs {memory} beside the weights, {plain} without BRA; with attention "
                "written out, as the usual copies of the module do, one layer alone would take {written}.",
                memory=megabytes(total.peak_bytes), plain=megabytes(plain.total.peak_bytes),
                written=megabytes(written)))


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
    sentence = message("Of BRA's multiply-adds {share} are in {row}, {h}×{w} tokens of {channels} channels: "
                       "{attending} of them attend (QKᵀ, AV), {projecting} project (q, k, v, output)",
                       share=share(here, sum(macs.values())), row=short(busiest.name), h=grid.h, w=grid.w,
                       channels=busiest.layers[0].spec.dim, attending=share(attending, here),
                       projecting=share(parts["qkv"] + parts["output"], here))
    if len(rows) == 1:
        return message("{sentence}.", sentence=sentence)
    return message("{sentence}; of its parameters {share} are in {row}.", sentence=sentence,
                   share=share(params[largest.name], sum(params.values())), row=short(largest.name))


def share(part: float, whole: float) -> str:
    """A share in per cent."""
    return message("{n:.1f}\u00a0%", n=100 * part / whole if whole else 0)
