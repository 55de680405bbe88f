"""Labelled inputs about the model: which one, with which windows. What is impossible is not offered."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from bra.errors import RECORD_IT, BRAError, ForeignModelError
from bra.models.base import WARNING, ModelRun, no_attention, no_routing
from bra.models.catalog import (
    BIFORMERS,
    CATALOG,
    STOCK_FILES,
    YOLO_FILES,
    YOLO_SCALES,
    ModelEntry,
    ModelSettings,
    grid_on,
)
from bra.photo import Photo
from bra.spec import BRASpec
from bra.tracing import LayerTrace
from dashboard.i18n import option_labels, tr, tr_noop, translate
from dashboard.services import uploads as upload_services
from dashboard.services.models import LoadedModel, load_model, mended_files, model_run, recorder_file
from dashboard.services.server import limits
from dashboard.state import session
from dashboard.state import view as views
from dashboard.state.view import Selection
from dashboard.state.widgets import init_widget
from dashboard.widgets.file_options import ask_file_options
from dashboard.widgets.picture import CENTRE, ChosenPicture, ask_file, plain, say_padding, shown_name, translated

MODEL_ENDINGS = ["yaml", "yml", "pt", "pth", "safetensors", "bra"]
MODEL_NAMES = {key: entry.label for key, entry in CATALOG.items()}
POOL_NAMES = {"identity": tr_noop("none"), "maxpool": tr_noop("max"), "avgpool": tr_noop("mean"),
              "ada_maxpool": tr_noop("adaptive max"), "ada_avgpool": tr_noop("adaptive mean"),
              "fracpool": tr_noop("fractional max"), "conv": tr_noop("convolution (starts as mean)")}
ABOUT_MASK = tr_noop("The original attends to padding as if it were picture. Masked, it gets no attention.")
WEIGHTS = {"trained": tr_noop("trained"), "untrained": tr_noop("untrained")}
PLACES = {"": tr_noop("{base}: neck, before each C2f"), "-residual": tr_noop("{base}: the same, with norm and "
                                                                             "shortcut"),
          "-c2f": tr_noop("{base}: inside each C2f"), "-p3": tr_noop("{base}: backbone, after P3"),
          "-p5": tr_noop("{base}: backbone, at its end"), "-c2psa": tr_noop("{base}: in place of C2PSA's attention")}
STOCK_NAMES = {"yolo11{}": tr_noop("YOLO11: C2PSA, full attention"),
               "yolo12{}": tr_noop("YOLO12: A2C2f, attention within stripes")}
BIFORMER_NAMES = {"biformer_tiny": tr_noop("T, 13.1 M parameters"), "biformer_small": "S, 25.5 M",
                  "biformer_base": "B, 56.8 M", "biformer_stl": "STL, 28.4 M"}


def choose_settings(photo: Photo | None) -> Selection:
    """Model and settings, as far as the model lets one choose; without a photo the model alone."""
    view = session.current()
    old = view.settings
    key = st.selectbox(tr("Model"), list(CATALOG), format_func=option_labels(MODEL_NAMES),
                       key=init_widget("model", old.model, list(CATALOG)))
    entry = CATALOG[key]
    st.caption(translate(entry.about))
    if entry.family == "patches":
        layer = view.layer if old.entry.family == "patches" else ""
        if photo is None:
            return session.save(replace(view, settings=replace(old, model=key) if layer else ModelSettings(key)))
        return session.save(replace(view, settings=_patch_settings(photo, key, old), layer=layer))
    same = old if old.model == key else ModelSettings(key, side=entry.side)
    settings = ModelSettings(key, variant=_choose_variant(entry, same), untrained=_choose_weights(entry, same))
    if entry.family == "own":
        ask_file(tr("Model file"), MODEL_ENDINGS, session.MODEL_UPLOADER,
                 help=tr("Up to {size} MB. It is forgotten soon after you leave, and what was worked out from it when "
                         "newer work needs the room; nobody else sees it.", size=limits().upload_mb))
        settings = replace(settings, file=ask_file_options(session.model_upload()))
    if photo is None:
        kept = replace(same, variant=settings.variant, untrained=settings.untrained, file=settings.file)
        return session.save(replace(view, settings=kept, layer=view.layer if kept.layers == old.layers else ""))
    upload = session.model_upload()
    if entry.family == "own" and upload is not None and upload.name.lower().endswith(".bra"):
        side = same.side        # a recording has the size that it was made at
    else:
        side = _choose_side(key, same.side, views.SIDES if entry.family != "biformer" else views.SIDES[:-1])
    settings = replace(settings, side=side, mask_padding=same.mask_padding)
    layer = view.layer if settings.layers == old.layers else ""
    return session.save(replace(view, settings=_choose_change(settings, same, layer), layer=layer))


def _choose_side(key: str, side: int, sides: tuple[int, ...]) -> int:
    # Each model keeps a size of its own: what suits one is too much for another.
    return st.segmented_control(tr("Picture size, longer side in px"), sides, required=True,
                                key=init_widget(f"side_{key}", side, sides)) or side


def _choose_variant(entry: ModelEntry, old: ModelSettings) -> str:
    """The variant's name; "" for the first."""
    if len(entry.variants) == 1:
        return ""
    if entry.family == "yolo":
        stems = [stem for stem in (*YOLO_FILES, *STOCK_FILES) if stem.format(YOLO_SCALES[0]) in entry.variants]
        stem, scale = next((stem, letter) for stem in stems for letter in YOLO_SCALES
                           if stem.format(letter) == old.chosen_variant)
        stem = st.selectbox(tr("Model file"), stems, format_func={stem: _file_name(stem) for stem in stems}.__getitem__,
                            key=init_widget(f"{entry.key}_file", stem, stems))
        scales = list(YOLO_SCALES)
        letter = st.segmented_control(tr("Scale"), scales, required=True,
                                      key=init_widget(f"{entry.key}_scale", scale, scales))
        chosen = stem.format(letter or scale)
    else:
        names = list(BIFORMERS)
        chosen = st.selectbox(tr("Size"), names, format_func=option_labels(BIFORMER_NAMES),
                              key=init_widget("biformer", old.chosen_variant, names))
    return "" if chosen == entry.variants[0] else chosen


