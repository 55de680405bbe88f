"""Every door against a fixed number of made-up cases; `make fuzz` goes on for as long as one likes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

pytest.importorskip("ultralytics")
import doors
from doors import DOORS, Door, Find, knock

from bra.errors import BRAError

QUICK = settings(database=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_a_door_opens_or_says_why_not(door: Door) -> None:
    ends = {True: 0, False: 0}

    @settings(QUICK, max_examples=door.suite, derandomize=True)
    @given(door.cases)
    def every(case: object) -> None:
        ends[knock(door, case)] += 1

    every()
    # Cases that all fail at the first check, or all pass, would try little.
    assert ends[True] > door.suite // 200
    assert ends[False] > door.suite // 4 or door.name == "links"


def answer(error: Exception | None) -> Door:
    def enter(_: object) -> None:
        if error is not None:
            raise error

    return Door("a door", doors.DOORS[0].cases, enter, 1, 1)


def test_a_find_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert knock(answer(None), b"")
    assert not knock(answer(BRAError("this is wrong: mend it.")), b"")
    for error in (KeyError("x"), MemoryError(), RecursionError(), UnicodeDecodeError("utf-8", b"x", 0, 1, "why")):
        with pytest.raises(Find, match=type(error).__name__):
            knock(answer(error), b"")
    for words in ("no cure.", "two\nlines: mend it.", "no end: mend it", "long: " + "x" * 700 + "."):
        with pytest.raises(Find, match="no sentence"):
            knock(answer(BRAError(words)), b"")
    clock = iter((0.0, 2.0))
    monkeypatch.setattr(doors.time, "monotonic", lambda: next(clock))
    with pytest.raises(Find, match=r"took 2\.0 s"):
        knock(answer(None), b"")
