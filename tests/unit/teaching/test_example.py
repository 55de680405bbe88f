"""The worked example's numbers: the module's own, and once more by hand in plain Python."""

from __future__ import annotations

import math
import sys
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

import bra
from bra.errors import BRAError
from bra.recorder import recording
from bra.teaching.example import (
    FIRST,
    LEPE,
    N_WIN,
    SCALE,
    SIDE,
    TOPKS,
    W_K,
    W_O,
    ExampleNumbers,
    Tokens,
    example_module,
    run_example,
)
from bra.teaching.source import MARK, STEPS, lines_of
from bra.tracing import trace

NUMBER = st.integers(-9, 9)
TOKENS = st.lists(st.tuples(NUMBER, NUMBER), min_size=16, max_size=16).map(tuple)
WINDOWS = [[4 * (2 * j + y) + 2 * i + x for y in (0, 1) for x in (0, 1)] for j in (0, 1) for i in (0, 1)]
"""The tokens of each window, in raster order of the map."""


def as_map(tokens: Tokens) -> torch.Tensor:
    return torch.tensor(tokens, dtype=torch.float32).view(1, SIDE, SIDE, 2).permute(0, 3, 1, 2)


def by_hand(tokens: Tokens, r_idx: list[list[int]]) -> dict[str, Any]:
    """Every number of the example with Python's own arithmetic, exact up to the softmax; the choice is given."""
    x = [(Fraction(a), Fraction(b)) for a, b in tokens]
    k = [(a - b, a + b) for a, b in x]
    half = Fraction(1, 2)

    def dot(a: Any, b: Any) -> Any:
        return a[0] * b[0] + a[1] * b[1]

    def mean(of: Any, window: list[int]) -> tuple[Fraction, Fraction]:
        return tuple(sum(of[n][c] for n in window) / 4 for c in (0, 1))

    q_mean, k_mean = [mean(x, w) for w in WINDOWS], [mean(k, w) for w in WINDOWS]
    affinity = [[half * dot(q, k) for k in k_mean] for q in q_mean]
    gathered = [[n for j in chosen for n in WINDOWS[j]] for chosen in r_idx]
    scores = [[[half * dot(x[n], k[key]) for key in gathered[w]] for n in WINDOWS[w]] for w in range(4)]
    attention = []
    for window in scores:
        rows = [[math.exp(s - max(row)) for s in row] for row in window]
        attention.append([[e / sum(row) for e in row] for row in rows])
    mixed = {n: tuple(sum(share * float(x[key][c]) for share, key in zip(attention[w][t], gathered[w], strict=True))
                      for c in (0, 1)) for w in range(4) for t, n in enumerate(WINDOWS[w])}

    def at(row: int, col: int, channel: int) -> Fraction:
        return x[4 * row + col][channel] if 0 <= row < 4 and 0 <= col < 4 else Fraction(0)

    lepe = [(half * (at(r, c - 1, 0) + at(r, c + 1, 0)), half * (at(r - 1, c, 1) + at(r + 1, c, 1)))
            for r in range(4) for c in range(4)]
    summed = [tuple(mixed[n][c] + float(lepe[n][c]) for c in (0, 1)) for n in range(16)]
    return {"k_map": k, "q_mean": q_mean, "k_mean": k_mean, "affinity": affinity, "scores": scores,
            "keys": [[k[n] for n in row] for row in gathered], "values": [[x[n] for n in row] for row in gathered],
            "attention": attention, "mixed": [mixed[n] for n in range(16)], "lepe": lepe, "summed": summed,
            "out": [(a + b, a - b) for a, b in summed]}


