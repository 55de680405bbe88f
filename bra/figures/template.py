"""What all figures have in common: colours by role, the template, the caption inside the picture, and export."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal

import plotly.graph_objects as go

from bra.colours import ROLES
from bra.grid import WindowGrid
from bra.messages import ENGLISH, Language, message

COLOURS: Final = MappingProxyType({
    "a": ROLES["a"], "b": ROLES["b"], "routed": "#0072B2", "rejected": ROLES["rejected"], "padding": "#8C6D5A",
    "nearest": "#009E73", "chance": "#CC79A7", "best": "#D55E00"})
"""By role. Okabe and Ito's, which every common form of colour blindness tells apart; grey and brown beside them."""
COLORWAY: Final = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#8A8F98", "#882255",
                   "#44AA99", "#999933", "#332288")
"""For series without a role: Okabe and Ito's seven, then grey and four of Tol's muted colours."""
CIVIDIS: Final = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#fee838")
"""Nuñez, Anderton, Renslow 2018 at nine places: monotone in lightness."""
INK: Final = MappingProxyType({False: ("#1c1e21", "#5f6670", "#d5d9e0", "#ffffff"),
                               True: ("#f0f1f3", "#a5acb8", "#3f4550", "#171614")})
"""Text, faint text, grid lines and paper, by whether the theme is dark."""
PAPER_CAPTION: Final = 60
"""Letters in a line of the caption: what a phone of 390 pixels holds."""
Format = Literal["svg", "png"]
Table = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Style:
    """How a figure is dressed.

    Attributes:
        language: of all words.
        dark: whether it lies on a dark page.
        size: of the type, in pixels.
        narrow: whether it lies on a phone, where pictures stand below each other.
    """

    language: Language = ENGLISH
    dark: bool = False
    size: int = 13
    narrow: bool = False

    def tr(self, sentence: str) -> str:
        """A sentence in the language of the figure."""
        return self.language.translate(sentence)


LIGHT: Final = Style()


def attention_scale(by_root: bool = False) -> list[list[Any]]:
    """The scale of everything from none to most.

    Args:
        by_root: colours follow the square root of the number, so that small shares show; the numbers stay shares.
    """
    last = len(CIVIDIS) - 1
    return [[(n / last)**2 if by_root else n / last, colour] for n, colour in enumerate(CIVIDIS)]


def difference_scale(dark: bool) -> list[list[Any]]:
    """The scale of what may be below and above zero: blue, paper, vermilion."""
    return [[0, COLOURS["routed"]], [0.5, INK[dark][3]], [1, COLOURS["best"]]]


@cache
def template(dark: bool = False, size: int = 13) -> go.layout.Template:
    """The one template; nothing but it depends on the theme. plotly copies what a figure is given."""
    text, faint, line, paper = INK[dark]
    axis = {"gridcolor": line, "linecolor": line, "zerolinecolor": faint, "automargin": True,
            "tickfont": {"color": faint}, "title": {"standoff": 8, "font": {"size": size}}}
    return go.layout.Template(layout={
        # Figures of this family are of equal width in every font that has them.
        "font": {"family": "'Source Sans', 'Source Sans Pro', system-ui, 'Noto Sans CJK SC', sans-serif", "size": size,
                 "color": text, "variant": "normal"},
        "paper_bgcolor": paper, "plot_bgcolor": paper, "colorway": list(COLORWAY),
        "colorscale": {"sequential": attention_scale(), "diverging": difference_scale(dark)},
        "xaxis": axis, "yaxis": axis, "hoverlabel": {"align": "left", "font": {"size": size}},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom",
                   "font": {"size": size}},
        "title": {"x": 0, "xref": "container", "xanchor": "left", "yref": "container", "yanchor": "top",
                  "pad": {"l": 6}, "font": {"size": size - 2, "color": faint}},
        "margin": {"l": 60, "r": 16, "t": 44, "b": 60}, "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": faint,
                                                                    "activecolor": text},
        "dragmode": False, "hovermode": "closest", "bargap": 0.25,
    })


