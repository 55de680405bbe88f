"""What is watched of a training, handed to Ultralytics' own trackers: TensorBoard and Weights & Biases."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from ultralytics.utils import SETTINGS

from bra.metrics.watched import WatchedNumbers
from bra.tracing import LayerTrace
from bra.training.routing_picture import routing_picture

TENSORBOARD: Final = "ultralytics.utils.callbacks.tensorboard"
WEIGHTS_AND_BIASES: Final = "ultralytics.utils.callbacks.wb"
SIDE: Final = 320
"""Of a tracked picture, in pixels."""


def scalars_of(numbers: Mapping[str, WatchedNumbers]) -> dict[str, float]:
    """Every number that is known, as "routing/<layer>/<name>"; `n_win` and `topk` do not change and are left out."""
    return {f"routing/{name or 'attention'}/{key}": float(value) for name, one in numbers.items()
            for key, value in one.to_dict().items() if value is not None and key not in ("n_win", "topk")}


def track(numbers: Mapping[str, WatchedNumbers], layers: Mapping[str, LayerTrace], rgb: NDArray[np.uint8] | None,
          epoch: int) -> None:
    """Hand an epoch to every tracker that is installed, on in Ultralytics' settings, and writing.

    Args:
        numbers: of each layer, by name.
        layers: their traces.
        rgb: the picture that the network read, if it was one.
        epoch: from 1 on, as Ultralytics numbers its own scalars.
    """
    board, run = _writer(), _run()
    if board is None and run is None:
        return
    scalars = scalars_of(numbers)
    pictures = {} if rgb is None else {
        f"routing/{name or 'attention'}": routing_picture(rgb, layer, {"a": centre(layer)}, side=SIDE)
        for name, layer in layers.items()}
    if board is not None:
        for name, value in scalars.items():
            board.add_scalar(name, value, epoch)
        for name, picture in pictures.items():
            board.add_image(name, picture, epoch, dataformats="HWC")
    if run is not None:
        images = {name: sys.modules[WEIGHTS_AND_BIASES].wb.Image(picture) for name, picture in pictures.items()}
        run.log({**scalars, **images}, commit=False)        # Ultralytics commits the epoch


def centre(layer: LayerTrace) -> int:
    """The window in the middle of the map, which the tracked picture shows the routing of."""
    grid = layer.grid
    return (grid.h // 2) // grid.window_h * grid.n_win + (grid.w // 2) // grid.window_w


def _writer() -> Any:
    """TensorBoard's writer, where Ultralytics has one open; asked for by name, since it imports what is on alone."""
    return getattr(sys.modules.get(TENSORBOARD), "WRITER", None) if SETTINGS.get("tensorboard") is True else None


def _run() -> Any:
    """The run of Weights & Biases, likewise."""
    package = getattr(sys.modules.get(WEIGHTS_AND_BIASES), "wb", None)
    return getattr(package, "run", None) if SETTINGS.get("wandb") is True else None
