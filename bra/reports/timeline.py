"""A watched training as files: its routing as an animation, and a page with that, its curves and its numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from html import escape
from typing import Final

from PIL import Image

from bra.errors import BRAError
from bra.figures.template import Style, file_name
from bra.figures.timeline import NAMES, layer_curves, value_of
from bra.messages import ENGLISH, Language, message
from bra.models.watched import collapse_in_words
from bra.readers.timeline import Timeline, recording_of
from bra.reports.figure_html import figure_html, figures_script
from bra.reports.tables import COLLAPSED, sheet
from bra.training.routing_picture import routing_picture
from bra.viewer.pack import Place, locate

MOST_FRAMES: Final = 100
"""Epochs in an animation; of more, so many that lie evenly, the first and the last among them."""
FRAME_MS: Final = 400
LAST_MS: Final = 1600
SIDE: Final = 480


def shown_epochs(count: int, most: int = MOST_FRAMES) -> tuple[int, ...]:
    """Places of the epochs that an animation of at most so many pictures shows, of `count` in all."""
    if count <= most:
        return tuple(range(count))
    return tuple(round(n * (count - 1) / (most - 1)) for n in range(most))


def animation_webp(timeline: Timeline, data: bytes, layer: str, queries: Mapping[str, Place],
                   still: Callable[[int, int], object] = lambda done, todo: None) -> bytes:
    """The routing of one or two queries of a layer, epoch by epoch, as an animated WebP.

    Args:
        timeline: the training.
        data: the bytes that it was read from.
        layer: its name.
        queries: places of "a" and "b" on the picture.
        still: told how many pictures of how many are drawn; what it raises ends the work.

    Raises:
        BRAError: the file holds no picture, or no epoch with this layer.
    """
    photo = timeline.photo
    places = [place for place, one in enumerate(timeline.epochs) if layer in one.layers]
    if photo is None or not places:
        raise BRAError(message("this file holds no picture that could be drawn on: watch a training on a picture."))
    shown = [places[n] for n in shown_epochs(len(places))]
    pictures = []
    for done, place in enumerate(shown):
        still(done, len(shown))
        trace = recording_of(timeline, data, place).trace.layers[layer]
        windows = {role: locate(trace.grid, photo, at)[0] for role, at in queries.items()}
        words = f"{timeline.epochs[place].epoch} / {timeline.epochs[-1].epoch}  {layer}"
        pictures.append(Image.fromarray(routing_picture(photo.rgb, trace, windows, words, SIDE)))
    file = io.BytesIO()
    pictures[0].save(file, "WEBP", save_all=True, append_images=pictures[1:], loop=0, quality=70, method=2,
                     duration=[FRAME_MS] * (len(pictures) - 1) + [LAST_MS])
    return file.getvalue()


def timeline_html(timeline: Timeline, animation: bytes, layer: str, epoch: int, picture: str,
                  language: Language = ENGLISH) -> str:
    """A page: when a layer collapsed, the animation, the layer's curves, and a table of every epoch's numbers.

    Args:
        timeline: the training.
        animation: what `animation_webp` gave; b"" for none.
        layer: its name.
        epoch: the one that the curves mark.
        picture: name of the picture, or of the file; escaped here.
        language: of the page.
    """
    tell = language.translate
    name = layer or tell(message("attention"))
    about = tell(message("{model}, layer {layer}, {n} epochs from {first} to {last}", model=timeline.model, layer=name,
                         n=len(timeline.epochs), first=timeline.epochs[0].epoch, last=timeline.epochs[-1].epoch))
    found = [words for one in timeline.layers if (words := collapse_in_words(timeline, one))]
    warned = "".join(f"<p class=warning>{escape(tell(words))}</p>" for words in found)
    moving = (f'<img alt="{escape(about)}" src="data:image/webp;base64,{base64.b64encode(animation).decode()}" '
              'style="max-width:100%">') if animation else ""
    curves = figure_html(layer_curves(timeline, layer, epoch, Style(language), about), file_name("watched", layer))
    head = "".join(f"<th>{escape(tell(one))}</th>" for one in (message("epoch"), *NAMES.values()))
    rows = "".join(
        f"<tr{' class=front' if one.epoch == epoch else ''}><td>{one.epoch}</td>" + "".join(
            f"<td>{'–' if value is None else f'{100 * value:.1f} %'}</td>" for value in
            (value_of(one.layers[layer], key) for key in NAMES)) + "</tr>"
        for one in timeline.epochs if layer in one.layers)
    body = (f"{warned}{moving}{curves}<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
            f"</table></div>{f'<p class=faint>{escape(tell(COLLAPSED))}</p>' if found else ''}"
            f"{figures_script(language)}")
    return sheet(message("How {picture} was routed while the model trained", picture=picture), about, body, language)
