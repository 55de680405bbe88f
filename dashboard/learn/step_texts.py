"""What each step of the worked example does and why, in one sentence each, and its name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dashboard.i18n import tr_noop

NAMES: Final[Mapping[str, str]] = MappingProxyType({
    "tokens": tr_noop("Tokens"), "windows": tr_noop("Windows"), "means": tr_noop("Window means"),
    "affinity": tr_noop("Affinity"),
    "topk": tr_noop("Top-k"), "gather": tr_noop("Gather"), "scores": tr_noop("Scores"), "softmax": tr_noop("Softmax"),
    "output": tr_noop("Output"), "lepe": tr_noop("LePE"), "projection": tr_noop("Projection")})

WHAT: Final[Mapping[str, str]] = MappingProxyType({
    "tokens": tr_noop("A token is one place of the map, here two numbers x; three matrices make a query q, a key k and "
                      "a value v of it."),
    "windows": tr_noop("The map is cut into n_win × n_win windows, here 2×2, each of 4 tokens."),
    "means": tr_noop("Each window is summed up by two means: of its queries and of its keys."),
    "affinity": tr_noop("Every window's mean query is multiplied with every window's mean key."),
    "topk": tr_noop("Each window keeps the topk windows of its row with the largest affinity and drops the others."),
    "gather": tr_noop("The keys and values of the chosen windows are laid side by side."),
    "scores": tr_noop("Each query of the window is multiplied with each gathered key."),
    "softmax": tr_noop("Softmax turns each row of scores into shares that sum to 1."),
    "output": tr_noop("Each token gets the sum of the gathered values, each times its share."),
    "lepe": tr_noop("LePE, the local position encoding, passes a 3×3 filter over v, one for each channel."),
    "projection": tr_noop("Attention and LePE are added, and a last matrix mixes the channels."),
})
WHY: Final[Mapping[str, str]] = MappingProxyType({
    "tokens": tr_noop("q says what the token looks for, k what it is found by, v what it hands over."),
    "windows": tr_noop("4 windows are compared sooner than 16 tokens: that is where the saving comes from."),
    "means": tr_noop("The choice is made from these means alone: what averages out in a window cannot be found."),
    "affinity": tr_noop("The larger the number, the better the column's window fits what the row's window looks for; "
                        "its own need not fit best."),
    "topk": tr_noop("A dropped window is out of reach for every token of this row's window, however well one of its "
                    "tokens would fit."),
    "gather": tr_noop("From here on it is ordinary attention, over topk × 4 tokens instead of 16."),
    "scores": tr_noop("The windows were chosen for all 4 tokens together; now each token weighs for itself."),
    "softmax": tr_noop("They sum to 1 however much was dropped, so shares alone do not show what is missing."),
    "output": tr_noop("This is all that a token learns from the windows that were chosen for it."),
    "lepe": tr_noop("It reads neighbours straight from the map, across the borders of windows, whatever was routed."),
    "projection": tr_noop("The map has its first shape again, so that the layer fits between any two others."),
})

ON_PHOTO: Final[Mapping[str, str]] = MappingProxyType({
    "tokens": tr_noop("Each token now stands on {pixels}×{pixels} pixels and has {channels} numbers: choose which one "
                      "is shown."),
    "windows": tr_noop("The {h}×{w} tokens are cut into {n_win}×{n_win} windows of {t} tokens: choose n_win."),
    "means": tr_noop("Left one number of every key, right its mean in each window: what is smaller than a window is "
                     "gone."),
    "affinity": tr_noop("Point at a window: the brighter another one, the better it fits."),
    "topk": tr_noop("Only the numbered windows stay within reach of the one you point at: choose topk."),
    "gather": tr_noop("All that the tokens of the orange window can look at: {seen} of {all} tokens. Choose the "
                      "window."),
    "scores": tr_noop("The query of the token marked white, times every gathered key, in head 0; grey was dropped. "
                      "Choose the token."),
    "softmax": tr_noop("The same as shares: the largest is {most}, an even one would be {even}. Choose the token."),
    "output": tr_noop("Left one number of every value, right what attention makes of it: choose which number."),
    "lepe": tr_noop("In this layer and picture LePE adds {ratio} % of what attention adds (root mean square): switch "
                    "it off."),
    "projection": tr_noop("Each number of the output mixes all {channels} numbers of the sum: choose which one."),
})
"""What to see and to choose on a photograph."""
