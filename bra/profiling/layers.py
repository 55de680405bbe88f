"""A model as a list of rows: which modules they are, what they are called, whose the parameters are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from torch import nn

from bra.attention import BiLevelRoutingAttention
from bra.profiling.meter import OUTSIDE

CONTAINERS: Final = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def is_bra(module: nn.Module) -> bool:
    """Whether it is a BRA layer itself."""
    return isinstance(module, BiLevelRoutingAttention)


def _is_yaml_row(module: nn.Module) -> bool:
    """Ultralytics writes on every row its number and where it reads from."""
    return isinstance(getattr(module, "i", None), int) and hasattr(module, "f")


def rows_of(model: nn.Module) -> dict[str, nn.Module]:
    """The rows of a model by path: its children, with containers and lone wrappers opened; itself when it has none."""
    return dict(_opened("", model, True)) or {OUTSIDE: model}


def _opened(path: str, module: nn.Module, lone: bool) -> Iterator[tuple[str, nn.Module]]:
    children = [] if is_bra(module) else list(module.named_children())
    lone = lone and len(children) == 1
    for name, child in children:
        at = f"{path}.{name}".removeprefix(".")
        open_it = (lone or isinstance(child, CONTAINERS)) and not _is_yaml_row(child)
        yield from (list(_opened(at, child, lone)) if open_it else []) or [(at, child)]


def kind(module: nn.Module) -> str:
    """Class of a row; Ultralytics' rows say it themselves, also when they are repeated."""
    return str(module.type).rpartition(".")[2] if _is_yaml_row(module) else type(module).__name__


def input_channels(model: nn.Module) -> int:
    """Channels that the first layer reads; 3 where it does not say."""
    first = next(m for m in model.modules() if is_bra(m) or not any(m.children()))
    if isinstance(first, BiLevelRoutingAttention):
        return first.dim
    if isinstance(first, nn.LayerNorm):
        return int(first.normalized_shape[-1])
    return int(getattr(first, "in_channels", getattr(first, "num_features", 3)))


def parameters_of(model: nn.Module, rows: dict[str, nn.Module]) -> dict[str, int]:
    """Parameters of each row, counted once; those of no row belong to the model itself."""
    seen: set[int] = set()
    owned: dict[str, int] = {}
    for path, module in [*rows.items(), (OUTSIDE, model)]:
        fresh = {id(p): p.numel() for p in module.parameters() if id(p) not in seen}
        seen |= set(fresh)
        owned[path] = owned.get(path, 0) + sum(fresh.values())
    return owned


def within(path: str, row: str) -> bool:
    """Whether a module is the row or inside it."""
    return path == row or path.startswith(f"{row}.") or row == OUTSIDE


def common_prefix(paths: list[str]) -> str:
    """What all paths begin with: "model." for Ultralytics' rows."""
    prefix = ""
    while len({path.removeprefix(prefix).partition(".")[0] for path in paths}) == 1 and \
            all("." in path.removeprefix(prefix) for path in paths):
        prefix += paths[0].removeprefix(prefix).partition(".")[0] + "."
    return prefix
