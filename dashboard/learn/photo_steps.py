"""The worked example's steps on a photograph, each with one control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from dashboard.state import session
from dashboard.state.example_view import N_WINS, ExampleView
from dashboard.widgets import model as model_widgets
from dashboard.widgets import picture, share


@dataclass(frozen=True, slots=True, eq=False)
class PhotoStep:
    """A step on a photograph.

    Attributes:
        step: its key.
        view: what is chosen.
        photo: the picture.
        layer: what the layer did on it.
        caption: what stands under it.
        place: where one looks.
        file: the picture's file, for programs.
    """

    step: str
    view: ExampleView
    photo: Photo
    layer: LayerTrace
    caption: Caption
    place: Place
    file: str

    @property
    def asked(self) -> tuple[int, int]:
        """Window and token at the place."""
        return locate(self.layer.grid, self.photo, self.place)

    @property
    def maps(self) -> LayerMaps:
        """The layer's maps."""
        return learn_services.photo_maps(self.photo, self.layer)

    @property
    def webp(self) -> bytes:
        """The picture as a file."""
        return model_services.encoded(self.photo, PICTURE_SIDE)

    @property
    def channel(self) -> int:
        """The channel shown, of those the layer has."""
        return min(self.view.channel, self.layer.spec.dim - 1)


def show(step: str) -> PhotoStep:
    """One step on the visitor's picture, by the model that is trained; what was shown."""
    view = example_state.current()
    chosen = picture.chosen_picture()
    settings = learn_services.photo_settings(view.n_win, view.k)
    entry = CATALOG[settings.model]
    provenance = model_widgets.provenance_of(settings, entry.provenance)
    caption = Caption(translate(entry.label), learn_services.PHOTO_LAYER, provenance, chosen.name)
    layer = learn_services.photo_layer(view.n_win, view.k, chosen.photo)
    seen = share.picture_file(chosen.sample, session.upload())
    at = PhotoStep(step, view, chosen.photo, layer, caption, view.place or chosen.focus, seen)
    _STEPS[step](at)
    return at


def say(at: PhotoStep, **values: Any) -> None:
    """What is seen here and what to choose."""
    st.markdown(f"**{translate(NAMES[at.step])}.** {translate(ON_PHOTO[at.step]).format(**values)}")


def draw(at: PhotoStep, *figures: str) -> None:
    """Figures, and the caption under them."""
    note = f'<p class="wx-note wx-source">{translate(at.caption.line(at.layer))}</p>'
    components.number_grid(row_of([*figures, note]), example_state.NUMBER_GRID, example_state.on_token)


def stage(at: PhotoStep, *show: str) -> None:
    """The stage of Explore, with its own key for each step, since what it shows at first is read once."""
    key = f"example_stage_{at.step}"
    message = learn_services.photo_stage(at.layer, at.photo, at.caption, at.place, show)
    components.stage(message, key, example_state.on_place, example_state.on_place)


def choose_channel(at: PhotoStep) -> None:
    """Which of the channels is shown."""
    last = at.layer.spec.dim - 1
    key = example_state.set_widget("channel", at.channel)
    st.slider(tr("Channel"), 0, last, key=key, on_change=example_state.on_change, args=("channel", key))


def pair(at: PhotoStep, left: str, right: str, between: str = "→") -> None:
    """Two maps of the layer in one channel, each on its own scale, and the choice of the channel."""
    choose_channel(at)
    grid, made = at.layer.grid, []
    for name, label in ((left, NAMED[left]), (right, NAMED[right])):
        values = getattr(at.maps, name)[at.channel]
        made.append(map_figure(label, values, grid, span_of(values), windows=True))
    draw(at, made[0], sign(between), made[1])


def _tokens(at: PhotoStep) -> None:
    say(at, pixels=round(at.layer.grid.stride[0]), channels=at.layer.spec.dim)
    choose_channel(at)
    values = learn_services.photo_input(at.photo)[at.channel]
    grid = at.layer.grid
    draw(at, photo_figure(f"{grid.image[1]}×{grid.image[0]} px" if grid.image else "", at.webp, grid), sign("→"),
         map_figure(f"<b>x</b>: {grid.h}×{grid.w}", values, grid, span_of(values)))


def _windows(at: PhotoStep) -> None:
    grid = at.layer.grid
    say(at, h=grid.h, w=grid.w, n_win=grid.n_win, t=grid.n_tokens)
    key = example_state.set_widget("n_win", at.view.n_win)
    st.slider("n_win", N_WINS[0], N_WINS[-1], key=key, on_change=example_state.on_change, args=("n_win", key))
    draw(at, photo_figure("", at.webp, grid, windows=True, query=at.asked[0], shown=1.5))


