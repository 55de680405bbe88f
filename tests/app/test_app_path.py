"""The app opens however it is named: by an absolute path, or relative to the repository root."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", [ROOT, Path()], ids=["absolute", "relative"])
def test_every_page_is_found_from_the_repository_root(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(ROOT)
    # As `AppTest.from_file("dashboard/app.py")` of a script in the root makes it: `__file__` is then relative.
    app = AppTest(folder / "dashboard" / "app.py", default_timeout=120).run()
    assert not app.exception
    assert app.main.children
    app.switch_page("views/guide.py").run()
    assert not app.exception
    assert app.markdown