def _file_name(stem: str) -> str:
    if stem in STOCK_NAMES:
        return translate(STOCK_NAMES[stem])
    base, _, place = stem.format("").partition("-bra")
    return translate(PLACES[place]).format(base=base.replace("yolo", "YOLO"))


def _choose_weights(entry: ModelEntry, old: ModelSettings) -> bool:
    """Whether random weights are wanted in place of trained ones."""
    if not entry.card:
        return False
    options = list(WEIGHTS)
    chosen = st.segmented_control(tr("Weights"), options, format_func=option_labels(WEIGHTS), required=True,
                                  key=init_widget(f"weights_{entry.key}", options[old.untrained], options),
                                  help=tr("The same layers on the same picture, as they learned or with random "
                                          "numbers."))
    return chosen == "untrained"


def _choose_change(settings: ModelSettings, old: ModelSettings, layer: str) -> ModelSettings:
    """Other windows for the layer that is looked at."""
    try:
        model = load_model(settings, session.model_upload()).model
    except BRAError:        # the page says why; what a link asks for waits for the file
        return settings if session.model_upload() else replace(settings, n_win=old.n_win, topk=old.topk,
                                                               changed=old.changed)
    specs = model.specs
    name = shown_layer(settings, layer, tuple(specs))
    if name not in specs:
        if specs or model.only_attends:
            st.caption(tr("This layer does not route: its tokens attend to all that they reach. So there is no n_win "
                          "and no topk to choose; the grid over the picture only sums their attention up."))
        return settings
    spec = specs[name]
    st.caption(tr("Layer {name} was built with n_win {n_win}, topk {topk}, {heads} heads, {dim} channels.", name=name,
                  n_win=spec.n_win, topk=spec.topk, heads=spec.num_heads, dim=spec.dim))
    init_widget("changed", old.changed, (False, True))
    if not st.toggle(tr("What if {name} had other windows?", name=name), key="changed",
                     help=tr("The weights stay; only this layer's n_win and topk change.")):
        return settings
    n_win, topk = _choose_windows(*(old.n_win, old.topk) if old.changed else (spec.n_win, spec.topk))
    return replace(settings, n_win=n_win, topk=topk, changed=True)


def _choose_windows(n_win: int, topk: int) -> tuple[int, int]:
    n_win = st.slider(tr("Windows per side, n_win"), views.N_WINS[0], views.N_WINS[-1],
                      key=init_widget("n_win", n_win, views.N_WINS),
                      help=tr("The map is cut into n_win × n_win windows of equal size."))
    ks = range(1, n_win**2 + 1)
    topk = st.slider(tr("Routed windows, topk"), 1, ks[-1], key=init_widget("topk", topk, ks),
                     help=tr("Each window attends to so many windows. All of them is full attention."))
    st.caption(tr("Each token sees {topk} of {n} windows: {share:.1f} % of the map.", topk=topk, n=n_win**2,
                  share=100 * topk / n_win**2))
    return n_win, topk


