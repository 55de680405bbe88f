"""Records -> the bytes that a view reads: u32 header length | JSON header | picture | arrays.

Numbers cross over in the layer's own precision; nothing is computed again on the other side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bra.colours import ROLES
from bra.errors import TraceError
from bra.grid import WindowGrid
from bra.messages import message
from bra.metrics import between_layers, query_dependence, routing
from bra.models.base import Detection
from bra.photo import Photo
from bra.tracing import LayerTrace, geometry

PICTURE_SIDE: Final = 1024
TILE_SIDE: Final = 320
Place = tuple[int, int]
"""(x, y) on the picture in ten-thousandths of its width and height; beyond 10,000 lies padding."""
SHOWS: Final = ("reverse", "arrows", "affinity", "query_part", "in_degree", "class_map", "bare")
"""What can be switched on the stage: who routes here, arrows, four tints, detections off."""
HEAT_SIDE: Final = 160
"""Places of a class heat map along its longer side, as a view gets it: it is made of maps of fewer."""
FULL: Final = 10_000


@dataclass(frozen=True, slots=True)
class Caption:
    """What stands under every figure.

    Attributes:
        model: the model's label, in the language of the page, as are all words here.
        layer: the layer's name.
        provenance: where the weights come from.
        picture: the picture's name.
        untrained: whether the weights are random ones, which is said in large letters.
    """

    model: str
    layer: str
    provenance: str
    picture: str
    untrained: bool = False

    def line(self, trace: LayerTrace) -> str:
        """The caption as one line."""
        spec = trace.spec
        if not trace.routed:
            return message("{model} · {layer} · {geometry}, under a grid of {n_win}×{n_win} · {provenance}",
                           model=self.model, layer=self.layer or message("attention"), geometry=geometry(trace),
                           n_win=spec.n_win, provenance=self.provenance)
        return message("{model} · {layer} · n_win {n_win} · topk {topk} · {provenance}", model=self.model,
                       layer=self.layer or message("attention"), n_win=spec.n_win, topk=spec.topk,
                       provenance=self.provenance)


def pack(header: Mapping[str, Any], picture: bytes, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """One message. Arrays must be float32, int32 or uint8; the header may hold no NaN.

    Raises:
        TypeError: an array of another type, which the other side would misread.
        TraceError: NaN in the header, which only numbers of a model bring there.
    """
    kinds = {"float32": "f4", "int32": "i4", "uint8": "u1"}
    blobs, table, at = [picture + bytes(-len(picture) % 8)], {}, len(picture) + -len(picture) % 8
    for name, array in arrays.items():
        if array.dtype.name not in kinds:
            raise TypeError(f"array {name!r} is {array.dtype}: send float32, int32 or uint8")
        data = np.ascontiguousarray(array).tobytes()
        table[name] = {"kind": kinds[array.dtype.name], "shape": list(array.shape), "at": at}
        blobs.append(data + bytes(-len(data) % 8))
        at += len(blobs[-1])
    body = b"".join(blobs)
    version = hashlib.sha256(repr(sorted(header.items())).encode() + body).hexdigest()[:16]
    full = {**header, "version": version, "roles": ROLES, "picture": len(picture), "arrays": table}
    try:
        text = json.dumps(full, allow_nan=False).encode()
    except ValueError as error:
        raise TraceError(message("the numbers of this layer are not finite: choose another layer, or a checkpoint of a "
                                 "healthy training.")) from error
    text += b" " * (-(len(text) + 4) % 8)
    return len(text).to_bytes(4, "little") + text + body


def unpack(message: bytes) -> tuple[dict[str, Any], bytes, dict[str, NDArray[Any]]]:
    """Inverse of `pack`: header, picture, arrays."""
    start = 4 + int.from_bytes(message[:4], "little")
    header = json.loads(message[4:start])
    arrays = {}
    for name, entry in header["arrays"].items():
        count = int(np.prod(entry["shape"]))
        arrays[name] = np.frombuffer(message, f"<{entry['kind']}", count, start + entry["at"]).reshape(entry["shape"])
    return header, message[start : start + header["picture"]], arrays


def picture_message(photo: Photo, picture: bytes) -> bytes:
    """The encoded picture by itself, for views whose messages carry none."""
    return pack({"photo": photo.digest}, picture, {})


def stage_message(photo: Photo, trace: LayerTrace, caption: Caption, focus: Place, pins: Mapping[str, Place],
                  show: Sequence[str] = (), picture: bytes | None = None,
                  detections: Sequence[Detection] = (), follow: int = 0, heat: NDArray[np.float32] | None = None,
                  heat_offered: bool = False) -> bytes:
    """Everything that pointing at windows needs: the picture, the routing of every window, the rejected ones too.

    Args:
        photo: the picture.
        trace: one layer on it; image 0 of the batch.
        caption: what stands under the figures.
        focus: where to look before anyone points.
        pins: the pinned queries "a" and "b", as far as there are any.
        show: which of SHOWS are switched on.
        picture: the encoded picture, if it is at hand; b"" where a message of its own brings it.
        detections: what the model found on the photo.
        follow: another number than before where the stage is to take these pins in place of its own.
        heat: (h, w) class heat map over the photo, 0 to 1, where it was asked for.
        heat_offered: whether it can be asked for.
    """
    if heat is not None:
        step = max(1, -(-max(heat.shape) // HEAT_SIDE))
        heat = heat[::step, ::step]
    header = {
        "photo": photo.digest, "grid": grid_header(trace.grid, photo), "topk": trace.spec.topk,
        # What a layer reaches is said by the view, in its language.
        "caption": caption.line(trace) if trace.routed else f"{caption.model} · {caption.layer} · {caption.provenance}",
        "untrained": caption.untrained,
        "weights_used": trace.weights_used, "focus": focus, "pins": dict(pins), "show": list(show), "follow": follow,
        "name": caption.picture, "parts": [caption.model, caption.layer],
        "chance": trace.spec.topk / trace.grid.n_windows,
        "found": [[found.label, found.score] for found in detections],
        "heat_offered": heat_offered, "heat_size": [] if heat is None else list(heat.shape),
        "routed": trace.routed, "reach": reach_of(trace), "outside": len(trace.outside),
    }
    outside = np.zeros(0) if trace.reach is None or not trace.outside else routing.outside_share(trace)
    arrays = {
        "r_idx": trace.r_idx[0].numpy().astype(np.int32),
        "r_weight": trace.r_weight[0].float().numpy(),
        # Of a layer that does not route, the share of attention that its affinity is the logarithm of.
        "affinity": trace.affinity[0].float().numpy() if trace.routed else
        routing.full_softmax(trace).astype(np.float32),
        "query_part": query_dependence.without_hubs(trace).astype(np.float32),
        "would_choose": query_dependence.choices_without_hubs(trace).astype(np.int32),
        "kept": routing.kept_share(trace).astype(np.float32),
        "margin": routing.margin(trace).astype(np.float32),
        "in_degree": routing.in_degree(trace).astype(np.int32),
        "outside_share": outside.astype(np.float32),
        "boxes": np.array([found.box for found in detections], np.float32).reshape(-1, 4),
        "heat": np.zeros(0, np.uint8) if heat is None else np.round(255 * heat).astype(np.uint8),
    }
    return pack(header, photo.encoded(PICTURE_SIDE) if picture is None else picture, arrays)


def reach_of(trace: LayerTrace) -> list[Any]:
    """What a layer that does not route attends to, in a word and numbers; empty for one that routes."""
    if trace.routed:
        return []
    reach = trace.reach
    if reach is None or reach.kind == "whole":
        return ["whole"]
    if reach.kind == "stripes":
        return ["stripes", reach.stripes]
    return ["shifted" if any(reach.shift) else "windows", *reach.window]


def rail_message(layers: Mapping[str, LayerTrace], chosen: str, overlaps: routing.Floats | None = None) -> bytes:
    """One thumbnail per layer: how many windows chose each window, whether its routing collapsed, and which are alike;
    of a layer that does not route, the share of all attention that each window gets.

    `alike` (layers, layers) is the overlap of what both are routed to; NaN for layers that route nothing.

    Args:
        layers: every layer of one forward, by name; image 0 of the batch.
        chosen: name of the one that is looked at.
        overlaps: `between_layers.overlaps` of the routed ones among them, where they are at hand.
    """
    about = [{"name": name, "n_win": lt.grid.n_win, "topk": lt.spec.topk, "h": lt.grid.h, "w": lt.grid.w,
              "aspect": lt.grid.H * lt.grid.stride[0] / (lt.grid.W * lt.grid.stride[1]),
              "collapsed": lt.routed and query_dependence.collapsed(lt), "reach": reach_of(lt)}
             for name, lt in layers.items()]
    arrays = {f"in_degree_{at}": (routing.in_degree(lt) if lt.routed else routing.received(lt)).astype(
        np.int32 if lt.routed else np.float32) for at, lt in enumerate(layers.values())}
    routed = [at for at, lt in enumerate(layers.values()) if between_layers.leaves_out(lt)]
    alike = np.full((len(layers),) * 2, np.nan, np.float32)
    alike[np.ix_(routed, routed)] = \
        between_layers.overlaps(between_layers.routed_layers(layers)) if overlaps is None else overlaps
    return pack({"layers": about, "chosen": chosen}, b"", arrays | {"alike": alike})


def locate(grid: WindowGrid, photo: Photo, place: Place) -> tuple[int, int]:
    """Place on the picture -> (window, token in window) of the layer's grid; places outside go to the nearest token."""
    height, width = traced_size(grid, photo)
    x, y = place[0] / FULL * width, place[1] / FULL * height
    top, left, bottom, right = grid.box()
    # The last token's far edge belongs to no token.
    y = min(max(y, top), bottom - grid.stride[0] / 2)
    x = min(max(x, left), right - grid.stride[1] / 2)
    return grid.window_of_pixel(y, x)


def place_of(grid: WindowGrid, photo: Photo, window: int) -> Place:
    """The centre of a window as a place on the picture. Inverse: `locate`."""
    height, width = traced_size(grid, photo)
    top, left, bottom, right = grid.box_of_window(window)
    return round((left + right) / 2 / width * FULL), round((top + bottom) / 2 / height * FULL)


def traced_size(grid: WindowGrid, photo: Photo) -> tuple[float, float]:
    """Height and width of the picture, in the pixels that the layer's grid counts in."""
    return (grid.image or (photo.height, photo.width))


def grid_header(grid: WindowGrid, photo: Photo) -> dict[str, Any]:
    """A grid as views read it: sizes in tokens, and its box and the picture in pixels."""
    height, width = traced_size(grid, photo)
    top, left, bottom, right = grid.box()
    return {"n_win": grid.n_win, "h": grid.h, "w": grid.w, "H": grid.H, "W": grid.W, "window_h": grid.window_h,
            "window_w": grid.window_w, "box": [top, left, bottom, right], "height": height, "width": width,
            "stride": list(grid.stride)}
