"""The view that a visit without a link begins with, as the app computed it: read from a file, before torch is there.

`first_view.zip` is written by `python tests/helpers/make_first_view.py`; a test compares it with what the app computes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import streamlit as st

FILE: Final = Path(__file__).parents[1] / "first_view.zip"


@dataclass(frozen=True, slots=True)
class FirstView:
    """What stands on the page Explore from its title to its stage.

    Attributes:
        thumbnails: the built-in pictures by their keys, as WebP.
        picture: message with the picture of the stage.
        rail: message of the layers.
        stage: message of the stage.
        heading: the picture's name and what to try on it.
        notes: what is said of the layer, between the layers and the stage.
    """

    thumbnails: Mapping[str, bytes]
    picture: bytes
    rail: bytes
    stage: bytes
    heading: str
    notes: tuple[str, ...]


@st.cache_resource(max_entries=4, show_spinner=False)
def first_view(language: str) -> FirstView:
    """The first view in a language."""
    with ZipFile(FILE) as file:
        words = json.loads(file.read(f"{language}/words.json"))
        return FirstView({name.partition("/")[2]: file.read(name) for name in file.namelist()
                          if name.startswith("thumbnails/")}, file.read("picture"), file.read("rail"),
                         file.read(f"{language}/stage"), words["heading"], tuple(words["notes"]))
