"""Strangers' model files as plain values: Ultralytics' own pass, everything else that they might hold is refused."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

pytest.importorskip("ultralytics")

from model_files import THEIRS, TINY, refusal, tiny, with_row

from bra.yolo.build import check_model

pytestmark = pytest.mark.usefixtures("no_network")


def test_every_shipped_model_is_judged() -> None:
    strange = {stem for stem in THEIRS if any(word in stem for word in ("yoloe", "world", "depth", "sem", "resnet18"))}
    for stem in strange:
        assert re.search(r"not (one of the )?layers opened here", refusal(THEIRS[stem].read_bytes())), stem
    for stem in set(THEIRS) - strange:
        assert check_model(THEIRS[stem].read_bytes())["head"]
    assert len(set(THEIRS) - strange) > 30


@pytest.mark.parametrize("name", [
    "torch.hub.load", "os.system", "TorchVision", "Index", "yaml_model_load", "load_checkpoint", "torch_safe_load",
    "attempt_load_weights", "nn.Module", "nn.modules.container.Sequential", "nn.Linear", "torchvision.ops.nms", "eval",
    "__import__", "YOLOEDetect", "WorldDetect", "C2fAttn", "ImagePoolingAttn", "Path", "nn.init.normal_", "HandmadeBRA",
    "", "x" * 10_000])
def test_only_known_layers_may_be_named(name: str) -> None:
    assert "not one of the layers opened here" in refusal(with_row([-1, 1, name, ["nc"]]))
    assert "not one of the layers opened here" in refusal(tiny(head=[[-1, 1, name, []]]))


def test_a_model_ends_with_its_one_head() -> None:
    assert "ends with 'Conv'" in refusal(tiny(head=[[-1, 1, "Conv", [64]]]))
    assert "one head" in refusal(tiny(head=[[-1, 1, "Classify", ["nc"]], [-1, 1, "Classify", ["nc"]]]))


@pytest.mark.parametrize("value", [
    4_000_000, -2, float("nan"), float("inf"), -float("inf"), "__import__('os').system('true')", "d", "scales",
    "globals()", "[1] * 10**9", {"a": 1}, [[[[1]]]], [1] * 33, 10**400, b"x", object()],
    ids=lambda value: repr(value)[:20])
def test_arguments_are_plain_and_bounded(value: Any) -> None:
    assert "row 1 holds" in refusal(with_row([-1, 1, "Conv", [64, value]]))
    assert "row 1 holds" in refusal(with_row([-1, 1, "Conv", [64, [value]]]))
    if not isinstance(value, dict):
        assert "row 1 holds" in refusal(with_row([-1, 1, "BRABlock", [{"n_win": value}]]))


@pytest.mark.parametrize("row", [
    [-1, 0, "Conv", [64]], [-1, -3, "Conv", [64]], [-1, 101, "Conv", [64]], [-1, float("nan"), "Conv", [64]],
    [-1, float("inf"), "Conv", [64]], [-1, True, "Conv", [64]], [-1, 10**30, "Conv", [64]], [-1, "2", "Conv", [64]],
    [1, 1, "Conv", [64]], [99, 1, "Conv", [64]], [-2, 1, "Conv", [64]], [-99, 1, "Conv", [64]], [[], 1, "Concat", [1]],
    [[-1] * 33, 1, "Concat", [1]], [[0, "0"], 1, "Concat", [1]], [True, 1, "Conv", [64]], [-1, 1, "Conv", [64] * 33],
    [-1, 1, "Conv"], [-1, 1, ["Conv"], [64]], [-1, 1, "Conv", "x" * 10_000], "Conv", None, 7, {"Conv": 1}, [[[[]]]] * 4,
    [-1, 1, "BRABlock", [{"dim": 64}]], [-1, 1, "BRABlock", [7, {"n_win": 7}]], [-1, 1, "C2fBRA", []]],
    ids=lambda row: repr(row)[:40])
def test_rows_are_four_plain_things(row: Any) -> None:
    assert "row" in refusal(with_row(row))


@pytest.mark.parametrize("changed", [
    {"nc": 10**9}, {"nc": 0}, {"nc": -1}, {"nc": 2.5}, {"nc": "80"}, {"nc": True}, {"nc": float("nan")},
    {"channels": 10},
    {"scales": {"n": [float("nan"), 1, 64]}}, {"scales": {"n": [1, 1]}}, {"scales": {"n": [1, 1, 10**9]}},
    {"scales": {"n": [1, 10**6, 64]}}, {"scales": {"n" * 50: [1, 1, 64]}}, {"scales": {}}, {"scales": [1]},
    {"scales": {1: [1, 1, 64]}}, {"scale": "q"}, {"scale": ["n"]}, {"depth_multiple": -1}, {"width_multiple": 1e9},
    {"reg_max": 10**6}, {"end2end": "yes"}, {"kpt_shape": [10**6, 3]}, {"kpt_shape": "nc"}, {"backbone": []},
    {"head": []}, {"backbone": None}, {"head": {}}, {"head": [[-1, 1, "Pose", ["nc", "kpt_shape"]]]}], ids=repr)
def test_settings_are_bounded(changed: dict[str, Any]) -> None:
    refusal(tiny(**changed))


@pytest.mark.parametrize(("text", "words"), [
    ("a: &a [1, 2]\nb: [*a, *a]", "line 1 has an anchor"), ("a: !!python/object/apply:os.system [ls]", "tag"),
    ("a: !!float 1", "tag"), ("nc: 1\n<<: {backbone: [], head: []}", "line 2 merges"),
    ("{nc: 1, << : [{a: 1}, {b: 2}]}", "line 1 merges"), ("a: {b: {<<: {c: 1}}}", "merges"),
    ("[" * 5_000, "8 levels"), ("{a: " * 5_000, "8 levels"), ("- " * 20_000, "8 levels"),
    ("a: [" + "1, " * 12_000 + "1]", "10,000 values"), ("a: 1\n" * 20_000, "65,536 at most"), ("a: 2001-99-99", "YAML"),
    ("nc: " + "9" * 5_000, "YAML"), ("? [a]\n: 1", "YAML"), ("a: b: c", "YAML"), ("a: 'x", "YAML"), ("\0", "YAML"),
    ("a: 1\n---\nb: 2", "YAML"), ("", "mapping"), ("7", "mapping"), ("- 1", "mapping"),
    ("path: /x\ntrain: a\ndownload: |\n  import os; os.system('x')", "data set"), (b"\xff\xfe\x00", "UTF-8")],
    ids=lambda value: repr(value)[:40])
def test_yaml_that_is_more_than_values(text: Any, words: str) -> None:
    started = time.monotonic()
    assert words in refusal(text)
    assert time.monotonic() - started < 10


def test_an_alias_bomb_is_refused_at_its_first_line() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "line 1 has an anchor" in refusal("\n".join(lines))


def test_what_only_looks_like_a_merge_is_a_key_that_no_model_needs() -> None:
    assert "<<" not in check_model(f'{TINY}\n"<<": {{backbone: []}}\n')


def test_keys_that_no_model_needs_are_left_out() -> None:
    extra = "\ndownload: __import__('os').system('x')\nyaml_file: /etc/passwd\ntext_model: clip\nsave_dir: /\n"
    assert set(check_model(TINY + extra)) == {"nc", "scales", "backbone", "head"}


def test_checking_changes_nothing_given_and_keeps_nothing_of_it() -> None:
    given = tiny()
    checked = check_model(given)
    checked["head"][0][3].append(5)
    checked["scales"]["n"][0] = 3
    assert given == tiny()
    assert check_model(check_model(TINY)) == check_model(TINY)
