"""The picture of the lesson as the bytes that its component reads: to point at, or to guess on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bra.metrics.routing import full_softmax, nearest_windows
from bra.photo import Photo
from bra.tracing import LayerTrace
from bra.viewer.pack import Place, grid_header, locate, pack

PICTURE_SIDE = 720


def look_message(photo: Photo, lt: LayerTrace, at: Place, caption: str, picture: bytes) -> bytes:
    """A picture to point at, which shows where each window is routed, or what it attends to where nothing routes.

    Args:
        photo: the picture.
        lt: one layer on it; image 0 of the batch.
        at: where the query is before anyone points.
        caption: what stands below.
        picture: the encoded picture.
    """
    return pack(_header(photo, lt, locate(lt.grid, photo, at)[0], caption) | {"mode": "look"}, picture, {
        "r_idx": lt.r_idx[0].numpy().astype(np.int32), "r_weight": lt.r_weight[0].float().numpy(),
        "affinity": np.zeros(0, np.float32) if lt.routed else full_softmax(lt).astype(np.float32)})


def guess_message(photo: Photo, lt: LayerTrace, window: int, guess: Sequence[int] | None, caption: str,
                  picture: bytes) -> bytes:
    """A picture on which to mark the windows that one expects `window` to be routed to.

    Args:
        photo: the picture.
        lt: one layer on it; image 0 of the batch.
        window: the query window.
        guess: what was marked; None before the answer is asked for, which the message then does not hold.
        caption: what stands below.
        picture: the encoded picture.
    """
    none: NDArray[Any] = np.zeros(0, np.int32)
    header = _header(photo, lt, window, caption) | {"mode": "guess", "answered": guess is not None}
    return pack(header, picture, {
        "marked": np.array(guess or (), np.int32),
        "answer": none if guess is None else lt.r_idx[0, window].numpy().astype(np.int32),
        "nearest": none if guess is None else nearest_windows(lt)[window].astype(np.int32)})


def _header(photo: Photo, lt: LayerTrace, window: int, caption: str) -> dict[str, Any]:
    return {"photo": photo.digest, "grid": grid_header(lt.grid, photo), "topk": lt.spec.topk, "query": window,
            "caption": caption, "routed": lt.routed}
