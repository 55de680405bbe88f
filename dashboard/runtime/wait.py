"""Work that a page asks for: done in its turn by `line`, kept on the `shelf`, waited for in the visitor's sight."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, Final, Generic, NoReturn, TypeVar, cast

import streamlit as st

from bra.errors import BRAError
from dashboard.i18n import tr, translate
from dashboard.runtime.cache import Kept, ResultCache
from dashboard.runtime.config import Limits
from dashboard.runtime.jobs import Cancelled, JobHandle, JobQueue, Progress, QueueFullError, without_traceback
from dashboard.runtime.uploads import UploadStore
from dashboard.state import widgets as widget_state

T = TypeVar("T")
QUICK: Final = "quick"
HEAVY: Final = "heavy"
LARGE: Final = "large"
"""Lanes: what takes a fraction of a second; all else, which must not hold it up; and large pictures, one at a time,
since reading one takes much memory for a moment."""
AT_ONCE: Final = "now"
"""In no lane: what takes some milliseconds, as long as the line itself would. The page does it, and it is kept."""
SILENT: Final = 0.4
"""Seconds before a visitor is told that something is being waited for."""
LOOK: Final = 0.2
"""Seconds between two looks at the line."""
REFUSED: Final = 5.0
"""Seconds for which a refusal is not worked out again: pages ask more than once for what cannot be."""


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """What all visitors share."""

    limits: Limits
    line: JobQueue
    shelf: ResultCache
    uploads: UploadStore

    @classmethod
    def of(cls, limits: Limits, before: Callable[[int], None] | None = None) -> Server:
        """An office with these limits; `before` as for Line."""
        priorities = {QUICK: limits.quick, HEAVY: limits.heavy_slots, LARGE: 1}
        return cls(limits, JobQueue(priorities, limits.queue, before), ResultCache(limits.keep_mb * 2**20),
                   UploadStore(limits))


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused, as it is kept: an error that was never raised, so that it holds nothing but its sentence."""

    error: BRAError

    @classmethod
    def of(cls, error: BRAError) -> Refusal:
        """Of one that was raised."""
        bare = without_traceback(error)
        return cls(bare if isinstance(bare, BRAError) else BRAError(*error.args))


def no_progress(done: int, todo: int) -> None:
    """A Tell that tells nobody."""


class Unavailable(Exception):  # noqa: N818  nothing is wrong: it cannot be had now
    """Why a visitor cannot have it now: kind of the notice, sentence, and what the button to try again is called."""


class CachedJob(Generic[T]):
    """A function whose result a page waits for; see `worked`."""

    def __init__(self, work: Callable[..., T], server: Callable[[], Server], words: str,
                 priority: str | Callable[..., str]) -> None:
        self._work, self._office, self._words, self._priority = work, server, words, priority
        self._names = tuple(inspect.signature(work).parameters)
        update_wrapper(self, work)

    def __call__(self, *given: Any) -> T:
        """The result; where it cannot be had now, the visitor reads why, and the page ends."""
        try:
            return self._had(given)
        except Unavailable as why:
            _offer_retry(*why.args)

    def beforehand(self, *given: Any) -> None:
        """Wait for it before a fragment does: only what the page itself waits for can be called off.

        A click in a fragment ends no run. What cannot be had now is passed over: whoever asks next hears why.
        """
        with suppress(Unavailable, BRAError):
            self._had(given)

    def _had(self, given: tuple[Any, ...]) -> T:
        key = (self._work.__module__, self._work.__qualname__,
               *(value for name, value in zip(self._names, given, strict=False) if name[0] != "_"))

        def done(tell: Progress) -> Any:
            found = shared.shelf.get(key)       # it may have been finished between our look and our asking
            if found is not None:
                return _value(found)
            try:
                value = self._work(*given, tell) if self._names[-1] == "_tell" else self._work(*given)
            except BRAError as error:
                shared.shelf.put(key, Refusal.of(error), REFUSED)
                raise
            shared.shelf.put(key, value)
            return value

        shared = self._office()
        found: Any = shared.shelf.get(key)
        if found is not None:
            return cast("T", _value(found))
        priority = self._priority if isinstance(self._priority, str) else self._priority(*given)
        if priority == AT_ONCE:
            return cast("T", done(no_progress))
        wait = _wait_visibly if widget_state.visited() else _wait_silently
        return cast("T", wait(shared, priority, key, self._words, done))


