"""Watches the routing while Ultralytics trains, through its own callbacks: after each epoch, on one fixed picture.

    bra.yolo.watch(yolo, "photo.jpg")          before yolo.train(…)
    bra train … bra_watch=photo.jpg            the same

The run's folder gets routing.bra, which the app opens. The averaged weights are watched, which Ultralytics validates
and saves. Where a label file lies beside the picture as Ultralytics expects it (…/images/a.jpg, …/labels/a.txt), it is
also watched whether windows are routed to windows that show the same.

Both are arguments of the training: they are kept in its checkpoints, so that a resumed run is watched on, and reach
distributed workers.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics.data.utils import img2label_paths
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT, LOGGER, RANK
from ultralytics.utils.callbacks import base

from bra.bra_record import layers_of
from bra.photo import Photo
from bra.training.watching import Watch, check_every
from bra.yolo.training.trackers import track

PICTURE: Final = "bra_watch"
EVERY: Final = "bra_watch_every"
BEGINNING: Final = "on_pretrain_routine_end"


def watch(yolo: Any, photo: str | Path, every: int = 1) -> None:
    """Watch the routing of an Ultralytics model on a picture in its next `yolo.train(…)`; to be called before it.

    Args:
        yolo: Ultralytics' model object.
        photo: a file.
        every: epochs from one that is watched to the next.

    Raises:
        BRAError: the picture cannot be read, or `every` cannot be. Later nothing is raised.
    """
    check_every(every)
    Photo.of(Path(photo))
    yolo.overrides |= {PICTURE: str(Path(photo).resolve()), EVERY: every}
    if begin not in yolo.callbacks[BEGINNING]:      # it was made before this package was imported
        yolo.add_callback(BEGINNING, begin)


def register_watching() -> None:
    """Make Ultralytics take the arguments and look for them when a training begins; to be called once."""
    for name, usual in ((PICTURE, None), (EVERY, 1)):
        DEFAULT_CFG_DICT[name] = usual
        setattr(DEFAULT_CFG, name, usual)
    base.default_callbacks[BEGINNING].append(begin)


def begin(trainer: Any) -> None:
    """Callback of a training's beginning: hang those of its epochs on the trainer, where a picture is given."""
    for event in EpochWatch.EVENTS:
        # The lists are the model's own, and hold what watched its training before this one.
        trainer.callbacks[event][:] = [one for one in trainer.callbacks[event]
                                       if not isinstance(getattr(one, "__self__", None), EpochWatch)]
    photo = getattr(trainer.args, PICTURE, None)
    if not photo or RANK not in (-1, 0):
        return
    try:
        watcher = EpochWatch(trainer, Path(str(photo)).resolve(), getattr(trainer.args, EVERY, 1))
    except Exception as error:      # whatever it is, a training of days does not end for it
        LOGGER.warning(f"routing is not watched: {error}")
        return
    trainer.args.bra_watch = str(watcher.photo)     # a resumed run may begin in another folder
    for event, name in EpochWatch.EVENTS.items():
        # First, since Weights & Biases closes an epoch in the second event.
        trainer.callbacks[event].insert(0, getattr(watcher, name))


class EpochWatch:
    """The callbacks of one training's epochs.

    Args:
        trainer: Ultralytics' trainer.
        photo: a file.
        every: epochs from one that is watched to the next.

    Raises:
        BRAError: the picture cannot be read, or `every` cannot be.
    """

    EVENTS: Final = {"on_train_epoch_end": "trained", "on_fit_epoch_end": "validated"}

    def __init__(self, trainer: Any, photo: Path, every: int) -> None:
        size = trainer.args.imgsz
        self.photo = photo
        self.watch = Watch(trainer.model, photo, trainer.save_dir, every,
                           max(size) if isinstance(size, (list, tuple)) else int(size), boxes_beside(photo))
        self.rows = rows_to_routing(self.watch.network)
        self.due = False

    def trained(self, trainer: Any) -> None:
        """After the batches of an epoch."""
        self.due = True     # the event of `validated` comes once more after the last epoch, without this one

    def validated(self, trainer: Any) -> None:
        """After an epoch and its validation: watch the averaged weights, which are in eval mode already."""
        epoch, due, self.due = trainer.epoch + 1, self.due, False
        if not due or epoch % self.watch.every:
            return
        try:
            network = trainer.ema.ema if trainer.ema else copy.deepcopy(self.watch.network).eval()
            if self.rows:
                network = Rows(network, self.rows).eval()
            layers, numbers = self.watch.watch(network, epoch)
            track(numbers, layers, self.watch.given.rgb, epoch)
        except Exception as error:
            self.watch.tell(error)


class Rows(nn.Module):
    """The first rows of an Ultralytics model.

    Args:
        network: the model, whose rows these are: none is copied.
        count: rows.
    """

    def __init__(self, network: Any, count: int) -> None:
        super().__init__()
        self.model = nn.ModuleList(network.model[:count])
        self.rows: tuple[Any, ...] = tuple(network.model[:count])
        self.save = frozenset(network.save)

    def forward(self, x: Tensor) -> Any:
        """The last row's output; rows take their inputs as in Ultralytics' own forward."""
        outs: list[Any] = []
        for row in self.rows:
            given = [x if source == -1 else outs[source] for source in ([row.f] if isinstance(row.f, int) else row.f)]
            x = row(given[0] if isinstance(row.f, int) else given)
            outs.append(x if row.i in self.save else None)
        return x


def rows_to_routing(network: nn.Module) -> int:
    """How many rows there are up to the last that routes; what follows takes as long and tells nothing of routing.

    0 for a network whose forward is not the one of Ultralytics' row models.
    """
    kind: Any = type(network)
    rows = [int(name.split(".")[1]) for name in layers_of(network) if name.startswith("model.")]
    if not rows or not issubclass(kind, BaseModel) or kind.predict is not BaseModel.predict or \
            kind._predict_once is not BaseModel._predict_once:
        return 0
    return max(rows) + 1


def boxes_beside(photo: Path) -> NDArray[np.float64] | None:
    """(n, 5) class, x0, y0, x1, y1 in pixels from a picture's label file, polygons by their extent; None without one.

    Raises:
        BRAError: the picture cannot be read.
        ValueError: the label file holds what is no number.
    """
    found = Path(img2label_paths([str(photo)])[0])
    if not found.is_file():
        return None
    width, height = Photo.of(photo).original_size
    boxes = []
    for line in found.read_text(encoding="utf-8").splitlines():
        name, *numbers = (float(word) for word in line.split())
        if len(numbers) == 4:
            x, y, w, h = numbers
            box = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        else:
            box = min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
        boxes.append([name, box[0] * width, box[1] * height, box[2] * width, box[3] * height])
    return np.array(boxes, np.float64).reshape(-1, 5)
