"""The page Learn: every figure is the module's, every step has a link, and both languages say the same."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
from app_pages import opened
from hypothesis import given, settings
from hypothesis import strategies as st
from sent_figures import figures
from streamlit.testing.v1 import AppTest

from bra.experiments.compare import Setting, compare, layer_input
from bra.grid import WindowGrid
from bra.metrics import routing, summary
from bra.metrics.overlap import semantic_overlap
from bra.metrics.query_dependence import query_dependence
from bra.metrics.rules import try_rules
from bra.models.base import OpenModel
from bra.models.catalog import CATALOG, DEFAULT, ModelSettings
from bra.opening import look, open_model
from bra.photo import Photo, encode
from bra.profiling.formula import layer_cost
from bra.teaching import experiments
from bra.teaching.source import STEPS
from bra.tracing import LayerTrace
from bra.training.scenes import Router, draw_scene, open_scene_net
from bra.units import percent, quantity
from bra.viewer.pack import locate, unpack
from dashboard.i18n import CATALOGUES, LANGUAGES, TEXT
from dashboard.learn import quiz
from dashboard.learn.step_texts import NAMES
from dashboard.learn.text import Chapter, parse_chapter
from dashboard.samples import GALLERY
from dashboard.services import learn as learn_services
from dashboard.state import learn_view as views
from dashboard.state.learn_view import LENGTHS, PARTS, SCENES, Lesson, stops

ROOT = Path(__file__).parents[2]
CHAPTERS = range(1, LENGTHS["chapters"] + 1)
FLOWERS = ModelSettings("flowers", side=320)


def chapter(language: str, step: int) -> Chapter:
    return parse_chapter((TEXT / language / f"learn_{step}.md").read_text(encoding="utf-8"))


def photo(key: str) -> Photo:
    return Photo.from_bytes((ROOT / "sample_images" / f"{key}.jpg").read_bytes())


def page(**query: str) -> AppTest:
    return opened("learn", {"lang": "en", **query})


def numbers(app: AppTest) -> list[str]:
    """The number beside every bar, in order."""
    return [text for figure in figures(app) for one in figure["data"] if one["type"] == "bar" for text in one["text"]]


def message(app: AppTest) -> str:
    blocks = [block.value for kind in (app.markdown, app.caption, app.subheader) for block in kind]
    return "\n".join([*blocks, *(block.proto.body for block in app.get("html"))])


def component(app: AppTest, name: str) -> Any:
    return next(block.proto for block in app.get("bidi_component")
                if block.proto.component_name.removesuffix("_zh") == f"routescope_{name}")


def picture_of(app: AppTest) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    header, _, arrays = unpack(component(app, "lesson_picture").bytes)
    return header, arrays


def routed_layer(of: ModelSettings, key: str, at: int) -> LayerTrace:
    return [lt for lt in look(of, photo(key)).trace.layers.values() if lt.routed][at]


# the link --------------------------------------------------------------------------------------------------


@st.composite
def lessons(draw: st.DrawFn) -> Lesson:
    part, step, scene = draw(st.sampled_from(stops(True)))
    n_win = draw(st.sampled_from(views.N_WINS))
    return Lesson(part, step, scene, draw(st.booleans()), draw(st.sampled_from(views.PIXELS)), n_win,
                  draw(st.integers(1, n_win**2)), draw(st.sampled_from(views.FACTORS)), draw(st.booleans()),
                  draw(st.sampled_from(views.CUTS)), draw(st.sampled_from(views.N_WINS)), draw(st.booleans()),
                  draw(st.sampled_from(views.WEIGHTS)), draw(st.sampled_from(views.LAYERS)),
                  draw(st.sampled_from(views.ANSWERS)), draw(st.sampled_from(views.TEACHERS)),
                  draw(st.sampled_from(range(len(views.KINDS)))), draw(st.sampled_from(views.SIDES)),
                  draw(st.sampled_from(views.RULES)))


@given(lessons())
def test_a_link_restores_the_place_in_the_lesson(wanted: Lesson) -> None:
    assert Lesson.from_query(wanted.to_query()) == wanted


def test_the_default_lesson_has_an_empty_link() -> None:
    assert Lesson().to_query() == {}


QUERY = ["part", "step", "scene", "present", *(f"learn_{name}" for name in Lesson.__slots__)]


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(QUERY), st.text(max_size=8) | st.integers(-9, 9999).map(str) | st.just("²")
                       | st.sampled_from([*PARTS, *SCENES, "trained"]), max_size=9))
def test_any_query_string_gives_a_possible_lesson(query: dict[str, str]) -> None:
    found = Lesson.from_query(query)
    assert found.stop in stops(found.present)
    assert 1 <= found.topk <= found.n_win**2
    assert Lesson.from_query(found.to_query()) == found


@pytest.mark.parametrize("present", [False, True])
def test_next_goes_through_every_stop_and_back_returns(present: bool) -> None:
    at, seen = Lesson(present=present), []
    for _ in stops(present):
        seen.append(at.stop)
        at = at.moved(1)
    assert tuple(seen) == stops(present)
    assert at.moved(1) == at                                      # at the end it stays
    for stop in reversed(seen):
        assert at.stop == stop
        at = at.moved(-1)


# the words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", CHAPTERS)
def test_both_languages_ask_the_same(step: int) -> None:
    made = [chapter(language, step) for language in LANGUAGES]
    assert len({(len(one.choices), one.right) for one in made}) == 1
    assert all(all(getattr(one, name) for name in Chapter.__slots__ if name != "right") for one in made)
    assert len({tuple(re.findall(r"`(\w+)`", one.words + one.trying)).__len__() for one in made}) == 1


def test_a_question_needs_one_right_choice() -> None:
    text = (TEXT / "en" / "learn_1.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="one is right"):
        parse_chapter(text.replace("- ( ) 9", "- (x) 9"))


def test_the_arithmetic_of_the_words() -> None:
    one = chapter("en", 1)
    assert one.choices[one.right] == str(experiments.growth(3 * 112).pairs // experiments.growth(112).pairs)
    assert experiments.growth(224).tokens == 4 * experiments.growth(112).tokens
    assert experiments.growth(224).pairs == 16 * experiments.growth(112).pairs
    five = chapter("en", 5)
    clean = [choice for choice in five.choices if not WindowGrid(20, 20, int(choice)).padding_share]
    assert clean == [five.choices[five.right]]
    for n_win, fits in ((4, True), (5, True), (10, True), (7, False)):
        assert {bool(WindowGrid(n, n, n_win).padding_share) for n in (80, 40, 20)} == {not fits}


# the chapters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", CHAPTERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_chapter_says_its_claim_and_its_answer(language: str, step: int) -> None:
    app, text = page(lang=language, step=str(step)), chapter(language, step)
    assert app.subheader[0].value == text.claim
    assert not app.success
    assert not app.error
    wrong = next(n for n in range(len(text.choices)) if n != text.right)
    app.radio[0].set_value(wrong).run()
    assert text.answer in app.error[0].value
    app.radio[0].set_value(text.right).run()
    assert text.answer in app.success[0].value
    assert not app.error
    assert "answer" not in str(app.query_params)


def test_an_answer_is_still_there_after_another_chapter() -> None:
    app = page(step="2")
    app.radio[0].set_value(1).run()
    app.button_group(key="learn_step").set_value(3).run()
    assert app.query_params["step"] == "3"
    assert not app.success
    app.button_group(key="learn_step").set_value(2).run()
    assert app.success


@pytest.mark.parametrize("pixels", [112, 448, 1792])
def test_cost_is_that_of_the_formula(pixels: int) -> None:
    app, one = page(learn_pixels=str(pixels)), experiments.growth(pixels)
    memory = [f"{quantity(cost.explicit_peak_bytes)}B" for cost in (one.full, one.routed)]
    assert numbers(app) == [quantity(one.full.macs), quantity(one.routed.macs), *memory]
    assert f"{one.tokens:,} tokens: full attention compares {quantity(one.pairs)} pairs" in message(app)
    app.slider(key="learn_pixels").set_value(168).run()
    assert numbers(app)[0] == quantity(experiments.growth(168).full.macs)
    assert app.query_params["learn_pixels"] == "168"


def test_windows_are_those_of_the_module() -> None:
    app = page(step="2", learn_n_win="5", learn_topk="3")
    lt = look(ModelSettings("similarity", n_win=5, topk=3, side=336), photo("animal")).trace.layers["layers.0"]
    header, arrays = picture_of(app)
    np.testing.assert_array_equal(arrays["r_idx"], lt.r_idx[0])
    assert header["query"] == locate(lt.grid, photo("animal"), GALLERY["animal"].focus)[0]
    assert f"{3 * lt.grid.n_tokens:,} tokens instead of {lt.grid.H * lt.grid.W:,}" in message(app)
    app.slider(key="learn_n_win").set_value(2).run()
    app.slider(key="learn_topk").set_value(4).run()
    assert "4 of 4 windows, 100 %" in message(app)


@pytest.fixture(scope="module")
def flowers() -> OpenModel:
    return open_model(FLOWERS)


@pytest.mark.parametrize("soft", [False, True])
def test_weights_do_nothing_unless_they_are_asked_to(flowers: OpenModel, soft: bool) -> None:
    app = page(step="3", learn_factor="400", learn_soft="1" if soft else "0")
    cat = photo("animal")
    given = layer_input(flowers, cat, 320, "stages.1.0.attn")
    window = locate(experiments.rerun(given)[0].grid, cat, GALLERY["animal"].focus)[0]
    found = experiments.reweighed(given, window, 4.0, soft)
    assert numbers(app) == [*map(percent, found.after), percent(found.change)]
    assert (numbers(app)[-1] == "0.0 %") is not soft
    assert "The same windows are chosen." in message(app)


@pytest.mark.parametrize("cut", views.CUTS)
def test_a_quarter_is_cut_as_the_comparison_cuts_it(flowers: OpenModel, cut: int) -> None:
    app = page(step="4", learn_cut=str(cut))
    given = layer_input(flowers, photo("portrait"), 320, "stages.0.0.attn")
    found = compare(given, [Setting(cut, cut * cut // 4)])
    row = found.rows[0]
    layer = found.traces[0]
    memory = layer_cost(layer.spec, layer.grid.h, layer.grid.w).explicit_peak_bytes
    assert numbers(app) == [percent(row.recall), percent(row.nearest), percent(row.chance), quantity(row.macs),
                            f"{quantity(memory)}B"]
    np.testing.assert_array_equal(picture_of(app)[1]["r_idx"], found.traces[0].r_idx[0])


def test_smaller_windows_keep_more_at_equal_coverage_as_the_chapter_says(flowers: OpenModel) -> None:
    given = layer_input(flowers, photo("portrait"), 320, "stages.0.0.attn")
    found = compare(given, [Setting(n, n * n // 4) for n in views.CUTS])
    rows, keeps = found.rows, [row.recall for row in found.rows]
    memory = [layer_cost(lt.spec, lt.grid.h, lt.grid.w).explicit_peak_bytes for lt in found.traces]
    assert keeps == sorted(keeps)
    assert memory == sorted(memory)
    assert memory[-1] > 1.5 * memory[-2]
    assert max(row.macs for row in rows) < 1.01 * min(row.macs for row in rows)


@pytest.mark.parametrize(("n_win", "masked"), [(5, False), (5, True), (8, False)])
def test_padding_takes_what_the_module_gives_it(flowers: OpenModel, n_win: int, masked: bool) -> None:
    app = page(step="5", learn_pad_win=str(n_win), learn_masked="1" if masked else "0")
    given = layer_input(flowers, photo("street"), 320, "stages.1.0.attn")
    lt, found = experiments.leak(given, n_win, max(1, round(0.16 * n_win**2)), masked)
    assert numbers(app) == [percent(x) for x in (found.of_map, found.of_attention, found.worst, found.change)]
    leaks = [routing.padding_leak(lt, w) for w in range(n_win**2)]
    assert masked or percent(round(float(np.mean(leaks)), 6)) == numbers(app)[1]
    if n_win == 5 and not masked:
        assert found.of_attention > 3 * found.of_map              # what the chapter claims


@pytest.mark.parametrize("weights", views.WEIGHTS)
def test_worth_is_that_of_the_scorecard(weights: str) -> None:
    app = page(step="6", learn_weights=weights)
    model = {"trained": FLOWERS, "untrained": replace(FLOWERS, untrained=True),
             "likeness": ModelSettings("similarity", n_win=5, topk=4, side=320)}[weights]
    lt = routed_layer(model, "animal", -1)
    found = summary.report(lt)
    assert numbers(app) == [percent(x) for x in (found.recall, found.recall_nearest, found.recall_chance,
                                                 routing.shared_choices(lt))]
    if weights == "trained":
        assert found.recall > 1.3 * max(found.recall_nearest, found.recall_chance)
        assert routing.shared_choices(lt) > 0.95
    if weights == "untrained":
        assert found.recall < 1.1 * found.recall_chance


@pytest.mark.parametrize("layer", views.LAYERS)
def test_voices_are_those_of_the_layer(layer: int) -> None:
    app = page(step="7", learn_layer=str(layer))
    lt = routed_layer(FLOWERS, "animal", layer)
    assert f"stages.{app.segmented_control(key='learn_layer').options[layer]}.attn" == lt.name
    found = experiments.output_parts(lt)
    assert numbers(app) == [percent(x) for x in (found.attention, 1 - found.attention, found.at_random,
                                                 found.to_nearest, found.without_lepe)]
    np.testing.assert_array_equal(picture_of(app)[1]["r_idx"], lt.r_idx[0])


@pytest.mark.parametrize("router", views.TEACHERS)
def test_routers_are_measured_on_the_drawn_scene(router: Router) -> None:
    app = page(step="8", learn_router=router)
    scene = draw_scene(learn_services.SCENE, 128)
    shown = Photo.from_bytes(encode(draw_scene(learn_services.SCENE, 512).rgb, "PNG"))
    *_, lt = open_scene_net(router).look(shown, 128).trace.layers.values()
    found = semantic_overlap(lt, scene.labels).to_dict()
    assert numbers(app) == [percent(x) for x in (found["routed"], found["nearest"], found["chance"],
                                                 routing.shared_choices(lt), query_dependence(lt))]
    np.testing.assert_array_equal(picture_of(app)[1]["r_idx"], lt.r_idx[0])
    above = found["routed"] - found["nearest"]
    assert (above > 0.05) is (router == "taught")                  # what the chapter claims


@pytest.mark.parametrize("rule", views.RULES)
def test_rules_are_tried_on_the_drawn_scene(rule: str) -> None:
    app = page(step="10", learn_rule=rule)
    shown = Photo.from_bytes(encode(draw_scene(learn_services.SCENE, 512).rgb, "PNG"))
    *_, lt = open_scene_net("taught").look(shown, 128).trace.layers.values()
    rows = {row.rule: row for row in try_rules(lt, draw_scene(learn_services.SCENE, 128).labels)}
    row, own = rows[rule], rows["bra"]
    assert numbers(app) == [percent(x) for x in (row.recall, own.recall, rows["chance"].recall, row.overlap or 0,
                                                 own.overlap or 0)]
    if rule == "bra":
        np.testing.assert_array_equal(picture_of(app)[1]["r_idx"], lt.r_idx[0])
        # What the chapter claims: by token most is kept, and less alike is brought together.
        assert max((one for name, one in rows.items() if name != "oracle"), key=lambda one: one.recall).rule == "token"
        assert (rows["token"].overlap or 0) < (own.overlap or 0) - 0.1


# predict, then see -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", views.ANSWERS)
def test_a_guess_is_answered_by_the_module_and_scored(who: str) -> None:
    app = page(part="predict", step="3", learn_who=who)
    header, arrays = picture_of(app)
    assert not header["answered"]
    assert len(arrays["answer"]) == 0                             # the answer is not in the page before it is asked for
    assert numbers(app) == []
    key, place = quiz.ROUNDS[2]
    model = {"trained": FLOWERS, "untrained": replace(FLOWERS, untrained=True),
             "likeness": ModelSettings("similarity", n_win=5, topk=4, side=320),
             "taught": ModelSettings(DEFAULT, side=384)}[who]
    lt = look(model, photo(key)).trace.layers[CATALOG[DEFAULT].layer] if who == "taught" else \
        routed_layer(model, key, 0 if who == "likeness" else 1)
    window = locate(lt.grid, photo(key), place)[0]
    answer = lt.r_idx[0, window].tolist()
    marks = (answer[1], *[w for w in range(25) if w not in answer][: lt.spec.topk - 1])
    app.session_state["lesson_guesses"] = {(who, 3): marks}       # what the callback of the pane keeps
    app.run()
    assert not app.exception
    header, arrays = picture_of(app)
    assert header["query"] == window
    assert (arrays["answer"].tolist(), arrays["marked"].tolist()) == (answer, list(marks))
    made = experiments.score(lt, window, marks)
    assert numbers(app) == 2 * [f"{made.hits}", f"{made.nearest}", f"{made.chance:.2f}"]
    assert made.hits == 1
    assert percent(routing.shared_choices(lt)) in message(app)


@pytest.mark.parametrize("forged", [(999,), (-1, 0), (10**30,), tuple(range(25))], ids=str)
def test_a_guess_that_no_page_sends_is_said_and_asked_anew(forged: tuple[int, ...]) -> None:
    app = page(part="predict")
    app.session_state["lesson_guesses"] = {("taught", 1): forged}
    app.run()
    assert not app.exception
    assert len(app.error) == 1
    assert not picture_of(app)[0]["answered"]
    assert numbers(app) == []
    app.run()
    assert not app.error


def test_rounds_add_up_and_can_be_begun_again() -> None:
    app = page(part="predict")
    app.session_state["lesson_guesses"] = {("taught", 1): (20, 21, 16, 15), ("taught", 2): (0, 1, 2, 3)}
    app.run()
    first = numbers(app)[:3]
    app.button_group(key="learn_step").set_value(2).run()
    second, total = numbers(app)[:3], numbers(app)[3:]
    assert [float(n) for n in total] == pytest.approx([float(a) + float(b) for a, b in zip(first, second, strict=True)])
    app.button[[b.label for b in app.button].index("Start again")].click().run()
    assert not app.exception
    assert numbers(app) == []
    assert not picture_of(app)[0]["answered"]


# the worked example ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["example", "photo"])
@pytest.mark.parametrize(("language", "present"), [("en", "0"), ("zh", "1")])
def test_every_step_of_the_example_stands_on_the_page(part: str, language: str, present: str) -> None:
    app = page(part=part, lang=language, present=present)
    for step, name in enumerate(STEPS, 1):
        if step > 1:
            app.session_state["lesson"] = replace(app.session_state["lesson"], step=step)
            app.run()
        assert not app.exception, name
        named = CATALOGUES[language].get(NAMES[name], NAMES[name])
        assert any(block.value.startswith(f"**{named}.**") for block in app.markdown), name
        assert app.query_params.get("step", "1") == str(step)


def test_the_examples_numbers_are_in_the_lessons_link() -> None:
    app = page(part="example", step="5", w_topk="2")
    assert (app.query_params["step"], app.query_params["w_topk"]) == ("5", "2")


# in front of a class ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("step", CHAPTERS)
def test_projected_a_chapter_comes_in_three_scenes(step: int, scene: str) -> None:
    app, text = page(present="1", step=str(step), scene=scene), chapter("en", step)
    assert [len(app.subheader), len(app.radio), bool(numbers(app) or app.slider)] == \
        [scene == "words", scene == "ask", scene == "try"]
    assert not app.button_group or scene == "try"                 # no choice of parts
    shown = {"words": text.words, "try": text.trying, "ask": text.question}[scene]
    assert shown in [block.value for block in app.markdown]
    assert "stHeader" in message(app)                                # the style that hides it


def told_by_the_presenter(words: list[object]) -> None:
    """A page that hears `words` from the presenter, one after the other, and shows its address and its link."""
    from types import SimpleNamespace
    from urllib.parse import urlencode

    import streamlit as st

    from dashboard.state import learn as learn_state
    for word in words:
        st.session_state["presenter"] = SimpleNamespace(go=word)
        learn_state.on_go("presenter")
    st.text(urlencode(st.query_params.to_dict()))
    st.text(urlencode(learn_state.link()))


@pytest.mark.parametrize(("words", "address"), [
    (["next"], "step=2"), (["next", "back"], ""), (["back"], ""), (["present"], "present=1"),
    (["present", "next"], "scene=try&present=1"), (["present", "next", "leave"], ""),
    (["present", *["next"] * 3], "step=2&present=1"),
    (["next"] * LENGTHS["chapters"], "part=example"), ([None, 7, "jump"], "")])
def test_the_presenter_goes_on_presents_and_leaves(words: list[object], address: str) -> None:
    app = AppTest.from_function(told_by_the_presenter, args=(words,)).run()
    assert not app.exception
    own, shared = ({*parse_qsl(text.value)} for text in app.text)
    assert own == {*parse_qsl(address)}
    # Others read what is projected.
    assert shared == {(name, value) for name, value in own if name not in ("present", "scene")}


def told_by_the_picture(marked: object) -> None:
    """A page that hears of marks from the picture, and then of others."""
    from types import SimpleNamespace

    import streamlit as st

    from dashboard.state import learn as learn_state
    for marks in (marked, [9, 9]):
        st.session_state["lesson_picture"] = SimpleNamespace(guess=marks)
        learn_state.on_guess("lesson_picture")
    st.text(str(learn_state.guess(("taught", 1))))


@pytest.mark.parametrize(("marked", "kept"),
                            [([3, 1, 3], "(3, 1)"), (None, "(9,)"), (["a"], "(9,)"), ("31", "(9,)")])
def test_the_first_guess_counts_and_nonsense_does_not(marked: object, kept: str) -> None:
    app = AppTest.from_function(told_by_the_picture, args=(marked,)).run()
    assert not app.exception
    assert app.text[0].value == kept


def test_a_share_is_0_or_100_per_cent_only_where_it_is_exactly() -> None:
    assert [percent(x) for x in (0, 0.0001, 0.0714, 0.0999, 0.431, 0.9999, 1)] == \
        ["0.0 %", "<0.1 %", "7.1 %", "10 %", "43 %", "99.9 %", "100 %"]


# what YOLO already does ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", range(3))
def test_what_yolo_does_is_what_its_layer_does(kind: int) -> None:
    app = page(step="9", learn_kind=str(kind))
    lt = next(iter(look(learn_services.KINDS[kind], photo("street")).trace.layers.values()))
    found = experiments.reached(640)
    assert numbers(app) == [quantity(n) for n in (found.full, found.stripes, found.routed)]
    header, arrays = picture_of(app)
    assert header["routed"] is lt.routed is (kind == 2)
    np.testing.assert_array_equal(arrays["r_idx"], lt.r_idx[0])
    window = header["query"]
    reach = {0: lt.grid.n_windows, 1: lt.grid.n_windows // 4, 2: 4}[kind]
    assert (arrays["affinity"].reshape(-1, lt.grid.n_windows)[window] > 0).sum() == reach if not lt.routed else \
        lt.spec.topk == reach


def test_the_arithmetic_of_attention_in_yolo() -> None:
    found = experiments.reached(640)
    assert (found.side, found.full, found.stripes) == (20, 160_000, 40_000)
    assert found.routed == 21 * 21 * 4 * 9 + 49**2
    assert chapter("en", 9).choices[0].startswith("Its map has 20 × 20 tokens")
    assert experiments.reached(320).stripes < experiments.reached(320).routed      # small maps: BRA does not pay
