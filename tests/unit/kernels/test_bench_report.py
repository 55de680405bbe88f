"""The page of `make bench`: every ratio of both runs is on it, and what is compared is compared right."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "bench"))
import report


def test_the_page_names_every_ratio_of_either_run_and_the_change() -> None:
    lines = "\n".join(json.dumps({"name": name, "ratio": ratio}) for name, ratio in
                      (("a", 1.0), ("<both>", 3.0), ("a", 2.0)))
    now = report.this_run(lines)
    assert now == {"a": 2.0, "<both>": 3.0}
    table = report.page(now, {"<both>": 2.0, "gone": 5.0}, "0.3.0").rpartition("<table>")[2]
    assert "<tr><td>a</td><td>2.00×</td><td></td><td></td></tr>" in table
    assert "<tr><td>&lt;both&gt;</td><td>3.00×</td><td>2.00×</td><td>+50 %</td></tr>" in table
    assert "<tr><td>gone</td><td></td><td>5.00×</td><td></td></tr>" in table


def test_the_last_release_is_there() -> None:
    last = json.loads(report.LAST.read_text(encoding="utf-8"))
    assert last["release"]
    assert all(ratio > 0 for ratio in last["ratios"].values())