def worked(server: Callable[[], Server], words: str, priority: str | Callable[..., str] = QUICK,
           ) -> Callable[[Callable[..., T]], CachedJob[T]]:
    """Make a function one whose result a page waits for: kept on the shelf, or worked out in its turn.

    Its arguments, all given by place, are the key, but for those whose names begin with an underscore; `_tell`, the
    last, is given by the line. It runs in a thread that knows no visitor, so it may not call Streamlit.

    Args:
        office: whose line and shelf.
        words: what the visitor reads while waiting.
        lane: QUICK, HEAVY, LARGE or AT_ONCE, or what says which for the same arguments.
    """
    return lambda work: CachedJob(work, server, words, priority)


def _value(kept: Kept) -> Any:
    if isinstance(kept.value, Refusal):
        raise without_traceback(kept.value.error) from None
    return kept.value


def _wait_visibly(server: Server, priority: str, key: Hashable, words: str, work: Callable[[Progress], Any]) -> Any:
    sign = str(hash((priority, key)))
    if widget_state.cancelled_job() == sign:
        raise Unavailable("info", tr("Called off: {what}", what=translate(words).rstrip(" …")), tr("Do it again"))

    def watch(ticket: JobHandle) -> None:
        if not ticket.wait(SILENT):
            if widget_state.is_fragment_run():   # its place is kept, until the page asks for the same
                st.rerun()
            _show_progress(ticket, words, sign, server.limits.seconds)

    try:
        return _result(server, priority, key, work, watch)
    except QueueFullError:
        raise Unavailable("warning", tr("{n} wait already, the most that this server lets wait (ROUTESCOPE_QUEUE): "
                                    "try again in a minute.", n=server.limits.queue), tr("Try again")) from None


def _wait_silently(server: Server, priority: str, key: Hashable, words: str, work: Callable[[Progress], Any]) -> Any:
    """Wait where there is no page, as for a download, which a thread of the server asks for.

    Raises:
        LineFullError: too many wait.
        TimeoutError: it takes longer than this server gives one piece of work.
    """
    def watch(ticket: JobHandle) -> None:
        while not ticket.wait(LOOK):
            if ticket.taken > server.limits.seconds:
                raise TimeoutError(f"{words} {server.limits.seconds} s are over (ROUTESCOPE_SECONDS)")

    return _result(server, priority, key, work, watch)


def _result(server: Server, priority: str, key: Hashable, work: Callable[[Progress], Any],
            watch: Callable[[JobHandle], None]) -> Any:
    """What comes out in its turn; `watch` comes back when it has."""
    while True:
        try:
            with server.line.ask(priority, key, work) as ticket:
                watch(ticket)
                return ticket.result()
        except Cancelled:     # we came in the moment in which the work was given up: begin anew
            continue


def _show_progress(ticket: JobHandle, words: str, sign: str, seconds: int) -> None:
    """Wait where the visitor sees it, and can call it off."""
    place = widget_state.status_slot().empty()
    with place.container(horizontal=True, vertical_alignment="center", gap="small"):
        line = st.empty()
        # A click runs the page anew, which ends this wait at its next look.
        st.button(tr("Call it off"), key=widget_state.unique_key("call_off"), on_click=widget_state.cancel,
                  args=(sign,),
                  type="tertiary", icon=":material/close:")
    message = ""
    while not ticket.wait(LOOK):
        if ticket.taken > seconds:
            place.empty()
            raise Unavailable("warning", tr(
                "This took more than {seconds} seconds, the most that this server gives one piece of work "
                "(ROUTESCOPE_SECONDS): choose a smaller model or picture, or fewer settings.", seconds=seconds),
                tr("Try again"))
        wanted = _status_text(ticket, words)
        if wanted != message:
            line.markdown(f":material/hourglass_top: {wanted}")
            message = wanted
        widget_state.check_interrupted()
    place.empty()


def _status_text(ticket: JobHandle, words: str) -> str:
    """How it stands: the place in the line, or how much is done."""
    before, (done, todo) = ticket.before, ticket.job.parts
    if before is not None:
        return f"{translate(words)} " + (tr("{n} before you.", n=before) if before else tr("You are next."))
    return f"{translate(words)} " + tr("{done} of {todo}", done=done, todo=todo) if todo else translate(words)


def _offer_retry(kind: str, sentence: str, label: str) -> NoReturn:
    """Say why there is nothing to see here, and offer to try again; the page ends."""
    with widget_state.status_slot().container(horizontal=True, vertical_alignment="center"):
        (st.info if kind == "info" else st.warning)(sentence)
        st.button(label, key="again", on_click=widget_state.retry)
    st.stop()
