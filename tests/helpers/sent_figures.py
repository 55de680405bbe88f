"""Plotly figures as the app sent them to the browser."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def figures(app: Any) -> list[dict[str, Any]]:
    """Every figure on a page under `AppTest`, in order."""
    return [json.loads(block.proto.spec) for block in app.get("plotly_chart")]


def array(values: Any) -> NDArray[Any]:
    """Numbers of a trace: a list, or plotly's own form of an array."""
    if not isinstance(values, dict):
        return np.asarray(values, dtype=float)
    data = np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"]))
    shape = values.get("shape")
    return data.reshape([int(n) for n in shape.split(",")]) if shape else data


def maps(figure: dict[str, Any]) -> NDArray[Any]:
    """(n, H, W): shares of the heat maps of an attention figure, 0 where nothing is drawn."""
    return np.nan_to_num(np.stack([array(one["z"]) for one in figure["data"] if one["type"] == "heatmap"])) / 100


def texts(figure: dict[str, Any]) -> list[str]:
    """Every word that a figure shows: names, titles, hover texts, labels of ticks and annotations."""
    layout, found = figure["layout"], []
    for one in figure["data"]:
        found += [one.get("name"), one.get("hovertemplate"), *(one.get("labels") or [])]
        found += [one.get("colorbar", {}).get("title", {}).get("text")]
        about = one.get("customdata")
        found += [value for line in (about if isinstance(about, list) else []) for value in line
                  if isinstance(value, str)]
        found += [text for text in (one.get("text") if isinstance(one.get("text"), list) else [])
                  if isinstance(text, str)]
    for name, part in layout.items():
        if name.startswith(("xaxis", "yaxis", "title", "coloraxis")):
            title = part.get("colorbar", part) if name == "coloraxis" else part
            found += [title.get("text"), (title.get("title") or {}).get("text"), *(part.get("ticktext") or [])]
    found += [note.get("text") for note in layout.get("annotations", [])]
    return [text for text in found if isinstance(text, str) and text and not _number(text)]


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text.replace(",", "")))
    except ValueError:
        return False
