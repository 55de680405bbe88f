"""The file of a watched training as models that can be looked into, one for each epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from bra.messages import message
from bra.metrics.watched import collapsed_since
from bra.models.recorded import OpenRecording
from bra.readers.timeline import Timeline, read_timeline, recording_of


@dataclass(frozen=True, slots=True, eq=False)
class OpenTimeline(OpenRecording):
    """One epoch of a watched training: its routing on the picture that the training was watched on.

    Attributes:
        epoch: its number.
        epochs: the numbers of all epochs in the file.
    """

    epoch: int = field(kw_only=True)
    epochs: tuple[int, ...] = field(kw_only=True, repr=False)


def open_timeline(data: bytes, name: str, epoch: int | None = None) -> OpenTimeline:
    """The bytes of a watched training's file -> one of its epochs.

    Args:
        data: the file's.
        name: its name.
        epoch: the last up to this one is meant, or the first; None for the last of all.

    Raises:
        BRAError: it is no such file, is damaged, or asks for too much.
    """
    timeline = read_timeline(data)
    place = timeline.at(epoch)
    number = timeline.epochs[place].epoch
    return OpenTimeline(nn.Identity(), name, message("{model} after epoch {epoch}, watched in training",
                                                     model=timeline.model, epoch=number),
                        recording=recording_of(timeline, data, place), epoch=number, epochs=timeline.numbers)


def collapse_in_words(timeline: Timeline, layer: str) -> str:
    """Since when a layer's routing is collapsed, in a sentence; "" where it is not at the end of the training."""
    seen = [(one.epoch, one.layers[layer].collapsed) for one in timeline.epochs if layer in one.layers]
    since = collapsed_since([epoch for epoch, _ in seen], [was for _, was in seen])
    if since is None:
        return ""
    if since == seen[0][0]:
        return message("Layer {layer} is collapsed in all epochs that were watched, from epoch {epoch} on: it hardly "
                       "matters where one points.", layer=layer or message("attention"), epoch=since)
    return message("Layer {layer} is collapsed since epoch {epoch}: it hardly matters where one points.",
                   layer=layer or message("attention"), epoch=since)
