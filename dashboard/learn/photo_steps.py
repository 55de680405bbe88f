"""The worked example's steps on a photograph, each with one control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import streamlit as st

from bra.metrics.activations import LayerMaps
from bra.models.catalog import CATALOG
from bra.photo import Photo
from bra.tracing import LayerTrace
from bra.viewer.pack import PICTURE_SIDE, Caption, Place, locate
from dashboard import components
from dashboard.figures.number_grid import row_of, sign
from dashboard.figures.photo_maps import map_figure, photo_figure, span_of, strip_figure
from dashboard.i18n import tr, translate
from dashboard.learn.step_texts import NAMES, ON_PHOTO
from dashboard.services import learn as learn_services
from dashboard.services import models as model_services
from dashboard.state import example as example_state
from dashboard.state.example_view import N_WINS, ExampleView
from dashboard.widgets import model as model_widgets
from dashboard.widgets import picture


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A step on a photograph.

    Attributes:
        step: its key.
        view: what is chosen.
        photo: the picture.
        layer: what the layer did on it.
        caption: what stands under it.
        place: where one looks.
    """

    step: str
    view: ExampleView
    photo: Photo
    layer: LayerTrace
    caption: Caption
    place: Place

    @property
    def at(self) -> tuple[int, int]:
        """Window and token at the place."""
        return locate(self.layer.grid, self.photo, self.place)

    @property
    def maps(self) -> LayerMaps:
        """The layer's maps."""
        return learn_services.photo_maps(self.view.n_win, self.view.k, self.photo)

    @property
    def webp(self) -> bytes:
        """The picture as a file."""
        return model_services.encoded(self.photo, PICTURE_SIDE)

    @property
    def channel(self) -> int:
        """The channel shown, of those the layer has."""
        return min(self.view.channel, self.layer.spec.dim - 1)


def show(step: str) -> None:
    """One step on the visitor's picture, by the model that is trained."""
    view = example_state.current()
    photo, name, _, focus = picture.picture()
    settings = learn_services.photo_settings(view.n_win, view.k)
    entry = CATALOG[settings.model]
    provenance = model_widgets.provenance_of(settings, entry.provenance)
    caption = Caption(translate(entry.label), learn_services.PHOTO_LAYER, provenance, name)
    layer = learn_services.photo_layer(view.n_win, view.k, photo)
    shot = Shot(step, view, photo, layer, caption, view.place or focus)
    _STEPS[step](shot)


def say(shot: Shot, **values: Any) -> None:
    """What is seen here and what to choose."""
    st.markdown(f"**{translate(NAMES[shot.step])}.** {translate(ON_PHOTO[shot.step]).format(**values)}")


def draw(shot: Shot, *figures: str) -> None:
    """Figures, and the caption under them."""
    note = f'<p class="wx-note wx-source">{translate(shot.caption.line(shot.layer))}</p>'
    components.board(row_of([*figures, note]), example_state.BOARD, example_state.take_token)


def stage(shot: Shot, *show: str) -> None:
    """The stage of Explore, with its own key for each step, since what it shows at first is read once."""
    key = f"worked_stage_{shot.step}"
    message = learn_services.photo_stage(shot.layer, shot.photo, shot.caption, shot.place, show)
    taken = partial(example_state.take_place, key)
    components.stage(message, key, taken, taken)


def choose_channel(shot: Shot) -> None:
    """Which of the channels is shown."""
    last = shot.layer.spec.dim - 1
    key = example_state.given("channel", shot.channel)
    st.slider(tr("Channel"), 0, last, key=key, on_change=example_state.take, args=("channel", key))


def pair(shot: Shot, left: str, right: str, between: str = "→") -> None:
    """Two maps of the layer in one channel, each on its own scale, and the choice of the channel."""
    choose_channel(shot)
    grid, made = shot.layer.grid, []
    for name, label in ((left, NAMED[left]), (right, NAMED[right])):
        values = getattr(shot.maps, name)[shot.channel]
        made.append(map_figure(label, values, grid, span_of(values), windows=True))
    draw(shot, made[0], sign(between), made[1])


def _tokens(shot: Shot) -> None:
    say(shot, pixels=round(shot.layer.grid.stride[0]), channels=shot.layer.spec.dim)
    choose_channel(shot)
    values = learn_services.photo_input(shot.photo)[shot.channel]
    grid = shot.layer.grid
    draw(shot, photo_figure(f"{grid.image[1]}×{grid.image[0]} px" if grid.image else "", shot.webp, grid), sign("→"),
         map_figure(f"<b>x</b>: {grid.h}×{grid.w}", values, grid, span_of(values)))


def _windows(shot: Shot) -> None:
    grid = shot.layer.grid
    say(shot, h=grid.h, w=grid.w, n_win=grid.n_win, t=grid.n_tokens)
    key = example_state.given("n_win", shot.view.n_win)
    st.slider("n_win", N_WINS[0], N_WINS[-1], key=key, on_change=example_state.take, args=("n_win", key))
    draw(shot, photo_figure("", shot.webp, grid, windows=True, query=shot.at[0], shown=1.5))


