"""What the ranking beside the stage says of nearly equal affinities: differences, and where a choice was a toss-up."""

from __future__ import annotations

from typing import Any

import pytest

from bra import viewer

CODE = f"(data) => {{ {viewer.script('core', 'rank').replace('export default ', '')}; return tossUp(data, 0); }}"


@pytest.fixture(scope="module")
def page(browser: Any) -> Any:
    made = browser.new_page()
    yield made
    made.close()


@pytest.mark.parametrize(("row", "margin", "expected"), [
    ([1.0, 0.5, 0.496, 0.0], 0.004, True),              # less than a hundredth of 1
    ([1.0, 0.5, 0.48, 0.0], 0.02, False),
    ([1.0, 1.0, 1.0, 1.0], 0.0, True),                  # all the same
    ([100.00001, 100.0, 99.99999, 99.9999], 1e-5, True),    # a tenth of the spread, and float32 rounds it away
    ([1.0, 0.5, float("-inf"), float("-inf")], float("inf"), False),    # rejected was masked padding alone
    ([1.0, 0.5, 0.4, 0.3], float("nan"), False)])       # nothing was rejected
def test_a_choice_within_rounding_or_a_hundredth_of_the_spread_is_a_toss_up(page: Any, row: list[float], margin: float,
                                                                            expected: bool) -> None:
    assert page.evaluate(CODE, {"grid": {"n_win": 2}, "affinity": row, "margin": [margin]}) is expected
