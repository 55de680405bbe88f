"""The view that is shown before torch is there is the one that the app computes."""

from __future__ import annotations

import io
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
from make_first_view import computed
from PIL import Image

from bra.viewer.pack import unpack
from dashboard.i18n import LANGUAGES
from dashboard.services.first_view import FILE
from dashboard.state import first_visit

CURE = "run tests/helpers/make_first_view.py"


def numbers(message: bytes) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    header, _, arrays = unpack(message)
    return {name: value for name, value in header.items() if name not in ("version", "arrays", "picture")}, arrays


def test_the_shipped_view_is_what_the_app_computes() -> None:
    now = computed()
    with ZipFile(FILE) as file:
        shipped = {name: file.read(name) for name in file.namelist()}
    assert shipped.keys() == now.keys(), CURE
    assert FILE.stat().st_size < 160_000
    for name in now:
        if name.endswith(".json"):
            assert shipped[name].decode() == now[name].decode(), CURE
        elif name.startswith("thumbnails"):        # what WebP makes of it is its own matter
            ours, theirs = (np.asarray(Image.open(io.BytesIO(one[name])).convert("RGB"), np.float32)
                            for one in (shipped, now))
            assert np.abs(ours - theirs).mean() < 4, CURE
        else:
            (ours, mine), (theirs, fresh) = numbers(shipped[name]), numbers(now[name])
            assert ours == theirs, CURE
            assert mine.keys() == fresh.keys()
            for part, array in fresh.items():      # of another processor, the last digits
                np.testing.assert_allclose(mine[part], array, rtol=1e-3, atol=1e-4, err_msg=f"{name} {part}: {CURE}")
    assert {f"{language}/stage" for language in LANGUAGES} <= now.keys()


@pytest.mark.parametrize(("url", "query", "begins"), [
    ("http://host/", {}, True), ("http://host/base/", {}, True), ("http://host/explore", {"lang": "zh"}, True),
    ("http://host/", {"model": "photos"}, False), ("http://host/learn", {}, False), (None, {}, False)])
def test_a_visit_begins_with_it_once_where_the_link_asks_for_nothing_else(
        monkeypatch: pytest.MonkeyPatch, url: str | None, query: dict[str, str], begins: bool) -> None:
    monkeypatch.setattr(first_visit.runtime, "exists", lambda: True)
    monkeypatch.setattr(first_visit, "st", SimpleNamespace(
        session_state={}, context=SimpleNamespace(url=url), query_params=SimpleNamespace(to_dict=lambda: query)))
    monkeypatch.setattr(first_visit, "STYLE_SECONDS", 0)
    assert first_visit.begins() == begins
    first_visit.on_style()
    assert first_visit.begins() == begins       # the run that follows is the first that draws
    first_visit.let_style_arrive()
    assert not first_visit.begins()
