"""The export menu: one on every page, its files under names that tell models, pictures and settings apart."""

from __future__ import annotations

import pytest
from app_pages import opened

from dashboard.widgets import share

FILES = {"explore": 3, "compare": 2, "models": 2, "learn": 0}


@pytest.mark.parametrize("page", list(FILES))
def test_every_page_has_one_menu(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, list[share.File]]] = []
    offer = share.offer

    def heard(program: str = "", *commands: str, files: list[share.File] = (), charts: bool = True) -> None:
        drawn.append((program, list(files)))
        offer(program, *commands, files=files, charts=charts)

    monkeypatch.setattr(share, "offer", heard)
    app = opened(page, {"model": "similarity", "side": "224", "rows": "4", "columns": "2"})
    (program, files), = drawn
    assert program
    names = [file.name for file in files]
    assert len(names) == FILES[page] == len(set(names))
    assert {button.proto.label for button in app.get("download_button")} == {file.label for file in files}
    saved_as = [one for one in app.get("button_group") if one.proto.label == "Charts are saved as"]
    assert len(saved_as) == 1, "once, in the menu"


def test_names_of_files_tell_views_apart_and_are_safe() -> None:
    assert share.named("csv", "Flowers, trained (BiFormer)", "stages.2.2.attn", "Cat", "n7_k4_320px") == \
        "routescope_Flowers-trained-BiFormer_stages.2.2.attn_Cat_n7_k4_320px.csv"
    assert share.named("html", "../a", "") == "routescope_a.html"
