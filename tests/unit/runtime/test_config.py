"""The server's settings, and the cache that one of them bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bra.errors import BRAError
from dashboard.runtime.cache import ResultCache, size_of
from dashboard.runtime.config import PREFIX, Limits, own_modules
from dashboard.runtime.processors import processors

ROOT = Path(__file__).parents[3]


def refused(environment: dict[str, str], server_mb: int | None = None) -> str:
    with pytest.raises(BRAError) as caught:
        Limits.from_environment(environment, server_mb)
    return str(caught.value)


def test_settings_are_read_and_the_rest_of_the_environment_is_left_alone() -> None:
    made = Limits.from_environment({"ROUTESCOPE_SECONDS": "30", "ROUTESCOPE_UPLOAD_MB": "60", "HOME": "/x"}, 120)
    assert (made.seconds, made.upload_mb, made.queue) == (30, 60, Limits().queue)
    assert made.quick == processors()
    assert Limits.from_environment({"ROUTESCOPE_SLOTS": "3"}).quick == 3


@pytest.mark.parametrize("value", ["", "-1", "0", "1.5", "many", "1e3", "٣", " 4", "999999999999"])
def test_nonsense_gets_one_sentence_with_the_range(value: str) -> None:
    assert refused({"ROUTESCOPE_QUEUE": value}) == \
        f"ROUTESCOPE_QUEUE={value} is not possible: give a whole number from 1 to 10000."


def test_a_misspelt_setting_is_not_silently_ignored() -> None:
    assert refused({"ROUTESCOPE_QEUE": "3"}).startswith("ROUTESCOPE_QEUE is not a setting: choose one of ROUTESCOPE_")


def test_the_server_is_not_contradicted() -> None:
    assert refused({"ROUTESCOPE_UPLOAD_MB": "200"}, 120).endswith("STREAMLIT_SERVER_MAX_UPLOAD_SIZE=200.")
    assert Limits.from_environment({}, 10).upload_mb == Limits.from_environment({}, 10).picture_mb == 10
    assert Limits.from_environment({}, 500).upload_mb == Limits().upload_mb


def test_all_files_together_may_have_what_one_may() -> None:
    assert refused({"ROUTESCOPE_UPLOADS_MB": "100"}).startswith("ROUTESCOPE_UPLOADS_MB=100 is less than one file may")
    assert Limits.from_environment({"ROUTESCOPE_UPLOADS_MB": "100", "ROUTESCOPE_UPLOAD_MB": "100"}).uploads_mb == 100


@given(st.dictionaries(st.sampled_from([PREFIX + one.name.upper() for one in fields(Limits)]), st.text(max_size=12)))
def test_any_environment_gives_settings_within_their_ranges_or_a_sentence(environment: dict[str, str]) -> None:
    try:
        made = Limits.from_environment(environment, 120)
    except BRAError:
        return
    assert all(one.metadata["least"] <= getattr(made, one.name) <= one.metadata["most"] for one in fields(Limits))


@pytest.mark.parametrize(("value", "status"), [("7", 0), ("seven", 1)])
def test_the_command_line_says_them_before_anyone_comes(value: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-m", "dashboard.runtime.config"], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "ROUTESCOPE_QUEUE": value, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == status
    assert ("ROUTESCOPE_QUEUE                7" in done.stdout) if not status else \
        done.stderr.startswith("ROUTESCOPE_QUEUE=seven is not possible")


def test_every_setting_is_in_the_text_on_serving_with_its_default() -> None:
    text = (ROOT / "dashboard" / "SERVING.md").read_text(encoding="utf-8")
    for one in fields(Limits):
        assert f"| `{PREFIX}{one.name.upper()}` | {one.default:,} |" in text


def test_the_cache_holds_no_more_than_it_may_and_lets_the_longest_untouched_go() -> None:
    cache = ResultCache(4_000_000)
    for n in range(3):
        cache.put(n, np.zeros(1_000_000, np.uint8))
    cache.get(0)
    cache.put(3, torch.zeros(250_000))
    assert [cache.get(n) is not None for n in range(4)] == [True, False, True, True]
    assert cache.size <= 4_000_000
    cache.put(4, bytes(5_000_000))
    assert cache.get(4) is None
    assert len(cache) == 3
    cache.put(0, bytes(5))
    assert cache.size == 2 * 1_001_000 + 1_005


def test_what_is_kept_for_a_while_goes_by_itself() -> None:
    cache = ResultCache(10_000)
    cache.put("a", 1, seconds=-1)
    cache.put("b", None, seconds=60)
    assert cache.get("a") is None
    assert cache.get("b") is not None
    assert cache.size == 1_000


def test_the_weight_of_what_is_kept() -> None:
    numbers = torch.zeros(1000)
    assert size_of(numbers) == size_of([numbers, numbers[:10], {"x": numbers.view(10, 100)}]) == 4000
    assert size_of(torch.nn.Linear(10, 10)) == 440
    assert size_of((np.zeros(8), b"1234", "ab")) == 64 + 6


def test_a_file_of_ones_own_is_run_on_this_computer_only(tmp_path: Path) -> None:
    for address in ("0.0.0.0", "", "192.168.1.4", "localhost.example"):
        with pytest.raises(BRAError, match="others reach it"):
            own_modules({"ROUTESCOPE_MODULES": "mine.py"}, address)
        assert own_modules({}, address) == ""       # off where nobody asks for it
    assert own_modules({"ROUTESCOPE_MODULES": "mine.py"}, "127.0.0.1") == "mine.py"
    assert Limits.from_environment({"ROUTESCOPE_MODULES": "mine.py"}) == Limits()


def test_make_run_says_whose_file_it_runs() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "dashboard.runtime.config"], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "ROUTESCOPE_MODULES": "my_blocks.py"})
    assert "my_blocks.py  is run" in ended.stdout
