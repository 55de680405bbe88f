"""The epochs of a watched training: a slider, a button that plays them, curves of the numbers, and files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import streamlit as st

from bra.figures.timeline import NAMES, layer_curves, number_curves
from bra.models.watched import OpenTimeline, collapse_in_words
from bra.viewer.pack import Place
from dashboard.i18n import option_labels, tr, tr_noop, translate, visitor_language
from dashboard.services import timeline as timelines
from dashboard.state import timeline as state
from dashboard.state.upload import Upload
from dashboard.state.widgets import init_widget
from dashboard.widgets import chart, share
from dashboard.widgets.picture import plain

SECONDS = 0.9
"""From one epoch to the next while they play; a page takes a third of it to be drawn."""
THIS_LAYER = "layer"
CHOICES: Mapping[str, str] = {THIS_LAYER: tr_noop("All numbers of this layer")} | dict(NAMES)


def choose_epoch(model: OpenTimeline, file: Upload) -> None:
    """The slider and the button, and since when layers are collapsed."""
    timeline = timelines.timeline_of(file)
    collapsed = [plain(translate(words)) for layer in timeline.layers if (words := collapse_in_words(timeline, layer))]
    if collapsed:
        st.warning("\n\n".join(collapsed), icon=":material/adjust:")
    if len(model.epochs) < 2:
        st.caption(tr("The file holds one epoch: {epoch}.", epoch=model.epoch))
        return
    playing = state.is_playing(file.digest)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button(tr("Stop") if playing else tr("Play"), shortcut="p", key="timeline_play",
                  icon=":material/stop:" if playing else ":material/play_arrow:",
                  on_click=state.on_play, args=(file.digest, model.epochs, model.epoch))
        st.select_slider(tr("Epoch"), model.epochs, key=state.epoch_widget(model.epoch), on_change=state.on_epoch,
                         args=(file.digest,), help=tr("The arrow keys go from epoch to epoch."))
    with st.container():        # always: what follows, the stage, would be drawn anew if something came before it
        if playing:
            state.wait_for_tick()
            st.fragment(partial(_tick, file.digest, model.epochs, model.epoch), run_every=SECONDS)()


def _tick(digest: str, epochs: tuple[int, ...], epoch: int) -> None:
    """The clock: it runs once with the page, which counts for nothing, and then by itself."""
    if state.advance(digest, epochs, epoch):
        st.rerun()


def show_timeline(model: OpenTimeline, file: Upload, layer: str, queries: Mapping[str, Place]) -> list[share.File]:
    """The curves of a layer; returns the training as files."""
    timeline = timelines.timeline_of(file)
    caption = tr("{file} · {layer} · epoch {epoch}", file=file.name, layer=layer or tr("attention"),
                 epoch=model.epoch)
    options = list(CHOICES)
    chosen = st.selectbox(tr("Over the epochs"), options, format_func=option_labels(CHOICES), width=340,
                          key=init_widget(state.CURVES, THIS_LAYER, options))
    figure = layer_curves(timeline, layer, model.epoch, chart.style(), caption) if chosen == THIS_LAYER else \
        number_curves(timeline, chosen, model.epoch, chart.style(), caption)
    chart.draw(figure, file.name, layer, "epochs")
    language, epoch = visitor_language(), model.epoch
    moving = [share.File(tr("Animation, WebP"), partial(timelines.animation_file, file, layer, queries),
                         share.named("webp", file.name, layer, "epochs"),
                         tr("The routed windows of A and B moving on the picture, epoch by epoch."))]
    report = share.File(tr("Epochs, HTML"), partial(timelines.timeline_report, file, layer, epoch, queries, language),
                        share.named("html", file.name, layer, "epochs"),
                        tr("The animation, the curves and every number as one file that opens anywhere."))
    return [*(moving if timeline.photo is not None else ()), report]
