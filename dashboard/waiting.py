"""Work that a page asks for: done in its turn by `line`, kept on the `shelf`, waited for in the visitor's sight."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, NoReturn, TypeVar

import streamlit as st

from bra.errors import BRAError
from dashboard import held
from dashboard.cloakroom import Cloakroom
from dashboard.limits import Limits
from dashboard.line import Line, LineFullError, Stopped, Tell, Ticket, anew
from dashboard.shelf import Kept, Shelf
from dashboard.words import told, tr

T = TypeVar("T")
QUICK: Final = "quick"
HEAVY: Final = "heavy"
LARGE: Final = "large"
"""Lanes: what takes a fraction of a second; all else, which must not hold it up; and large pictures, one at a time,
since reading one takes much memory for a moment."""
SILENT: Final = 0.4
"""Seconds before a visitor is told that something is being waited for."""
LOOK: Final = 0.2
"""Seconds between two looks at the line."""
REFUSED: Final = 5.0
"""Seconds for which a refusal is not worked out again: pages ask more than once for what cannot be."""


@dataclass(frozen=True, slots=True, eq=False)
class Office:
    """What all visitors share."""

    limits: Limits
    line: Line
    shelf: Shelf
    uploads: Cloakroom

    @classmethod
    def of(cls, limits: Limits, before: Callable[[int], None] | None = None) -> Office:
        """An office with these limits; `before` as for Line."""
        lanes = {QUICK: limits.quick, HEAVY: limits.heavy_slots, LARGE: 1}
        return cls(limits, Line(lanes, limits.queue, before), Shelf(limits.keep_mb * 2**20), Cloakroom(limits))


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused, as it is kept: an error that was never raised, so that it holds nothing but its sentence."""

    error: BRAError

    @classmethod
    def of(cls, error: BRAError) -> Refusal:
        """Of one that was raised."""
        bare = anew(error)
        return cls(bare if isinstance(bare, BRAError) else BRAError(*error.args))


def silent(done: int, todo: int) -> None:
    """A Tell that tells nobody."""


def worked(office: Callable[[], Office], words: str, lane: str | Callable[..., str] = QUICK,
           ) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Make a function one whose result a page waits for: kept on the shelf, or worked out in its turn.

    Its arguments, all given by place, are the key, but for those whose names begin with an underscore; `_tell`, the
    last, is given by the line. It runs in a thread that knows no visitor, so it may not call Streamlit.

    Args:
        office: whose line and shelf.
        words: what the visitor reads while waiting.
        lane: QUICK, HEAVY or LARGE, or what says which for the same arguments.
    """
    def made(work: Callable[..., T]) -> Callable[..., T]:
        names = tuple(inspect.signature(work).parameters)

        @wraps(work)
        def asked(*given: Any) -> T:
            key = (work.__module__, work.__qualname__,
                   *(value for name, value in zip(names, given, strict=False) if name[0] != "_"))

            def done(tell: Tell) -> Any:
                found = shared.shelf.get(key)       # it may have been finished between our look and our asking
                if found is not None:
                    return _value(found)
                try:
                    value = work(*given, tell) if names[-1] == "_tell" else work(*given)
                except BRAError as error:
                    shared.shelf.put(key, Refusal.of(error), REFUSED)
                    raise
                shared.shelf.put(key, value)
                return value

            shared = office()
            found = shared.shelf.get(key)
            if found is not None:
                return _value(found)
            return _waited(shared, lane if isinstance(lane, str) else lane(*given), key, words, done)

        return asked

    return made


def _value(kept: Kept) -> Any:
    if isinstance(kept.value, Refusal):
        raise anew(kept.value.error) from None
    return kept.value


def _waited(office: Office, lane: str, key: Hashable, words: str, work: Callable[[Tell], Any]) -> Any:
    sign = str(hash((lane, key)))
    if held.called_off() == sign:
        _offer_again("info", tr("Called off: {what}", what=told(words).rstrip(" …")), tr("Do it again"))
    while True:
        try:
            with office.line.ask(lane, key, work) as ticket:
                if not ticket.wait(SILENT):
                    _in_sight(ticket, words, sign, office.limits.seconds)
                return ticket.result()
        except Stopped:     # we came in the moment in which the work was given up: begin anew
            continue
        except LineFullError:
            _offer_again("warning", tr("{n} wait already, the most that this server lets wait (ROUTESCOPE_QUEUE): try "
                                       "again in a minute.", n=office.limits.queue), tr("Try again"))


def _in_sight(ticket: Ticket, words: str, sign: str, seconds: int) -> None:
    """Wait where the visitor sees it, and can call it off."""
    place = held.waiting_place().empty()
    with place.container(horizontal=True, vertical_alignment="center", gap="small"):
        line = st.empty()
        # A click runs the page anew, which ends this wait at its next look.
        st.button(tr("Call it off"), key=held.new_key("call_off"), on_click=held.call_off, args=(sign,),
                  type="tertiary", icon=":material/close:")
    said = ""
    while not ticket.wait(LOOK):
        if ticket.taken > seconds:
            place.empty()
            _offer_again("warning", tr(
                "This took more than {seconds} seconds, the most that this server gives one piece of work "
                "(ROUTESCOPE_SECONDS): choose a smaller model or picture, or fewer settings.", seconds=seconds),
                tr("Try again"))
        wanted = _standing(ticket, words)
        if wanted != said:
            line.markdown(f":material/hourglass_top: {wanted}")
            said = wanted
        held.pause_point()
    place.empty()


def _standing(ticket: Ticket, words: str) -> str:
    """How it stands: the place in the line, or how much is done."""
    before, (done, todo) = ticket.before, ticket.job.parts
    if before is not None:
        return f"{told(words)} " + (tr("{n} before you.", n=before) if before else tr("You are next."))
    return f"{told(words)} " + tr("{done} of {todo}", done=done, todo=todo) if todo else told(words)


def _offer_again(kind: str, sentence: str, label: str) -> NoReturn:
    """Say why there is nothing to see here, and offer to try again; the page ends."""
    with held.waiting_place().container(horizontal=True, vertical_alignment="center"):
        (st.info if kind == "info" else st.warning)(sentence)
        st.button(label, key="again", on_click=held.do_again)
    st.stop()
