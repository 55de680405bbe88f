"""What one tries in each chapter: a control, and a figure that the module makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import streamlit as st

from bra.experiments.compare import Setting
from bra.figures import learn as learn_figures
from bra.figures.learn import Bar
from bra.figures.template import Style
from bra.metrics.query_dependence import query_dependence
from bra.metrics.routing import shared_choices
from bra.metrics.rules import RULES
from bra.models.catalog import ModelSettings
from bra.photo import Photo
from bra.teaching.experiments import growth, reached
from bra.tracing import LayerTrace
from bra.units import percent, quantity
from bra.viewer.pack import FULL, Place, locate
from dashboard import components
from dashboard.components import messages
from dashboard.i18n import option_labels, tr, tr_noop, translate
from dashboard.samples import GALLERY
from dashboard.services import compare as compare_services
from dashboard.services import learn as learn_services
from dashboard.services import models as model_services
from dashboard.state import learn as learn_state
from dashboard.state import learn_view as views
from dashboard.state.learn_view import Lesson
from dashboard.state.widgets import init_widget
from dashboard.widgets import chart

USUAL, LARGE = 14, 16
"""Sizes of the type in figures, in pixels; the larger one where the lesson is projected."""
PICTURES: Final = (("animal", "likeness", 0), ("animal", "likeness", 0), ("animal", "trained", 1),
                   ("portrait", "trained", 0), ("street", "trained", 1), ("animal", "trained", 4),
                   ("animal", "trained", 1))
"""Beside the words of a chapter: a picture of the gallery, a model, and the number of its layer; those after them have
a scene that is drawn, and YOLO's own attention."""
LIKENESS_SIDE = 336
"""At which the map of the cat divides into 7 × 7 windows without padding."""


def cost(at: Lesson) -> Lesson:
    """Full attention against BRA, by size of the picture."""
    pixels = st.slider(tr("Side of the picture, pixels"), views.PIXELS[0], views.PIXELS[-1], step=views.PIXELS.step,
                       key=init_widget("learn_pixels", at.pixels, views.PIXELS))
    every = [growth(side) for side in views.PIXELS]
    one = growth(pixels)
    st.markdown(tr("{tokens:,} tokens: full attention compares {pairs} pairs, BRA {fewer}.", tokens=one.tokens,
                   pairs=quantity(one.pairs), fewer=quantity(one.routed_pairs)))
    left, right = sides(at)
    with left:
        chart.draw(learn_figures.growth(every, views.PIXELS, pixels, _style(at)), "growth", f"{pixels}px")
        st.caption(tr("Blue: full attention; orange: BRA as it is usually set. One layer with 64 numbers per token. A "
                      "multiply-add is one multiplication and one addition, the unit of such work; k, M and G are "
                      "thousands, millions and thousands of millions. Memory: every comparison is written down, as in "
                      "most copies."))
    with right:
        bars(at, tr("% of the larger"), learn_figures.GROWTH_OF, [
            *_pair(tr("multiply-adds, full"), tr("multiply-adds, BRA"), one.full.macs, one.routed.macs, ""),
            *_pair(tr("memory, full"), tr("memory, BRA"), one.full.explicit_peak_bytes,
                   one.routed.explicit_peak_bytes, "B")])
    return replace(at, pixels=pixels)


def _style(at: Lesson) -> Style:
    """How the lesson's figures are dressed: in large type where it is projected."""
    return chart.style(LARGE if at.present else USUAL)


def bars(at: Lesson, axis: str, caption: str, rows: Sequence[Bar]) -> None:
    """Bars in the style of the lesson; `axis` says what their length is, `caption` what the numbers are of.

    Projected, the picture beside them says that.
    """
    chart.draw(learn_figures.bars(rows, axis, _style(at), "" if at.present and at.part == "chapters" else caption),
               "learn", at.part, at.step)


def _pair(full: str, routed: str, a: int, b: int, unit: str) -> list[Bar]:
    most = max(a, b)
    return [Bar(full, a / most, f"{quantity(a)}{unit}", "bad"), Bar(routed, b / most, f"{quantity(b)}{unit}")]


