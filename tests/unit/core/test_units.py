"""Numbers as people read them."""

from __future__ import annotations

import pytest

from bra.units import billions, megabytes, millions, quantity


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (999, "999"), (1000, "1 k"), (1_234_567, "1.23 M"),
                                             (5.6e9, "5.6 G"), (7.891e12, "7.89 T"), (0.5, "0.5")])
def test_three_digits_and_a_letter(value: float, text: str) -> None:
    assert quantity(value) == text


def test_sentences_hold_numbers_and_units_together() -> None:
    assert (millions(1_234_567), billions(1_234_567_890), megabytes(1_234_567_890)) == \
        ("1.23\u00a0M", "1.23\u00a0G", "1,234.6\u00a0MB")
