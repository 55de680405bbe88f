"""The table in each of its forms says the same numbers, and the command line prints it."""

from __future__ import annotations

import csv
import io
import json

import pytest
from torch import nn

import bra
from bra import BiLevelRoutingAttention, Cost
from bra.cli.main import main
from bra.profiling.format import cost_csv, cost_json, cost_markdown, cost_text


@pytest.fixture(scope="module")
def cost() -> Cost:
    attention = BiLevelRoutingAttention(16, n_win=3, num_heads=2, qk_dim=8)
    return bra.cost(nn.Sequential(nn.Conv2d(3, 16, 3), attention, nn.GELU()), (12, 13), rounds=1)


def lines(cost: Cost) -> list[tuple[str, int, int, int]]:
    return [(line.name, line.params, line.macs, line.peak_bytes) for row in (*cost.rows, cost.total)
            for line in (row, *row.parts)]


def test_csv_reads_back(cost: Cost) -> None:
    read = list(csv.DictReader(io.StringIO(cost_csv(cost))))
    figures = [line for line in read if line["line"] != "not counted"]
    assert [(line["name"], int(line["params"]), int(line["macs"]), int(line["peak_bytes"])) for line in figures] == \
        lines(cost)
    assert [line["line"] for line in figures] == ["row", "row", *["part"] * 6, "row", "row", "total"]
    assert {line["basis"] for line in figures if line["line"] == "part"} == {"formula"}
    summed = [sum(int(line[column]) for line in figures if line["line"] == "row") for column in ("params", "macs")]
    assert summed == [cost.total.params, cost.total.macs]
    attention = figures[1]
    assert (attention["given"], attention["tokens"], attention["padded"]) == ("1x16x10x11", "10x11", "12x12")
    assert float(attention["padding_share"]) == 1 - 110 / 144
    assert float(attention["ms"]) == cost.rows[1].ms
    left_out = [(line["name"], int(line["calls"]), int(line["elements"])) for line in read if line not in figures]
    assert left_out == [(one.name, one.calls, one.elements) for one in cost.not_counted]
    assert left_out


def test_json_reads_back(cost: Cost) -> None:
    read = json.loads(cost_json(cost))
    assert [(line["name"], line["params"], line["macs"], line["peak_bytes"]) for row in [*read["rows"], read["total"]]
            for line in (row, *row["parts"])] == lines(cost)
    assert [one["name"] for one in read["not_counted"]] == [one.name for one in cost.not_counted]


def test_markdown_reads_back(cost: Cost) -> None:
    head, rule, *body, last = [[cell.strip() for cell in line.strip("|").split("|")]
                               for line in cost_markdown(cost).splitlines()]
    assert {len(line) for line in (head, rule, *body, last)} == {len(head)}
    at = [head.index(column) for column in ("row", "params", "M MACs", "peak MB")]
    assert [tuple(line[n] for n in at) for line in body] == [
        (name, f"{params:,}", f"{macs / 1e6:,.3f}", f"{peak / 1e6:,.2f}") for name, params, macs, peak in lines(cost)]
    assert last[0] == "not counted"
    assert "gelu 1×" in last[-1]


def test_text_ends_with_what_was_not_counted(cost: Cost) -> None:
    text = cost_text(cost)
    head, *_, total, _ = text.splitlines()
    assert text.splitlines()[-1].startswith("not counted: ")
    assert "softmax inside attention 1×" in text
    assert "10×11 in 3×3 windows, padded to 12×12, 23.6%" in text
    assert f"{cost.total.macs / 1e6:,.3f}" in total
    assert head.split()[:4] == ["row", "params", "M", "MACs"]
    assert text.count("formula") == 6


def test_markdown_and_text_say_the_same_in_the_same_units(cost: Cost) -> None:
    text = [line for line in cost_text(cost).splitlines()[:-1] if set(line) != {"-"}]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in cost_markdown(cost).splitlines()]
    assert ["".join("".join(line).split()) for line in table if line[0] not in (":--", "not counted")] == \
        ["".join(line.split()) for line in text]


@pytest.mark.parametrize(("width", "left_out"), [
    (400, []), (116, ["from", "in", "out"]), (60, ["from", "in", "out", "tokens and padding", "time"])])
def test_the_table_fits_a_terminal(cost: Cost, width: int, left_out: list[str]) -> None:
    text = cost_text(cost, width)
    assert max(map(len, text.splitlines())) <= width
    head = text.splitlines()[0]
    assert [name for name in ("from", "in", "out", "tokens and padding", "time") if f" {name}" not in head] == left_out
    assert ("left out to fit" in text) == bool(left_out)
    assert f"{cost.total.macs / 1e6:,.3f}" in text
    assert ("1 BRA" in text) == (width < 400)


def test_the_command_prints_each_form(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*form: str) -> str:
        assert main(["cost", "similarity", "--imgsz", "96x128", *form]) == 0
        return capsys.readouterr().out

    whole = json.loads(printed("--json"))
    assert whole["input"] == [1, 3, 96, 128]
    macs = whole["total"]["macs"]
    assert [line["macs"] for line in csv.DictReader(io.StringIO(printed("--csv"))) if line["line"] == "total"] == \
        [str(macs)]
    assert f"{macs / 1e6:,.3f}" in printed("--md")
    assert f"{macs / 1e6:,.3f}" in printed()


def test_the_command_times_and_tells_of_its_progress(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "biformer_tiny", "--imgsz", "64", "--time", "1", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["total"]["ms"] > 0
    assert "forward 3 of 3" in printed.err


def test_the_command_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "resnet"]) == 2
    assert "resnet is neither a file nor a model" in capsys.readouterr().err
    assert main(["cost", "similarity", "--imgsz", "0"]) == 2
    assert "1 to 16384" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["cost", "similarity", "--imgsz", "big"])
    assert "416x736" in capsys.readouterr().err
