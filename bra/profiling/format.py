"""A cost as a table: for a terminal, as Markdown, as CSV, as JSON."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bra.grid import WindowGrid
from bra.markup import table_html
from bra.messages import message
from bra.profiling.formula import Part
from bra.profiling.meter import Shape
from bra.profiling.model_cost import Cost, CostRow
from bra.units import billions, megabytes, millions

CSV_COLUMNS = ("line", "name", "params", "macs", "executed_macs", "share", "peak_bytes", "alive_bytes", "basis",
               "given", "returned", "tokens", "padded", "n_win", "padding_share", "ms", "time_share", "calls",
               "elements")


def cost_text(cost: Cost, width: int | None = None) -> str:
    """For a terminal: millions of multiply-adds, megabytes of 10⁶.

    Args:
        cost: of a model.
        width: columns of the terminal. Where the table is wider, the long name of the BRA class is written short, and
            columns are left out, the least wanted first, and named below the table; None leaves nothing out.
    """
    lines, left_out = [*_lines(cost)], []
    if width is not None and max(map(len, _aligned(lines))) > width:
        lines = [[short(line[0]), *line[1:]] for line in lines]
    for column in DISPENSABLE:
        if width is None or max(map(len, _aligned(lines))) <= width:
            break
        at = lines[0].index(column)
        lines = [line[:at] + line[at + 1:] for line in lines]
        left_out.append(column)
    if width is not None and (over := max(map(len, _aligned(lines))) - width) > 0:
        names = max(MIN_NAME, max(len(line[0]) for line in lines) - over)
        lines = [[line[0] if len(line[0]) <= names else f"{line[0][:names - 1]}…", *line[1:]] for line in lines]
    rows = _aligned(lines)
    rule = "-" * max(map(len, rows))
    notes = [f"not counted: {_left_out(cost)}"]
    if left_out:
        notes.append(f"left out to fit {width} columns: {', '.join(reversed(left_out))}; --csv and --json have all")
    if width is not None:
        notes = [textwrap.fill(note, max(width, MIN_NAME), subsequent_indent="  ") for note in notes]
    return "\n".join([rows[0], rule, *rows[1:-1], rule, rows[-1], *notes])


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns: words to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [name in WORDS for name in lines[0]]
    return ["  ".join(cell.ljust(n) if words else cell.rjust(n) for cell, n, words in
                      zip(line, widths, left, strict=True)).rstrip() for line in lines]


def cost_markdown(cost: Cost) -> str:
    """The table of `cost_text` in Markdown, in the same units."""
    head, *lines = [[cell.replace("|", r"\|") for cell in line] for line in _lines(cost)]
    aligned = [":--" if name in WORDS else "--:" for name in head]
    left_out = ["not counted", *[""] * (len(head) - 2), _left_out(cost)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, aligned, *lines, left_out])


def cost_html(cost: Cost) -> str:
    """The rows and their total as a table for a notebook, in the units of `cost_text`."""
    lines = [(short(row.name), *_numbers(row, row.share), *([] if row.ms is None else [f"{row.ms:.3f}"]),
              _tokens(row.grid)) for row in (*cost.rows, cost.total)]
    head = ("row", "params", "M MACs", "share", "peak MB", *(["ms"] if cost.rounds else []), "tokens and padding")
    return table_html(f"{cost.model}, one image of {cost.input[2]}×{cost.input[3]}", head, lines,
                      f"not counted: {_left_out(cost)}")


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


WORDS: Final = ("row", "from", "in", "out", "tokens and padding")
"""Columns that hold words; the others hold figures."""
DISPENSABLE: Final = ("from", "in", "out", "tokens and padding", "time")
"""Columns that a narrow terminal goes without, in this order."""
MIN_NAME: Final = 24


def _lines(cost: Cost) -> Iterator[list[str]]:
    timed = ["ms", "time"] if cost.rounds else []
    yield ["row", "params", "M MACs", "share", "peak MB", *timed, "from", "in", "out", "tokens and padding"]
    for row in (*cost.rows, cost.total):
        times = [f"{row.ms:.3f}", f"{row.time_share:.1%}"] if row.ms is not None else [""] * len(timed)
        yield [row.name, *_numbers(row, row.share), *times, row.basis, _shapes(row.given), _shapes(row.returned),
               _tokens(row.grid)]
        for part in row.parts:
            share = part.macs / cost.total.macs if cost.total.macs else 0.0
            yield [f"  {part.name}", *_numbers(part, share), *[""] * len(timed), part.basis, "", "", ""]


def _numbers(line: CostRow | Part, share: float) -> list[str]:
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
