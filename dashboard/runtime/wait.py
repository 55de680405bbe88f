"""Runs a piece of work once for all who ask: result from the cache, or a job that the visitor sees and can cancel."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar, cast

import streamlit as st

from bra.errors import BRAError
from dashboard.i18n import tr, translate
from dashboard.runtime.cache import CacheEntry
from dashboard.runtime.jobs import Cancelled, JobHandle, Progress, QueueFullError, without_traceback
from dashboard.runtime.server import AT_ONCE, QUICK, Server
from dashboard.state import job_status

T = TypeVar("T")
SILENT: Final = 0.4
"""Seconds before a visitor is told that something is being waited for."""
LOOK: Final = 0.2
"""Seconds between two looks at the job."""
REFUSED: Final = 5.0
"""Seconds for which a refusal is not worked out again: pages ask more than once for what cannot be."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as the cache keeps it: it was never raised, so that it holds nothing but its sentence."""

    error: BRAError

    @classmethod
    def of(cls, error: BRAError) -> Refusal:
        """Of one that was raised."""
        bare = without_traceback(error)
        return cls(bare if isinstance(bare, BRAError) else BRAError(*error.args))


class Unavailable(Exception):  # noqa: N818  nothing is wrong: it cannot be had now
    """Why a visitor cannot have it now: kind of the notice, sentence, and what the button to try again is called."""


def run_cached(server: Server, key: Hashable, work: Callable[[Progress], T], label: str, priority: str = QUICK) -> T:
    """The result of `work`, computed once for all who ask with this key; cached, shared and read-only.

    Where it cannot be had now, the visitor reads why, and the page ends.

    Args:
        server: whose queue and cache.
        key: a frozen record of digests and settings, of a class of its own for each kind of result.
        work: makes the result. It runs in a thread that knows no visitor, so it may not call Streamlit.
        label: what the visitor reads while waiting.
        priority: QUICK, HEAVY, LARGE or AT_ONCE.

    Raises:
        BRAError: as `work`; also for REFUSED seconds after it did.
        QueueFullError: outside of a page's run, as for a download: too many wait.
        TimeoutError: outside of a page's run: it takes longer than this server gives one piece of work.
    """
    try:
        return _cached_or_run(server, key, work, label, priority)
    except Unavailable as why:
        _offer_retry(*why.args)


def prefetch(server: Server, key: Hashable, work: Callable[[Progress], Any], label: str, priority: str = QUICK) -> None:
    """Wait for a result before a fragment does: only what the page itself waits for can be cancelled.

    A click in a fragment ends no run. What cannot be had now is passed over: whoever asks next hears why. Arguments as
    for `run_cached`.
    """
    with suppress(Unavailable, BRAError):
        _cached_or_run(server, key, work, label, priority)


def _cached_or_run(server: Server, key: Hashable, work: Callable[[Progress], T], label: str, priority: str) -> T:
    def compute(progress: Progress) -> T:
        entry = server.cache.get(key)       # it may have been finished between our look and our asking
        if entry is not None:
            return cast(T, _value(entry))
        try:
            value = work(progress)
        except BRAError as error:
            server.cache.put(key, Refusal.of(error), REFUSED)
            raise
        server.cache.put(key, value)
        return value

    entry = server.cache.get(key)
    if entry is not None:
        return cast(T, _value(entry))
    if priority == AT_ONCE:
        return compute(_no_progress)
    wait = _wait_visibly if job_status.in_page_run() else _wait_silently
    return wait(server, priority, key, label, compute)


def _no_progress(done: int, todo: int) -> None:
    """A Progress that nobody reads."""


def _value(entry: CacheEntry) -> Any:
    if isinstance(entry.value, Refusal):
        raise without_traceback(entry.value.error) from None
    return entry.value


def _wait_visibly(server: Server, priority: str, key: Hashable, label: str, work: Callable[[Progress], T]) -> T:
    # Of records with the same fields, the class alone tells one from the other.
    sign = str(hash((priority, type(key), key)))
    if job_status.cancelled_job() == sign:
        raise Unavailable("info", tr("Called off: {what}", what=translate(label).rstrip(" …")), tr("Do it again"))

    def watch(handle: JobHandle) -> None:
        if not handle.wait(SILENT):
            if job_status.is_fragment_run():   # its place is kept, until the page asks for the same
                st.rerun()
            _show_progress(handle, label, sign, server.limits.seconds)

    try:
        return _result(server, priority, key, work, watch)
    except QueueFullError:
        raise Unavailable("warning", tr("{n} wait already, the most that this server lets wait (ROUTESCOPE_QUEUE): "
                                        "try again in a minute.", n=server.limits.queue), tr("Try again")) from None


def _wait_silently(server: Server, priority: str, key: Hashable, label: str, work: Callable[[Progress], T]) -> T:
    """Wait where there is no page, as for a download, which a thread of the server asks for."""
    def watch(handle: JobHandle) -> None:
        while not handle.wait(LOOK):
            if handle.taken > server.limits.seconds:
                raise TimeoutError(f"{label} {server.limits.seconds} s are over (ROUTESCOPE_SECONDS)")

    return _result(server, priority, key, work, watch)


def _result(server: Server, priority: str, key: Hashable, work: Callable[[Progress], T],
            watch: Callable[[JobHandle], None]) -> T:
    """What the job returns; `watch` comes back when it has ended."""
    while True:
        try:
            with server.queue.submit(priority, key, work) as handle:
                watch(handle)
                found: T = handle.result()
                return found
        except Cancelled:     # we came in the moment in which the job was given up: begin anew
            continue


def _show_progress(handle: JobHandle, label: str, sign: str, seconds: int) -> None:
    """Wait where the visitor sees it, and can cancel it."""
    place = job_status.status_slot().empty()
    with place.container(horizontal=True, vertical_alignment="center", gap="small"):
        status = st.empty()
        # A click runs the page anew, which ends this wait at its next look.
        st.button(tr("Call it off"), key=job_status.unique_key("cancel"), on_click=job_status.on_cancel, args=(sign,),
                  type="tertiary", icon=":material/close:")
    text = ""
    while not handle.wait(LOOK):
        if handle.taken > seconds:
            place.empty()
            raise Unavailable("warning", tr(
                "This took more than {seconds} seconds, the most that this server gives one piece of work "
                "(ROUTESCOPE_SECONDS): choose a smaller model or picture, or fewer settings.", seconds=seconds),
                tr("Try again"))
        wanted = _status_text(handle, label)
        if wanted != text:
            status.markdown(f":material/hourglass_top: {wanted}")
            text = wanted
        job_status.check_interrupted()
    place.empty()


def _status_text(handle: JobHandle, label: str) -> str:
    """The place in the queue, or how much is done."""
    before, (done, todo) = handle.before, handle.job.parts
    if before is not None:
        return f"{translate(label)} " + (tr("{n} before you.", n=before) if before else tr("You are next."))
    return f"{translate(label)} " + tr("{done} of {todo}", done=done, todo=todo) if todo else translate(label)


def _offer_retry(kind: str, sentence: str, label: str) -> NoReturn:
    """Say why there is nothing to see here, and offer to try again; the page ends."""
    with job_status.status_slot().container(horizontal=True, vertical_alignment="center"):
        (st.info if kind == "info" else st.warning)(sentence)
        st.button(label, key="again", on_click=job_status.on_retry)
    st.stop()