def windows(at: Lesson) -> Lesson:
    """A picture to point at, under windows of one's choice."""
    left, right = st.columns(2)
    n_win = left.slider(tr("Windows per side, n_win"), views.N_WINS[0], views.N_WINS[-1],
                        key=init_widget("learn_n_win", at.n_win, views.N_WINS))
    ks = range(1, n_win**2 + 1)
    topk = right.slider(tr("Routed windows, topk"), 1, ks[-1],
                        key=init_widget("learn_topk", min(at.topk, ks[-1]), ks))
    photo = model_services.sample("animal")
    settings = ModelSettings("similarity", n_win=n_win, topk=topk, side=LIKENESS_SIDE)
    run = model_services.model_run(model_services.load_model(settings), photo)
    lt = next(iter(run.trace.layers.values()))
    caption = tr("Content likeness: fixed rules compare colour and texture. Nothing was learned.")
    if lt.grid.padding_share:
        caption += " " + tr("Hatched: padding, see chapter 5.")
    grid, (above, below) = lt.grid, sides(at)
    with above:
        look(photo, lt, GALLERY["animal"].focus, caption)
    below.markdown(tr("Each window attends to {k} of {n} windows, {share} of the map. So each token is compared with "
                   "{seen:,} tokens instead of {all:,}.", k=topk, n=grid.n_windows,
                      share=percent(topk / grid.n_windows), seen=topk * grid.n_tokens, all=grid.H * grid.W))
    return replace(at, n_win=n_win, topk=topk)


def sides(at: Lesson) -> Sequence[Any]:
    """Where the picture and its figures go: beside each other where there is room; projected, the picture is larger."""
    with st.container(key="lesson_sides"):
        return st.columns([1.7 if at.present else 1.12, 1], gap="medium")


def picture_of(at: Lesson) -> None:
    """What stands beside the words of a chapter where it is projected: a picture under the routing that it is about."""
    if at.step <= len(PICTURES):
        key, weights, number = PICTURES[at.step - 1]
        photo = model_services.sample(key)
        lt = learn_services.layer_of(weights, photo, number)
        look(photo, lt, GALLERY[key].focus, _whose(weights, lt.name))
    elif at.step == len(PICTURES) + 1:
        photo, lt, _ = learn_services.taught(at.router)
        look(photo, lt, SCENE_FOCUS, "")
    elif at.step == len(PICTURES) + 3:
        photo, layers, _ = learn_services.ruled()
        look(photo, layers[at.rule], SCENE_FOCUS, "")
    else:
        photo = model_services.sample("street")
        lt = learn_services.attention_of_yolo(at.kind, photo)
        look(photo, lt, GALLERY["street"].focus, _whose_yolo(at.kind, lt.name))


def look(photo: Photo, lt: LayerTrace, place: Place, caption: str) -> None:
    """The picture to point at."""
    picture = model_services.encoded(photo, messages.PICTURE_SIDE)
    components.lesson_picture(messages.look_message(photo, lt, place, caption, picture),
                              learn_state.PICTURE, learn_state.on_guess)


def weights(at: Lesson) -> Lesson:
    """Routing weights that change while the chosen windows stay."""
    left, right = st.columns([1.6, 1], vertical_alignment="bottom")
    factor = left.segmented_control(tr("Affinities times"), views.FACTORS, format_func=lambda n: f"{n / 100:g}",
                                    required=True, key=init_widget("learn_factor", at.factor, views.FACTORS))
    init_widget("learn_soft", at.soft, (False, True))
    soft = right.toggle("soft_routing", key="learn_soft", help=tr("Multiply keys and values by the weights."))
    photo = model_services.sample("animal")
    one = learn_services.input_of("trained", photo, 1)
    lt = learn_services.layer_of("trained", photo, 1)
    window = locate(lt.grid, photo, GALLERY["animal"].focus)[0]
    found = learn_services.reweighed(photo, one, window, factor or at.factor, soft)
    rows = [Bar(tr("window {w}", w=w), share, percent(share))
            for w, share in zip(lt.r_idx[0, window].tolist(), found.after, strict=True)]
    st.markdown(tr("Routing weights of window {window}: always 100 % in all.", window=window) + " "
                + (tr("The same windows are chosen.") if found.same_windows else tr("Other windows are chosen.")))
    bars(at, tr("routing weight, % · change of the output, %"), _whose("trained", one.name),
         [*rows, Bar(tr("change of the output"), found.change, percent(found.change), "bad")])
    st.caption(tr("Layer {layer} of a model that was trained here on flowers and now sees the cat of chapter 2. "
                  "Change: how far the output is from that at factor 1, in per cent of its size.", layer=one.name))
    return replace(at, factor=factor or at.factor, soft=soft)


