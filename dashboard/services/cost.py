"""What a model costs, and model files with other settings; each counted once for all visitors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from bra.models.recorded import OpenRecording
from bra.profiling import model_cost, variants
from bra.profiling.model_cost import Cost
from dashboard.i18n import tr_noop
from dashboard.runtime.server import HEAVY
from dashboard.runtime.wait import run_cached
from dashboard.services.models import LoadedModel, ModelKey
from dashboard.services.server import server
from dashboard.state.cost_view import CostView

if TYPE_CHECKING:       # Ultralytics takes seconds to import
    from bra.yolo.ultralytics_flops import UltralyticsFlops

TIMED_BYTES: Final = 2 * 2**30
"""Activations that a stranger's model may take while it is timed: as much as one may take to be opened, but here at a
size of image that was not judged then."""


class Variant(Enum):
    """Ways to have a model."""

    AS_IS = "as_is"
    WITHOUT_BRA = "without_bra"
    FULL_ATTENTION = "full_attention"
    SECOND_SETTING = "second_setting"


@dataclass(frozen=True, slots=True)
class CostKey:
    """The cost of a variant of a model; `second` is what its second setting is, (height, width) its size."""

    model: ModelKey
    variant: Variant
    second: tuple[Any, ...]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class TimedCostKey:
    """The cost of a model with the times of its rows."""

    model: ModelKey
    size: tuple[int, int]
    rounds: int


@dataclass(frozen=True, slots=True)
class FlopsKey:
    """Ultralytics' figure of a model."""

    model: ModelKey
    size: tuple[int, ...]


def cost_of(loaded: LoadedModel, view: CostView, variant: Variant = Variant.AS_IS) -> Cost:
    """What a model costs, as it is or otherwise; `view` has the size of the image and the second setting.

    Raises:
        BRAError: the size or the setting cannot be.
    """
    module = loaded.model.module
    second = (view.narrow, *view.second.items()) if variant is Variant.SECOND_SETTING else ()
    size = (view.height, view.width)

    def work(_: Any) -> Cost:
        if variant is Variant.WITHOUT_BRA:
            return model_cost.cost(variants.without_bra(module), size)
        if variant is Variant.FULL_ATTENTION:
            return model_cost.cost(variants.with_full_attention(module), size)
        if variant is Variant.SECOND_SETTING:
            return model_cost.cost(variants.with_settings(module, view.narrow, **view.second), size)
        return model_cost.cost(module, size)

    return run_cached(server(), CostKey(loaded.key, variant, second, size), work, tr_noop("Counting …"), HEAVY)


def recorded(loaded: LoadedModel) -> OpenRecording | None:
    """The recording that a file is, of which only what it holds can be said; None for a model."""
    return loaded.model if isinstance(loaded.model, OpenRecording) else None


def timed_cost(loaded: LoadedModel, view: CostView, rounds: int) -> Cost:
    """What a model costs, and how long each of its rows takes on this machine.

    Raises:
        BRAError: as `cost_of`.
    """
    size = (view.height, view.width)
    return run_cached(
        server(), TimedCostKey(loaded.key, size, rounds),
        lambda progress: model_cost.cost(loaded.model.module, size, rounds=rounds, progress=progress,
                                         most_bytes=TIMED_BYTES if loaded.upload else None),
        tr_noop("Running the model on this machine, to time it …"), HEAVY)


def is_yolo(loaded: LoadedModel) -> bool:
    """Whether it is a model of Ultralytics' rows."""
    return hasattr(loaded.model.module, "yaml")


def ultralytics(loaded: LoadedModel, cost: Cost) -> UltralyticsFlops:
    """Ultralytics' printed figure beside ours."""
    def work(_: Any) -> UltralyticsFlops:
        from bra.yolo.ultralytics_flops import reported_flops

        return reported_flops(loaded.model.module, cost)

    return run_cached(server(), FlopsKey(loaded.key, cost.input[2:]), work, tr_noop("Asking Ultralytics …"), HEAVY)


def model_file(loaded: LoadedModel) -> str | Mapping[str, Any]:
    """The text of a YOLO model's file, or the content of one that has no text of its own."""
    settings, upload = loaded.settings, loaded.upload
    if upload is not None and upload.name.lower().endswith((".yaml", ".yml")):
        return upload.data.decode("utf-8-sig")       # the model is open, so this was judged already
    if settings.entry.family == "own" or settings.entry.card:
        content: Mapping[str, Any] = loaded.model.module.yaml  # type: ignore[assignment]
        return {name: value for name, value in content.items() if name not in ("yaml_file", "channels", "ch")}
    from bra.yolo.lint import model_file as path_of

    return path_of(f"{settings.chosen_variant}.yaml").read_text(encoding="utf-8")


def yaml_with_settings(loaded: LoadedModel, changes: Mapping[str, Any], only: Collection[int] | None = None) -> str:
    """A YOLO model's file with other settings in its BRA rows, or only in those of these numbers."""
    from bra.yolo.edit import with_row_settings

    return with_row_settings(model_file(loaded), only, **changes)


def yaml_with_second_setting(loaded: LoadedModel, view: CostView, dims: Mapping[int, int]) -> str:
    """A YOLO model's file with the second setting in all BRA rows; `dims` are their channels, by number."""
    from bra.yolo.edit import with_row_settings

    text = with_row_settings(model_file(loaded), **view.second)
    if view.narrow > 1:
        for row, dim in dims.items():
            text = with_row_settings(text, [row], qk_dim=dim // view.narrow)
    return text


def yaml_with_row_after(loaded: LoadedModel, after: int, options: Mapping[str, Any]) -> str:
    """A YOLO model's file with one BRA row after row `after` in place of all that it has."""
    from bra.yolo.edit import with_bra_row_after

    return with_bra_row_after(model_file(loaded), after, **options)
