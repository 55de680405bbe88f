"""Forward hooks that capture attention layers of other code bases while a model runs, for the recorder.

What a layer is, how it is heard and how it is proved stands in `bra.bra_record`, the one file that people drop beside
their own scripts. Here its findings become the records of this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn

from bra import bra_record
from bra import functional as BF
from bra.attention import BiLevelRoutingAttention
from bra.bra_record import Heard, Listener, RecordError
from bra.errors import BRAError, TraceError
from bra.kv_pool import make_kv_pool
from bra.messages import message
from bra.recorder import Capture, Proof, active_recorder
from bra.spec import BRASpec

OWN: Final = (BiLevelRoutingAttention,)
"""Classes of the layers that report themselves and need no listener."""


@contextmanager
def hooked(model: nn.Module, size: tuple[int, int] | None = None) -> Iterator[Listener | None]:
    """Capture the attention layers of `model` that are not this package's, in this call, by forward hooks.

    A model without such layers is left untouched, and None is given. Otherwise the hooks hang on it until the block
    ends, however it ends; calls from other threads are not captured.

    Args:
        model: whose layers are captured.
        size: height and width of the picture that it reads, where its parts run and not the whole.
    """
    if not needs_hooks(model):
        with nullcontext():
            yield None
        return
    with Listener([model], skip=OWN, found=_report) as listener:
        listener.size = size
        yield listener


def needs_hooks(model: nn.Module) -> bool:
    """Whether a model has attention layers that hooks must capture, since they do not report themselves."""
    return bool(bra_record.layers_of(model, OWN) or bra_record.stock_layers(model, OWN))


def attending_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers of other libraries in a model whose attention does not route."""
    return tuple(bra_record.stock_layers(model, OWN))


def _report(heard: Heard) -> None:
    recorder = active_recorder()
    if recorder is not None:
        recorder.captures.append(capture_of(heard))


def check_captured(model: nn.Module, listener: Listener | None) -> None:
    """Raise TraceError that says why no layer of `model` was heard.

    Raises:
        TraceError: always.
    """
    hearer = Listener([model], skip=OWN) if listener is None else listener
    try:
        bra_record.check_heard(hearer, type(model).__name__)
    except RecordError as error:
        if hearer.unknown or bra_record.called_bra(model, OWN) or needs_hooks(model):
            raise TraceError(message(error.template, **error.values)) from None
    raise TraceError(message("{model} ran without a BiLevelRoutingAttention layer, and without other attention over an "
                             "image's tokens: choose a model that has one, or put one in.",
                             model=type(model).__name__))


def spec_of(heard: Heard) -> BRASpec:
    """The settings of the layer of this package that computes the same.

    Raises:
        BRAError: they are beyond what this package's layer can be.
    """
    mode, ratio, side = heard.pool
    channels = 1 if heard.v is None else int(heard.v.shape[-1])
    return BRASpec(
        dim=heard.heads if heard.v is None else channels, n_win=max(heard.windows), num_heads=heard.heads,
        qk_dim=None if heard.q is None else int(heard.q.shape[-1]), qk_scale=heard.scale, kv_per_win=side,
        kv_downsample_ratio=ratio, kv_downsample_mode=mode,  # type: ignore[arg-type]    # one of these by making
        topk=int(heard.r_idx.shape[-1]), param_attention="qkvo" if heard.wo is not None else "qkv",
        param_routing=heard.emb is not None, diff_routing=heard.emb is not None, soft_routing=heard.soft,
        side_dwconv=0 if heard.lepe is None else int(heard.lepe[0].shape[-1]), mask_padding=heard.mask_padding)