def dressed(figure: go.Figure, style: Style, caption: str, height: int, **layout: Any) -> go.Figure:
    """The figure with the template and its caption inside the picture, below the plot.

    Args:
        figure: its traces.
        style: language, theme and size of the type.
        caption: what the numbers are of: model, layer, n_win, topk, trained or not.
        height: pixels of the plot, its axis and its legend; the caption comes on top.
        layout: more of the layout.
    """
    lines = wrapped(style.tr(caption))
    foot = round(1.3 * style.size * len(lines)) + 4
    figure.update_layout(template=template(style.dark, style.size), height=height + foot, **layout,
                         margin_b=foot + round(4.4 * style.size),
                         title={"text": "<br>".join(lines), "y": foot / (height + foot)})
    return figure


def wrapped(text: str, width: int = PAPER_CAPTION) -> list[str]:
    """A text in lines of at most so many letters, cut between words; Chinese letters count twice."""
    lines: list[str] = []
    for word in re.findall(r"[\u3000-\u9fff\uff00-\uffef]|[^\s\u3000-\u9fff\uff00-\uffef]+\s*|\s+", escaped(text)):
        if lines and _letters(lines[-1] + word.rstrip()) <= width:
            lines[-1] += word
        else:
            lines.append(word)
    return [line.strip() for line in lines]


def _letters(text: str) -> int:
    return len(text) + sum(ord(letter) >= 0x3000 for letter in text)


def escaped(text: str) -> str:
    """A stranger's words such that plotly, which reads a little HTML and its own hover codes, reads nothing in them."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "%\u2060{")


def hover(style: Style, *lines: tuple[str, str]) -> str:
    """A hover text: for each line the name of a number and where plotly finds it, as in "%{x:.1f} MB"."""
    return "<br>".join(f"{escaped(style.tr(name))}: {value}" for name, value in lines) + "<extra></extra>"


PLOTLY_WORDS: Final = (
    message("Download plot as a PNG"), message("Download plot"), message("Zoom"), message("Pan"),
    message("Box Select"), message("Zoom in"), message("Zoom out"), message("Reset axes"),
    message("Double-click to zoom back out"), message("Double-click on legend to isolate one trace"),
    message("Preparing image - this may take a few seconds"), message("Image download succeeded"),
    message("Sorry, there was a problem downloading your image!"))
"""What plotly itself says of a chart, as it stands in plotly.js."""


def locale_config(language: Language) -> dict[str, Any]:
    """plotly's own words in a language, as a part of its configuration."""
    return {"locale": language.code, "locales": {language.code: {
        "dictionary": {str(word): language.translate(word) for word in PLOTLY_WORDS}, "format": {}}}}


def export_config(name: str, form: Format = "png") -> dict[str, Any]:
    """What plotly is told of its mode bar: the picture that it saves, 300 dpi at 3.2 inch a thousand pixels.

    plotly.js would offer to upload the chart to its makers' server: a visitor's data stay here, so it does not.

    Args:
        name: of the file, without its ending; see `file_name`.
        form: "svg" for vectors, "png" for four pixels per pixel.
    """
    return {"displaylogo": False, "showSendToCloud": False, "responsive": True, "scrollZoom": False,
            "modeBarButtonsToAdd": ["zoom2d", "pan2d"], "modeBarButtonsToRemove": ["lasso2d", "autoScale2d"],
            "toImageButtonOptions": {"format": form, "filename": name, "scale": 4 if form == "png" else 1}}


def file_name(*parts: object) -> str:
    """Model, layer, picture, setting and kind of figure -> a file's name without an ending, safe on every system."""
    words = (re.sub(r"[^\w.-]+", "-", str(part)).strip("-.")[:60] for part in parts if part not in ("", None))
    return "_".join(word for word in words if word)


def colour_bar(style: Style, title: str, above: int = 6) -> dict[str, Any]:
    """A scale above the plot, where it takes no width from it; `above` is how many pixels lie between."""
    return {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "len": 0.72, "ypad": above,
            "thickness": 10, "title": {"text": style.tr(title), "side": "top", "font": {"size": style.size}}}


