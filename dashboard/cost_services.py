"""What the Cost page asks for: counted models, cached like everything in `services`, of which this is a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from bra import costing, opening, variants
from bra.costing import Cost
from bra.errors import BRAError
from bra.models.catalog import ModelSettings
from bra.models.opened import OpenModel
from dashboard.cost_view import CostView
from dashboard.services import model_cards, opened, slots
from dashboard.uploads import Upload


def cost_of(settings: ModelSettings, view: CostView, kind: str = "as it is", rounds: int = 0,
            file: Upload | None = None) -> Cost:
    """What a model costs, or the same model otherwise.

    Args:
        settings: the model.
        view: image size, and the second setting.
        kind: "as it is", "without BRA", "full attention" or "second setting".
        rounds: forwards to time; 0 for none.
        file: the visitor's own model.

    Raises:
        BRAError: the model, the size or the setting cannot be.
    """
    second = (view.narrow, *view.second.items()) if kind == "second setting" else ()
    digest = file.digest if file is not None and settings.entry.family == "own" else ""
    return _cost(settings.opens, digest, kind, second, (view.height, view.width), rounds, opened(settings, file))


@st.cache_resource(max_entries=48, show_spinner="Counting …")
def _cost(settings: ModelSettings, digest: str, kind: str, second: tuple[Any, ...], size: tuple[int, int], rounds: int,
          _model: OpenModel) -> Cost:
    module = _model.module
    if kind == "without BRA":
        module = variants.without_bra(module)
    elif kind == "full attention":
        module = variants.with_full_attention(module)
    elif kind == "second setting":
        module = variants.with_settings(module, second[0], **dict(second[1:]))
    with slots():
        return costing.cost(module, size, rounds=rounds)


def ultralytics_words(settings: ModelSettings, cost: Cost, file: Upload | None = None) -> str:
    """Ultralytics' printed figure beside ours, and why they differ."""
    digest = file.digest if file is not None and settings.entry.family == "own" else ""
    return _ultralytics_words(settings.opens, digest, cost.input[2:], cost, opened(settings, file))


@st.cache_resource(max_entries=16, show_spinner="Asking Ultralytics …")
def _ultralytics_words(settings: ModelSettings, digest: str, size: tuple[int, ...], _cost: Cost,
                       _model: OpenModel) -> str:
    from bra.yolo.printed import printed

    with slots():
        return str(printed(_model.module, _cost))


def resettled_yaml(settings: ModelSettings, changes: Mapping[str, Any], file: Upload | None = None) -> str:
    """The model file with other settings in its BRA rows.

    Raises:
        BRAError: the model is of no YOLO file, or the file is no model.
    """
    if settings.entry.family not in ("yolo", "own") or not (settings.entry.card or settings.chosen_variant or file):
        raise BRAError(f"{settings.entry.label} comes from no YOLO model file: choose one that does.")
    opening.yolo()
    from bra.yolo.gate import check_model
    from bra.yolo.lint import model_file
    from bra.yolo.resettle import resettled

    if settings.entry.card:
        return resettled(model_cards()[settings.entry.card].rows or {}, **changes)
    if file is not None and settings.entry.family == "own":
        check_model(file.data)
        return resettled(file.data.decode("utf-8-sig"), **changes)
    return resettled(model_file(f"{settings.chosen_variant}.yaml").read_text(encoding="utf-8"), **changes)
