"""What a server does once, at its first visit: torch, its kernels and the view that a visit begins with are loaded.

Nothing here imports torch before that: pages draw their frame first.
"""

from __future__ import annotations

from concurrent.futures import Future
from threading import Lock, Thread, Timer
from typing import Final

import streamlit as st
from streamlit import runtime

FIRST_VISIT_SECONDS: Final = 4.0
"""How long the first visitor's page, once sent, has the processors for itself."""


class Start:
    """The start of a server, in a thread of its own."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()
        self._begins, self._goes_on = Lock(), Lock()

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._future.done()

    def begin(self) -> None:
        """Begin, if nobody has."""
        if self._begins.acquire(blocking=False):
            Thread(target=self._run, name="start", daemon=True).start()

    def wait(self) -> BaseException | None:
        """Begin, if nobody has, and wait; why it failed, with BRAError for a setting of the server that cannot be."""
        self.begin()
        return self._future.exception()

    def go_on(self) -> None:
        """A page was sent: what other pages need, and what takes seconds to import, is loaded soon, once."""
        if runtime.exists() and self._goes_on.acquire(blocking=False):
            later = Timer(FIRST_VISIT_SECONDS, _load_more)
            later.daemon = True
            later.start()

    def _run(self) -> None:
        try:
            _load()
            self._future.set_result(None)
        except BaseException as error:      # whoever waits is told
            self._future.set_exception(error)


@st.cache_resource(show_spinner=False)
def start() -> Start:
    """The start of this server."""
    return Start()


def _load() -> None:
    from dashboard.services import models

    models.warm_up()


def _load_more() -> None:
    from dashboard.services import cost

    cost.warm_up()
