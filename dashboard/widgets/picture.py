"""Widgets about the picture: the gallery, uploads, notes on a picture and its answer."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, replace

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from bra.errors import PhotoError
from bra.grid import WindowGrid
from bra.messages import comma_joined
from bra.metrics import query_dependence
from bra.metrics.routing import chosen_padding
from bra.models.base import Answer
from bra.photo import Photo
from bra.tracing import LayerTrace
from bra.viewer.pack import FULL, Place
from dashboard import components
from dashboard.i18n import language, option_labels, tr, tr_noop, translate
from dashboard.samples import GALLERY
from dashboard.services import models as model_services
from dashboard.services import uploads as upload_services
from dashboard.services.server import limits
from dashboard.state import session
from dashboard.state.view import UPLOAD
from dashboard.state.widgets import init_widget

HINT = tr_noop("Point at a window to see where it is routed; click to keep it.")
WORD_JOINER = "\N{WORD JOINER}"
THUMBNAIL = 160
SAID_CLASSES = 3
CENTRE: Place = (FULL // 2, FULL // 2)


def choose_picture(title: str) -> None:
    """The page's title, the strip of built-in pictures, and the place to drop one's own."""
    strip, drop = st.columns([2.6, 1], vertical_alignment="center")
    with strip:
        st.subheader(title, anchor=False)
        pictures = [(key, translate(GALLERY[key].name), small)
                    for key, small in model_services.gallery(THUMBNAIL).items()]
        chosen, upload = session.current().picture, session.upload()
        own = []
        for one in session.own_pictures():
            with suppress(PhotoError):
                mine = model_services.photo_of(one.data, one.digest)
                own.append((session.own_key(one), shown_name(one.name, 16), model_services.encoded(mine, THUMBNAIL)))
        if chosen == UPLOAD and upload is not None:
            chosen = session.own_key(upload)
        components.gallery([*own, *pictures], chosen, session.STRIP, session.on_gallery)
    with drop:
        size = limits().picture_mb
        ask_file(
            tr("Your own pictures: choose, drop or paste"), ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"],
            session.UPLOADER, size,
            help=tr("PNG, JPEG, WebP, BMP, GIF or TIFF of up to {size} MB. It is forgotten soon after you leave, and "
                    "what was worked out from it when newer work needs the room; nobody else sees it.", size=size))


def ask_file(label: str, endings: list[str], key: str, size: int = 0, help: str | None = None) -> None:
    """The place for a file of the visitor's own, and which one is held though the place is empty.

    Args:
        label: what is asked for.
        endings: of files that are taken.
        key: of the widget.
        size: the largest file in MB; 0 for what this server takes.
        help: more, on a question mark.
    """
    size = size or limits().upload_mb
    if key == session.UPLOADER:
        st.file_uploader(label, endings, key=key, on_change=upload_services.on_pictures, max_upload_size=size,
                         help=help, accept_multiple_files=True)
        full = bool(session.widget_pictures(drawn=True))
    else:
        full = st.file_uploader(label, endings, key=key, on_change=upload_services.on_file, args=(key,),
                                max_upload_size=size, help=help) is not None
    held = session.uploaded_file(key)
    if full and session.refusal(key):
        st.error(plain(translate(session.refusal(key))), icon=":material/error:")
    elif not full and held is not None:     # the widget forgets its file on another page, the session does not
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(tr("In use: {name}", name=plain(shown_name(held.name))), width="content")
            st.button(tr("Remove"), key=f"{key}_remove", icon=":material/close:", on_click=upload_services.remove,
                      args=(key,))
    if language() == "en":
        return
    # Streamlit's own words on it can be had in no other way than by style.
    zone = f'.st-key-{key} [data-testid="stFileUploaderDropzone"]'
    about = tr("{size} MB at most: {endings}", size=size, endings=" ".join(endings).upper())
    st.html(f"""<style>
{zone} > span p, {zone} > input + div > span, {zone} [data-testid="stFileUploaderDropzoneInstructions"] span
{{ display: none; }}
{zone} > span [data-testid="stMarkdownContainer"]::after {{ content: {_quoted(tr("Upload"))}; }}
{zone} > input + div::after {{ content: {_quoted(tr("Drop the file here"))}; }}
{zone} [data-testid="stFileUploaderDropzoneInstructions"]::after
{{ content: {_quoted(about)}; font-size: .875rem; opacity: .7; }}
</style>""")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)     # style sheets quote as JSON does, but know no \\u


@dataclass(frozen=True, slots=True, eq=False)
class ChosenPicture:
    """The picture of a page; for one run of it, which may not keep the photo.

    Attributes:
        photo: the picture.
        sample: its key in the gallery; "" for the visitor's own.
        name: its name, as the visitor reads it.
        hint: what to try on it.
        focus: where to look first.
        stands_in: whether it is shown in place of a file of the visitor's own.
    """

    photo: Photo
    sample: str
    name: str
    hint: str
    focus: Place
    stands_in: bool = False


def chosen_picture() -> ChosenPicture:
    """The visitor's picture, or one of the gallery; a sentence on the page says why, when it is not the one chosen."""
    selection, upload = session.current(), session.upload()
    if selection.picture == UPLOAD and upload is not None:
        try:
            return ChosenPicture(model_services.photo_of(upload.data, upload.digest), "", shown_name(upload.name),
                                 translate(HINT), CENTRE)
        except PhotoError as error:
            st.error(plain(translate(error)), icon=":material/broken_image:")
    elif selection.picture == UPLOAD:
        st.info(tr("This link was made with an uploaded picture, which links do not carry: drop it here again to see "
                   "the same view. Until then, a built-in one."), icon=":material/image:")
    elif selection.picture not in GALLERY:
        st.info(tr("There is no built-in picture of that name; this is {name}.",
                   name=translate(GALLERY["animal"].name)))
    key = selection.picture if selection.picture in GALLERY else "animal"
    sample = GALLERY[key]
    return ChosenPicture(model_services.sample(key), key, translate(sample.name), translate(sample.about), sample.focus,
                         selection.picture == UPLOAD or session.refused_picture())


