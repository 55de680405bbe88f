"""Replaces rows in the text of a model file; comments and everything else stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from bra.errors import YoloError
from bra.messages import said
from bra.yolo.rows import Row


def read_yaml(text: str) -> dict[str, Any]:
    """A model file's content, read without running anything.

    Raises:
        YoloError: it is not YAML, or not a mapping.
    """
    try:
        model = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise YoloError(said("this is not YAML ({error}): give a model file of Ultralytics' kind.",
                             error=" ".join(str(error).split()))) from error
    if not isinstance(model, dict):
        raise YoloError(said("a model file holds a mapping, this one a {kind}: give one with 'backbone:' and 'head:'.",
                             kind=type(model).__name__))
    return model


def with_rows_replaced(text: str, rows: Mapping[int, Row]) -> str:
    """The text with the given rows, by index, in place of its own."""
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    parts = {key.value: value.value for key, value in document.value}
    nodes = [*parts["backbone"], *parts["head"]]
    for index in sorted(rows, reverse=True):
        text = text[:nodes[index].start_mark.index] + written(rows[index]) + text[_end(nodes[index]):]
    return text


def _end(node: Any) -> int:
    """Where a node's text ends: that of a list in block style with its last item, and not where the next one begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def written(row: Row) -> str:
    """A row as people write it: [-1, 1, BiLevelRoutingAttention, [7, 8]]."""
    flow: str = yaml.safe_dump([row.source, row.repeats, row.name, row.args], default_flow_style=True, width=10_000,
                               sort_keys=False, allow_unicode=True)
    return flow.strip()
