"""Holds back what a server tells a browser, as a busy server would send it late, or a busy browser read it late."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from streamlit.proto.ForwardMsg_pb2 import ForwardMsg


class LateMessages:
    """Messages from an app to a page of Playwright's, passed on at once until `hold` is called.

    Args:
        page: has not been opened yet.
    """

    def __init__(self, page: Any) -> None:
        self._page = page
        self._kind = ""
        self._held: list[Any] = []
        page.route_web_socket(re.compile("_stcore/stream"), self._between)

    def hold(self, kind: str) -> None:
        """Pass the next message of this kind on, and all that follow, only when `release` is called.

        Args:
            kind: a field of Streamlit's ForwardMsg, such as "script_finished".
        """
        self._kind = kind

    def wait(self) -> None:
        """Wait until something is held back."""
        while not self._held:
            self._page.wait_for_timeout(50)

    def release(self) -> None:
        """Pass on what was held back, and hold nothing back from now on."""
        self._kind = ""
        for send in self._held:
            send()
        self._held.clear()

    def _between(self, browser: Any) -> None:
        def pass_on(sent: Any) -> None:
            if self._held or (self._kind and ForwardMsg.FromString(sent).WhichOneof("type") == self._kind):
                self._held.append(partial(browser.send, sent))
            else:
                browser.send(sent)

        server = browser.connect_to_server()
        server.on_message(pass_on)
        browser.on_message(server.send)