def choose_b_windows(settings: ModelSettings, spec: BRASpec | None) -> ModelSettings:
    """The windows of side B of a comparison, of a layer with settings `spec`."""
    patches = settings.entry.family == "patches"
    if not patches:
        if spec is None:
            return settings
        init_widget("b_changed", settings.changed, (False, True))
        label = tr("B: other windows than its own n_win {n_win}, topk {topk}", n_win=spec.n_win, topk=spec.topk)
        if not st.toggle(label, key="b_changed"):
            return replace(settings, changed=False)
    n_win, topk = (settings.n_win, settings.topk) if patches or settings.changed or spec is None else \
        (spec.n_win, spec.topk)
    left, right = st.columns(2)
    with left:
        n_win = st.slider(tr("B: windows per side, n_win"), views.N_WINS[0], views.N_WINS[-1],
                          key=init_widget("b_n_win", n_win, views.N_WINS))
    ks = range(1, n_win**2 + 1)
    with right:
        topk = st.slider(tr("B: routed windows, topk"), 1, ks[-1], key=init_widget("b_topk", topk, ks))
    return replace(settings, n_win=n_win, topk=topk, changed=not patches)


def _patch_settings(photo: Photo, model: str, old: ModelSettings) -> ModelSettings:
    patches = CATALOG[old.model].family == "patches"
    n_win, topk = _choose_windows(old.n_win, old.topk)
    heads = st.segmented_control(tr("Heads"), views.HEADS, required=True,
                                 key=init_widget("num_heads", old.num_heads, views.HEADS))
    side = _choose_side("patches", old.side if patches else CATALOG[model].side, views.SIDES)
    strides = [stride for stride in views.STRIDES if side <= views.MAX_TOKENS * stride]
    stride = st.segmented_control(tr("Pixels per token, stride"), strides, required=True,
                                  key=init_widget("stride", old.stride, strides)) or strides[0]
    if len(strides) < len(views.STRIDES):
        st.caption(tr("A finer stride than {stride} at {side} px would take minutes: first choose a smaller size.",
                      stride=strides[0], side=side))
    settings = ModelSettings(model, n_win, topk, heads or old.num_heads, stride, side=side)
    return _choose_pooling(photo, settings, old)


def _choose_pooling(photo: Photo, settings: ModelSettings, old: ModelSettings) -> ModelSettings:
    grid = grid_on(settings, photo)
    room = min(grid.window_h, grid.window_w)
    ratios = [ratio for ratio in views.RATIOS if ratio <= room]
    pools = views.POOLS if ratios else views.POOLS[:1]
    pool = st.selectbox(tr("Pooling of keys and values"), pools, format_func=option_labels(POOL_NAMES),
                        key=init_widget("kv_downsample_mode", old.kv_downsample_mode, pools))
    ratio = old.kv_downsample_ratio
    if pool != "identity":
        label = tr("Keys per window side") if pool.startswith("ada_") else tr("Pooling ratio")
        ratio = st.segmented_control(label, ratios, required=True,
                                     key=init_widget("kv_downsample_ratio", ratio, ratios)) or ratios[0]
    if len(ratios) < len(views.RATIOS):
        size = f"{grid.window_h}×{grid.window_w}"
        st.caption(tr("Windows are {size} tokens here: no ratio above {ratio} fits.", size=size, ratio=ratios[-1])
                   if ratios else tr("Windows are {size} tokens here: too small to pool.", size=size))
    mask = False
    if grid.padding_share:
        say_padding(grid)
        init_widget("mask_padding", old.mask_padding, (False, True))
        mask = st.toggle(tr("Mask the padding"), key="mask_padding", help=translate(ABOUT_MASK))
    return replace(settings, kv_downsample_mode=pool, kv_downsample_ratio=ratio, mask_padding=mask)


def picture_for(loaded: LoadedModel, chosen: ChosenPicture) -> ChosenPicture:
    """The picture that a model is looked at on: a recording's own, or for any other model the one given."""
    if loaded.upload is None or loaded.model.photo is None:
        return chosen
    hint = tr("The recording's own picture, whichever is chosen above: nothing of its model runs here.")
    return ChosenPicture(loaded.model.photo, "", shown_name(loaded.upload.name), hint, CENTRE)


