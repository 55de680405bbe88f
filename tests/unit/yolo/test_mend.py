"""Rows that begin with their channels are mended in every way that their author may have meant, and nothing else is."""

from __future__ import annotations

import pytest

pytest.importorskip("ultralytics")
from bra.opening import open_file
from bra.yolo.mend import without_channels

ROWS = """# mine
nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 1, BiLevelRoutingAttention, {args}]    # kept
head:
  - [[4], 1, Detect, [nc]]
"""


@pytest.mark.parametrize(("args", "readings"), [
    ("[256]", [(7, 8)]), ("[256, 4]", [(4, 8), (7, 4)]), ("[256, 8, 4]", [(8, 4), (4, 8)]),
    ("[7, 8]", []), ("[]", []), ("[{n_win: 256}]", [])])
def test_every_reading_opens(args: str, readings: list[tuple[int, int]]) -> None:
    found = without_channels(ROWS.format(args=args).encode())
    assert len(found) == len(readings)
    for one, (n_win, heads) in zip(found, readings, strict=True):
        assert one.text.startswith("# mine\n")
        assert "# kept" in one.text
        (spec,) = open_file(one.text.encode(), "a.yaml").specs.values()
        assert (spec.n_win, spec.num_heads, spec.dim) == (n_win, heads, 256)


def test_what_is_no_model_is_left_alone() -> None:
    for data in (b"", b"nc: [", b"\xff\xfe", b"backbone: 3", b"train: a"):
        assert without_channels(data) == ()