def log_ticks(values: Sequence[float]) -> dict[str, Any]:
    """A scale of powers of ten for an axis: of each power 1, 2 and 5 are marked, of many 1 alone, of few more."""
    low, high = math.log10(min(values)), math.log10(max(values))
    span = high - low
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if span < 0.6 else (1, 2, 5) if span < 2.5 else (1,)
    marks = [step * 10.0**power for power in range(math.floor(low) - 1, math.ceil(high) + 1) for step in steps]
    pad = 0.05 + 0.03 * span
    return {"type": "log", "range": [low - pad, high + pad], "tickvals": marks,
            "ticktext": [f"{mark:,.12g}" for mark in marks]}


def on_picture(figure: go.Figure, grid: WindowGrid, picture: bytes, style: Style, size: tuple[float, float],
               opacity: float = 1.0, axes: tuple[str, str] = ("x", "y")) -> None:
    """Lay the photograph under one subplot whose axes count its pixels, padding included.

    Args:
        figure: what is drawn over it.
        grid: of the layer.
        picture: encoded as JPEG, PNG or WebP.
        style: of the figure.
        size: (height, width) of the picture in the pixels of the grid.
        opacity: of the photograph.
        axes: names of the subplot's axes.
    """
    top, left, bottom, right = grid.box()
    x, y = axes
    figure.add_layout_image(source=data_uri(picture), xref=x, yref=y, x=0, y=0, sizex=size[1], sizey=size[0],
                            sizing="stretch", layer="below", opacity=opacity)
    quiet = {"showgrid": False, "zeroline": False, "constrain": "domain", "nticks": 4, "tickangle": 0}
    figure.update_layout({
        f"xaxis{x[1:]}": {"range": [left, right], "title": {"text": style.tr(ACROSS)}, **quiet},
        f"yaxis{y[1:]}": {"range": [bottom, top], "scaleanchor": x, "title": {"text": style.tr(DOWN)}, **quiet}})


    _mark_padding(figure, grid, style, size, axes)


ACROSS, DOWN = message("pixels across"), message("pixels down")


def _mark_padding(figure: go.Figure, grid: WindowGrid, style: Style, size: tuple[float, float],
                  axes: tuple[str, str]) -> None:
    """Hatch what of the grid is no picture, with an entry in the legend, once per figure."""
    top, left, bottom, right = grid.box()
    height, width = size
    boxes = [box for box in ((top, left, 0.0, right), (height, left, bottom, right), (0.0, left, height, 0.0),
                             (0.0, width, height, right)) if box[2] - box[0] > 0.5 and box[3] - box[1] > 0.5]
    if not boxes:
        return
    x: list[float | None] = []
    y: list[float | None] = []
    for above, before, below, after in boxes:
        x += [before, after, after, before, before, None]
        y += [above, above, below, below, above, None]
    first = not any(trace.legendgroup == "padding" for trace in figure.data)
    figure.add_scatter(
        x=x, y=y, xaxis=axes[0], yaxis=axes[1], mode="lines", fill="toself", name=style.tr(message("padding")),
        legendgroup="padding", showlegend=first, hoverinfo="skip", line={"color": COLOURS["padding"], "width": 1},
        fillpattern={"shape": "/", "size": 7, "solidity": 0.25, "fgcolor": COLOURS["padding"],
                     "bgcolor": "rgba(0,0,0,0)", "fillmode": "replace"})
    figure.update_layout(showlegend=True, legend={"x": 1, "xanchor": "right"})


def window_frame(grid: WindowGrid, window: int, colour: str, axes: tuple[str, str] = ("x", "y"),
                 width: float = 2) -> dict[str, Any]:
    """A window's edge as a shape of a layout."""
    return box_frame(grid.box_of_window(window), colour, axes, width)


def box_frame(box: Sequence[float], colour: str, axes: tuple[str, str] = ("x", "y"),
              width: float = 2) -> dict[str, Any]:
    """An edge around (top, left, bottom, right) as a shape of a layout."""
    top, left, bottom, right = box
    return {"type": "rect", "xref": axes[0], "yref": axes[1], "x0": left, "x1": right, "y0": top, "y1": bottom,
            "line": {"color": colour, "width": width}}


def data_uri(picture: bytes) -> str:
    """An encoded picture as an address."""
    kind = "webp" if picture[8:12] == b"WEBP" else "png" if picture[:4] == b"\x89PNG" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
