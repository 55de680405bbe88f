"""What the Cost page asks for: counted models, cached like everything in `services`, of which this is a part."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from bra.models.base import OpenModel
from bra.models.catalog import ModelSettings
from bra.profiling import model_cost, variants
from bra.profiling.model_cost import Cost
from dashboard.i18n import tr_noop
from dashboard.runtime.jobs import Progress
from dashboard.runtime.uploads import Upload
from dashboard.runtime.wait import HEAVY, worked
from dashboard.services.models import file_key, opened, server
from dashboard.state.cost_view import CostView

if TYPE_CHECKING:       # Ultralytics is optional
    from bra.yolo.ultralytics_flops import UltralyticsFlops

TIMED_BYTES: Final = 2 * 2**30
"""Activations that a stranger's model may take while it is timed: as much as one may take to be opened, but here at a
size of image that was not judged then."""


def cost_of(settings: ModelSettings, view: CostView, kind: str = "as it is",
            file: Upload | None = None) -> Cost:
    """What a model costs, or the same model otherwise.

    Args:
        settings: the model.
        view: image size, and the second setting.
        kind: "as it is", "without BRA", "full attention" or "second setting".
        file: the visitor's own model.

    Raises:
        BRAError: the model, the size or the setting cannot be.
    """
    second = (view.narrow, *view.second.items()) if kind == "second setting" else ()
    return _cost(settings.opens, file_key(settings, file), kind, second, (view.height, view.width),
                 opened(settings, file))


@worked(server, tr_noop("Counting …"), HEAVY)
def _cost(settings: ModelSettings, file: str, kind: str, second: tuple[Any, ...], size: tuple[int, int],
          _model: OpenModel) -> Cost:
    module = _model.module
    if kind == "without BRA":
        module = variants.without_bra(module)
    elif kind == "full attention":
        module = variants.with_full_attention(module)
    elif kind == "second setting":
        module = variants.with_settings(module, second[0], **dict(second[1:]))
    return model_cost.cost(module, size)


def timed_cost(settings: ModelSettings, view: CostView, rounds: int, file: Upload | None = None) -> Cost:
    """What a model costs, and how long each of its rows takes on this machine.

    Raises:
        BRAError: as `cost_of`.
    """
    return _timed(settings.opens, file_key(settings, file), (view.height, view.width), rounds, opened(settings, file))


@worked(server, tr_noop("Running the model on this machine, to time it …"), HEAVY)
def _timed(settings: ModelSettings, file: str, size: tuple[int, int], rounds: int, _model: OpenModel,
           _tell: Progress) -> Cost:
    return model_cost.cost(_model.module, size, rounds=rounds, progress=_tell,
                           most_bytes=TIMED_BYTES if file else None)


def is_yolo(settings: ModelSettings, file: Upload | None = None) -> bool:
    """Whether it is a model of Ultralytics' rows."""
    return hasattr(opened(settings, file).module, "yaml")


def ultralytics(settings: ModelSettings, cost: Cost, file: Upload | None = None) -> UltralyticsFlops:
    """Ultralytics' printed figure beside ours."""
    return _ultralytics(settings.opens, file_key(settings, file), cost.input[2:], cost, opened(settings, file))


@worked(server, tr_noop("Asking Ultralytics …"), HEAVY)
def _ultralytics(settings: ModelSettings, file: str, size: tuple[int, ...], _cost: Cost,
                 _model: OpenModel) -> UltralyticsFlops:
    from bra.yolo.ultralytics_flops import reported_flops

    return reported_flops(_model.module, _cost)


def model_file(settings: ModelSettings, file: Upload | None = None) -> str | Mapping[str, Any]:
    """The text of a YOLO model's file, or the content of one that has no text of its own."""
    if settings.entry.family == "own" and file is not None and file.name.lower().endswith((".yaml", ".yml")):
        return file.data.decode("utf-8-sig")       # the model is open, so this was judged already
    if settings.entry.family == "own" or settings.entry.card:
        content: Mapping[str, Any] = opened(settings, file).module.yaml  # type: ignore[assignment]
        return {name: value for name, value in content.items() if name not in ("yaml_file", "channels", "ch")}
    from bra.yolo.lint import model_file as path_of

    return path_of(f"{settings.chosen_variant}.yaml").read_text(encoding="utf-8")


def resettled_yaml(settings: ModelSettings, changes: Mapping[str, Any], file: Upload | None = None,
                   only: Collection[int] | None = None) -> str:
    """A YOLO model's file with other settings in its BRA rows, or only in those of these numbers."""
    from bra.yolo.edit import with_row_settings

    return with_row_settings(model_file(settings, file), only, **changes)


def second_yaml(settings: ModelSettings, view: CostView, dims: Mapping[int, int], file: Upload | None = None) -> str:
    """A YOLO model's file with the second setting in all BRA rows; `dims` are their channels, by number."""
    from bra.yolo.edit import with_row_settings

    text = with_row_settings(model_file(settings, file), **view.second)
    if view.narrow > 1:
        for row, dim in dims.items():
            text = with_row_settings(text, [row], qk_dim=dim // view.narrow)
    return text


def placed_yaml(settings: ModelSettings, after: int, options: Mapping[str, Any], file: Upload | None = None) -> str:
    """A YOLO model's file with one BRA row after row `after` in place of all that it has."""
    from bra.yolo.edit import with_bra_row_after

    return with_bra_row_after(model_file(settings, file), after, **options)
