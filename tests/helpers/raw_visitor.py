"""A visitor without a browser: Streamlit's own messages over its websocket, and uploads as the browser sends them.

One thread reads all that the server sends; it keeps every element by its place on the page, as a browser does.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import numpy as np
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import UploadedFileInfo
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from bra.viewer.pack import unpack

ROOT = Path(__file__).parents[2]
Message = tuple[dict[str, Any], bytes, dict[str, np.ndarray]]


@contextmanager
def serving(log: Path, environment: Mapping[str, str] | None = None, port: int = 0,
            *flags: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server of its own: its address, and its process."""
    if not port:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    with log.open("a") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.headless=true",
             f"--server.port={port}", *flags], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})})
    try:
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                    break
            except OSError:
                if server.poll() is not None:
                    raise RuntimeError(log.read_text()) from None
                time.sleep(0.25)
        yield f"127.0.0.1:{port}", server
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


class Visitor:
    """One session."""

    def __init__(self, host: str, query: str = "") -> None:
        self.host, self.query = host, query
        self.elements: dict[tuple[int, ...], Any] = {}
        self.errors: list[str] = []
        self.pages: dict[str, str] = {}
        self.seen: list[str] = []           # every text that ever stood on the page, in order
        self._widgets: dict[str, WidgetState] = {}
        self._page = ""
        self._messages: dict[str, ForwardMsg] = {}
        self._changed = threading.Condition()
        self._finished, self._started, self._urls = 0, 0, None
        with urllib.request.urlopen(f"http://{host}/_stcore/host-config", timeout=30):
            pass
        with urllib.request.urlopen(f"http://{host}/_stcore/health", timeout=30) as answer:
            cookies = SimpleCookie(answer.headers.get("Set-Cookie", ""))
        self._xsrf = cookies["_streamlit_xsrf"].value
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(
            f"ws://{host}/_stcore/stream", subprotocols=["streamlit", self._xsrf],  # type: ignore[list-item]
            additional_headers={"Cookie": f"_streamlit_xsrf={self._xsrf}"}, max_size=None, open_timeout=60))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Leave."""
        self._open.close()
        self._reader.join(10)

    # what is on the page ------------------------------------------------------------------------------------

    def element(self, kind: str, key: str = "") -> Any:
        """The first element of a kind, its widget's id ending with a key; None where there is none."""
        with self._changed:
            for _, one in sorted(self.elements.items()):
                if one.WhichOneof("type") == kind:
                    part = getattr(one, kind)
                    if not key or str(getattr(part, "id", "")).endswith(f"-{key}"):
                        return part
        return None

    def component(self, name: str) -> Message:
        """What a component of ours was sent."""
        with self._changed:
            found = [one.bidi_component for _, one in sorted(self.elements.items())
                     if one.WhichOneof("type") == "bidi_component"
                     and one.bidi_component.component_name == f"routescope_{name}"]
        return unpack(found[0].bytes)

    def figure(self) -> dict[str, Any]:
        """The first plotly figure on the page."""
        part = self.element("plotly_chart")
        assert part is not None, "no chart on the page"
        found: dict[str, Any] = json.loads(part.spec)
        return found

    def queries(self) -> list[dict[str, Any]]:
        """Whose attention is drawn: role, window and token of each query."""
        found: list[dict[str, Any]] = self.figure()["layout"]["meta"]["queries"]
        return found

    @property
    def texts(self) -> list[str]:
        """Every text and alert that stands on the page."""
        with self._changed:
            return [_text(one) for _, one in sorted(self.elements.items()) if _text(one)]

    # what a visitor does ------------------------------------------------------------------------------------

    def set(self, kind: str, key: str, **value: Any) -> None:
        """Give a widget a value, which the next run tells."""
        part = self.element(kind, key)
        assert part is not None, (kind, key)
        self._put(WidgetState(id=part.id), value)

    def slide(self, key: str, value: float) -> None:
        """Move a slider."""
        part = self.element("slider", key)
        assert part is not None, key
        state = WidgetState(id=part.id)
        state.double_array_value.data.append(value)
        self._widgets[part.id] = state

    def set_state(self, key: str, name: str, value: Any, trigger: bool = False) -> None:
        """What a component of ours tells: a state, or a click."""
        part = self.element("bidi_component", key)
        assert part is not None, f"{key} is not on the page"
        if trigger:
            self._widgets.setdefault(part.id, WidgetState(id=part.id, json_value="{}"))
            where = f"$$STREAMLIT_INTERNAL_KEY_{part.id}__events"
            self._put(WidgetState(id=where), {"json_trigger_value": json.dumps([{"event": name, "value": value}])})
        else:
            self._put(WidgetState(id=part.id), {"json_value": json.dumps({name: value})})

    def draw_stage(self) -> float:
        """Tell that the stage is drawn, as a browser does, and wait for its charts; the seconds that they took."""
        self.set_state("stage", "ready", True)
        return self.run(fragment=True)

    def click(self, label: str, fragment: bool = False) -> None:
        """Press a button, of the page or of its fragment, without waiting for what follows."""
        with self._changed:
            found = [one.button.id for one in self.elements.values()
                     if one.WhichOneof("type") == "button" and one.button.label == label]
        assert found, label
        self._put(WidgetState(id=found[-1]), {"trigger_value": True})
        self.send(fragment)

    def run(self, fragment: bool = False, seconds: float = 120) -> float:
        """Run the page, or the fragment that holds the stage, and wait for the end; the seconds that it took."""
        began = time.perf_counter()
        self.send(fragment)
        self.wait(seconds)
        return time.perf_counter() - began

    def page(self, title: str, seconds: float = 120) -> None:
        """Go to another page, and wait for it."""
        self.go(title)
        self.wait(seconds)

    def go(self, title: str) -> None:
        """Go to another page, without waiting for it."""
        if not self.pages:
            self.run()
        self._page = self.pages[title]
        self.send()

    def send(self, fragment: bool = False) -> None:
        """Ask for a run, without waiting for it."""
        message = BackMsg()
        asked = message.rerun_script
        asked.query_string, asked.page_script_hash = self.query, self._page
        with self._changed:     # as in a browser, a widget that is not on the page any more is forgotten
            there = {str(getattr(getattr(one, one.WhichOneof("type")), "id", "")) for one in self.elements.values()}
        self._widgets = {name: one for name, one in self._widgets.items()
                         if any(shown and shown in name for shown in there)}
        asked.widget_states.widgets.extend(self._widgets.values())
        asked.cached_message_hashes.extend(self._messages)
        if fragment:
            asked.fragment_id = self._fragment
        for name in [name for name, one in self._widgets.items()
                     if one.WhichOneof("value") in ("trigger_value", "json_trigger_value")]:
            del self._widgets[name]
        with self._changed:
            self._started += 1
        self._socket.send(message.SerializeToString())

    def wait(self, seconds: float = 120) -> None:
        """Until the run that was asked for last has ended."""
        with self._changed:
            ended = self._changed.wait_for(lambda: self._finished >= self._started, seconds)
        if not ended:
            raise TimeoutError(f"no end after {seconds} s; on the page: {self.texts[-6:]}")

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until a text stands on the page."""
        with self._changed:
            ended = self._changed.wait_for(
                lambda: any(text in _text(one) for one in self.elements.values()), seconds)
        if not ended:
            raise TimeoutError(f"{text!r} did not come; on the page: {self.texts[-6:]}")

    def upload(self, key: str, name: str, data: bytes, kind: str = "image/png") -> int:
        """Bring a file; the status of the upload. The next run tells it."""
        urls = self.place_for(name)
        edge = uuid.uuid4().hex
        body = (f"--{edge}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n"
                f"Content-Type: {kind}\r\n\r\n").encode() + data + f"\r\n--{edge}--\r\n".encode()
        request = urllib.request.Request(f"http://{self.host}{urls.upload_url}", body, method="PUT", headers={
            "Content-Type": f"multipart/form-data; boundary={edge}", **self.headers})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                status = int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        part = self.element("file_uploader", key)
        assert part is not None, key
        state = WidgetState(id=part.id)
        state.file_uploader_state_value.uploaded_file_info.append(
            UploadedFileInfo(name=name, size=len(data), file_id=urls.file_id, file_urls=urls))
        self._widgets[part.id] = state
        return status

    def place_for(self, name: str) -> Any:
        """Where a file may be put."""
        message, number = BackMsg(), uuid.uuid4().hex
        message.file_urls_request.request_id = number
        message.file_urls_request.file_names.append(name)
        self._urls = None
        self._socket.send(message.SerializeToString())
        with self._changed:
            assert self._changed.wait_for(lambda: self._urls is not None, 30)
            return self._urls.file_urls[0]

    @property
    def headers(self) -> dict[str, str]:
        """What an upload must carry."""
        return {"X-Xsrftoken": self._xsrf, "Cookie": f"_streamlit_xsrf={self._xsrf}"}

    # ------------------------------------------------------------------------------------------------------

    def _put(self, state: WidgetState, value: Mapping[str, Any]) -> None:
        for name, one in value.items():
            setattr(state, name, one)
        self._widgets[state.id] = state

    def _read(self) -> None:
        try:
            for data in self._socket:
                message = ForwardMsg()
                message.ParseFromString(data)
                if message.WhichOneof("type") == "ref_hash":
                    self._take(self._messages[message.ref_hash], message.metadata)
                    continue
                if message.metadata.cacheable and message.hash:
                    self._messages[message.hash] = message
                self._take(message, message.metadata)
        except ConnectionClosed:
            pass
        with self._changed:
            self._changed.notify_all()

    def _take(self, message: ForwardMsg, metadata: Any) -> None:
        kind = message.WhichOneof("type")
        with self._changed:
            if kind == "new_session":
                self._page = message.new_session.page_script_hash
                if not metadata.run.fragment_ids:
                    self.elements = {}
            elif kind == "delta":
                place = tuple(metadata.delta_path)
                what = message.delta.WhichOneof("type")
                # Whatever stood inside of what is drawn anew is gone.
                if what == "add_block":
                    self.elements = {at: one for at, one in self.elements.items() if at[:len(place)] != place}
                elif what == "new_element":
                    self.elements = {at: one for at, one in self.elements.items()
                                     if at == place or at[:len(place)] != place}
                    one = self.elements[place] = message.delta.new_element
                    if one.WhichOneof("type") == "bidi_component" and message.delta.fragment_id:
                        self._fragment = message.delta.fragment_id
                    if one.WhichOneof("type") == "exception":
                        self.errors.append(f"{one.exception.type}: {one.exception.message}")
                    if _text(one):
                        self.seen.append(_text(one))
            elif kind == "navigation":
                self.pages = {page.page_name: page.page_script_hash for page in message.navigation.app_pages}
            elif kind == "file_urls_response":
                self._urls = message.file_urls_response
            elif kind == "page_info_changed":
                self.query = message.page_info_changed.query_string
            elif kind == "script_finished" and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                self._finished = self._started
            self._changed.notify_all()


def _text(element: Any) -> str:
    kind = element.WhichOneof("type")
    return str(getattr(element, kind).body) if kind in ("markdown", "alert", "heading", "text") else ""
