"""What a model costs: parameters, multiply-adds and bytes of every row, and of every part of a BRA layer in it.

The rows are measured: the operators of one forward are counted as they run, at the real image size, without spending
its memory. The parts of a BRA layer are given by `formula`, whose sum the measurement must meet.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from bra.attention import BiLevelRoutingAttention
from bra.errors import LIBRARY, BRAError, CostError, brief
from bra.grid import WindowGrid
from bra.messages import message
from bra.profiling.formula import Basis, LayerCost, Part, layer_cost
from bra.profiling.layers import common_prefix, input_channels, is_bra, kind, parameters_of, rows_of, within
from bra.profiling.meter import OUTSIDE, Meter, Shape, Span, metered
from bra.profiling.timing import Progress, timed
from bra.tracing import network

MAX_SIDE = 16_384


@dataclass(frozen=True, slots=True)
class CostRow:
    """One row of a model. Parameters, multiply-adds, shares and milliseconds of all rows add up to the total's.

    Attributes:
        name: its place in the model and its class, such as "15 BiLevelRoutingAttention".
        params: parameters; those shared with a row above count there.
        macs: multiply-adds of matrix products, convolutions and attention.
        peak_bytes: bytes of activations alive at its worst moment, beyond those alive when it began.
        alive_bytes: all bytes alive at its worst moment, maps kept for later rows and the input included; the largest
            of all rows is the total's.
        share: of the model's multiply-adds, 0 to 1.
        executed_macs: what the kernels multiply: more than `macs` where qk_dim is not dim, since fused attention wants
            q, k and v equally wide and fills up with zeros.
        given: shapes of its inputs.
        returned: shapes of its results.
        layers: the BRA layers in it.
        parts: what it is made of when it holds BRA layers: their parts by formula, then the rest as measured.
            Parameters and multiply-adds of the parts add up to the row's; they are not rows themselves.
        ms: median milliseconds, when time was measured.
        time_share: of the forward, 0 to 1, when time was measured.
        basis: where the figures come from; of a row always "measured".
    """

    name: str
    params: int
    macs: int
    peak_bytes: int
    alive_bytes: int
    share: float
    executed_macs: int
    given: tuple[Shape, ...] = ()
    returned: tuple[Shape, ...] = ()
    layers: tuple[LayerCost, ...] = ()
    parts: tuple[Part, ...] = ()
    ms: float | None = None
    time_share: float | None = None
    basis: Basis = "measured"

    @property
    def grid(self) -> WindowGrid | None:
        """Token grid and padding of its first BRA layer."""
        return self.layers[0].grid if self.layers else None

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in ("layers", "parts")}
        return plain | {"layers": [one.to_dict() for one in self.layers], "parts": [asdict(one) for one in self.parts]}


@dataclass(frozen=True, slots=True)
class Uncounted:
    """An operator that is in no figure, since it multiplies and adds nothing in pairs.

    Attributes:
        name: as torch calls it.
        calls: how often it ran.
        elements: of its largest tensor, all calls together.
    """

    name: str
    calls: int
    elements: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Everything that `cost` found.

    Attributes:
        model: class of the model.
        input: shape of its input.
        rows: in the order of the model.
        total: of all rows; its `peak_bytes` are those alive at the worst moment beyond the input.
        not_counted: operators left out, the largest first.
        rounds: forwards that were timed, 0 for none.
    """

    model: str
    input: Shape
    rows: tuple[CostRow, ...]
    total: CostRow
    not_counted: tuple[Uncounted, ...]
    rounds: int = 0

    def __repr__(self) -> str:
        return (f"Cost({self.model}, {'×'.join(map(str, self.input))}: {self.total.params / 1e6:.2f} M parameters, "
                f"{self.total.macs / 1e9:.3f} G multiply-adds, {self.total.peak_bytes / 1e6:,.1f} MB, "
                f"{len(self.rows)} rows)")

    def __str__(self) -> str:
        from bra.profiling.format import cost_text

        return cost_text(self)

    def _repr_html_(self) -> str:
        from bra.profiling.format import cost_html

        return cost_html(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {"model": self.model, "input": list(self.input), "rounds": self.rounds,
                "rows": [row.to_dict() for row in self.rows], "total": self.total.to_dict(),
                "not_counted": [asdict(one) for one in self.not_counted]}


def cost(model: Any, imgsz: int | tuple[int, int] = 640, channels: int | None = None, rounds: int = 0,
         progress: Progress | None = None, most_bytes: int | None = None) -> Cost:
    """Count what one image costs, in eval mode. Nothing is hooked to the model or written on it.

    Rows are the rows of an Ultralytics model, else the model's children, containers opened. A lone BRA layer is one
    row, and its image is its map. Bytes are those of tensors, as torch makes them on a CPU; what kernels of dense
    convolutions take for themselves is not among them.

    Args:
        model: any module that maps one image tensor (1, channels, h, w); of an opened model and of Ultralytics' `YOLO`
            the network inside.
        imgsz: side of the image in pixels, or (h, w); of the map in tokens for a lone BRA layer.
        channels: of the input; None takes those of the first layer, 3 where it does not say.
        rounds: forwards to time on this machine, after two to warm up; 0 measures no time and computes nothing.
        progress: told (forwards done, forwards to do).
        most_bytes: that may be alive at the worst moment of a forward which is timed; None for no bound.

    Raises:
        TraceError: it is no model.
        CostError: the size is out of range, the model does not run on it, or timing it would take more memory.
        BRAError: a BRA layer refuses its map.
    """
    model = network(model)
    h, w = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    if not all(isinstance(side, int) and 1 <= side <= MAX_SIDE for side in (h, w)):
        raise CostError(message("imgsz={imgsz!r} is not possible: whole numbers from 1 to {most}; 640 is usual.",
                                imgsz=imgsz, most=MAX_SIDE))
    shape = (1, input_channels(model) if channels is None else channels, h, w)
    weight = next((t for t in model.parameters() if t.is_floating_point()), torch.empty(0))
    rows = rows_of(model)
    paths = dict.fromkeys([*rows, *(name for name, m in model.named_modules() if is_bra(m))])
    try:
        meter = metered(model, list(paths), shape, weight.dtype)
        alive = max(span.alive for span in meter.spans.values())
        if rounds and most_bytes is not None and alive > most_bytes:
            raise CostError(message("timing this model on {width}×{height} px takes {memory:,.0f} MB at one time, and "
                                    "at most {most:,.0f} MB are given: choose a smaller image, or count without "
                                    "timing.",
                                    width=w, height=h, memory=alive / 2**20, most=most_bytes / 2**20))
        ms = timed(model, list(rows), shape, weight, rounds, progress) if rounds else {}
    except BRAError:
        raise
    except LIBRARY as error:
        raise CostError(message("{model} does not run on an input of {shape} ({error}): give the channels that it "
                                "reads, and sides that its strides divide, such as 640.", model=type(model).__name__,
                                shape="×".join(map(str, shape)), error=brief(error))) from error
    return _cost(model, rows, shape, meter, ms, rounds, weight.element_size())


def _cost(model: nn.Module, rows: dict[str, nn.Module], shape: Shape, meter: Meter, times: dict[str, float],
          rounds: int, itemsize: int) -> Cost:
    owner = parameters_of(model, rows)
    prefix = common_prefix(list(rows))
    made = []
    for path, module in (rows if OUTSIDE in rows else {**rows, OUTSIDE: model}).items():
        outside = path == OUTSIDE and OUTSIDE not in rows
        inner = [] if outside else _bra_layers(path, module, meter, itemsize)
        span = meter.spans.get(path, Span())
        inside = [span] if outside else [one for at, one in meter.spans.items() if within(at, path)]
        if outside and not (span.macs or span.added or owner[path] or times.get(path)):
            continue
        executed = sum(one.macs for one in inside)
        macs = executed - sum(layer.fill_macs for layer in inner)
        ms = times.get(path)
        name = message("{model} itself", model=type(model).__name__) if outside else \
            f"{path.removeprefix(prefix)} {kind(module)}".strip()
        parts = _parts(inner, owner[path], macs, span.added)
        made.append(CostRow(name, owner[path], macs, span.added, span.alive, 0.0, executed,
                            next(iter(span.given), ()), next(iter(span.returned), ()), tuple(inner), parts, ms))
    macs, ms = sum(row.macs for row in made), sum(times.values()) if rounds else None
    made = [replace(row, share=row.macs / macs if macs else 0.0, time_share=row.ms / ms if ms and row.ms else row.ms)
            for row in made]
    alive = max(row.alive_bytes for row in made)
    image = torch.Size(shape).numel() * itemsize
    total = CostRow(message("total"), sum(row.params for row in made), macs, alive - image, alive, float(bool(macs)),
                    sum(row.executed_macs for row in made), (shape,), ms=ms, time_share=1.0 if rounds else None)
    passed = sorted(meter.passed.items(), key=lambda item: -item[1][1])
    left_out = tuple(Uncounted(name, *counts) for name, counts in passed)
    return Cost(type(model).__name__, shape, tuple(made), total, left_out, rounds)


def _bra_layers(path: str, module: nn.Module, meter: Meter, itemsize: int) -> list[LayerCost]:
    """The BRA layers of a row, once for every call that they had."""
    found = []
    for name, layer in module.named_modules():
        if not isinstance(layer, BiLevelRoutingAttention):
            continue
        span = meter.spans.get(".".join(filter(None, (path, name))), Span())
        for call, given in enumerate(span.given, 1):
            h, w = given[0][-2:]
            counted = replace(layer_cost(layer.spec, h, w, itemsize), name=name if call == 1 else f"{name}#{call}")
            again = tuple(replace(part, params=0) for part in counted.parts)
            found.append(counted if call == 1 else replace(counted, parts=again))
    return found


def _parts(layers: list[LayerCost], params: int, macs: int, peak: int) -> tuple[Part, ...]:
    """Parts of the layers, and the rest of the row where there is any."""
    if not layers:
        return ()
    parts = [replace(part, name=f"{layer.name} {part.name}".strip()) for layer in layers for part in layer.parts]
    rest = params - sum(part.params for part in parts), macs - sum(part.macs for part in parts)
    if any(rest) or len(layers) > 1 or layers[0].name:
        parts.append(Part("rest", *rest, peak, "measured"))
    return tuple(parts)
