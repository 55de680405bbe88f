"""One forward pass, kept as frozen records: where every layer routed, and what its tokens attend to.

A trace keeps q, k, v, the position term, the output linear, the routing and the geometry. The attention weights,
t/Q·k·m times larger, are computed for a window when asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from bra import functional as BF
from bra.bra_record import Reach, areas_of, confined
from bra.errors import GridError, LayerNameError, TraceError
from bra.grid import WindowGrid
from bra.hooks import check_captured, hooked
from bra.kv_pool import FractionalPool, key_support
from bra.messages import message
from bra.recorder import Capture, Proof, recording
from bra.spec import BRASpec

T = TypeVar("T")
SHOWN_NAMES = 3
ROW_ELEMENTS = 2**20
"""Attention weights computed at once where only their mean is wanted: 4 MiB of float32, which a cache holds."""
MASS_ELEMENTS = 2**28
"""Attention weights of a layer up to which each token counts in what its windows attend to: a second or so. Of a layer
with more, some tokens of each window count, spread evenly."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerTrace:
    """What one attention layer did in one forward. Tensors are detached and on the CPU; b images, p2 windows, k routed.

    A layer that does not route is kept as a BRA layer that attends alike. Windows are laid over it to look at it, and
    each is "routed" to all that its tokens reach: to the whole map, or to the windows that its stripe or its Swin
    window touches. Where some windows reach fewer than others, some follow last that get nothing.

    Attributes:
        name: the layer's name in the model, as `named_modules` gives it; "" when the layer is the model.
        spec: its settings.
        grid: its windows on the input image.
        affinity: (b, p2, p2) routing logits, the rejected windows included; -inf for windows masked as padding.
        r_idx: (b, p2, k) chosen windows, best first.
        r_weight: (b, p2, k) softmax over the chosen, always summing to 1.
        q: (b, m, p2, t, Q/m).
        k: (b, m, p2, s, Q/m); s keys per window.
        v: (b, m, p2, s, c/m).
        lepe: (b, m, p2, t, c/m), the position term that was added to the attention, or None.
        wo: weight (c, c) and bias (c,) of the linear that the sum of both went through, or None.
        factor: (b, p2, k) by which the forward multiplied the gathered k and v, or None.
        real_keys: (p2, s) bool, or None when padding is not masked.
        support: (h', h), (w', w) shares of a window's rows and columns in those of its keys; see `key_support`.
        routed: False for a layer that chooses nothing. Its affinity is then the logarithm of the share of attention,
            mean over heads and a window's tokens, that goes to each window, as far as it stays on the map; its
            r_weight is that share.
        reach: of a layer that does not route and is not of this package, which tokens may attend to which.
        proof: how a layer of another code base was heard and proved; None for layers of this package. Where its
            attention is not known, q, k and v have no channels.
        areas: (p2, t) number of each token's area by `reach`, -1 for padding that is not attended; None without it.
    """

    name: str
    spec: BRASpec
    grid: WindowGrid
    affinity: Tensor
    r_idx: Tensor
    r_weight: Tensor
    q: Tensor = field(repr=False)
    k: Tensor = field(repr=False)
    v: Tensor = field(repr=False)
    lepe: Tensor | None = field(repr=False)
    wo: tuple[Tensor, Tensor] | None = field(repr=False)
    factor: Tensor | None = field(repr=False)
    real_keys: Tensor | None = field(repr=False)
    support: tuple[Tensor, Tensor] = field(repr=False)
    routed: bool = True
    proof: Proof | None = None
    reach: Reach | None = None
    areas: Tensor | None = field(default=None, repr=False)

    @property
    def outside(self) -> tuple[str, ...]:
        """Names of the tokens that it attends to and that are no places of the picture, such as a class token."""
        return () if self.reach is None else self.reach.names

    @property
    def attention_known(self) -> bool:
        """Whether its attention can be computed; of a layer that attends in a way of its own only routing is known."""
        return self.proof is None or self.proof.attention

    def check_attention(self) -> None:
        """Raise TraceError unless the layer's attention is known."""
        if not self.attention_known:
            raise TraceError(message("layer {name!r} ({kind}) attends in a way of its own: its routing is known, its "
                                     "attention is not; look at its windows.", name=self.name,
                                     kind=self.proof.kind if self.proof else ""))

    def __repr__(self) -> str:
        grid, spec = self.grid, self.spec
        topk = f"topk {spec.topk}" if self.routed else geometry(self)
        images = f", {len(self.r_idx)} images" if len(self.r_idx) > 1 else ""
        return (f"LayerTrace({self.name!r}: {grid.h}×{grid.w} tokens in {grid.n_win}×{grid.n_win} windows, {topk}, "
                f"{spec.num_heads} heads, {spec.dim} channels{images})")

    def __str__(self) -> str:
        return _text({self.name: self}, self.name)

    def _repr_html_(self) -> str:
        return _html({self.name: self})

    @property
    def weights_used(self) -> bool:
        """Whether this forward multiplied k and v by r_weight; by default only the chosen set matters."""
        return self.spec.soft_routing

    @torch.inference_mode()
    def attention(self, window: int, token: int | None = None, image: int = 0) -> Tensor:
        """What a window's tokens attend to: the rows that `ret_attn_mask=True` returns for it.

        Args:
            window: the query window.
            token: one token of it; None for all t.
            image: which image of the batch.

        Returns:
            (m, t, k·s), or (m, k·s) for one token. The last axis is (rank, key in window). Rows sum to 1, less what
            `outside_attention` gives.

        Raises:
            GridError: no such window, token or image.
            TraceError: the layer attends in a way of its own.
        """
        self.check_attention()
        self._check(window, image)
        if token is not None:
            self.grid.token_of_window(window, token)
        rows = self._rows(window, slice(None) if token is None else slice(token, token + 1), image)
        return rows if token is None else rows[:, 0]

    @torch.inference_mode()
    def outside_attention(self, window: int, token: int | None = None, image: int = 0) -> Tensor:
        """What a window's tokens give to the tokens that are no places of the picture, as `outside` names them.

        Args:
            window: the query window.
            token: one token of it; None for all t.
            image: which image of the batch.

        Returns:
            (m, t, n), or (m, n) for one token; n may be 0.

        Raises:
            GridError: no such window, token or image.
        """
        self.check_attention()
        self._check(window, image)
        if token is not None:
            self.grid.token_of_window(window, token)
        tokens = slice(None) if token is None else slice(token, token + 1)
        rows = self.rows(slice(window, window + 1), tokens, image)[:, 0]
        rows = rows[..., rows.shape[-1] - len(self.outside):]
        return rows if token is None else rows[:, 0]

    @torch.inference_mode()
    def attended(self, image: int = 0) -> Tensor:
        """(m, p2, t, c/m): attention times values, as the layer computes it before position term and output linear."""
        self.check_attention()
        parts, one = [], slice(image, image + 1)
        for windows in self.groups():
            factor = None if self.factor is None else self.factor[one, windows]
            values = BF.gather_keys(self.v[one], self.r_idx[one, windows], factor)[0]               # (m, n, k·s, c/m)
            if self.reach is not None and self.reach.v is not None:
                outer = self._by_head(self.reach.v[image])[:, None].expand(-1, values.shape[1], -1, -1)
                values = torch.cat([values, outer], 2)
            parts.append(self.rows(windows, slice(None), image) @ values)
        return torch.cat(parts, 1)

    def groups(self) -> Iterator[slice]:
        """All windows, as many at a time as have `ROW_ELEMENTS` attention weights together."""
        row = self.q.shape[1] * self.k.shape[3] * self.spec.topk * self.grid.n_tokens
        step = max(1, ROW_ELEMENTS // row)
        for start in range(0, self.grid.n_windows, step):
            yield slice(start, start + step)

    def _by_head(self, x: Tensor) -> Tensor:
        """(n, m·c) -> (m, n, c)."""
        return x.reshape(len(x), self.spec.num_heads, -1).transpose(0, 1)

    def _check(self, window: int, image: int) -> None:
        self.grid.check_window(window)
        if not 0 <= image < len(self.r_idx):
            raise GridError(message("image {image} is not in this trace, which holds {count}: choose 0 to {last}.",
                                    image=image, count=len(self.r_idx), last=len(self.r_idx) - 1))

    def _rows(self, window: int, tokens: slice | Tensor, image: int) -> Tensor:
        """(m, tokens, k·s): rows of some tokens of a window, without what goes to tokens outside of the map."""
        rows = self.rows(slice(window, window + 1), tokens, image)[:, 0]
        return rows[..., : rows.shape[-1] - len(self.outside)]

    def rows(self, windows: slice, tokens: slice | Tensor, image: int = 0) -> Tensor:
        """(m, windows, tokens, k·s + n): rows of some tokens of some windows, last what goes to the n tokens that are
        no places of the picture. All are held at once."""
        q = self.q[image : image + 1, :, windows][:, :, :, tokens]
        k = self.k[image : image + 1]
        r_idx = self.r_idx[image : image + 1, windows]
        factor = None if self.factor is None else self.factor[image : image + 1, windows]
        keys = BF.gather_keys(k, r_idx, factor)
        if self.reach is None or self.areas is None:
            return BF.attention_rows(q, keys, self.spec.scale, BF.gather_mask(self.real_keys, r_idx))[0]
        asked = q * self.spec.scale                                                         # (1, m, n, t', Q/m)
        p2, t = self.areas.shape
        queries = torch.arange(p2)[windows], torch.arange(t)[tokens]
        logits = confined(self.reach, (asked @ keys.mT).transpose(1, 2), self.areas, self._places, queries, r_idx)
        logits = logits.transpose(1, 2)[0]                                                  # (m, n, t', k·s)
        if self.reach.k is not None:
            logits = torch.cat([logits, asked[0] @ self._by_head(self.reach.k[image])[:, None].mT], -1)
        return logits.softmax(-1)

    @property
    def _places(self) -> tuple[Tensor, Tensor]:
        """(p2, t) rows and columns of every token."""
        grid, (p2, t) = self.grid, (self.grid.n_windows, self.grid.n_tokens)
        window, token = torch.arange(p2)[:, None], torch.arange(t)
        return (window // grid.n_win * grid.window_h + token // grid.window_w,
                window % grid.n_win * grid.window_w + token % grid.window_w)

    @torch.inference_mode()
    def attention_map(self, window: int, token: int | None = None, image: int = 0) -> Tensor:
        """The same attention laid on the map: (m, H, W) in raster order over the padded grid, each head summing to 1,
        less what goes to tokens that are no places of the picture.

        Windows that were not chosen hold 0. `grid.crop` cuts the padding off; what it removes is what leaked into
        padding. A pooled key hands its weight to the tokens under it in equal shares.

        Args:
            window: the query window.
            token: one token of it; None for the mean over its tokens on the image.
            image: which image of the batch.

        Raises:
            GridError: no such window, token or image.
            TraceError: the layer attends in a way of its own.
        """
        self.check_attention()
        self._check(window, image)
        chosen = self.r_idx[image, window].tolist()
        by_key = self._mean_rows(window, image) if token is None else self.attention(window, token, image)
        by_key = by_key.view(len(by_key), len(chosen), len(self.support[0]), len(self.support[1]))
        top, left = zip(*(self.grid.token_of_window(w, 0) for w in chosen), strict=True)
        rows, cols = self._real_support(top, self.grid.h, 0), self._real_support(left, self.grid.w, 1)
        by_window = torch.zeros(len(by_key), self.grid.n_windows, self.grid.n_tokens)
        by_window[:, chosen] = (rows.mT @ by_key.float() @ cols).flatten(2)
        return torch.from_numpy(self.grid.to_map(by_window.numpy()))

    def _mean_rows(self, window: int, image: int) -> Tensor:
        """(m, k·s): mean of the rows of a window's tokens on the image (of all, where it holds padding only).

        A few tokens at a time, since a window of a large map has thousands, each with a row of thousands.
        """
        real = torch.from_numpy(self.grid.real_tokens[window]).nonzero().flatten()
        tokens = real if len(real) else torch.arange(self.grid.n_tokens)
        row = self.q.shape[1] * self.k.shape[3] * self.spec.topk
        step = max(1, ROW_ELEMENTS // row)
        total = torch.zeros(1)
        for start in range(0, len(tokens), step):
            total = total + self._rows(window, tokens[start : start + step], image).sum(1)
        return total / len(tokens)

    def _real_support(self, starts: Sequence[int], end: int, axis: int) -> Tensor:
        """(k, keys, tokens): support along one axis for windows that begin at tokens `starts` of a map of `end`."""
        support = self.support[axis].expand(len(starts), -1, -1)
        if self.real_keys is None:
            return support
        at = torch.tensor(starts)[:, None] + torch.arange(support.shape[-1])
        support = support * (at < end)[:, None]
        return support / support.sum(-1, keepdim=True).clamp(min=torch.finfo(support.dtype).tiny)


class LayersByName(dict[str, T]):
    """What is known of each layer, by the layer's name; an unknown name is answered with the names that there are."""

    def __missing__(self, name: object) -> T:
        raise LayerNameError(message("there is no layer {name!r}: choose one of {layers}.", name=name,
                                     layers=", ".join(map(repr, self))))


@dataclass(frozen=True, slots=True, eq=False)
class ModelTrace:
    """One forward of a model.

    Attributes:
        out: what the model returned.
        layers: every attention layer that ran, by name: first those of this package and BRA of other code bases, in
            the order in which they ran, then others; a layer that ran again is "name#2", "name#3", … An unknown name
            raises LayerNameError, a KeyError.
        unknown: layers of other code bases of which nothing could be said, and why, by name.
    """

    out: Any
    layers: Mapping[str, LayerTrace]
    unknown: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MappingProxyType(LayersByName(self.layers)))

    def __repr__(self) -> str:
        count = f"{len(self.layers)} layers" if len(self.layers) != 1 else "1 layer"
        names = ", ".join(map(repr, [*self.layers][:SHOWN_NAMES])) + (", …" if len(self.layers) > SHOWN_NAMES else "")
        shape = f"tensor {tuple(self.out.shape)}" if isinstance(self.out, Tensor) else type(self.out).__name__
        return f"ModelTrace({count}: {names}; out: {shape})"

    def __str__(self) -> str:
        return _text(self.layers)

    def _repr_html_(self) -> str:
        return _html(self.layers)


def _text(layers: Mapping[str, LayerTrace], picture: str | None = None) -> str:
    from bra.metrics.trace_summary import layers_text  # built on this module, so imported when a trace is printed

    return layers_text(layers, picture)


def _html(layers: Mapping[str, LayerTrace]) -> str:
    from bra.metrics.trace_summary import layers_html

    return layers_html(layers)


def trace(model: Any, x: Any) -> ModelTrace:
    """Run `model(x)` once and keep what its attention layers did: BRA, full attention, stripes, Swin's windows.

    Safe to call from several threads on one model: nothing is hooked to it or written on it. The model runs in the
    mode it is in; when that would update running statistics, a copy of the model runs instead.

    Layers of other code bases are heard too: BRA, and attention that does not route (Ultralytics' PSA and area
    attention, PyTorch's MultiheadAttention, blocks as timm has them, Swin's windows). For this call forward hooks hang
    on a model that has such, and each trace of them says by its `proof` how far what was computed again from q, k, v
    and indices is from what the layer returned.

    Args:
        model: any module with attention layers in it, or one such layer; of an opened model and of Ultralytics' YOLO
            the network inside.
        x: its input; when it is an image tensor (b, c, H, W), the grids are laid over its H·W pixels.

    Raises:
        TraceError: no attention layer ran, or none that could be followed; the sentence says which.
        BRAError: the input does not suit a layer.
    """
    model = network(model)
    if any(m.training and getattr(m, "track_running_stats", False) for m in model.modules()):
        model = copy.deepcopy(model)
    names = {module: name for name, module in model.named_modules()}
    image = (int(x.shape[-2]), int(x.shape[-1])) if isinstance(x, Tensor) and x.ndim == 4 else None
    with hooked(model) as listener:
        found = traced(partial(model, x), names, image)
        unknown = {} if listener is None else {name: message(why) for name, why in listener.unknown.items()}
    if not found.layers:
        check_captured(model, listener)
    return replace(found, unknown=MappingProxyType(unknown))


def network(model: Any) -> nn.Module:
    """The network that is meant: the model itself, or that inside an opened model or Ultralytics' YOLO.

    Raises:
        TraceError: it is none of these.
    """
    if hasattr(model, "predictor") and isinstance(getattr(model, "model", None), nn.Module):
        return cast(nn.Module, model.model)         # Ultralytics' YOLO is a module that refuses to be called as one
    inner = model if isinstance(model, nn.Module) else getattr(model, "module", None)
    if not isinstance(inner, nn.Module):
        raise TraceError(message("{kind} is no model: give a torch module, or what open_file or open_model returned.",
                                 kind=type(model).__name__))
    return inner


def traced(call: Callable[[], Any], names: Mapping[nn.Module, str], image: tuple[int, int] | None = None) -> ModelTrace:
    """Run `call()` once, a forward or a part of one, and keep what its attention layers did.

    Args:
        call: what runs; its result is `.out`.
        names: of the layers.
        image: height and width that the grids are laid over; None for each layer's own map.
    """
    with torch.inference_mode(), recording() as recorder:
        out = call()
    layers: dict[str, LayerTrace] = {}
    for capture in recorder.captures:
        base = names.get(capture.layer, type(capture.layer).__name__)
        again = sum(1 for name in layers if name.split("#")[0] == base)
        name = base if again == 0 else f"{base}#{again + 1}"
        layers[name] = layer_trace(name, capture, image or (int(capture.size[0]), int(capture.size[1])))
    return ModelTrace(out, routed_first(layers))


def routed_first(layers: Mapping[str, LayerTrace]) -> dict[str, LayerTrace]:
    """Layers by name, those of other libraries that do not route behind all others: what routes is looked for."""
    return dict(sorted(layers.items(), key=lambda item: item[1].reach is not None))


def layer_trace(name: str, capture: Capture, image: tuple[int, int]) -> LayerTrace:
    """What a layer handed over, as a record.

    Args:
        name: of the layer.
        capture: what it handed over.
        image: height and width that its grid is laid over.

    Raises:
        TraceError: its attention cannot be laid back on its tokens.
    """
    if isinstance(capture.kv_pool, FractionalPool) and capture.kv_pool.training:
        raise TraceError(message("layer {name!r} pools at new random places in each call while it trains, so its "
                                 "attention cannot be laid back on its tokens: call model.eval() first.", name=name))
    grid = WindowGrid.over_image(*image, *capture.size, capture.spec.n_win, capture.region)

    def keep(t: Tensor) -> Tensor:
        return t.detach().cpu().contiguous()     # a view would keep the whole map in memory

    def copied(t: Tensor | None) -> Tensor | None:
        return None if t is None else keep(t).clone()

    made = LayerTrace(
        name=name, spec=capture.spec, grid=grid,
        affinity=keep(capture.affinity), r_idx=keep(capture.r_idx), r_weight=keep(capture.r_weight),
        q=keep(capture.q), k=keep(capture.k), v=keep(capture.v),
        lepe=None if capture.lepe is None else keep(capture.lepe),
        # Copies: the model may learn on while the trace is kept.
        wo=(keep(capture.wo.weight).clone(), keep(capture.wo.bias).clone())
        if isinstance(capture.wo, nn.Linear) else None,
        factor=None if capture.factor is None else keep(capture.factor),
        real_keys=None if capture.real_keys is None else keep(capture.real_keys),
        support=key_support(capture.kv_pool, grid.window_h, grid.window_w),
        routed=capture.routed,
        proof=capture.proof,
        reach=None if capture.reach is None else replace(
            capture.reach, bias=copied(capture.reach.bias), k=copied(capture.reach.k), v=copied(capture.reach.v)),
        areas=None if capture.reach is None else areas_of(
            capture.reach, (grid.h, grid.w), (grid.n_win, grid.n_win), (grid.window_h, grid.window_w)),
    )
    return made if made.routed else by_mass(made)


def geometry(trace: LayerTrace) -> str:
    """What a layer that does not route attends to, in words."""
    reach = trace.reach
    if reach is None or reach.kind == "whole":
        return message("full attention")
    if reach.kind == "stripes":
        return message("attention within {n} stripes", n=reach.stripes)
    h, w = reach.window
    return message("attention within shifted windows of {h}×{w} tokens", h=h, w=w) if any(reach.shift) else \
        message("attention within windows of {h}×{w} tokens", h=h, w=w)


@torch.inference_mode()
def by_mass(trace: LayerTrace) -> LayerTrace:
    """A layer that does not route with its windows ranked by the attention that they get: its r_idx, r_weight and
    affinity as `LayerTrace` says of it. A window of padding only asks nothing, and all are alike to it."""
    if not trace.attention_known:
        return trace
    masses = torch.stack([window_mass(trace, image) for image in range(len(trace.r_idx))])
    affinity = masses.log()
    affinity[:, torch.from_numpy(trace.grid.padding_windows)] = 0.0
    values, r_idx = affinity.topk(trace.spec.topk, -1)
    return replace(trace, affinity=affinity, r_idx=r_idx, r_weight=values.softmax(-1))


@torch.inference_mode()
def window_mass(trace: LayerTrace, image: int = 0) -> Tensor:
    """(p2, p2): share of its attention that each window (row) gives to each other, mean over heads and its tokens on
    the map; zeros for windows of padding only."""
    p2, s = trace.grid.n_windows, trace.k.shape[3]
    weights = trace.q.shape[1] * p2 * trace.grid.n_tokens * trace.spec.topk * s
    tokens = torch.arange(0, trace.grid.n_tokens, max(1, -(-weights // MASS_ELEMENTS)))
    real = torch.from_numpy(trace.grid.real_tokens)[:, tokens].float()
    mass = torch.zeros(p2, p2)
    for windows in trace.groups():
        rows = trace.rows(windows, tokens, image).float().mean(0)[..., : trace.spec.topk * s]       # (n, t', k·s)
        part = real[windows]
        by_key = (part[:, None] @ rows)[:, 0].reshape(len(part), -1, s).sum(-1)                     # (n, k)
        mass[windows] = mass[windows].scatter(1, trace.r_idx[image, windows],
                                              by_key / part.sum(-1, keepdim=True).clamp(min=1))
    return mass
