"""The queue: in turn, once for all who ask, dropped or stopped when nobody waits, never held up by slow work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from dashboard.runtime import jobs as jobs
from dashboard.runtime.jobs import Cancelled, JobQueue, Progress, QueueFullError


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "GRACE", 0.2)


class Gate:
    """Work that goes on until it is let."""

    def __init__(self) -> None:
        self.begun, self.let, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.times = 0

    def __call__(self, tell: Progress) -> str:
        self.times += 1
        self.begun.set()
        try:
            while not self.let.wait(0.01):
                tell(1, 3)
        finally:
            self.ended.set()
        return "done"


def value(of: object) -> Callable[[Progress], object]:
    return lambda tell: of


def test_each_waits_for_those_before_and_all_are_done_in_turn() -> None:
    queue, gate, order = JobQueue({"heavy": 1}, 10), Gate(), []
    with queue.submit("heavy", "first", gate) as first:
        assert gate.begun.wait(5)
        handles = [queue.submit("heavy", n, lambda tell, n=n: order.append(n)) for n in range(4)]
        assert first.before is None
        assert [handle.before for handle in handles] == [0, 1, 2, 3]
        assert first.wait(0) is False
        time.sleep(0.05)
        assert first.job.parts == (1, 3)
        with handles[1]:
            pass                # this visitor leaves
        time.sleep(0.3)
        assert [handles[n].before for n in (0, 2, 3)] == [0, 1, 2]
        gate.let.set()
        assert handles[3].wait(5)
        assert first.result() == "done"
    assert order == [0, 2, 3], "what nobody waits for is not done"


def test_the_same_work_is_done_once_for_all_who_ask() -> None:
    queue, gate = JobQueue({"heavy": 2}, 10), Gate()
    handles = [queue.submit("heavy", "one", gate) for _ in range(5)]
    assert gate.begun.wait(5)
    for handle in handles[:3]:
        with handle:
            pass
    time.sleep(0.3)             # those who are left still want it
    gate.let.set()
    assert all(handle.wait(5) and handle.result() == "done" for handle in handles[3:])
    assert gate.times == 1


def test_slow_work_holds_up_no_quick_work() -> None:
    queue, gate = JobQueue({"quick": 1, "heavy": 1}, 10), Gate()
    with queue.submit("heavy", "slow", gate):
        assert gate.begun.wait(5)
        with queue.submit("quick", "fast", value(7)) as handle:
            assert handle.wait(5)
            assert handle.result() == 7
        gate.let.set()


def test_a_place_is_kept_for_a_page_that_runs_again() -> None:
    queue, gate = JobQueue({"heavy": 1}, 10), Gate()
    with queue.submit("heavy", "slow", gate):
        assert gate.begun.wait(5)
        handles = [queue.submit("heavy", n, value(n)) for n in range(3)]
        with handles[0]:
            pass
        with queue.submit("heavy", 0, value(0)) as again:
            assert again.before == 0
            gate.let.set()
            assert again.wait(5)


def test_work_that_everybody_left_is_stopped_and_begun_anew_for_the_next() -> None:
    queue, gate = JobQueue({"heavy": 1}, 10), Gate()
    with queue.submit("heavy", "slow", gate):
        assert gate.begun.wait(5)
    assert gate.ended.wait(5), "it was told that nobody waits"
    assert not gate.let.is_set()
    gate.let.set()
    with queue.submit("heavy", "slow", gate) as handle:
        assert handle.wait(5)
        assert handle.result() == "done"
    assert gate.times == 2


def test_a_full_line_takes_nobody_else_but_those_for_work_that_is_there() -> None:
    queue, gate = JobQueue({"heavy": 1}, 2), Gate()
    with queue.submit("heavy", "slow", gate):
        assert gate.begun.wait(5)
        handles = [queue.submit("heavy", n, value(n)) for n in range(2)]
        with pytest.raises(QueueFullError):
            queue.submit("heavy", 2, value(2))
        queue.submit("heavy", 1, value(1))
        assert queue.lengths() == {"heavy": 2}
        with handles[0]:
            pass
        time.sleep(0.3)
        with queue.submit("heavy", 2, value(2)) as handle:
            gate.let.set()
            assert handle.wait(5)


def test_a_line_of_one_takes_one_while_a_thread_is_free() -> None:
    queue = JobQueue({"quick": 2}, 1)
    gates = [Gate() for _ in range(3)]
    for n, gate in enumerate(gates):
        queue.submit("quick", n, gate)          # two are taken at once, the third waits
    with pytest.raises(QueueFullError):
        queue.submit("quick", 3, value(3))
    for gate in gates:
        gate.let.set()


def test_what_the_work_raises_everybody_gets_and_the_thread_lives_on() -> None:
    queue = JobQueue({"heavy": 1}, 10)

    def fails(tell: Progress) -> None:
        time.sleep(0.05)
        raise ValueError("no")

    handles = [queue.submit("heavy", "bad", fails) for _ in range(3)]
    for handle in handles:
        assert handle.wait(5)
        with pytest.raises(ValueError, match="no"):
            handle.result()
    with queue.submit("heavy", "good", value(1)) as handle:
        assert handle.wait(5)
    assert queue.working == 0


def test_work_that_says_nothing_cannot_be_stopped_but_its_visitor_can_leave() -> None:
    queue, let = JobQueue({"heavy": 1}, 10), threading.Event()
    with queue.submit("heavy", "deaf", lambda tell: let.wait(5)):
        pass
    time.sleep(0.3)
    with queue.submit("heavy", "next", value(1)) as handle:
        assert handle.before == 0
        let.set()
        assert handle.wait(5)


def test_a_hundred_visitors_come_and_go() -> None:
    queue, done, wrong = JobQueue({"quick": 2, "heavy": 1}, 1_000), [], []

    def visitor(n: int) -> None:
        for turn in range(10):
            with queue.submit("heavy" if n % 3 else "quick", (n // 2, turn), value((n // 2, turn))) as handle:
                if (n + turn) % 4 == 0:
                    continue
                try:
                    if not handle.wait(10) or handle.result() != (n // 2, turn):
                        wrong.append((n, turn))
                except Cancelled:
                    wrong.append((n, turn))
            done.append(n)

    threads = [threading.Thread(target=visitor, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert len(done) == 750
    time.sleep(0.3)
    assert queue.lengths() == {"quick": 0, "heavy": 0}


def test_a_line_that_is_closed_stops_its_work_and_begins_no_other() -> None:
    queue, gate, begun = JobQueue({"heavy": 1}, 10), Gate(), threading.Event()
    with queue.submit("heavy", "slow", gate), queue.submit("heavy", "next", lambda tell: begun.set()):
        assert gate.begun.wait(5)
        queue.close()
        assert gate.ended.is_set()
        assert queue.working == 0
        assert not begun.wait(0.3)