def _means(shot: Shot) -> None:
    say(shot)
    pair(shot, "k", "k_mean")


def _affinity(shot: Shot) -> None:
    say(shot)
    stage(shot, "affinity")


def _topk(shot: Shot) -> None:
    say(shot)
    key = example_state.given("k", shot.view.k)
    st.slider("topk", 1, shot.view.n_win**2, key=key, on_change=example_state.take, args=("k", key))
    stage(shot, "arrows")


def _gather(shot: Shot) -> None:
    grid, window = shot.layer.grid, shot.at[0]
    chosen = shot.layer.r_idx[0, window].tolist()
    say(shot, seen=len(chosen) * grid.n_tokens, all=grid.H * grid.W)
    key = example_state.given("window", window)
    st.slider(tr("Window"), 0, grid.n_windows - 1, key=key, on_change=example_state.take_window, args=(grid, key))
    draw(shot, photo_figure("", shot.webp, grid, query=window, routed=chosen), sign("→"),
         strip_figure("", shot.webp, grid, chosen))


def _scores(shot: Shot) -> None:
    say(shot)
    window, token = choose_token(shot)
    scores, _ = learn_services.photo_scores(shot.layer, window, token)
    compare_token(shot, ("<b>S</b>", scores))


def _softmax(shot: Shot) -> None:
    scores, shares = learn_services.photo_scores(shot.layer, *shot.at)
    say(shot, most=tr("{share:.1f} %", share=100 * np.nanmax(shares)),
        even=tr("{share:.1f} %", share=100 / (shot.layer.spec.topk * shot.layer.grid.n_tokens)))
    choose_token(shot)
    compare_token(shot, ("<b>S</b>", scores), ("<b>P</b>", shares))


def choose_token(shot: Shot) -> tuple[int, int]:
    """Which token of the window asks; window and token."""
    grid, (window, token) = shot.layer.grid, shot.at
    key = example_state.given("token_of", token)
    st.slider(tr("Token of window {n}", n=window), 0, grid.n_tokens - 1, key=key, on_change=example_state.take_token_of,
              args=(grid, window, key))
    return window, token


def compare_token(shot: Shot, *maps: tuple[str, Any]) -> None:
    """The photograph with the token that asks, and what it finds."""
    grid, (window, token) = shot.layer.grid, shot.at
    at, chosen = grid.token_of_window(window, token), shot.layer.r_idx[0, window].tolist()
    shown = THREE if len(maps) > 1 else 1
    figures = [photo_figure("", shot.webp, grid, query=window, routed=chosen, token=at, shown=shown)]
    for label, values in maps:
        figures += [sign("→"), map_figure(label, values, grid, span_of(values), token=at, shown=shown)]
    draw(shot, *figures)


def _output(shot: Shot) -> None:
    say(shot)
    pair(shot, "v", "mixed")


def _lepe(shot: Shot) -> None:
    attention, lepe, both = (getattr(shot.maps, name) for name in ("mixed", "lepe", "summed"))
    say(shot, ratio=round(100 * float(np.sqrt(np.mean(lepe**2) / np.mean(attention**2)))))
    key = example_state.given("lepe", shot.view.lepe)
    st.toggle("LePE", key=key, on_change=example_state.take, args=("lepe", key))
    n, grid = shot.channel, shot.layer.grid
    span = span_of(attention[n], lepe[n], both[n])      # one scale: sizes are what is compared
    parts = (("mixed", attention), ("lepe", lepe if shot.view.lepe else np.zeros_like(lepe)),
             ("summed", both if shot.view.lepe else attention))
    first, second, third = (map_figure(NAMED[name], values[n], grid, span, shown=THREE) for name, values in parts)
    draw(shot, first, sign("+"), second, sign("="), third)


def _projection(shot: Shot) -> None:
    say(shot, channels=shot.layer.spec.dim)
    pair(shot, "summed", "out")


THREE: Final = 0.66
"""Size of a picture that has two others beside it."""
NAMED: Final = MappingProxyType({
    "k": "<b>k</b>", "k_mean": "<b>k̄</b>", "v": "<b>v</b>", "mixed": "<b>O</b>", "lepe": "<b>L</b>",
    "summed": "<b>O + L</b>", "out": "<b>y</b>"})
"""The symbols of the maps, the same as on the board."""
_STEPS: Final[MappingProxyType[str, Callable[[Shot], None]]] = MappingProxyType({
    "tokens": _tokens, "windows": _windows, "means": _means, "affinity": _affinity, "topk": _topk, "gather": _gather,
    "scores": _scores, "softmax": _softmax, "output": _output, "lepe": _lepe, "projection": _projection})
