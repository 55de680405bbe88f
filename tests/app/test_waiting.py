"""Heavy work on the real server: a place in the line that one sees, a button that calls it off, and who leaves goes."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_visitor import Visitor, serving
from streamlit.testing.v1 import AppTest

SLOW = "model=similarity&stride=4&side=448&tab=grid&rows=2.3.4.5.6.7&columns=1.2.3.4.6.8&cost=seconds"
"""36 settings of 112 × 112 tokens, each timed: half a minute and more."""
SMALLER = SLOW.replace("side=448", "side=320")
"""The same of 80 × 80 tokens, which stops sooner when it is not wanted any more."""
QUEUE = 2


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("waiting") / "log.txt"
    with serving(log, {"ROUTESCOPE_QUEUE": str(QUEUE)}) as (address, _):
        yield address
    message = log.read_text()
    assert "Traceback" not in message, message


def about_to_compare(host: str, number: int, query: str = SLOW) -> Visitor:
    """One with an image of its own, who will ask for much."""
    visitor = Visitor(host, query)
    visitor.run()
    small = np.random.default_rng(number).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((448, 448)).save(buffer, "PNG")
    assert visitor.upload("uploader", f"{number}.png", buffer.getvalue()) == 204
    visitor.run()
    return visitor


def standing(visitor: Visitor) -> str:
    """What the page says of the wait."""
    return next((text for text in visitor.texts if "hourglass" in text), "")


def becomes(visitor: Visitor, words: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while words not in standing(visitor):
        assert time.monotonic() < until, (words, visitor.texts)
        time.sleep(0.05)


def test_the_line_is_seen_called_off_and_left(host: str) -> None:
    people = [about_to_compare(host, number) for number in range(4)]
    first, second, third, fourth = people
    try:
        for one, words in zip(people, ("Comparing …", "You are next.", "1 before you."), strict=False):
            one.go("Compare")
            becomes(one, words)

        # a third may not wait
        fourth.go("Compare")
        fourth.wait_for(f"{QUEUE} wait already, the most that this server lets wait (ROUTESCOPE_QUEUE)")
        fourth.wait()

        # the second calls it off
        second.click("Call it off")
        second.wait_for("Called off: ")
        second.wait()
        becomes(third, "You are next.", 10)

        # the first leaves: its work is stopped, and the third's begins
        first.close()
        until = time.monotonic() + 15
        while "next" in standing(third):
            assert time.monotonic() < until, third.texts
            time.sleep(0.05)
        becomes(third, "Comparing …")

        # quick work is done meanwhile
        quick = Visitor(host, "model=similarity")
        people.append(quick)
        quick.run()
        took = []
        for n in range(10):
            quick.set_state("stage", "pins", {"a": [1000 * n, 5000]})
            took.append(quick.run(fragment=True))
        assert np.median(took) < 1, took

        # and the second may have it after all
        second.click("Do it again")
        becomes(second, "You are next.")
        assert not any(one.errors for one in people)
    finally:
        for one in people:
            one.close()


def test_a_query_of_a_whole_large_window_waits_in_sight(host: str) -> None:
    query = "model=similarity&n_win=2&topk=4&num_heads=16&stride=4&side=448&whole=1&a=1000.1000"
    people = [about_to_compare(host, 9, SMALLER), Visitor(host, query), Visitor(host, "model=similarity")]
    busy, asks, quick = people
    try:
        asks.run()
        asks.draw_stage()
        first = asks.queries()
        quick.run()
        busy.go("Compare")
        becomes(busy, "Comparing …")

        asks.set_state("stage", "pins", {"a": [9000, 9000]})
        asks.send(fragment=True)
        becomes(asks, "Adding up the attention of all tokens of the window … You are next.")
        took = []
        for n in range(10):     # one token of another visitor's is at once
            quick.set_state("stage", "pins", {"a": [1000 * n, 5000]})
            took.append(quick.run(fragment=True))
        assert np.median(took) < 1, took
        asks.click("Call it off")       # the page waits in its stead
        asks.wait_for("Called off: ")
        asks.wait()
        assert asks.component("stage")[0]["topk"] == 4, "the stage stays"

        asks.click("Do it again", fragment=True)
        becomes(asks, "You are next.")
        busy.close()
        asks.wait()
        second = asks.queries()
        assert (first[0]["window"], second[0]["window"]) == (0, 3)
        assert (first[0]["token"], second[0]["token"]) == (None, None)
        assert not standing(asks)
        assert not any(one.errors for one in people)
    finally:
        for one in people:
            one.close()


def script(seconds: int, queue: int, parts: int) -> None:
    """A page that asks for one piece of work."""
    import time

    import streamlit as st

    from dashboard.runtime.config import Limits
    from dashboard.runtime.jobs import Progress
    from dashboard.runtime.server import HEAVY, Server
    from dashboard.runtime.wait import run_cached
    from dashboard.state import job_status

    @st.cache_resource
    def server(seconds: int, queue: int) -> Server:
        return Server.of(Limits(seconds=seconds, queue=queue))

    def long(progress: Progress) -> str:
        for n in range(parts):
            time.sleep(0.1)
            progress(n, parts)
        return f"made of {parts}"

    job_status.set_status_slot(st.container())
    st.write(run_cached(server(seconds, queue), parts, long, "Comparing …", HEAVY))
    st.write("the rest of the page")


def page(**given: int) -> AppTest:
    return AppTest.from_function(script, default_timeout=30, kwargs={"seconds": 60, "queue": 5, "parts": 1, **given})


def test_what_takes_too_long_is_given_up_in_one_sentence() -> None:
    app = page(seconds=1, parts=200).run()
    assert not app.exception
    assert len(app.warning) == 1
    assert app.warning[0].value.startswith("This took more than 1 seconds, the most that this server gives")
    assert "ROUTESCOPE_SECONDS" in app.warning[0].value
    assert [button.label for button in app.button] == ["Try again"]
    assert not app.markdown, "the page ends there"


@pytest.mark.parametrize("parts", [1, 8])
def test_nothing_is_left_of_a_wait(parts: int) -> None:
    app = page(parts=parts).run()
    assert not app.exception
    assert not app.button
    assert [block.value for block in app.markdown] == [f"made of {parts}", "the rest of the page"]


@pytest.mark.parametrize(("name", "value", "words"), [
    ("ROUTESCOPE_QUEUE", "none", "ROUTESCOPE_QUEUE=none is not possible"),
    ("ROUTESCOPE_UPLOAD_MB", "4000", "is more than the server takes")])
def test_a_setting_that_cannot_be_is_one_sentence_on_the_page(
        monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    import streamlit as st

    monkeypatch.setenv(name, value)
    st.cache_resource.clear()
    app = AppTest.from_file(str(Path(__file__).parents[2] / "dashboard" / "app.py"), default_timeout=60).run()
    monkeypatch.undo()
    st.cache_resource.clear()
    assert not app.exception
    assert len(app.error) == 1
    assert words in app.error[0].value