def run_chosen(view: Selection, chosen: ChosenPicture) -> tuple[Selection, ChosenPicture, LoadedModel, ModelRun]:
    """The chosen model and its run on its picture; says so where that cannot be, and takes the usual model instead."""
    file = session.model_upload()
    if view.settings.entry.family == "own" and file is None:
        st.info(tr("Drop a model file in the side bar: YAML, .pt, .pth, .safetensors or a recording (.bra). Until "
                   "then, the usual model."),
                icon=":material/upload_file:")
    else:
        try:
            loaded = load_model(view.settings, file)
            chosen = picture_for(loaded, chosen)
            run = model_run(loaded, chosen.photo, shown_layer(view.settings, view.layer, tuple(loaded.model.specs)))
            if run.trace.layers:
                return view, chosen, loaded, ModelRun(run.trace, translated(run.answer))
            st.info(plain(translate(no_attention(loaded.model.label))), icon=":material/info:")
        except BRAError as error:
            refuse(error)
    usual = load_model(ModelSettings())
    return replace(view, settings=usual.settings, layer=""), chosen, usual, model_run(usual, chosen.photo)


def refuse(error: BRAError, uploader: str = session.MODEL_UPLOADER) -> None:
    """Say why a model cannot be had, and what can be done: the lines that record it where it runs, its file mended.

    Args:
        error: why.
        uploader: that its file was given to.
    """
    if not isinstance(error, ForeignModelError) or not error.lines:
        st.error(sentence(error), icon=":material/error:")
        _offer_mended(uploader)
        return
    st.error(tr("{refusal} {cure}", refusal=sentence(error), cure=translate(RECORD_IT)), icon=":material/error:")
    st.code(error.lines, language="python")
    st.download_button("bra_record.py", recorder_file, "bra_record.py", "text/x-python", on_click="ignore",
                       icon=":material/download:", key=f"recorder_{uploader}",
                       help=tr("One file; it needs Python 3.8, torch 1.10 and numpy. Its recording holds numbers and "
                               "runs nothing when it is read."))


def _offer_mended(uploader: str) -> None:
    """Where rows of a refused model file begin with their channels: the file without them, to open or to keep."""
    file = session.uploaded_file(uploader)
    ways = mended_files(file) if file is not None else ()
    if file is None or not ways:
        return
    stem, _, ending = file.name.rpartition(".")
    name = f"{stem}-mended.{ending}"
    st.markdown(tr("Rows of BiLevelRoutingAttention here begin with their channels, which are put in by themselves:"))
    for at, way in enumerate(ways):
        with st.container(horizontal=True):
            st.button(tr("Mend and open: {what}", what=translate(way.what)), icon=":material/build:",
                      key=f"mend_{uploader}_{at}", on_click=upload_services.take_text, args=(uploader, name, way.text))
            st.download_button(tr("The mended file, YAML"), way.text, name, "text/yaml",
                               on_click="ignore", key=f"mended_{uploader}_{at}")


def sentence(error: BRAError) -> str:
    """An error as it stands on a page; strangers' words in it are never read as Markdown."""
    text = plain(translate(error))
    return text[:1].upper() + text[1:]


def say_no_routing(loaded: LoadedModel) -> None:
    """Say that a model has no routing to show, and what can be done about it."""
    st.info(plain(translate(no_routing(loaded.model.label))), icon=":material/info:")


def layer_of(view: Selection, names: tuple[str, ...]) -> str:
    """The layer that is looked at, of those that ran; says so where a link names one that this model has not."""
    if view.layer and view.layer not in names:
        st.info(tr("This model has no layer {name}; this is another.", name=plain(view.layer)))
    return view.layer if view.layer in names else shown_layer(view.settings, "", names)


def shown_layer(settings: ModelSettings, layer: str, names: tuple[str, ...]) -> str:
    """The layer that was chosen, or the one to look at first."""
    first = settings.entry.layer
    return layer or (first if first in names else next(iter(names), ""))


def warn_of_weights(*opened: LoadedModel) -> None:
    """Say in large letters where the weights of one of these models are random ones."""
    if any(loaded.model.untrained for loaded in opened):
        st.warning(translate(WARNING), icon=":material/casino:")


def choose_mask(settings: ModelSettings, layer: LayerTrace) -> None:
    """The padding of a layer whose windows are not the settings' own, and a switch to leave it out."""
    if settings.entry.is_built_from_settings or not layer.routed or not layer.grid.padding_share:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        say_padding(layer.grid)
        st.toggle(tr("Mask the padding"), key=session.mask_widget(settings.mask_padding),
                  on_change=session.on_mask, help=translate(ABOUT_MASK), width="content")


def provenance_of(settings: ModelSettings, provenance: str) -> str:
    """Where the weights come from, and that windows or mask are not those they were trained with, where that is so."""
    message = translate(provenance)
    if settings.changed:
        message = tr("{provenance}, windows changed", provenance=message)
    if settings.mask_padding and not settings.entry.is_built_from_settings:
        message = tr("{provenance}, padding masked", provenance=message)
    return message