def _means(at: PhotoStep) -> None:
    say(at)
    pair(at, "k", "k_mean")


def _affinity(at: PhotoStep) -> None:
    say(at)
    stage(at, "affinity")


def _topk(at: PhotoStep) -> None:
    say(at)
    key = example_state.set_widget("k", at.view.k)
    st.slider("topk", 1, at.view.n_win**2, key=key, on_change=example_state.on_change, args=("k", key))
    stage(at, "arrows")


def _gather(at: PhotoStep) -> None:
    grid, window = at.layer.grid, at.asked[0]
    chosen = at.layer.r_idx[0, window].tolist()
    say(at, seen=len(chosen) * grid.n_tokens, all=grid.H * grid.W)
    key = example_state.set_widget("window", window)
    st.slider(tr("Window"), 0, grid.n_windows - 1, key=key, on_change=example_state.on_window, args=(grid, key))
    draw(at, photo_figure("", at.webp, grid, query=window, routed=chosen), sign("→"),
         strip_figure("", at.webp, grid, chosen))


def _scores(at: PhotoStep) -> None:
    say(at)
    window, token = choose_token(at)
    scores, _ = learn_services.photo_scores(at.layer, window, token)
    compare_token(at, ("<b>S</b>", scores))


def _softmax(at: PhotoStep) -> None:
    scores, shares = learn_services.photo_scores(at.layer, *at.asked)
    say(at, most=tr("{share:.1f} %", share=100 * np.nanmax(shares)),
        even=tr("{share:.1f} %", share=100 / (at.layer.spec.topk * at.layer.grid.n_tokens)))
    choose_token(at)
    compare_token(at, ("<b>S</b>", scores), ("<b>P</b>", shares))


def choose_token(at: PhotoStep) -> tuple[int, int]:
    """Which token of the window asks; window and token."""
    grid, (window, token) = at.layer.grid, at.asked
    key = example_state.set_widget("token_of", token)
    st.slider(tr("Token of window {n}", n=window), 0, grid.n_tokens - 1, key=key,
              on_change=example_state.on_window_token, args=(grid, window, key))
    return window, token


def compare_token(at: PhotoStep, *maps: tuple[str, Any]) -> None:
    """The photograph with the token that asks, and what it finds."""
    grid, (window, token) = at.layer.grid, at.asked
    asked, chosen = grid.token_of_window(window, token), at.layer.r_idx[0, window].tolist()
    shown = THREE if len(maps) > 1 else 1
    figures = [photo_figure("", at.webp, grid, query=window, routed=chosen, token=asked, shown=shown)]
    for label, values in maps:
        figures += [sign("→"), map_figure(label, values, grid, span_of(values), token=asked, shown=shown)]
    draw(at, *figures)


def _output(at: PhotoStep) -> None:
    say(at)
    pair(at, "v", "mixed")


def _lepe(at: PhotoStep) -> None:
    attention, lepe, both = (getattr(at.maps, name) for name in ("mixed", "lepe", "summed"))
    say(at, ratio=round(100 * float(np.sqrt(np.mean(lepe**2) / np.mean(attention**2)))))
    key = example_state.set_widget("lepe", at.view.lepe)
    st.toggle("LePE", key=key, on_change=example_state.on_change, args=("lepe", key))
    n, grid = at.channel, at.layer.grid
    span = span_of(attention[n], lepe[n], both[n])      # one scale: sizes are what is compared
    parts = (("mixed", attention), ("lepe", lepe if at.view.lepe else np.zeros_like(lepe)),
             ("summed", both if at.view.lepe else attention))
    first, second, third = (map_figure(NAMED[name], values[n], grid, span, shown=THREE) for name, values in parts)
    draw(at, first, sign("+"), second, sign("="), third)


def _projection(at: PhotoStep) -> None:
    say(at, channels=at.layer.spec.dim)
    pair(at, "summed", "out")


THREE: Final = 0.66
"""Size of a picture that has two others beside it."""
NAMED: Final = MappingProxyType({
    "k": "<b>k</b>", "k_mean": "<b>k̄</b>", "v": "<b>v</b>", "mixed": "<b>O</b>", "lepe": "<b>L</b>",
    "summed": "<b>O + L</b>", "out": "<b>y</b>"})
"""The symbols of the maps, the same as in the number grid."""
_STEPS: Final[MappingProxyType[str, Callable[[PhotoStep], None]]] = MappingProxyType({
    "tokens": _tokens, "windows": _windows, "means": _means, "affinity": _affinity, "topk": _topk, "gather": _gather,
    "scores": _scores, "softmax": _softmax, "output": _output, "lepe": _lepe, "projection": _projection})