def capture_of(heard: Heard) -> Capture:
    """What a listener heard of a layer, as the layers of this package report it.

    Windows are laid out in a square: where the layer has fewer in one direction, windows of padding fill it up, which
    nobody is routed to.

    Raises:
        BRAError: its settings are beyond what this package's layer can be.
    """
    spec = spec_of(heard)
    m = heard.heads
    routing = _squared(heard)
    proof = Proof(heard.kind, heard.routing, heard.known, heard.difference, heard.compared, heard.note, heard.rule,
                  heard.affinity is not None)
    common: dict[str, Any] = {
        "layer": heard.module, "spec": spec, "kv_pool": make_kv_pool(spec), "size": heard.size, **routing,
        "region": heard.region, "proof": proof, "real_keys": None, "routed": heard.reach is None, "reach": heard.reach}
    b, p2 = routing["r_idx"].shape[:2]
    if not heard.known or heard.q is None or heard.k is None or heard.v is None or heard.pad is None:
        if heard.mask_padding and heard.windows[0] == heard.windows[1]:
            common["real_keys"] = bra_record.real_tokens(heard)
        nothing = torch.zeros(b, m, p2, heard.region[0] * heard.region[1], 0)
        return Capture(**common, wo=nn.Identity(), q=nothing, k=nothing, v=nothing, lepe=None, factor=None)
    exact = torch.float32 if heard.q.dtype in (torch.float16, torch.bfloat16) else heard.q.dtype
    Q = heard.q.shape[-1]
    q, k, v = (bra_record.padded(x.to(exact), heard.padded, heard.pad[at:at + x.shape[-1]])
               for x, at in ((heard.q, 0), (heard.k, Q), (heard.v, 2 * Q)))
    lepe = None if heard.lepe is None else bra_record.lepe_of(heard, v)

    def by_head(x: Tensor) -> Tensor:
        """(b, H, W, m·c) -> (b, m, p2, t, c)."""
        return BF.by_head(BF.partition(_grown(x, heard), spec.n_win), m)

    if heard.mask_padding:
        real = bra_record.real_tokens(heard)
        common["real_keys"] = bra_record.pooled(heard, real[None, :, :, None].float())[0, :, :, 0] > 0
    keys, values = by_head(k), by_head(v)
    if heard.pool[0] != "identity":
        keys, values = (torch.stack([bra_record.pooled(_square_of(heard), x[:, n]) for n in range(m)], 1)
                        for x in (keys, values))
    wo: nn.Module = nn.Identity()
    if heard.wo is not None:
        weight, bias = heard.wo
        wo = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        wo.weight = nn.Parameter(weight.float(), requires_grad=False)
        wo.bias = nn.Parameter(torch.zeros(len(weight), device=weight.device) if bias is None else bias.float(),
                               requires_grad=False)
    return Capture(**common, wo=wo, q=by_head(q), k=keys, v=values, lepe=None if lepe is None else by_head(lepe),
                   factor=routing["r_weight"] if heard.soft else None)


def _square_of(heard: Heard) -> Heard:
    p = max(heard.windows)
    return bra_record._with(heard, windows=(p, p))


def _grown(x: Tensor, heard: Heard) -> Tensor:
    """(b, H, W, c) with windows of zeros to the right or below, until there are as many across as down."""
    p = max(heard.windows)
    return bra_record.padded(x, (p * heard.region[0], p * heard.region[1]), torch.zeros(x.shape[-1]))


def _squared(heard: Heard) -> dict[str, Tensor]:
    """affinity, r_idx and r_weight of a square of windows: those that fill it up route to the first ones, and nobody
    to them. An affinity that is not known is that of the chosen windows alone."""
    (rows, cols), k = heard.windows, heard.r_idx.shape[-1]
    r_idx, r_weight = heard.r_idx.long(), heard.r_weight.float()
    affinity = heard.affinity
    if affinity is None:
        affinity = torch.full((*r_idx.shape[:2], r_idx.shape[1]), float("-inf"), device=r_idx.device)
        affinity = affinity.scatter(-1, r_idx, r_weight.clamp(min=1e-30).log())
    p = max(rows, cols)
    if rows == cols:
        return {"affinity": affinity.float(), "r_idx": r_idx, "r_weight": r_weight}
    b, place = len(r_idx), torch.arange(rows * cols, device=r_idx.device)
    at = place // cols * p + place % cols                        # of each window in the square
    whole_idx = torch.arange(k, device=r_idx.device).expand(b, p * p, k).clone()
    whole_idx = at[whole_idx.clamp(max=rows * cols - 1)]
    whole_idx[:, at] = at[r_idx]
    weight = torch.full((b, p * p, k), 1 / k, device=r_idx.device)
    weight[:, at] = r_weight
    logits = torch.full((b, p * p, p * p), float("-inf"), device=r_idx.device)
    logits[:, :, at] = 0.0
    logits[:, at[:, None], at] = affinity.float()
    return {"affinity": logits, "r_idx": whole_idx, "r_weight": weight}