def cuts(at: Lesson) -> Lesson:
    """n_win and topk at equal coverage."""
    cut = st.segmented_control(tr("Windows per side, n_win"), views.CUTS, required=True,
                               key=init_widget("learn_cut", at.cut, views.CUTS)) or at.cut
    photo = model_services.sample("portrait")
    one = learn_services.input_of("trained", photo, 0)
    settings = tuple(Setting(n, n * n // 4) for n in views.CUTS)
    compared = compare_services.compared(learn_services.lesson_model("trained"), photo, one, settings, 0)
    n = views.CUTS.index(cut)
    row, lt = compared.rows[n], compared.traces[n]
    memory = [learn_services.memory_written_out(each) for each in compared.traces]
    above, below = sides(at)
    with above:
        look(photo, lt, GALLERY["portrait"].focus, _whose("trained", one.name))
    with below:
        st.markdown(tr("n_win {n_win}, topk {topk}: {share} of the map.", n_win=cut, topk=row.topk,
                       share=percent(row.topk / cut**2)))
        bars(at, tr("share, % · cost, % of the dearest"), _whose("trained", one.name), [
            Bar(tr("keeps of full attention"), row.recall, percent(row.recall)),
            Bar(tr("the nearest windows would"), row.nearest, percent(row.nearest), "other"),
            Bar(tr("random windows would"), row.chance, percent(row.chance), "other"),
            Bar(tr("multiply-adds"), row.macs / max(each.macs for each in compared.rows), quantity(row.macs), "bad"),
            Bar(tr("memory, written out"), memory[n] / max(memory), f"{quantity(memory[n])}B", "bad")])
    return replace(at, cut=cut)


# What one tries in the last three chapters: what padding takes, what a routing is worth, and what a map proves. -----

COVERED = 0.16
"""Share of the map that the layer on padding sees: 4 of 25 windows, as it was trained."""


def padding(at: Lesson) -> Lesson:
    """Windows that do not divide the map, with the padding attended or masked."""
    left, right = st.columns([1.6, 1], vertical_alignment="bottom")
    n_win = left.slider(tr("Windows per side, n_win"), views.N_WINS[0], views.N_WINS[-1],
                        key=init_widget("learn_pad_win", at.pad_win, views.N_WINS))
    init_widget("learn_masked", at.masked, (False, True))
    masked = right.toggle("mask_padding", key="learn_masked", help=tr("Leave padding out of means and attention."))
    photo = model_services.sample("street")
    one = learn_services.input_of("trained", photo, 1)
    topk = max(1, round(COVERED * n_win**2))
    lt, found = learn_services.leak(photo, one, n_win, topk, masked)
    above, below = sides(at)
    with above:
        look(photo, lt, GALLERY["street"].focus,
             tr("Hatched: padding. Layer {layer} of the model trained on flowers, topk {k}.",
                layer=one.name, k=topk))
    with below:
        st.markdown(tr("{h} × {w} tokens, padded to {H} × {W}.", h=lt.grid.h, w=lt.grid.w, H=lt.grid.H, W=lt.grid.W))
        bars(at, tr("share, %"), _whose("trained", one.name), [
            Bar(tr("padding's share of the map"), found.of_map, percent(found.of_map), "other"),
            Bar(tr("padding's share of attention"), found.of_attention, percent(found.of_attention)),
            Bar(tr("the same, worst window"), found.worst, percent(found.worst)),
            Bar(tr("change of the output by masking"), found.change, percent(found.change), "bad")])
    return replace(at, pad_win=n_win, masked=masked)


def recall_by_weights(at: Lesson) -> Lesson:
    """Trained, untrained and alike: what each keeps, beside chance and the nearest windows."""
    weights = st.segmented_control(tr("Weights"), views.WEIGHTS, format_func=tr, required=True,
                                   key=init_widget("learn_weights", at.weights, views.WEIGHTS)) or at.weights
    photo = model_services.sample("animal")
    lt = learn_services.layer_of(weights, photo, 4)
    found, shared = learn_services.fidelity_of(weights, photo, 4)
    above, below = sides(at)
    with above:
        look(photo, lt, GALLERY["animal"].focus, _whose(weights, lt.name))
    with below:
        st.markdown(tr("Share of full attention that is kept, {k} of {n} windows:", k=found.topk, n=lt.grid.n_windows)
                    + " " + tr("Hubs: the {k} windows chosen most get this share of all choices:", k=found.topk))
        bars(at, tr("share, %"), _whose(weights, lt.name), [
            Bar(tr("its own routing"), found.recall, percent(found.recall)),
            Bar(tr("the nearest windows"), found.recall_nearest, percent(found.recall_nearest), "other"),
            Bar(tr("random windows, chance"), found.recall_chance, percent(found.recall_chance), "other"),
            Bar(tr("share of the hubs"), shared, percent(shared), "bad")])
    return replace(at, weights=weights)


def _whose(weights: str, layer: str) -> str:
    if weights == "likeness":
        return tr("Content likeness: fixed rules compare colour and texture. Nothing was learned.")
    if weights == "untrained":
        return tr("Layer {layer} of the same model with random weights: untrained.", layer=layer)
    return tr("Layer {layer} of the model trained on flowers.", layer=layer)


def output_parts(at: Lesson) -> Lesson:
    """What a layer's output is made of, and what becomes of it under other windows."""
    photo = model_services.sample("animal")
    # Stage and block alone, which fit on a slide; the whole name stands below the picture.
    names = {n: name.removeprefix("stages.").removesuffix(".attn")
             for n, name in enumerate(learn_services.layer_names("trained", photo))}
    layer = st.segmented_control(tr("Layer"), views.LAYERS, format_func=option_labels(names), required=True,
                                 key=init_widget("learn_layer", at.layer, views.LAYERS))
    layer = at.layer if layer is None else layer
    lt = learn_services.layer_of("trained", photo, layer)
    found, side = learn_services.output_parts(photo, layer), lt.spec.side_dwconv
    above, below = sides(at)
    with above:
        look(photo, lt, GALLERY["animal"].focus, _whose("trained", lt.name))
    with below:
        st.markdown(tr("What this layer puts out comes from attention and from LePE (orange and grey); blue: how far "
                       "the output moves, in per cent of its size, with other windows or without LePE."))
        bars(at, tr("share of the output, % · change, %"), _whose("trained", lt.name), [
            Bar(tr("attention, which the picture shows"), found.attention, percent(found.attention)),
            Bar(tr("LePE, {side} × {side} tokens around", side=side), 1 - found.attention,
                percent(1 - found.attention), "other"),
            Bar(tr("random windows instead"), found.at_random, percent(found.at_random), "bad"),
            Bar(tr("the nearest windows instead"), found.to_nearest, percent(found.to_nearest), "bad"),
            Bar(tr("no LePE"), found.without_lepe, percent(found.without_lepe), "bad")])
    return replace(at, layer=layer)


def yolo_attention(at: Lesson) -> Lesson:
    """What YOLO already does: full attention, stripes, and BRA in their place."""
    left, right = st.columns([1.6, 1], vertical_alignment="bottom")
    kind = left.segmented_control(tr("Attention"), range(len(views.KINDS)), required=True,
                                  format_func=option_labels(dict(enumerate(views.KINDS))),
                                  key=init_widget("learn_kind", at.kind, range(len(views.KINDS))))
    kind = at.kind if kind is None else kind
    side = right.segmented_control(tr("Side of the picture, pixels"), views.SIDES, required=True,
                                   key=init_widget("learn_side", at.side, views.SIDES)) or at.side
    photo = model_services.sample("street")
    lt, found = learn_services.attention_of_yolo(kind, photo), reached(side)
    whose = _whose_yolo(kind, lt.name)
    above, below = sides(at)
    with above:
        look(photo, lt, GALLERY["street"].focus, whose)
    with below:
        st.markdown(tr("On {side} × {side} pixels the coarsest map has {n} × {n} tokens. Pairs that are compared "
                       "there:", side=side, n=found.side))
        pairs = (found.full, found.stripes, found.routed)
        names = (tr("full attention"), tr("four stripes"), tr("BRA, n_win 7, topk 4"))
        bars(at, tr("% of the largest"), tr("Pairs of a query and a key, padding included."), [
            Bar(name, n / max(pairs), quantity(n), "main" if number == kind else "other")
            for number, (name, n) in enumerate(zip(names, pairs, strict=True))])
    return replace(at, kind=kind, side=side)


ROUTER_NAMES: Final = {"default": tr_noop("default"), "straight-through": "diff_routing=True",
                       "taught": tr_noop("routing loss")}
SCENE_FOCUS: Final[Place] = (FULL // 2, FULL // 2)
"""Where one looks first on the drawn scene."""


def _whose_yolo(kind: int, layer: str) -> str:
    return tr("Layer {layer} of {model} with random weights: how far it reaches is real, how much it attends means "
              "nothing.", layer=layer, model=learn_services.KINDS[kind].chosen_variant)


def router(at: Lesson) -> Lesson:
    """Three models that differ in what taught their routers alone, on one drawn scene whose labels are known."""
    chosen = st.segmented_control(tr("What taught the router"), views.TEACHERS, required=True,
                                  format_func=option_labels(ROUTER_NAMES),
                                  key=init_widget("learn_router", at.router, views.TEACHERS)) or at.router
    photo, lt, overlap = learn_services.taught(chosen)
    shared, dependence = shared_choices(lt), query_dependence(lt)
    whose = tr("Layer {layer} of a small segmentation model, trained on drawn scenes; this one was not among them.",
               layer=lt.name)
    above, below = sides(at)
    with above:
        look(photo, lt, SCENE_FOCUS, whose)
    with below:
        st.markdown(tr("Likeness of labels between a window and the {k} it is routed to, and how much of the routing "
                       "depends on the query:", k=lt.spec.topk))
        parts = {tr("its own routing"): ("routed", "main"), tr("the nearest windows"): ("nearest", "other"),
                 tr("random windows, chance"): ("chance", "other")}
        bars(at, tr("likeness of labels, % · share, %"), whose, [
            *(Bar(name, share, percent(share), kind) for name, (field, kind) in parts.items()
              for share in [float(overlap[field] or 0)]),
            Bar(tr("share of the hubs"), shared, percent(shared), "bad"),
            Bar(tr("depends on the query"), dependence, percent(dependence))])
    return replace(at, router=chosen)


def rules(at: Lesson) -> Lesson:
    """Rules of routing at equal cost in one layer, on a drawn scene whose labels are known."""
    rule = st.selectbox(tr("How windows are chosen"), views.RULES, width=360,
                        format_func=option_labels({key: RULES[key].name for key in views.RULES}),
                        key=init_widget("learn_rule", at.rule, views.RULES))
    photo, layers, rows = learn_services.ruled()
    lt, row, own = layers[rule], rows[rule], rows["bra"]
    whose = tr("Layer {layer}, taught by labels, on a scene that it did not learn from.", layer=lt.name)
    above, below = sides(at)
    with above:
        look(photo, lt, SCENE_FOCUS, whose + " " + (
            tr("Here tokens choose for themselves: shown are the {k} windows that most of them chose.", k=lt.spec.topk)
            if rule == "token" else ""))
    with below:
        if not at.present:      # where there is no room
            st.markdown(translate(RULES[rule].about))
            st.caption(tr("What would have to learn for it: {what}", what=translate(RULES[rule].training)))
        bars(at, tr("full attention kept, % · likeness of labels, %"), whose, [
            Bar(tr("keeps of full attention"), row.recall, percent(row.recall)),
            Bar(tr("BRA's own rule would"), own.recall, percent(own.recall), "other"),
            Bar(tr("random windows would"), rows["chance"].recall, percent(rows["chance"].recall), "other"),
            Bar(tr("likeness of labels"), row.overlap or 0, percent(row.overlap or 0), "bad"),
            Bar(tr("by BRA's own rule"), own.overlap or 0, percent(own.overlap or 0), "other")])
    return replace(at, rule=rule)
