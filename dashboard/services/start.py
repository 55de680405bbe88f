"""What a server does once, at its first visit: torch, its kernels and the view that a visit begins with are loaded.

Nothing here imports torch before that: pages draw their frame first.
"""

from __future__ import annotations

from concurrent.futures import Future
from threading import Lock, Thread

import streamlit as st


class Start:
    """The start of a server, in a thread of its own."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()
        self._begins = Lock()

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
