"""Opens a page of the app by its link, as a visitor does who follows one, without a browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[2] / "dashboard" / "app.py"


def opened(page: str = "explore", query: Mapping[str, Any] | None = None, *, stage_drawn: bool = False) -> AppTest:
    """The app open on this page, and no exception on it.

    Args:
        page: its file's name, without ".py".
        query: of the link.
        stage_drawn: as a browser says when it has drawn a stage; Explore's charts wait for it.
    """
    app = AppTest.from_file(str(APP), default_timeout=180)
    for name, value in (query or {}).items():
        app.query_params[name] = value
    if stage_drawn:
        app.session_state["stage_drawn"] = True
    if page != "explore":
        app.switch_page(f"views/{page}.py")
    app.run()
    assert not app.exception, [error.value for error in app.exception]
    return app