def result_area(stands_in: bool, model: str, picture: str) -> DeltaGenerator:
    """Where a page draws what it found: dimmed, and said so, where that is of something else than the visitor's file.

    Args:
        stands_in: whether it is.
        model: its label.
        picture: its name.
    """
    # What follows is dimmed by this element before it and is itself always the same: a browser would draw it anew.
    with st.container(key="stand_in" if stands_in else "asked_for"):
        if stands_in:
            st.warning(tr("What follows, in grey, is not your file: it is {model} on {picture}.",
                          model=plain(translate(model)), picture=plain(picture)), icon=":material/content_copy:")
    return st.container(key="result")


def shown_name(name: str, most: int = 40) -> str:
    """A file's name in so many letters, short enough for a line."""
    return name if len(name) <= most else f"{name[:6 * most // 10]}…{name[-3 * most // 10:]}"


def heading(name: str, hint: str, notes: tuple[str, ...]) -> None:
    """The picture's name and what to try on it; names are shown as they are, never read as Markdown."""
    message = [tr("**{name}.** {hint}", name=plain(name), hint=hint)]
    st.markdown(" ".join(message + [tr("({note})", note=translate(note)) for note in notes]))


def say_dependence(layer: LayerTrace) -> None:
    """How much of a layer's routing depends on the query; marked where it collapsed."""
    words = translate(query_dependence.in_words(layer))
    if words and query_dependence.collapsed(layer):
        st.warning(words, icon=":material/adjust:")
    elif words:
        st.caption(words)


def plain(text: str) -> str:
    """Strangers' words such that Markdown reads nothing into them, and makes no link or icon of them.

    Addresses and names of icons are looked for once more when the backslashes are gone: a word joiner, which has no
    width, keeps them apart.
    """
    apart = re.sub(r"(://|www(?=\.)|@(?=[-\w])|:(?=[-+\w]))", f"\\1{WORD_JOINER}", re.sub(r"\s*[\r\n]\s*", " ", text),
                   flags=re.IGNORECASE)
    return re.sub(r"([!-/:-@[-`{-~])", r"\\\1", apart)     # before anything else, such as ×, a backslash stays


def translated(answer: Answer) -> Answer:
    """The answer in the visitor's language, as far as its words are those of our own models."""
    return Answer(tuple(replace(found, label=translate(found.label)) for found in answer.detections),
                  tuple((translate(label), share) for label, share in answer.classes))


def say(answer: Answer) -> None:
    """What the model makes of the picture, in its own words and with how sure it is."""
    if answer.classes:
        classes = comma_joined([tr("{name} {share:.0f} %", name=plain(label), share=100 * share)
                                for label, share in answer.classes[:SAID_CLASSES]])
        st.caption(tr("The model says: {classes}. It knows no other classes than its own.", classes=translate(classes)))


def say_padding(grid: WindowGrid) -> None:
    """How much of a map is padding, in a line; nothing where none is."""
    if not grid.padding_share:
        return
    empty = int(grid.padding_windows.sum())
    sizes = {"size": f"{grid.h}×{grid.w}", "padded": f"{grid.H}×{grid.W}", "share": 100 * grid.padding_share}
    st.caption(tr("{size} tokens are padded to {padded}: {share:.1f} % is padding, and {empty} of {n} windows hold "
                  "nothing else.", **sizes, empty=empty, n=grid.n_windows) if empty
               else tr("{size} tokens are padded to {padded}: {share:.1f} % is padding.", **sizes))


def warn_of_padding(layer: LayerTrace) -> None:
    """Say so where windows are routed to padding, or most of what is shown is not picture."""
    chosen, share = chosen_padding(layer), layer.grid.padding_share
    if chosen and layer.routed:
        st.warning(tr("Of the {topk} windows that each window is routed to, {chosen:.1f} on average hold nothing but "
                      "padding: mask the padding, lower n_win, or choose a larger picture.", topk=layer.spec.topk,
                      chosen=chosen), icon=":material/grid_off:")
    elif share > 0.3:
        st.info(tr("{share:.0f} % of this map is padding: lower n_win, choose a finer stride or a larger picture, or "
                   "mask the padding.", share=100 * share))


def choose_attention(whole: bool) -> bool:
    """Attention of one token or of the whole window."""
    options = session.ATTENTION_OF
    chosen = st.segmented_control(tr("Attention of"), options, required=True, label_visibility="collapsed",
                                  format_func=option_labels({one: one for one in options}), on_change=session.on_whole,
                                  key=init_widget(session.WHOLE, options[whole], options))
    return chosen == options[True]
