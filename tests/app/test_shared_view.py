"""A view that many open is worked out once, by a job; an open page keeps nothing that the cache does not count."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import wraps
from typing import Any

import app_pages
import numpy as np
import pytest
import streamlit as st
from numpy.typing import NDArray
from sent_figures import figures, maps
from streamlit.testing.v1 import AppTest

pytest.importorskip("ultralytics")

from bra import opening
from bra.messages import ENGLISH
from bra.metrics.between_layers import overlaps, routed_layers
from bra.models.catalog import CATALOG, ModelSettings
from bra.reports.files import routing_csv, trace_npz
from bra.reports.layer_html import report_html
from bra.tracing import LayerTrace
from bra.viewer.pack import Caption, locate, unpack
from dashboard.runtime.config import Limits
from dashboard.runtime.server import AT_ONCE, HEAVY, QUICK, Server
from dashboard.runtime.wait import run_cached
from dashboard.services import compare as compare_services
from dashboard.services import explore as explore_services
from dashboard.services import learn as learn_services
from dashboard.services import models as model_services

QUERY = {"model": "similarity", "n_win": "2", "topk": "4", "stride": "4", "side": "224", "whole": "1",
         "a": "2000.2000", "b": "8000.8000"}
"""9 million attention weights for each of two windows."""
FINEST = ModelSettings("similarity", n_win=2, topk=4, num_heads=16, stride=4, side=448)


@pytest.fixture(autouse=True)
def fresh_server() -> Iterator[None]:
    model_services.server.clear()
    yield
    model_services.server.clear()


def opened(**query: str) -> AppTest:
    return app_pages.opened("explore", query, stage_drawn=True)


def message(app: AppTest, name: str) -> tuple[dict[str, Any], bytes, dict[str, np.ndarray]]:
    return next(unpack(block.proto.bytes) for block in app.get("bidi_component")
                if block.proto.component_name == f"routescope_{name}")


def watched(monkeypatch: pytest.MonkeyPatch, where: object, name: str,
            counts: Callable[..., bool] = lambda *_: True) -> list[str]:
    """The names of the threads in which something is called from now on, once for each call."""
    threads: list[str] = []
    real = getattr(where, name)

    @wraps(real)
    def call(*given: Any, **named: Any) -> Any:
        if counts(*given):
            threads.append(threading.current_thread().name)
        return real(*given, **named)

    monkeypatch.setattr(where, name, call)
    return threads


def of_whole_window(_layer: LayerTrace, _window: int, token: int | None = None, *_: Any) -> bool:
    return token is None


def layer_of(settings: ModelSettings) -> LayerTrace:
    return next(iter(opening.look(settings, model_services.sample("animal")).trace.layers.values()))


def every_head(app: AppTest) -> NDArray[Any]:
    """(queries, 2 + heads, H, W): mean, maximum and every head, as the page draws them."""
    app.selectbox(key="heads").set_value("every").run()
    assert not app.exception
    drawn = figures(app)[0]
    found = maps(drawn)
    return found.reshape(len(drawn["layout"]["meta"]["queries"]), -1, *found.shape[1:])


def test_a_shared_link_to_whole_windows_is_worked_out_once_by_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = watched(monkeypatch, LayerTrace, "attention_map", of_whole_window)
    first = every_head(opened(**QUERY))
    assert len(threads) == 2                                        # two pins in two windows
    assert all(name.startswith("quick ") for name in threads)
    second = every_head(opened(**QUERY))
    assert len(threads) == 2
    np.testing.assert_array_equal(second, first)
    monkeypatch.undo()
    photo = model_services.sample("animal")
    layer = layer_of(ModelSettings("similarity", n_win=2, topk=4, stride=4, side=224))
    for at, place in enumerate(((2000, 2000), (8000, 8000))):
        wanted = layer.attention_map(locate(layer.grid, photo, place)[0])
        np.testing.assert_allclose(first[at, 2:], wanted, atol=1e-6)


def test_other_windows_settings_and_pictures_have_maps_of_their_own() -> None:
    base = {**QUERY, "side": "224", "stride": "8"}
    shown = [every_head(opened(**{**base, **other})) for other in (
        {}, {"a": "8000.2000"}, {"num_heads": "8", "topk": "3"}, {"picture": "street"}, {"layer": "layers.1"},
        {"side": "320"}, {"model": "flowers"}, {"model": "flowers", "untrained": "1"},
        {"model": "flowers", "changed": "1"}, {"model": "flowers", "changed": "1", "topk": "3"},
        {"model": "flowers", "changed": "1", "topk": "3", "layer": "stages.1.0.attn"})]
    for at, one in enumerate(shown):
        for other in shown[at + 1:]:
            assert one.shape != other.shape or not np.array_equal(one[0], other[0])


def test_one_token_is_attended_to_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(**{**QUERY, "whole": "0"})
    threads = watched(monkeypatch, LayerTrace, "attention_map")
    monkeypatch.setattr(model_services.server().queue, "submit", lambda *_: pytest.fail("a query became a job"))
    app.session_state["selection"] = replace(app.session_state["selection"], a=(8000, 2000))
    app.run()
    assert not app.exception
    assert len(threads) == 2
    assert not [name for name in threads if name.startswith(("quick", "heavy"))]


def test_the_priority_follows_the_size() -> None:
    small = layer_of(ModelSettings("similarity", side=224))         # 8 heads, 49 windows of a few tokens
    assert explore_services.map_priority(small) == AT_ONCE
    medium = layer_of(ModelSettings("similarity", n_win=2, topk=4, stride=4, side=224))     # 9 million weights
    assert explore_services.map_priority(medium) == QUICK
    finest = layer_of(FINEST)                                       # 290 million weights
    assert explore_services.map_priority(finest) == HEAVY
    assert explore_services.npz_priority(small) == QUICK
    assert explore_services.npz_priority(replace(finest, q=finest.q.repeat(1, 1, 1, 1, 8))) == HEAVY
    many = replace(small, grid=replace(small.grid, n_win=64), r_idx=small.r_idx.repeat(1, 100, 16))
    assert explore_services.csv_priority(small) == QUICK
    assert explore_services.csv_priority(many) == HEAVY
    assert explore_services.stage_priority(small) == AT_ONCE
    assert explore_services.stage_priority(many) == HEAVY


def test_the_stage_is_cached_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made = watched(monkeypatch, explore_services, "stage_message")
    app = opened(model="similarity", n_win="16", topk="9")
    sent = next(block.proto.bytes for block in app.get("bidi_component")
                if block.proto.component_name == "routescope_stage")
    cache = model_services.server().cache
    sizes = [entry.size for entry in cache._entries.values() if isinstance(entry.value, bytes) and entry.value == sent]
    assert len(sizes) == 1
    assert sizes[0] >= len(sent) > 250_000                          # 256 × 256 affinities
    opened(model="similarity", n_win="16", topk="9")
    assert len(made) == 1


def traces() -> int:
    gc.collect()
    return sum(isinstance(one, LayerTrace) for one in gc.get_objects())


def test_an_open_page_and_its_downloads_keep_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    opened(model="similarity")                                      # what is loaded once and for all
    model_services.server.clear()
    before, files, button = traces(), [], st.download_button

    def kept(label: str, data: Callable[[], Any], *given: Any, **named: Any) -> bool:
        files.append(data)
        return button(label, data, *given, **named)

    monkeypatch.setattr(st, "download_button", kept)        # as the server keeps what it is given
    app = opened(model="similarity", n_win="5")
    assert len(files) == 3
    assert traces() > before                                        # in the cache
    model_services.server.clear()
    assert traces() == before
    app.run()                                                       # and the page finds all again
    assert not app.exception
    assert message(app, "stage")[0]["grid"]["n_win"] == 5


def test_downloads_are_made_by_jobs_from_a_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, photo = ModelSettings("similarity", n_win=4, topk=2), model_services.sample("animal")
    look = opening.look(settings, photo)
    name, layer = next(iter(look.trace.layers.items()))
    request = explore_services.LayerRequest(settings, None, "animal", None, name, "")
    caption, pins = Caption("m", name, "p", "Cat"), {"a": (5000, 5000)}
    threads = {made: watched(monkeypatch, explore_services, made) for made in
               ("routing_csv", "trace_npz", "report_html")}
    wholes = watched(monkeypatch, LayerTrace, "attention_map", of_whole_window)
    for _ in range(2):
        with ThreadPoolExecutor(1) as server:                       # as the server asks: a thread without a visit
            got = [server.submit(make, request, *rest).result() for make, rest in (
                (explore_services.routing_file, ()), (explore_services.trace_file, ()),
                (explore_services.report_file, (look.answer, caption, (1, 1), pins, True, ("arrows",), ENGLISH)))]
    assert all(len(names) == 1 and names[0].startswith("quick ") for names in threads.values()), threads
    assert len(wholes) == 1
    monkeypatch.undo()
    assert got[0] == routing_csv(layer, 0, CATALOG["similarity"].provenance)
    assert len(got[1]) == len(trace_npz(layer, 0, CATALOG["similarity"].provenance))
    assert got[2] == report_html(photo, layer, caption, (1, 1), pins, True, ("arrows",), look.answer.detections)


def test_a_download_that_takes_too_long_is_given_up() -> None:
    server, wanted = Server.of(Limits(seconds=1)), threading.Event()
    try:
        with pytest.raises(TimeoutError, match="ROUTESCOPE_SECONDS"):
            run_cached(server, "late", lambda _: wanted.wait(30), "Writing the file …", HEAVY)
    finally:
        wanted.set()


def test_how_alike_layers_choose_is_worked_out_once_for_all_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = watched(monkeypatch, explore_services, "overlaps")
    query = {"model": "similarity", "side": "224"}
    app = opened(**query)
    first = message(app, "rail")[2]["alike"]
    app.run()
    np.testing.assert_array_equal(message(opened(**query, layer="layers.1"), "rail")[2]["alike"], first)
    assert len(threads) == 1                                        # other windows are another run
    opened(**query, n_win="5")
    assert len(threads) == 2
    monkeypatch.undo()
    layers = opening.look(ModelSettings("similarity", side=224), model_services.sample("animal")).trace.layers
    np.testing.assert_allclose(first, overlaps(routed_layers(layers)), atol=1e-6)


def test_a_against_b_is_worked_out_once_by_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = watched(monkeypatch, compare_services, "compare_pair")
    query = {"model": "similarity", "tab": "versus"}
    for _ in range(2):
        app = opened(**query)
        app.switch_page("views/compare.py").run()
        assert not app.exception
        assert message(app, "multiples")[0]["pair"]
    assert threads == ["heavy 0"]


def test_the_maps_of_the_lesson_are_worked_out_once_by_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = watched(monkeypatch, learn_services, "layer_maps")
    photo = model_services.sample("animal")
    maps = [learn_services.photo_maps(photo, learn_services.photo_layer(5, 4, photo)) for _ in range(2)]
    assert maps[0] is maps[1]
    assert len(threads) == 1
    assert threads[0].startswith("quick ")
    assert maps[0] in [entry.value for entry in model_services.server().cache._entries.values()]
