"""The GFLOPs that Ultralytics prints, beside ours, and where the difference comes from."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils.torch_utils import get_flops

from bra.errors import YoloError
from bra.messages import message
from bra.profiling.model_cost import Cost
from bra.units import Signed


@dataclass(frozen=True, slots=True)
class UltralyticsFlops:
    """Two counts of one model, in 10⁹ FLOPs: two for every multiply-add.

    Attributes:
        printed: what Ultralytics prints; 0 when it could not count.
        direct: what its counter gives when it runs on the real image; 0 when it could not.
        ours: twice `Cost.total.macs`.
    """

    printed: float
    direct: float
    ours: float

    @property
    def extrapolated(self) -> float:
        """What is added by counting on images of a stride's size and extrapolating."""
        return self.printed - self.direct

    @property
    def other_operators(self) -> float:
        """What is added by operators that are not pairs of a multiplication and an addition."""
        return self.direct - self.ours

    def __str__(self) -> str:
        return str(self.sentence)

    @property
    def sentence(self) -> str:
        """Both figures, and why they differ."""
        if not self.printed or not self.direct:
            return message("Ultralytics prints no GFLOPs, since its counter did not run; ours: {ours:.3f}.",
                           ours=self.ours)
        nothing = message("extrapolating from small images changes nothing here")
        because = nothing if abs(self.extrapolated) < 5e-4 else \
            message("{added:+.3f} since it extrapolates from images of one stride or two, on which windows and padding "
                    "are others", added=Signed(self.extrapolated))
        return message("Ultralytics prints {printed:.3f} GFLOPs, ours is {ours:.3f}: {added:+.3f} since it also counts "
                       "normalisation, pooling and upsampling, {because}.", printed=self.printed, ours=self.ours,
                       added=Signed(self.other_operators), because=because)


def reported_flops(model: nn.Module, cost: Cost) -> UltralyticsFlops:
    """Ask Ultralytics' counter about the model and the size that `cost` is of. The model is only read.

    Args:
        model: the network of an Ultralytics model.
        cost: its cost.
    """
    found = UltralyticsFlops(*_asked(_weightless(model), cost), 2 * cost.total.macs / 1e9)
    if found.printed and found.direct:
        return found
    return UltralyticsFlops(*_asked(copy.deepcopy(model), cost),
                            found.ours)     # one that asks for values of its weights


def _weightless(model: nn.Module) -> nn.Module:
    """A copy whose weights have sizes and no values: its forward multiplies nothing, and all counts stay the same."""
    sizes: dict[int, Any] = {id(t): t.detach().to("meta") for t in model.buffers()}
    sizes |= {id(p): nn.Parameter(p.detach().to("meta"), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, sizes)


def _asked(private: nn.Module, cost: Cost) -> tuple[float, float]:
    """What Ultralytics prints, and what its counter says of the real image; 0 for one that cannot be had."""
    private.eval()
    return float(get_flops(private, list(cost.input[2:]))), _direct(private, cost)


def _direct(model: nn.Module, cost: Cost) -> float:
    try:
        import thop
    except ImportError:
        return 0.0
    weight = next(model.parameters())
    image = torch.zeros(cost.input, dtype=weight.dtype, device=weight.device)
    try:
        return float(thop.profile(model, inputs=[image], verbose=False)[0]) * 2 / 1e9
    except (RuntimeError, NotImplementedError):
        return 0.0


def network_of(name: str) -> nn.Module:
    """The network of a model file or a checkpoint.

    Args:
        name: a .yaml file, the name of one that Ultralytics or this package has, or a .pt file.

    Raises:
        YoloError: there is no such file.
    """
    if Path(name).suffix == ".pt":
        found = Path(name).is_file()
    else:
        try:
            found = bool(tasks.yaml_model_load(name))
        except FileNotFoundError:
            found = False
    if not found:
        raise YoloError(message("{name} does not exist: give a model file, or a name such as yolov8n-bra.yaml.",
                                name=name))
    network: nn.Module = YOLO(name).model
    return network
