"""The table of `bra probe`: its columns are explained, and each layer gets one verdict."""

from __future__ import annotations

import math

import pytest

from bra.experiments.probes import ProbeRow
from bra.reports.tables import probe_text, probe_verdict


@pytest.mark.parametrize(("shares", "words"), [
    ((0.9, 0.2, 0.5, 0.1), "follows what is in the picture (90 % survive, 20 % if it kept its places, 10 % by chance)"),
    ((0.5, 0.2, 0.6, 0.1), "follows the picture, no better than its nearest windows would, 60 %"),
    ((0.5, 0.48, 0.2, 0.1), "may be written into places"), ((0.12, 0.0, 0.6, 0.1), "no better than chance")])
def test_a_verdict_weighs_what_survived_against_its_controls(shares: tuple[float, float, float, float],
                                                              words: str) -> None:
    assert words in probe_verdict([ProbeRow("a", "swap", *shares), ProbeRow("a", "brightness", 1, 1, 1, 0.1)])


def test_brightness_alone_is_no_evidence() -> None:
    assert "open" in probe_verdict([ProbeRow("a", "brightness", 1, 1, 1, 0.1),
                                    ProbeRow("a", "flip", math.nan, 1, 1, 0.1)])


def test_the_table_has_a_legend_and_a_verdict_for_each_layer() -> None:
    rows = [ProbeRow(layer, "swap", 0.9, 0.2, 0.5, 0.1) for layer in ("first", "second")]
    text = probe_text(rows)
    assert text.splitlines()[1].split() == ["first", "swap", "90.0", "%", "20.0", "%", "50.0", "%", "10.0", "%"]
    assert all(f"{name}:" in text for name in ("survived", "stayed", "nearest", "chance"))
    assert [line.partition(":")[0] for line in text.splitlines()[-2:]] == ["first", "second"]
