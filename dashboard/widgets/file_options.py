"""What was assumed of a visitor's model file, said beside it; and what the file cannot tell, asked for."""

from __future__ import annotations

import streamlit as st

from bra.errors import BRAError, UnknownSettingsError
from bra.models.base import FileOptions
from bra.models.catalog import ModelSettings
from dashboard.i18n import option_labels, tr, tr_noop, translate
from dashboard.services.models import load_model
from dashboard.state import session, timeline
from dashboard.state.upload import Upload
from dashboard.state.view import N_WINS
from dashboard.state.widgets import init_text, init_widget
from dashboard.widgets.picture import plain

PUBLISHED = "published"
N_WIN_NAMES = {PUBLISHED: tr_noop("as published: 7")} | {str(n): str(n) for n in N_WINS}
ORDERS = {"windows": tr_noop("n_win, heads"), "heads": tr_noop("heads, n_win")}
YAML = (".yaml", ".yml")


def ask_file_options(file: Upload | None, key: str = "") -> FileOptions:
    """What the visitor says of the file, where it leaves something open.

    Args:
        file: the model file; None before there is one.
        key: what the widgets' keys begin with, where a page asks for two files.
    """
    if file is None:
        return FileOptions()
    asks = _asks(file)
    key = f"{key}{file.digest[:12]}_"       # another file is asked about anew
    kept = session.file_options(key)
    n_win, order = PUBLISHED, "windows"
    topks: tuple[int, ...] = ()
    if "n_win" in asks:
        names = list(N_WIN_NAMES)
        n_win = st.selectbox(tr("n_win that it was trained with"), names, format_func=option_labels(N_WIN_NAMES),
                             key=init_widget(f"{key}n_win", str(kept.n_win or PUBLISHED), names))
    if "topks" in asks:
        topks = _read_topks(st.text_input(
            tr("topk of its stages, as trained"), max_chars=40, placeholder="1, 4, 16, -2",
            key=init_text(f"{key}topks", ", ".join(map(str, kept.topks))),
            help=tr("The file holds weights alone. Empty for the published 1, 4, 16; −2 is a stage of full "
                    "attention.")))
    if "heads_first" in asks:
        orders = list(ORDERS)
        order = st.segmented_control(tr("What its rows begin with"), orders, format_func=option_labels(ORDERS),
                                     required=True,
                                     key=init_widget(f"{key}order",
                                                     "heads" if kept.heads_first else "windows",
                                                     orders),
                                     help=tr("The tutorial's class takes n_win first, the authors' class the heads.")) \
            or order
    options = FileOptions(None if n_win == PUBLISHED else int(n_win), topks, order == "heads",
                          timeline.chosen_epoch(file.digest))
    session.save_file_options(key, options)
    _say(file, options)
    return options


def _asks(file: Upload) -> tuple[str, ...]:
    """Options that the file leaves open."""
    try:
        return load_model(ModelSettings("own"), file).model.asks
    except UnknownSettingsError:
        return "n_win", "topks"
    except BRAError:
        # Its numbers may be impossible in one order only.
        rows = file.name.lower().endswith(YAML) and b"BiLevelRoutingAttention" in file.data
        return ("heads_first",) if rows else ()


def _read_topks(text: str) -> tuple[int, ...]:
    """Whole numbers between commas; says so where they are not."""
    parts = [part.strip().replace("−", "-") for part in text.replace("，", ",").split(",")]
    if not text.strip():
        return ()
    if not all(part.removeprefix("-").isdecimal() and len(part) < 6 for part in parts):
        st.caption(tr("Write whole numbers with commas between them, such as 1, 4, 16, -2."))
        return ()
    return tuple(int(part) for part in parts)


def _say(file: Upload, options: FileOptions) -> None:
    """What was assumed of it, and what was left out."""
    try:
        model = load_model(ModelSettings("own", file=options), file).model
    except BRAError:
        return      # the page says why
    for sentence in (*model.assumptions, *model.notes):
        text = plain(translate(sentence))
        st.caption(f":material/info: {text[:1].upper()}{text[1:]}")