def rerouted(heard: Heard, n_win: int, topk: int) -> Heard:
    """The layer with other windows, computed again from its q, k and v: what it would have done with the same input.

    Args:
        heard: a layer whose attention is known.
        n_win: windows per side that it is set to; the layer's own rule makes windows of it.
        topk: windows that each is routed to.

    Raises:
        BRAError: it cannot have such windows, or its routing goes by a rule of its own.
    """
    if not heard.known or (heard.affinity is None and n_win != heard.n_win):
        raise BRAError(message("layer {layer!r} routes or attends in a way of its own, so what other windows would "
                               "give is not known: choose another layer.", layer=heard.name))
    h, w = heard.size
    BRASpec(dim=heard.heads, n_win=n_win, num_heads=heard.heads, topk=topk)      # refuses what cannot be
    if n_win == heard.n_win:
        windows, region = heard.windows, heard.region
    elif heard.rule == "floor":
        if min(h // n_win, w // n_win) < 1:
            raise BRAError(message("layer {layer!r} has a map of {h}×{w} tokens, so n_win={n_win} leaves windows of "
                                   "none: choose a smaller one.", layer=heard.name, h=h, w=w, n_win=n_win))
        region = h // n_win, w // n_win
        windows = -(-h // region[0]), -(-w // region[1])
    else:
        windows, region = (n_win, n_win), (-(-h // n_win), -(-w // n_win))
    if topk > windows[0] * windows[1]:
        raise BRAError(message("topk={topk} is not possible: there are {n} windows; choose fewer.", topk=topk,
                               n=windows[0] * windows[1]))
    mode, ratio, _ = heard.pool
    if mode in ("avgpool", "maxpool") and min(region) < ratio:
        raise BRAError(message("layer {layer!r} pools its keys by {ratio}, and windows of {h}×{w} tokens are smaller: "
                               "choose a smaller n_win.", layer=heard.name, ratio=ratio, h=region[0], w=region[1]))
    other = bra_record._with(heard, windows=windows, region=region, n_win=n_win, topk=topk)
    affinity = heard.affinity if n_win == heard.n_win and heard.affinity is not None else \
        bra_record.affinity_of(other)
    values, r_idx = affinity.topk(topk, -1)
    return bra_record._with(other, affinity=affinity, r_idx=r_idx, r_weight=values.softmax(-1), difference=None)


def record(model: Any, image: Any, path: Any = "run.bra", size: int = 640) -> str:
    """Run `model` once on a picture and write what its BRA layers did, of whatever code base; see `bra.bra_record`.

    Args:
        model: a module, or an object that predicts with one, such as Ultralytics' YOLO.
        image: a path, a PIL image, (h, w, 3) uint8, or the tensor that the module reads.
        path: of the file to write; `bra.load` reads it.
        size: longer side in pixels at which a module gets the picture; tensors go in as they are.

    Returns:
        The path.

    Raises:
        TraceError: no BRA layer was heard; the sentence says why.
    """
    try:
        return bra_record.record(model, image, path, size)
    except RecordError as error:
        raise TraceError(message(error.template, **error.values)) from error


def networks_of(model: Any) -> list[nn.Module]:
    """The networks inside whatever a person calls a model, as `bra_record.networks_of` finds them.

    Raises:
        TraceError: there is none, or one that cannot be listened to.
    """
    try:
        return bra_record.networks_of(model)
    except RecordError as error:
        raise TraceError(message(error.template, **error.values)) from error
