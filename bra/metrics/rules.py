"""Other rules of routing at equal cost, tried on a layer's recorded q, k and v without training.

Every rule lets a query attend to k windows, as many as the layer's own routing, so that attention itself costs the
same; top-p does so on average. What differs is how the windows are chosen. In the formulas Q̄ᵢ and K̄ⱼ are the means of
q and k over windows i and j, and A[i, j] = scale·Q̄ᵢ·K̄ⱼ the layer's affinities, of the learned embedding where it has
one. Each rule may choose all windows that the layer may choose.

The numbers are those of a layer that was trained with one of these rules or with none. A rule that keeps little here
may keep much once q and k have learned under it; `Rule.training` says what would have to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from einops import rearrange
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from bra import functional as BF
from bra.errors import BRAError
from bra.messages import message
from bra.metrics import dense as bd
from bra.metrics import routing as bf
from bra.metrics.overlap import picked_overlap, window_overlaps
from bra.metrics.query_dependence import choices_without_hubs
from bra.metrics.routing import Bools, Floats, Ints
from bra.profiling.formula import traced_cost
from bra.tracing import LayerTrace

NUMBER_BYTES: Final = 4
"""Of float32, in which keys and values are counted."""


# the rules ------------------------------------------------------------------------------------------------


def own_windows(trace: LayerTrace, image: int = 0) -> Ints:
    """(p2, k): the layer's own choice, the k largest A[i, j] = scale·Q̄ᵢ·K̄ⱼ.

    Source: bi-level routing attention (Zhu et al., arXiv:2303.08810).
    """
    return trace.r_idx[image].numpy()


def max_pooled(trace: LayerTrace, image: int = 0) -> Ints:
    """(p2, k): the k largest scale·Q̄ᵢ·Mⱼ, where M[j, c] = max over the keys of window j of k[c].

    A mean drowns a small object in what surrounds it; the largest number of each channel does not. Without the
    router's learned embedding, which knows means alone. Source: max-pooled keys are among those that the gate of
    SeerAttention reads (Gao et al., arXiv:2410.13276).
    """
    seen = _keys_seen(trace)
    largest = trace.k[image].float().masked_fill(~seen[..., None], float("-inf")).amax(2)     # (m, p2, Q/m)
    largest[:, ~seen.any(-1)] = 0
    means = rearrange(_query_means(trace, image), "m n c -> n (m c)")
    logits = trace.spec.scale * means @ rearrange(largest, "m n c -> (m c) n")
    return _best(logits.masked_fill(~seen.any(-1), float("-inf")).numpy(), trace.spec.topk)


def by_token(trace: LayerTrace, image: int = 0) -> bd.Choose:
    """A mask: for each head h and query token u the k largest scale·q[h, u]·K̄[h, j].

    Source: mixture of block attention, MoBA (Lu et al., arXiv:2502.13189), whose gate has no weights of its own
    either. Its current block, which is forced since a text is read from the left, has no like in a picture: see
    `with_own` for that.
    """
    seen = _keys_seen(trace)
    keys = trace.k[image].float()
    means = (keys * seen[..., None]).sum(2) / seen.sum(-1).clamp(min=1)[:, None]              # (m, p2, Q/m)
    return partial(_best_by_token, trace.q[image].float(), means, seen.any(-1), trace.spec.topk)


def _best_by_token(q: Tensor, means: Tensor, seen: Tensor, topk: int, windows: slice, tokens: slice) -> Tensor:
    """(m, n, t', p2) bool; the scale changes no order."""
    part = q[:, windows, tokens]
    gates = (part.flatten(1, 2) @ means.mT).masked_fill(~seen, float("-inf")).view(*part.shape[:3], -1)
    return torch.zeros_like(gates, dtype=torch.bool).scatter_(-1, gates.topk(topk, -1).indices, True)


def with_own(trace: LayerTrace, image: int = 0) -> Ints:
    """(p2, k): window i itself, and the k − 1 largest A[i, j] of the others.

    Source: the current block of MoBA (Lu et al., arXiv:2502.13189).
    """
    return _forced(trace, bf.nearest_windows(trace)[:, :1], image)


def with_band(trace: LayerTrace, image: int = 0) -> Ints:
    """(p2, k): the ⌈k/2⌉ windows nearest to i, itself first, and the largest A[i, j] of the others.

    Source: native sparse attention, NSA (Yuan et al., arXiv:2502.11089), which forces blocks around the query beside
    those that it selects.
    """
    return _forced(trace, bf.nearest_windows(trace)[:, : -(-trace.spec.topk // 2)], image)


def top_p(trace: LayerTrace, image: int = 0) -> Bools:
    """(p2, p2) bool: the fewest windows whose share of softmax(A[i]) reaches p, at least one.

    p is the largest at which all queries on the map together take no more than k windows each, so that the cost is the
    same on average: a sure query takes few, an unsure one many. Source: top-p pruning of sparse attention in Twilight
    (Lin et al., arXiv:2502.02770), after nucleus sampling.
    """
    share = bf.full_softmax(trace, image)
    order = np.argsort(-share, -1, kind="stable")
    reached = np.cumsum(np.take_along_axis(share, order, -1), -1)
    # The next window of a query is taken when what it has is below p: from the least, as many as there is room for.
    mapped, k = bf.on_map(trace), trace.spec.topk
    asked = np.zeros((int(mapped.sum()), share.shape[1] - 1), bool)
    asked.flat[np.argsort(reached[mapped, :-1], None, kind="stable")[: len(asked) * (k - 1)]] = True
    taken = np.tile(np.arange(share.shape[1]) < k, (len(share), 1))     # of padding, which asks for nothing
    taken[mapped, 1:] = asked
    chosen = np.zeros_like(taken)
    np.put_along_axis(chosen, order, taken, -1)
    return chosen & bf.choosable(trace)


def without_column_means(trace: LayerTrace, image: int = 0) -> Ints:
    """(p2, k): the k largest A[i, j] − mean over i of A[i, j], so that no window is wanted by all.

    Source: centring against hubs (Suzuki et al., Centering Similarity Measures to Reduce Hubs, EMNLP 2013).
    """
    return choices_without_hubs(trace, image)


def nearest(trace: LayerTrace, image: int = 0) -> Ints:
    """(p2, k): the k windows whose centres are nearest, itself first; no q, no k.

    Source: `routing.nearest_windows`, the control that a routing must beat.
    """
    return bf.nearest_windows(trace)


def chance(trace: LayerTrace, image: int = 0) -> Ints:
    """(p2, k): k windows at random; of its recall, `routing.chance`, the expectation is shown, not this draw's."""
    return bf.random_windows(trace)


# what each is ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """A way to choose windows.

    Attributes:
        name: for people.
        about: how it chooses, in a sentence.
        training: what would have to learn for it.
        choose: (trace, image) -> (p2, k) windows, or (p2, p2) bool, or a mask by head and token.
        control: whether it is there for comparison alone, and not to be recommended.
    """

    name: str
    about: str
    training: str
    choose: Callable[[LayerTrace, int], Ints | Bools | bd.Choose] | None
    control: bool = False


RULES: Final[Mapping[str, Rule]] = MappingProxyType({
    "bra": Rule(message("means of windows (BRA)"),
                message("The largest products of the mean query of a window with the mean keys of the others: what "
                        "this layer does."),
                message("Nothing more: the layer's q and k are as its model learned them."), own_windows),
    "max": Rule(message("max-pooled keys"),
                message("As BRA, with the largest number of each channel of a window's keys in place of the mean."),
                message("q and k, so that a channel's largest number says what a window holds."), max_pooled),
    "token": Rule(message("per head and token (MoBA)"),
                  message("Each token of each head chooses windows of its own, by their mean keys."),
                  message("q and k of each head, since in BRA only the sum over heads chooses; and a kernel in which "
                          "tokens of one window read different windows."), by_token),
    "own": Rule(message("own window always"),
                message("As BRA, with one place for the window itself."),
                message("The other places, which no longer need to find the window itself."), with_own),
    "band": Rule(message("local band always (NSA)"),
                 message("Half of the places for the nearest windows, the others as BRA."),
                 message("The other places, which are left for what is far away."), with_band),
    "top_p": Rule(message("top-p instead of top-k"),
                  message("As many windows as reach one share p of the routing softmax: few for a sure query, many for "
                          "an unsure one, topk on average."),
                  message("Affinities whose size means sureness. Here p was set from this picture; a layer in use "
                          "would need one p for all, and its cost would change with the picture."), top_p),
    "centred": Rule(message("column means taken off"),
                    message("As BRA, after the mean affinity of each window over all queries was taken off: no hubs."),
                    message("Little; the means are known only once all queries are, or have to be kept from "
                            "training."), without_column_means),
    "nearest": Rule(message("nearest windows"), message("The nearest windows, whatever the picture shows."),
                    message("Nothing: it has no router."), nearest, control=True),
    "chance": Rule(message("random windows"), message("Windows at random."), message("Nothing: it is a control."),
                   chance, control=True),
    "oracle": Rule(message("best by window"),
                   message("The windows with most full attention, which has to be computed first."),
                   message("It cannot be: it is the limit for rules that choose by window for all heads."),
                   None, control=True),
})
"""By key. `oracle` chooses by `dense.oracle_windows`, from full attention; the others know q and k alone."""


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule in one layer on one picture. Shares are means over the windows on the map (and the heads), 0 to 1.

    Attributes:
        rule: a key of RULES.
        n_win: windows per side.
        topk: windows each query attends to.
        recall: share of dense attention that falls on the chosen windows.
        change: norm of the difference of the layer's output from that of full attention, over the norm of the latter.
        macs: multiply-adds of the layer with this rule; comparing and sorting multiply nothing.
        kv_bytes: bytes of keys and values that are read, float32, by a kernel that takes one query window at a time;
            of the oracle all keys once more.
        overlap: mean overlap of labels between a window and those that it chose; None without labels.
    """

    rule: str
    n_win: int
    topk: int
    recall: float
    change: float
    macs: int
    kv_bytes: int
    overlap: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """All numbers by name."""
        return asdict(self)


# what each keeps ------------------------------------------------------------------------------------------


def try_rules(trace: LayerTrace, labels: ArrayLike | None = None, image: int = 0, rules: Iterable[str] = tuple(RULES),
              progress: Callable[[int, int], None] = lambda done, todo: None) -> tuple[RuleRow, ...]:
    """Each rule on one layer and picture, in the order in which they were asked for.

    Takes the time of about one `dense_attention`, and of three more for "token"; memory like the trace's own q, k and
    v.

    Args:
        trace: the layer.
        labels: as for `overlap.semantic_overlap`, where there are any.
        image: which image of the batch.
        rules: keys of RULES.
        progress: told (rules done, rules to do) again and again; what it raises ends the work.

    Raises:
        BRAError: there is no such rule, or labels are not possible.
        TraceError: the layer attends in a way of its own.
    """
    names = tuple(rules)
    if unknown := [name for name in names if name not in RULES]:
        raise BRAError(message("rule {name!r} is not known: choose of {names}.", name=unknown[0],
                               names=", ".join(RULES)))
    trace.check_attention()
    alike = None if labels is None else window_overlaps(trace.grid, labels)
    trace = _alone(trace, image)
    dense = bd.dense_attention(trace, still=partial(progress, 0, len(names)))
    rows: list[RuleRow] = []
    for name in names:
        rows.append(_row(name, trace, dense, alike, partial(progress, len(rows), len(names))))
        progress(len(rows), len(names))
    return tuple(rows)


def most_chosen(trace: LayerTrace, rule: str) -> Ints:
    """(p2, k): the k windows that a rule chooses for most heads and tokens of each, equals by affinity; of one image.

    For a rule that chooses once for a window, these are its choice. Not for "oracle", which needs full attention.
    """
    choose = RULES[rule].choose
    if choose is None:
        raise BRAError(message("rule {name!r} is not known: choose of {names}.", name=rule, names=", ".join(
            name for name, one in RULES.items() if one.choose is not None)))
    chosen = choose(trace, 0)
    if not isinstance(chosen, np.ndarray):
        picks: Floats = np.nan_to_num(bd.masked_attention(trace, chosen).picks)
    else:
        picks = _picked(chosen, trace.grid.n_windows).astype(np.float64)
    return np.lexsort((-trace.affinity[0].double().numpy(), -picks), -1)[:, : trace.spec.topk]


def _row(name: str, trace: LayerTrace, dense: bd.DenseAttention, alike: Floats | None,
         still: Callable[[], object]) -> RuleRow:
    mapped, choose, spec = bf.on_map(trace), RULES[name].choose, trace.spec
    chosen = bd.oracle_windows(trace, dense) if choose is None else choose(trace, 0)
    recall: Floats
    if isinstance(chosen, np.ndarray):
        picked = _picked(chosen, trace.grid.n_windows)
        attention, picks = attention_to(trace, picked), picked.astype(np.float64)
        recall, tiles = np.asarray((dense.mass * picks).sum(-1)), int(picked.sum()) * spec.num_heads
    else:
        found = bd.masked_attention(trace, chosen, still=still)
        attention, recall, picks, tiles = found.out, found.recall, found.picks, int(found.tiles.sum())
    if name == "chance":        # expected, not drawn
        recall = np.full(recall.shape, bf.chance(trace))
        picks = np.tile(bf.choosable(trace), (len(picks), 1)).astype(np.float64)
    change = bd.output_change(trace, dense, attention=attention).relative_error[mapped]
    overlap = None if alike is None else picked_overlap(alike, np.nan_to_num(picks))[mapped]
    s = trace.k.shape[3]
    key_bytes = s * spec.qk_channels * NUMBER_BYTES
    window_bytes = key_bytes + s * spec.dim * NUMBER_BYTES
    return RuleRow(name, trace.grid.n_win, spec.topk, float(recall[:, mapped].mean()), float(change.mean()),
                   macs=_macs(name, trace),
                   kv_bytes=tiles * window_bytes // spec.num_heads
                   + (trace.grid.n_windows**2 * key_bytes if name == "oracle" else 0),
                   overlap=float(np.nanmean(overlap)) if overlap is not None and np.isfinite(overlap).any() else None)


def _macs(rule: str, trace: LayerTrace) -> int:
    """The layer's multiply-adds, its routing replaced by the rule's."""
    grid, spec = trace.grid, trace.spec
    cost = traced_cost(spec, grid)
    routing = sum(part.macs for part in cost.parts if part.name == "routing")
    tokens, Q = grid.H * grid.W, spec.qk_channels
    other = {"max": grid.n_windows**2 * Q, "token": tokens * grid.n_windows * Q, "nearest": 0, "chance": 0,
             "oracle": tokens * grid.n_windows * trace.k.shape[3] * Q}
    return cost.macs - routing + other.get(rule, routing)


def _alone(trace: LayerTrace, image: int) -> LayerTrace:
    """A batch of that one image."""
    one = slice(image, image + 1)
    return replace(trace, affinity=trace.affinity[one], r_idx=trace.r_idx[one], r_weight=trace.r_weight[one],
                   q=trace.q[one], k=trace.k[one], v=trace.v[one],
                   lepe=None if trace.lepe is None else trace.lepe[one],
                   factor=None if trace.factor is None else trace.factor[one])


def attention_to(trace: LayerTrace, picked: Bools) -> Tensor:
    """(m, p2, t, c/m): what a trace of one image puts out by attention to the windows (p2, p2) that each picked.

    Windows that picked equally many go together.
    """
    picks, counts = torch.from_numpy(picked), picked.sum(-1)
    out = trace.q.new_empty(*trace.q.shape[1:4], trace.v.shape[-1], dtype=torch.float32)
    q, k, v = (t.float() for t in (trace.q, trace.k, trace.v))
    for count in np.unique(counts):
        rows = torch.from_numpy(np.flatnonzero(counts == count))
        r_idx = picks[rows].nonzero()[:, 1].view(1, len(rows), -1)
        weights = trace.affinity[:, rows].float().gather(-1, r_idx).softmax(-1)
        out[:, rows] = BF.attend_gathered(q[:, :, rows], k, v, r_idx, trace.spec.scale,
                                          BF.weight_factor(weights, trace.spec.mul_weight), trace.real_keys)[0]
    return out


def _picked(chosen: NDArray[Any], n: int) -> Bools:
    """(p2, k) windows of n, or (p2, n) bool already -> (p2, n) bool."""
    return chosen if chosen.dtype == bool else bf.picked(chosen, n)


def _keys_seen(trace: LayerTrace) -> Tensor:
    """(p2, s) bool: keys that may be attended."""
    return torch.ones(trace.k.shape[2:4], dtype=torch.bool) if trace.real_keys is None else trace.real_keys


def _query_means(trace: LayerTrace, image: int) -> Tensor:
    """(m, p2, Q/m), as the router sees them: without padding only where the layer masks it."""
    q = trace.q[image].float()
    if trace.real_keys is None:
        return q.mean(2)
    real = torch.from_numpy(trace.grid.real_tokens)
    return (q * real[..., None]).sum(2) / real.sum(-1).clamp(min=1)[:, None]


def _forced(trace: LayerTrace, first: Ints, image: int) -> Ints:
    """(p2, k): the windows `first` (p2, n), and of the others those with the largest affinities."""
    logits = trace.affinity[image].double().numpy().copy()
    np.put_along_axis(logits, first, np.inf, -1)
    return _best(logits, trace.spec.topk)


def _best(logits: NDArray[np.floating[Any]], k: int) -> Ints:
    """(p2, p2) -> (p2, k): the windows with the largest logits, best first, equals by index."""
    return np.argsort(-logits, -1, kind="stable")[:, :k]


# in words -------------------------------------------------------------------------------------------------


def verdict(rows: Sequence[RuleRow]) -> str:
    """Which rule keeps most of full attention, and by how much more than chance, in a sentence; controls apart.

    Args:
        rows: of one layer, or means or medians over pictures, "bra" and "chance" among them.
    """
    by_rule = {row.rule: row for row in rows}
    best = max((row for row in rows if not RULES[row.rule].control), key=lambda row: row.recall)
    by_chance, bra = by_rule["chance"].recall, by_rule["bra"].recall
    values = {"rule": RULES[best.rule].name, "recall": 100 * best.recall, "gain": 100 * (best.recall - by_chance),
              "chance": 100 * by_chance, "near": 100 * by_rule["nearest"].recall, "bra": 100 * bra}
    if best.recall <= by_chance:
        return message("No rule keeps more of full attention here than random windows, {chance:.1f} %.", **values)
    if best.rule == "bra":
        return message("Means of windows, as BRA has them, keep most of full attention here: {recall:.1f} %, "
                       "{gain:.1f} points more than random windows ({chance:.1f} %); the nearest windows keep "
                       "{near:.1f} %.", **values)
    return message("Most of full attention is kept here by: {rule}. It keeps {recall:.1f} %, {gain:.1f} points more "
                   "than random windows ({chance:.1f} %); BRA's own means of windows keep {bra:.1f} %, the nearest "
                   "windows {near:.1f} %.", **values)


UNTRAINED_NOTE: Final = message(
    "All of this is without training: the layer learned under its own rule, or under none. A rule that keeps little "
    "here may keep much once q and k have learned under it.")