def assert_by_hand(tokens: Tokens, made: ExampleNumbers) -> None:
    for name, expected in by_hand(tokens, made.r_idx[0].tolist()).items():
        numbers = np.array(expected, dtype=float)
        got = getattr(made, name).reshape(numbers.shape)
        np.testing.assert_allclose(got, numbers, atol=2e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("topk", TOPKS)
def test_the_first_numbers_are_those_worked_by_hand(topk: int) -> None:
    assert_by_hand(FIRST, run_example(FIRST, topk))


@given(TOKENS, st.sampled_from(TOPKS))
def test_any_numbers_are_those_worked_by_hand(tokens: Tokens, topk: int) -> None:
    made = run_example(tokens, topk)
    assert_by_hand(tokens, made)
    logits = made.affinity[0]
    for window, chosen in enumerate(made.r_idx[0].tolist()):
        assert len(set(chosen)) == topk
        best = sorted(logits[window].tolist(), reverse=True)[:topk]     # windows that tie may come in any order
        assert logits[window, chosen].tolist() == best


@pytest.mark.parametrize("topk", TOPKS)
def test_the_record_is_what_the_module_hands_over(topk: int) -> None:
    made, module = run_example(FIRST, topk), example_module(topk)
    with torch.no_grad(), recording() as recorder:
        out, r_weight, r_idx, attn = module(as_map(FIRST), ret_attn_mask=True)
    capture = recorder.captures[0]
    assert torch.equal(made.out, out.permute(0, 2, 3, 1))
    assert torch.equal(made.r_idx, r_idx)
    assert torch.equal(made.r_weight, r_weight)
    assert torch.equal(made.attention[0, 0], attn[:, 0])
    assert torch.equal(made.affinity, capture.affinity)
    for name in ("q", "k", "v"):
        assert torch.equal(getattr(made, name), getattr(capture, name)[:, 0]), name
    assert torch.equal(made.scores.softmax(-1), made.attention)
    # What goes into the last linear is what comes out of the module.
    assert torch.allclose(module.wo(made.summed), made.out, atol=1e-6)


@pytest.mark.parametrize("topk", TOPKS)
def test_the_record_is_what_a_trace_shows_and_the_plain_forward_gives(topk: int) -> None:
    made, module = run_example(FIRST, topk), example_module(topk)
    layer = trace(module, as_map(FIRST)).layers[""]
    for window in range(4):
        assert torch.allclose(layer.attention(window), made.attention[0, :, window], atol=1e-6)
    assert torch.allclose(layer.lepe[0, 0, 0].flatten(), made.lepe[0, :2, :2].flatten())
    with torch.no_grad():
        assert torch.allclose(module(as_map(FIRST)), made.out.permute(0, 3, 1, 2), atol=1e-6)


def test_the_module_agrees_with_the_independent_loops() -> None:
    weights = {name: value.numpy().astype(float) for name, value in example_module().state_dict().items()}
    out, _, r_idx, _ = reference.bra(as_map(FIRST).numpy().astype(float), weights, n_win=N_WIN, num_heads=1, topk=2,
                                     qk_scale=SCALE)
    made = run_example(FIRST, 2)
    np.testing.assert_allclose(made.out.permute(0, 3, 1, 2), out, atol=1e-6)
    np.testing.assert_array_equal(made.r_idx, r_idx)


def test_the_first_numbers_are_worth_looking_at() -> None:
    made = run_example()
    assert made.r_idx[0, :, 0].tolist() == [1, 3, 2, 2]                 # elsewhere, nearly a tie, itself, and a hub
    assert made.affinity[0, 1].tolist() == [0.25, 1.625, 1.875, 2.0]
    for row in made.affinity[0].tolist():
        assert len(set(row)) == 4
    # A number on the blackboard: three decimals at most until the softmax.
    for name in ("x", "k_map", "q_mean", "k_mean", "affinity", "keys", "values", "scores", "lepe"):
        thousandths = getattr(made, name) * 1000
        assert torch.equal(thousandths, thousandths.round()), name
    assert not torch.allclose(run_example(FIRST, 2).out, made.out)


def test_one_number_of_a_token_moves_the_route_of_another_window() -> None:
    nudged = list(FIRST)
    nudged[8] = (3, 0)                                                  # window 2 had 2 there
    before, after = run_example(), run_example(tuple(nudged))
    assert before.r_idx[0, 1].tolist() == [3]
    assert after.r_idx[0, 1].tolist() == [2]
    assert not torch.allclose(before.out[0, 0, 2], after.out[0, 0, 2])  # a token of window 1


@pytest.mark.parametrize("tokens", [FIRST[:15], (*FIRST, (0, 0)), (*FIRST[:15], (1, 2, 3))])
def test_a_wrong_count_is_refused_in_a_sentence(tokens: Any) -> None:
    with pytest.raises(BRAError, match="16 tokens of 2 numbers"):
        run_example(tokens)


@pytest.mark.parametrize("topk", [0, 5])
def test_a_wrong_topk_is_refused(topk: int) -> None:
    with pytest.raises(BRAError, match="topk"):
        run_example(FIRST, topk)


def test_the_constants_are_the_modules_weights() -> None:
    module = example_module()
    assert module.qkv.qkv.weight[2:4].tolist() == [list(row) for row in W_K]
    assert module.wo.weight.tolist() == [list(row) for row in W_O]
    assert module.lepe.weight[:, 0].tolist() == [[list(row) for row in kernel] for kernel in LEPE]
    assert not any(bias.any() for name, bias in module.named_parameters() if name.endswith("bias"))


def test_every_tensor_of_the_record_is_kept() -> None:
    made = run_example()
    assert all(isinstance(getattr(made, part.name),
                          torch.Tensor) for part in fields(ExampleNumbers) if part.name != "topk")


def lines_run(topk: int) -> set[tuple[str, int]]:
    """File and number of every line of the package that one forward with `ret_attn_mask` runs."""
    package, seen = Path(bra.__file__).parent, set()
    module, x = example_module(topk), as_map(FIRST)

    def watch(frame: Any, event: str, _: Any) -> Any:
        path = Path(frame.f_code.co_filename)
        if package not in path.parents:
            return None
        if event == "line":
            seen.add((path.relative_to(package.parent).as_posix(), frame.f_lineno))
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        with torch.no_grad():
            module(x, ret_attn_mask=True)
    finally:
        sys.settrace(before)
    return seen


def test_every_step_names_a_line_that_the_forward_runs() -> None:
    seen = lines_run(1)
    for step in STEPS:
        assert len(lines_of(step)) == 1
        for line in lines_of(step):
            assert (line.file, line.number) in seen, line
            text = (Path(bra.__file__).parents[1] / line.file).read_text(encoding="utf-8").splitlines()
            assert line.text in text[line.number - 1]
            assert line.text in line.body
            assert line.body.startswith(f"def {line.function}(")


def test_every_mark_in_the_code_is_a_step() -> None:
    marked = [line.partition(MARK)[2] for file in ("attention.py", "functional.py")
              for line in (Path(bra.__file__).parent / file).read_text(encoding="utf-8").splitlines() if MARK in line]
    assert sorted(marked) == sorted(STEPS)
    with pytest.raises(BRAError, match="no step"):
        lines_of("nothing")


def test_a_record_is_not_changed() -> None:
    with pytest.raises(AttributeError):
        run_example().topk = 2     # type: ignore[misc]
    assert replace(run_example(), topk=2).topk == 2
