"""Recommends one of many settings: the cheapest that keeps enough of full attention; and what speaks against others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bra.experiments.compare import MARGIN, CostName, SettingRow, amount, beats_controls, cheapest
from bra.messages import message
from bra.units import quantity

GOALS: Final = (0.95, 0.9, 0.75, 0.5)
"""Shares of full attention, of which the highest that a setting reaches counts."""


def reason(rows: Sequence[SettingRow], cost: CostName = "macs") -> str:
    """"This one", and why: the cheapest setting that reaches the highest of a few goals, of those worth their routing.

    Full attention is none of them, nor is a setting that keeps no more than random windows or the nearest ones.
    """
    routed = [row for row in rows if row.topk < row.n_win**2]
    worth = [row for row in routed if beats_controls(row)]
    if routed and not worth:
        first = max(routed, key=lambda row: row.recall - max(row.chance, row.nearest))
        return message("None of these settings can be recommended: none keeps over {points:.1f} points more of full "
                       "attention than as many random windows and the nearest ones. The best of them, n_win {n_win}, "
                       "topk {topk}, keeps {recall:.1f} % (nearest {nearest:.1f} %, chance {chance:.1f} %).",
                       points=100 * MARGIN, n_win=first.n_win, topk=first.topk, recall=100 * first.recall,
                       nearest=100 * first.nearest, chance=100 * first.chance)
    best, goal = recommended(rows, cost)
    if best is not None:
        return message("n_win {n_win}, topk {topk} is the cheapest here that keeps {goal:.0f} % of full attention "
                       "and more than its controls: {recall:.1f} %, its nearest windows {nearest:.1f} %, random "
                       "ones {chance:.1f} %. It takes {macs} multiply-adds and {memory}, and {padding:.1f} % of "
                       "its tokens are padding.", n_win=best.n_win, topk=best.topk, goal=100 * goal,
                       recall=100 * best.recall, nearest=100 * best.nearest, chance=100 * best.chance,
                       macs=quantity(best.macs), memory=amount(best, "peak_bytes"), padding=100 * best.padding_share)
    return message("No routed setting here keeps {goal:.0f} % of full attention and more than its controls: raise "
                   "topk, or lower n_win.", goal=100 * GOALS[-1])


def recommended(rows: Sequence[SettingRow], cost: CostName = "macs") -> tuple[SettingRow | None, float]:
    """The cheapest setting that reaches the highest of GOALS and is worth its routing, and that goal; or None."""
    worth = [row for row in rows if row.topk < row.n_win**2 and beats_controls(row)]
    for goal in GOALS:
        best = cheapest(worth, cost, goal)
        if best is not None:
            return best, goal
    return None, GOALS[-1]


def weighed(rows: Sequence[SettingRow], cost: CostName = "macs") -> tuple[str, ...]:
    """Of each setting what speaks for or against it beside the recommended one: kept, cost, memory, padding."""
    best, _ = recommended(rows, cost)
    return tuple(_weighed(row, rows, best) for row in rows)


def _weighed(row: SettingRow, rows: Sequence[SettingRow], best: SettingRow | None) -> str:
    if row is best:
        return message("this one")
    if row.topk >= row.n_win**2:
        return message("full attention, no routing")
    if not beats_controls(row):
        return message("no better than its nearest or random windows")
    over = next((other for other in rows if beats_controls(other) and _dominates(other, row)), None)
    if over is not None:
        return message("n_win {n_win}, topk {topk} keeps as much and takes less", n_win=over.n_win, topk=over.topk)
    if best is None:
        return message("keeps less than {goal:.0f} %", goal=100 * GOALS[-1])
    def rounded(number: float, digits: int = 0) -> float:       # 0 has no sign of its own: no "-0 %"
        return round(number, digits) + 0.0

    return message("kept {kept:+.1f}, cost {macs:+.0f} %, memory {memory:+.0f} %, padding {padding:+.1f}",
                   kept=rounded(100 * (row.recall - best.recall), 1), macs=rounded(100 * (row.macs / best.macs - 1)),
                   memory=rounded(100 * (row.peak_bytes / best.peak_bytes - 1)),
                   padding=rounded(100 * (row.padding_share - best.padding_share), 1))


def _dominates(one: SettingRow, other: SettingRow) -> bool:
    """Whether `one` keeps as much as `other` for no more of anything, and not just the same."""
    a, b = ((-row.recall, row.macs, row.peak_bytes, row.padding_share) for row in (one, other))
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))
