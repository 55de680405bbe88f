"""Opens checkpoints of installations that were edited by hand, as the YOLOv8 tutorial says.

They name the class where it was pasted, `ultralytics.nn.modules.block`, and hold what the pasted constructor kept.
"""

from __future__ import annotations

from typing import Any, Final

from torch import nn

from bra.attention import KVGather, QKVLinear, TopkRouting
from bra.errors import YoloError
from bra.messages import message
from bra.models.saved import KEPT
from bra.yolo.modules import BiLevelRoutingAttention


class TutorialBRA(BiLevelRoutingAttention):
    """The pasted class while it is read from a checkpoint; what comes out is a `BiLevelRoutingAttention` of ours."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "spec" in state:
            super().__setstate__(state)  # type: ignore[no-untyped-call]
            return
        old = nn.Module()
        old.__setstate__(state)  # type: ignore[no-untyped-call]
        lepe, qkv, mode = getattr(old, "lepe", None), getattr(old, "qkv", None), state.get("kv_downsample_mode", "")
        # Of the two sizes of pooling only the one in use need be possible: people write -1 for the other.
        pooling = {"ada_": ("kv_per_win",), "maxp": ("kv_downsample_ratio",), "avgp": ("kv_downsample_ratio",)}
        names = (*KEPT, *pooling.get(str(mode)[:4], ()))
        kept = {name: state[name] for name in names if state.get(name) is not None}
        try:
            BiLevelRoutingAttention.__init__(
                self, state["dim"], **kept, qk_scale=state.get("scale"),
                side_dwconv=lepe.kernel_size[0] if isinstance(lepe, nn.Conv2d) else 0,
                param_attention="none" if not isinstance(getattr(qkv, "qkv", None), nn.Linear)
                else "qkvo" if isinstance(getattr(old, "wo", None), nn.Linear) else "qkv")
            # Its own tensors, not copies: they may be half precision, or wait on another device.
            self.load_state_dict(old.state_dict(), assign=True)
        except (KeyError, RuntimeError) as error:
            raise YoloError(message("this checkpoint's {name} is not the tutorial's ({error}): load it in the "
                                    "installation that made it, and carry its state_dict "
                                    "over.", name=type(self).__name__,
                                    error=str(error))) from error
        self.train(bool(state.get("training", True)))
        for name in ("i", "f", "type", "np"):                        # what Ultralytics' parser wrote on the layer
            if name in state:
                object.__setattr__(self, name, state[name])
        self.__class__ = BiLevelRoutingAttention  # type: ignore[assignment]


ALIASES: Final = {"BiLevelRoutingAttention": TutorialBRA, "TopkRouting": TopkRouting, "KVGather": KVGather,
                  "QKVLinear": QKVLinear}
"""What a hand-edited `ultralytics.nn.modules.block` holds, by name."""
