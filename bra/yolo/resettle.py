"""A model file whose BRA rows have other settings; comments and all else stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from bra.yolo.rewrite import read_yaml, with_rows_replaced
from bra.yolo.rows import OURS, options_of, rows_of, with_options


def resettled(model: str | Mapping[str, Any], **changes: Any) -> str:
    """The file's text with these options in every BRA row.

    Args:
        model: its text, or its content, which is then written out.
        changes: options of `BRASpec`, such as n_win=5, topk=3.

    Raises:
        YoloError: it is not a model.
    """
    text = model if isinstance(model, str) else yaml.safe_dump(dict(model), sort_keys=False, default_flow_style=None)
    rows = {row.index: with_options(row, {**options_of(row), **changes})
            for row in rows_of(read_yaml(text)) if row.name in OURS}
    return with_rows_replaced(text, rows)
