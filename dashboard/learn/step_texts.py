"""What each step of the worked example does and why, in one sentence each, and its name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dashboard.i18n import mark

NAMES: Final[Mapping[str, str]] = MappingProxyType({
    "tokens": mark("Tokens"), "windows": mark("Windows"), "means": mark("Window means"), "affinity": mark("Affinity"),
    "topk": mark("Top-k"), "gather": mark("Gather"), "scores": mark("Scores"), "softmax": mark("Softmax"),
    "output": mark("Output"), "lepe": mark("LePE"), "projection": mark("Projection")})

WHAT: Final[Mapping[str, str]] = MappingProxyType({
    "tokens": mark("A token is one place of the map, here two numbers x; three matrices make a query q, a key k and a "
                   "value v of it."),
    "windows": mark("The map is cut into n_win × n_win windows, here 2×2, each of 4 tokens."),
    "means": mark("Each window is summed up by two means: of its queries and of its keys."),
    "affinity": mark("Every window's mean query is multiplied with every window's mean key."),
    "topk": mark("Each window keeps the topk windows of its row with the largest affinity and drops the others."),
    "gather": mark("The keys and values of the chosen windows are laid side by side."),
    "scores": mark("Each query of the window is multiplied with each gathered key."),
    "softmax": mark("Softmax turns each row of scores into shares that sum to 1."),
    "output": mark("Each token gets the sum of the gathered values, each times its share."),
    "lepe": mark("LePE, the local position encoding, passes a 3×3 filter over v, one for each channel."),
    "projection": mark("Attention and LePE are added, and a last matrix mixes the channels."),
})
WHY: Final[Mapping[str, str]] = MappingProxyType({
    "tokens": mark("q says what the token looks for, k what it is found by, v what it hands over."),
    "windows": mark("4 windows are compared sooner than 16 tokens: that is where the saving comes from."),
    "means": mark("The choice is made from these means alone: what averages out in a window cannot be found."),
    "affinity": mark("The larger the number, the better the column's window fits what the row's window looks for; its "
                     "own need not fit best."),
    "topk": mark("A dropped window is out of reach for every token of this row's window, however well one of its "
                 "tokens would fit."),
    "gather": mark("From here on it is ordinary attention, over topk × 4 tokens instead of 16."),
    "scores": mark("The windows were chosen for all 4 tokens together; now each token weighs for itself."),
    "softmax": mark("They sum to 1 however much was dropped, so shares alone do not show what is missing."),
    "output": mark("This is all that a token learns from the windows that were chosen for it."),
    "lepe": mark("It reads neighbours straight from the map, across the borders of windows, whatever was routed."),
    "projection": mark("The map has its first shape again, so that the layer fits between any two others."),
})

ON_PHOTO: Final[Mapping[str, str]] = MappingProxyType({
    "tokens": mark("Each token now stands on {pixels}×{pixels} pixels and has {channels} numbers: choose which one is "
                   "shown."),
    "windows": mark("The {h}×{w} tokens are cut into {n_win}×{n_win} windows of {t} tokens: choose n_win."),
    "means": mark("Left one number of every key, right its mean in each window: what is smaller than a window is "
                  "gone."),
    "affinity": mark("Point at a window: the brighter another one, the better it fits."),
    "topk": mark("Only the numbered windows stay within reach of the one you point at: choose topk."),
    "gather": mark("All that the tokens of the orange window can look at: {seen} of {all} tokens. Choose the window."),
    "scores": mark("The query of the token marked white, times every gathered key, in head 1; grey was dropped. Choose "
                   "the token."),
    "softmax": mark("The same as shares: the largest is {most}, an even one would be {even}. Choose the token."),
    "output": mark("Left one number of every value, right what attention makes of it: choose which number."),
    "lepe": mark("In this layer and picture LePE adds {ratio} % of what attention adds (root mean square): switch it "
                 "off."),
    "projection": mark("Each number of the output mixes all {channels} numbers of the sum: choose which one."),
})
"""What to see and to choose on a photograph."""
