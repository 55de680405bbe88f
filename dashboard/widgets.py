"""Labelled inputs about the picture. Each takes the view as it is and returns it as the visitor wants it."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pandas as pd
import streamlit as st

from bra.errors import PhotoError
from bra.fidelity import shared_choices
from bra.grid import WindowGrid
from bra.models.opened import Answer
from bra.photo import Photo
from bra.tracing import LayerTrace
from bra.viewer.pack import FULL, Place
from dashboard import components, services, state
from dashboard.gallery import GALLERY
from dashboard.selection import UPLOAD

HINT = "Point at a window to see where it is routed; click to keep it."
THUMBNAIL = 160
CENTRE: Place = (FULL // 2, FULL // 2)


def choose_picture() -> None:
    """What this is, the strip of built-in pictures, and the place to drop one's own."""
    strip, drop = st.columns([2.6, 1], vertical_alignment="center")
    with strip:
        st.subheader("RouteScope: where does routing attention look?", anchor=False)
        pictures = [(key, sample.name, services.encoded(services.sample(key), THUMBNAIL))
                    for key, sample in GALLERY.items()]
        upload = state.upload()
        if upload is not None:
            with suppress(PhotoError):
                mine = services.photo_of(upload.data, upload.digest)
                pictures.insert(0, (UPLOAD, "Yours", services.encoded(mine, THUMBNAIL)))
        components.gallery(pictures, state.current().picture, state.STRIP, state.take_picked)
    with drop:
        mb = services.limits().picture_mb
        st.file_uploader(
            "Your own picture: choose, drop or paste", ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"],
            key=state.UPLOADER, on_change=state.take_upload, max_upload_size=mb,
            help=f"PNG, JPEG, WebP, BMP, GIF or TIFF of up to {mb} MB. It stays in this server's memory until you "
                 "leave; nobody else sees it.")


def picture() -> tuple[Photo, str, str, Place]:
    """The chosen picture, its name, what to try on it, and where to look first.

    A sentence on the page says why, when the upload cannot be read.
    """
    selection, upload = state.current(), state.upload()
    if selection.picture == UPLOAD and upload is not None:
        try:
            return services.photo_of(upload.data, upload.digest), shown_name(upload.name), HINT, CENTRE
        except PhotoError as error:
            st.error(str(error), icon=":material/broken_image:")
    elif selection.picture == UPLOAD:
        st.info("This link was made with an uploaded picture, which links do not carry: drop it here again to see the "
                "same view. Until then, a built-in one.", icon=":material/image:")
    elif selection.picture not in GALLERY:
        st.info(f"There is no built-in picture of that name; this is {GALLERY['animal'].name}.")
    key = selection.picture if selection.picture in GALLERY else "animal"
    return services.sample(key), GALLERY[key].name, GALLERY[key].about, GALLERY[key].focus


def shown_name(name: str) -> str:
    """A file's name, short enough for a line."""
    return name if len(name) <= 40 else f"{name[:24]}…{name[-12:]}"


def heading(name: str, hint: str, notes: tuple[str, ...]) -> None:
    """The picture's name and what to try on it; names are shown as they are, never read as Markdown."""
    st.markdown(" ".join([f"**{plain(name)}.** {hint}", *(f"({note})" for note in notes)]))


def warn_of_hubs(layer: LayerTrace) -> None:
    """Say so where a layer routes every window to much the same few: it then hardly matters where one points."""
    share = shared_choices(layer)
    if share > 0.8 and layer.routed and layer.spec.topk < layer.grid.n_windows:
        st.caption(f"In this layer {100 * share:.0f} % of all choices fall on the same {layer.spec.topk} windows: it "
                   "hardly matters where you point.")


def plain(text: str) -> str:
    """Strangers' words such that Markdown reads nothing into them."""
    return re.sub(r"([!-/:-@[-`{-~])", r"\\\1", text)      # before anything else, such as ×, a backslash stays


def say(answer: Answer) -> None:
    """What the model makes of the picture, in its own words and with how sure it is."""
    if answer.classes:
        said = ", ".join(f"{plain(label)} {100 * share:.0f} %" for label, share in answer.classes)
        st.caption(f"The model says: {said}. It knows no other classes than its own.")


def warn_of_padding(grid: WindowGrid) -> None:
    """Say so where most of what is shown is not picture."""
    share = grid.padding_share
    if share > 0.3:
        st.info(f"{100 * share:.0f} % of this map is padding: lower n_win, choose a finer stride or a larger picture, "
                "or mask the padding.")


def choose_attention(whole: bool) -> bool:
    """Attention of one token or of the whole window."""
    options = state.ATTENTION_OF
    chosen = st.segmented_control("Attention of", options, required=True, on_change=state.take_whole,
                                  key=state.hold(state.WHOLE, options[whole], options), label_visibility="collapsed")
    return chosen == options[True]

def table(rows: list[dict[str, Any]], height: int | str = "content") -> None:
    """Numbers with thousands apart, sortable."""
    frame = pd.DataFrame(rows)
    formats: dict[str, Any] = {name: st.column_config.TextColumn(width=width)
                               for name, width in (("change", "medium"), ("why", "large"))}
    formats |= {name: st.column_config.NumberColumn(format="%.1f" if "%" in name or "ms" in name else "localized")
               for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])}
    st.dataframe(frame, hide_index=True, width="stretch", height=height, column_config=formats)
