"""Labelled inputs. Each takes the view as it is and returns it as the visitor wants it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace

import streamlit as st

from bra.errors import PhotoError
from bra.models.catalog import CATALOG, ModelSettings, grid_on
from bra.photo import Photo
from bra.viewer.pack import FULL, Place
from dashboard import components, services, state
from dashboard.gallery import GALLERY
from dashboard.state import Selection

POOL_NAMES = {"identity": "none", "maxpool": "max", "avgpool": "mean", "ada_maxpool": "adaptive max",
              "ada_avgpool": "adaptive mean", "fracpool": "fractional max", "conv": "convolution (starts as mean)"}
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
                pictures.insert(0, (state.UPLOAD, "Yours", services.encoded(mine, THUMBNAIL)))
        components.gallery(pictures, state.current().picture, state.STRIP, state.take_picked)
    with drop:
        st.file_uploader(
            "Your own picture: choose, drop or paste", ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"],
            key=state.UPLOADER, on_change=state.take_upload,
            help="PNG, JPEG, WebP, BMP, GIF or TIFF of up to 20 MB. It stays in this server's memory until you leave; "
                 "nobody else sees it.")


def picture() -> tuple[Photo, str, str, Place]:
    """The chosen picture, its name, what to try on it, and where to look first.

    A sentence on the page says why, when the upload cannot be read.
    """
    selection, upload = state.current(), state.upload()
    if selection.picture == state.UPLOAD and upload is not None:
        try:
            return services.photo_of(upload.data, upload.digest), shown_name(upload.name), HINT, CENTRE
        except PhotoError as error:
            st.error(str(error), icon=":material/broken_image:")
    elif selection.picture == state.UPLOAD:
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
    plain = re.sub(r"([^\w\s]|_)", r"\\\1", name)
    st.markdown(" ".join([f"**{plain}.** {hint}", *(f"({note})" for note in notes)]))


def warn_of_padding(photo: Photo, settings: ModelSettings) -> None:
    """Say so where most of what is shown is not picture."""
    share = grid_on(settings, photo).padding_share
    if share > 0.3:
        st.info(f"{100 * share:.0f} % of this map is padding: lower n_win, choose a finer stride, or mask the padding.")


def choose_settings(photo: Photo) -> Selection:
    """Model, layer and settings; what is impossible on this picture cannot be chosen, and the reason is told."""
    selection = state.current()
    old = selection.settings
    model = st.radio("Model", list(CATALOG), format_func=lambda key: CATALOG[key].label,
                     key=state.hold("model", old.model, list(CATALOG)))
    entry = CATALOG[model]
    st.caption(entry.about)
    layer = st.segmented_control("Layer", entry.layers, required=True,
                                 format_func=lambda name: str(entry.layers.index(name) + 1),
                                 key=state.hold("layer", selection.layer or entry.layers[0], entry.layers),
                                 help="Each layer reads what the one before it wrote.")
    n_win = st.slider("Windows per side, n_win", state.N_WINS[0], state.N_WINS[-1],
                      key=state.hold("n_win", old.n_win, state.N_WINS),
                      help="The map is cut into n_win × n_win windows of equal size.")
    ks = range(1, n_win**2 + 1)
    topk = st.slider("Routed windows, topk", 1, ks[-1], key=state.hold("topk", old.topk, ks),
                     help="Each window attends to so many windows. All of them is full attention.")
    st.caption(f"Each token sees {topk} of {n_win**2} windows: {100 * topk / n_win**2:.1f} % of the map.")
    heads = st.segmented_control("Heads", state.HEADS, required=True,
                                 key=state.hold("num_heads", old.num_heads, state.HEADS))
    side = st.segmented_control("Picture size, longer side in px", state.SIDES, required=True,
                                key=state.hold("side", old.side, state.SIDES)) or old.side
    strides = [stride for stride in state.STRIDES if side <= state.MAX_TOKENS * stride]
    stride = st.segmented_control("Pixels per token, stride", strides, required=True,
                                  key=state.hold("stride", old.stride, strides)) or strides[0]
    if len(strides) < len(state.STRIDES):
        st.caption(f"A finer stride than {strides[0]} at {side} px would take minutes: first choose a smaller size.")
    settings = ModelSettings(model, n_win, topk, heads or old.num_heads, stride, side=side)
    settings = _choose_pooling(photo, settings, old)
    return state.save(replace(selection, settings=settings, layer="" if layer in (None, entry.layers[0]) else layer))


def _choose_pooling(photo: Photo, settings: ModelSettings, old: ModelSettings) -> ModelSettings:
    grid = grid_on(settings, photo)
    room = min(grid.window_h, grid.window_w)
    ratios = [ratio for ratio in state.RATIOS if ratio <= room]
    pools = state.POOLS if ratios else state.POOLS[:1]
    pool = st.selectbox("Pooling of keys and values", pools, format_func=POOL_NAMES.__getitem__,
                        key=state.hold("kv_downsample_mode", old.kv_downsample_mode, pools))
    ratio = old.kv_downsample_ratio
    if pool != "identity":
        label = "Keys per window side" if pool.startswith("ada_") else "Pooling ratio"
        ratio = st.segmented_control(label, ratios, required=True,
                                     key=state.hold("kv_downsample_ratio", ratio, ratios)) or ratios[0]
    if len(ratios) < len(state.RATIOS):
        st.caption(f"Windows are {grid.window_h}×{grid.window_w} tokens here: "
                   + (f"no ratio above {ratios[-1]} fits." if ratios else "too small to pool."))
    mask = False
    if grid.padding_share:
        empty = int(grid.padding_windows.sum())
        st.caption(f"{grid.h}×{grid.w} tokens are padded to {grid.H}×{grid.W}: {100 * grid.padding_share:.1f} % is "
                   "padding" + (f", and {empty} of {grid.n_windows} windows hold nothing else." if empty else "."))
        state.hold("mask_padding", old.mask_padding, (False, True))
        mask = st.toggle("Mask the padding", key="mask_padding",
                         help="The original attends to padding as if it were picture. Masked, it gets no attention.")
    return replace(settings, kv_downsample_mode=pool, kv_downsample_ratio=ratio, mask_padding=mask)


def choose_attention(whole: bool) -> bool:
    """Attention of one token or of the whole window."""
    options = state.ATTENTION_OF
    chosen = st.segmented_control("Attention of", options, required=True, on_change=state.take_whole,
                                  key=state.hold(state.WHOLE, options[whole], options), label_visibility="collapsed")
    return chosen == options[True]
