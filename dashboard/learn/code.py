"""The Python that makes what one tries in a chapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from bra.models.catalog import ModelSettings
from bra.reports.code import explore_code, growth_code, layer_code
from bra.viewer.pack import locate
from dashboard.learn.chapters import COVERED, LIKENESS_SIDE
from dashboard.samples import GALLERY
from dashboard.services import learn as learn_services
from dashboard.services import models as model_services
from dashboard.services.learn import MODELS
from dashboard.state import learn_view as views
from dashboard.state.learn_view import Lesson
from dashboard.widgets.share import picture_file

EXPERIMENTS: Final = "from bra.teaching import experiments"


def chapter_program(at: Lesson) -> str:
    """The program of the chapter that is open, with what was chosen in it."""
    return _PROGRAMS[at.step](at)


def _growth(at: Lesson) -> str:
    return growth_code(at.pixels)


def _windows(at: Lesson) -> str:
    settings = ModelSettings("similarity", n_win=at.n_win, topk=at.topk, side=LIKENESS_SIDE)
    photo = model_services.sample("animal")
    layers = model_services.model_run(model_services.load_model(settings), photo).trace.layers
    name, layer = next(iter(layers.items()))
    return explore_code(settings, name, locate(layer.grid, photo, GALLERY["animal"].focus)[0],
                        picture=picture_file("animal", None))


def _weights(at: Lesson) -> str:
    photo = model_services.sample("animal")
    layer = learn_services.layer_of("trained", photo, 1)
    window = locate(layer.grid, photo, GALLERY["animal"].focus)[0]
    return _given("animal", 1, f"found = experiments.reweighed(given, {window}, {at.factor / 100:g}, {at.soft})")


def _cuts(at: Lesson) -> str:
    photo = model_services.sample("portrait")
    settings = ", ".join(f"Setting({n}, {n * n // 4})" for n in views.CUTS)
    return layer_code(MODELS["trained"], learn_services.layer_of("trained", photo, 0).name,
                      ["from bra.experiments.compare import Setting, compare"],
                      [f"found = compare(given, [{settings}])", f"print(found.rows[{views.CUTS.index(at.cut)}])"],
                      picture_file("portrait", None))


def _padding(at: Lesson) -> str:
    topk = max(1, round(COVERED * at.pad_win**2))
    return _given("street", 1, f"layer, found = experiments.leak(given, {at.pad_win}, {topk}, {at.masked})")


def _given(sample: str, at: int, line: str) -> str:
    name = learn_services.layer_of("trained", model_services.sample(sample), at).name
    return layer_code(MODELS["trained"], name, [EXPERIMENTS], [line, "print(found)"], picture_file(sample, None))


def _recall_by_weights(at: Lesson) -> str:
    name = learn_services.layer_of(at.weights, model_services.sample("animal"), 4).name
    return layer_code(MODELS[at.weights], name, ["from bra.metrics.routing import shared_choices",
                                                 "from bra.metrics.summary import report"],
                      ["found = report(layer)", "print(found, shared_choices(layer))"], picture_file("animal", None),
                      trace=True)


def _output_parts(at: Lesson) -> str:
    name = learn_services.layer_of("trained", model_services.sample("animal"), at.layer).name
    return layer_code(MODELS["trained"], name, [EXPERIMENTS],
                      ["found = experiments.output_parts(layer)", "print(found)"],
                      picture_file("animal", None), trace=True)


def _router(at: Lesson) -> str:
    scene, shown = learn_services.SCENE, learn_services.SCENE_SIDE
    return f"""from bra.metrics.overlap import semantic_overlap
from bra.metrics.query_dependence import query_dependence
from bra.metrics.routing import shared_choices
from bra.photo import Photo, encode
from bra.training.scenes import SIDE, draw_scene, open_scene_net

photo = Photo.from_bytes(encode(draw_scene({scene}, {shown}).rgb, "PNG"))
*_, layer = open_scene_net("{at.router}").look(photo, SIDE).trace.layers.values()
print(semantic_overlap(layer, draw_scene({scene}).labels).to_dict(), shared_choices(layer), query_dependence(layer))
"""


def _rules(at: Lesson) -> str:
    scene, shown = learn_services.SCENE, learn_services.SCENE_SIDE
    return f"""from bra.metrics.rules import try_rules
from bra.photo import Photo, encode
from bra.training.scenes import SIDE, draw_scene, open_scene_net

photo = Photo.from_bytes(encode(draw_scene({scene}, {shown}).rgb, "PNG"))
*_, layer = open_scene_net("taught").look(photo, SIDE).trace.layers.values()
for row in try_rules(layer, draw_scene({scene}).labels):
    print(row.rule, row.recall, row.overlap)
"""


def _yolo_attention(at: Lesson) -> str:
    photo, settings = model_services.sample("street"), learn_services.KINDS[at.kind]
    layer = learn_services.attention_of_yolo(at.kind, photo)
    return layer_code(settings, layer.name, [EXPERIMENTS], [f"found = experiments.reached({at.side})",
                                                            "print(layer, found)"], picture_file("street", None),
                      trace=True)


_PROGRAMS: Final[Mapping[int, Callable[[Lesson], str]]] = MappingProxyType({
    1: _growth, 2: _windows, 3: _weights, 4: _cuts, 5: _padding, 6: _recall_by_weights, 7: _output_parts,
    8: _router, 9: _yolo_attention,
    10: _rules})
