"""Makes the installed Ultralytics know our rows, from outside: none of its files is touched.

It has no place to plug in, so five of its functions are wrapped where it looks them up: the parser of rows (gives
ours their channels), the search for a model file (finds ours by name), the writer of the script that distributed
workers run (imports us there), and a model's loss (`routing_loss`).
"""

from __future__ import annotations

import threading
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import torch
import ultralytics
from torch import nn
from ultralytics import nn as ultralytics_nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import block
from ultralytics.nn.modules.conv import Conv
from ultralytics.utils import dist

from bra import attention, kv_pool
from bra.errors import YoloError
from bra.messages import message
from bra.spec import BRASpec
from bra.yolo.blocks import SAFE, BiFormerBlock, C2PSABRARow, canonical
from bra.yolo.modules import BiLevelRoutingAttention, BRABlock, C2fBRA
from bra.yolo.plugins import has_own_blocks, resolve_own_blocks
from bra.yolo.routing_loss import register_routing_loss
from bra.yolo.rows import OURS, has_ours, resolve
from bra.yolo.training.watching import register_watching
from bra.yolo.tutorial_compat import ALIASES

WORKER_LINE: Final = "    from ultralytics.utils import DEFAULT_CFG_DICT"
_ONE_AT_A_TIME: Final = threading.RLock()
"""A file's `activation:` is set on Ultralytics' Conv class while its rows are read, and left there when a row fails:
it would become that of every model built meanwhile or afterwards in this process."""
CFG: Final = Path(str(files("bra.yolo"))) / "cfg"
"""Folder of the model files that come with this package."""


class CountsAsC2f(type):
    """Lets a class be found in Ultralytics' sets of layers that take (c1, c2, n, …), which can be neither read nor
    extended from outside; what it builds is a `C2fBRA`."""

    def __eq__(cls, other: object) -> bool:
        return other is block.C2f or other is cls

    def __hash__(cls) -> int:
        return hash(block.C2f)

    def __repr__(cls) -> str:
        return repr(C2fBRA)

    def __call__(cls, *args: Any, **kwargs: Any) -> C2fBRA:
        """A `C2fBRA` of these arguments."""
        return C2fBRA(*args, **kwargs)


class C2fBRARow(C2fBRA, metaclass=CountsAsC2f):
    """What the parser finds under the name C2fBRA; never instantiated."""


class ParseModel:
    """Ultralytics' parser of rows, after ours have been given their channels."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __call__(self, d: dict[str, Any], ch: int, verbose: bool = True) -> tuple[nn.Sequential, list[int]]:
        """Build a model's layers; raises YoloError when a row of ours cannot be."""
        with _ONE_AT_A_TIME:
            before = Conv.default_act
            try:
                d = dict(canonical(d))
                d = resolve_own_blocks(d, ch, self.original) if has_own_blocks(d) else d
                model = resolve(d, ch, self.original) if has_ours(d) else d
                built: tuple[nn.Sequential, list[int]] = self.original(model, ch, verbose)
                return built
            finally:
                Conv.default_act = before


class CheckYaml:
    """Ultralytics' search for a model file, then ours."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __call__(self, file: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Path of the file; what Ultralytics answers when neither has it."""
        ours = CFG / str(file)
        if Path(file).name == str(file) and ours.is_file() and not Path(file).is_file():
            return str(ours)
        return self.original(file, *args, **kwargs)


class GenerateDDPFile:
    """Ultralytics' writer of the script that distributed workers run, with our import in it."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __call__(self, trainer: Any) -> str:
        """Path of the script."""
        path = Path(self.original(trainer))
        script = path.read_text(encoding="utf-8")
        if WORKER_LINE not in script:
            raise YoloError(message("ultralytics {version} writes its worker script in a way not known here: train on "
                                    "one device, or install a version that is.", version=ultralytics.__version__))
        line = "    import bra.yolo  # its rows, in this process too\n"
        path.write_text(script.replace(WORKER_LINE, line + WORKER_LINE, 1), encoding="utf-8")
        return str(path)


def register() -> None:
    """Make Ultralytics build, find, train and open models with our rows. Repeating it changes nothing.

    Raises:
        YoloError: Ultralytics was edited by hand to hold a class of one of our names.
    """
    if getattr(tasks, "BRABlock", None) is BRABlock:
        return
    _check_unedited()
    tasks.BiLevelRoutingAttention = BiLevelRoutingAttention
    tasks.C2fBRA = C2fBRARow
    tasks.C2PSABRA, tasks.BiFormerBlock = C2PSABRARow, BiFormerBlock
    for name, alias in ALIASES.items():
        setattr(block, name, alias)
    tasks.parse_model = ultralytics_nn.parse_model = ParseModel(tasks.parse_model)
    tasks.check_yaml = CheckYaml(tasks.check_yaml)
    dist.generate_ddp_file = GenerateDDPFile(dist.generate_ddp_file)
    register_routing_loss()
    register_watching()
    torch.serialization.add_safe_globals([
        *SAFE, BRASpec, BiLevelRoutingAttention, BRABlock, C2fBRA, attention.BiLevelRoutingAttention,
        attention.SharedQKV, attention.TopkRouting, attention.KVGather, attention.QKVLinear,
        *(item for item in vars(kv_pool).values() if isinstance(item, type) and item.__module__ == kv_pool.__name__)])
    tasks.BRABlock = BRABlock     # last: its presence says that all is done


def _check_unedited() -> None:
    for place in (tasks, block):
        for name in sorted({*OURS, *ALIASES}):
            if hasattr(place, name):
                raise YoloError(message("{module} already holds {name}, so this Ultralytics was edited by hand and "
                                        "would be given the channels twice: undo the edit with pip install "
                                        "--force-reinstall --no-deps ultralytics.", module=place.__name__, name=name))
