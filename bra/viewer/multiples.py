"""Many settings of one layer, or two layers, as the bytes that one view of many small pictures reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bra.experiments.compare import Compared, CostName, Pair, SettingRow, amount, beats_controls, pareto_front
from bra.metrics.agreement import ACROSS, DOWN
from bra.metrics.routing import full_softmax
from bra.photo import Photo
from bra.tracing import LayerTrace
from bra.viewer.pack import TILE_SIDE, Place, grid_header, pack, reach_of


def multiples_message(photo: Photo, compared: Compared, cost: CostName, at: Place, caption: str,
                      picture: bytes | None = None) -> bytes:
    """Each setting as a small picture: rows are n_win, columns the topk-th choice of each row.

    Args:
        photo: the picture.
        compared: settings of one layer on it.
        cost: what the Pareto front is of.
        at: where the query is before anyone points.
        caption: what stands below.
        picture: the encoded picture, if it is at hand.
    """
    cells = [{"n_win": row.n_win, "topk": row.topk, "title": f"n_win {row.n_win}, topk {row.topk}",
              "front": on and beats_controls(row), **_percentages(row),
              "costs": [amount(row, name) for name in ("macs", "peak_bytes", "seconds")
                                      if getattr(row, name) is not None],
              "grid": grid_header(lt.grid, photo)}
             for row, lt, on in zip(compared.rows, compared.traces, pareto_front(compared.rows, cost), strict=True)]
    header = {"photo": photo.digest, "cells": cells, "at": at, "caption": caption, "pair": False}
    return pack(header, picture or photo.encoded(TILE_SIDE), _routes(compared.traces))


def pair_message(photo: Photo, found: Pair, names: tuple[str, str], at: Place, caption: str,
                 picture: bytes | None = None) -> bytes:
    """A, B, what both and what one alone is routed to, and how far their outputs differ."""
    cells: list[dict[str, Any]] = [
        {"n_win": row.n_win, "topk": row.topk, "title": f"{role.upper()}: {name}", "front": False, "role": role,
         **_percentages(row), "reach": reach_of(lt), "grid": grid_header(lt.grid, photo),
         "costs": [amount(row, "macs"), *([amount(row, "peak_bytes")] if row.routed else [])]}
        for role, name, row, lt in zip("ab", names, found.rows, found.traces, strict=True)]
    arrays = dict(_routes(found.traces))
    arrays |= {f"share_{n}": full_softmax(lt).astype(np.float32) for n, lt in enumerate(found.traces) if not lt.routed}
    arrays |= {name: np.nan_to_num(getattr(found.shared, name)).astype(np.float32)
               for name in ("both", "only_a", "only_b")}
    if found.difference is not None:
        arrays["difference"] = found.difference.astype(np.float32)
    header = {"photo": photo.digest, "cells": cells, "at": at, "caption": caption, "pair": True,
              "places": [ACROSS, DOWN], "map": list(found.difference.shape) if found.difference is not None else None}
    return pack(header, picture or photo.encoded(TILE_SIDE), arrays)


def _routes(traces: Sequence[LayerTrace]) -> Mapping[str, NDArray[Any]]:
    return {f"r_idx_{n}": lt.r_idx[0].numpy().astype(np.uint8 if lt.grid.n_windows <= 256 else np.int32)
            for n, lt in enumerate(traces)}


def _percentages(row: SettingRow) -> Mapping[str, str]:
    """What a setting and its controls keep, in per cent, as figures; the sentence is the view's."""
    return {name: f"{100 * share:.1f}" if share < 0.1 else f"{100 * share:.0f}" for name, share in
            (("keeps", row.recall), ("nearest", row.nearest), ("chance", row.chance))}
