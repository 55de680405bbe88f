"""A sweep loses nothing: not when it is killed, not when a worker of a real cluster is, and not to bad files."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bra.cli.main import main
from bra.errors import BRAError
from bra.experiments.compare import Setting, SettingRow, compare, layer_inputs, traces_of
from bra.experiments.rules import RULE_SCHEMA, rule_summaries
from bra.experiments.sweep import BATCH, Plan, Progress, sweep
from bra.experiments.sweep_table import SCHEMA, SweepTable, interval, read_table, summaries, table_of, to_parquet
from bra.metrics.rules import RULES, RuleRow, try_rules
from bra.models.catalog import ModelSettings
from bra.opening import open_model
from bra.photo import Photo
from bra.readers import sandbox
from bra.reports.tables import sweep_html

ROOT = Path(__file__).parents[3]
SETTINGS = ModelSettings(side=64, num_heads=2)
PLAN = Plan(SETTINGS, (Setting(2, 1), Setting(4, 3)))


def fill(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(7)
    (folder / "inner").mkdir(parents=True)
    for n in range(count):
        pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("inner" if n % 2 else ".") / f"{n:03}.png")
    return folder


def plain(table: pa.Table) -> list[dict[str, object]]:
    return sorted(table.to_pylist(), key=lambda row: (row["picture"], row["layer"], row["n_win"], row["topk"]))


def test_rows_are_those_of_compare_and_bad_files_are_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", 5)
    (folder / "broken.jpg").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("no picture, and no one says so")
    reported: list[Progress] = []
    table = sweep(PLAN, folder, tmp_path / "out", tell=reported.append)
    assert table.num_rows == 5 * 2 * 2                          # pictures × layers × settings
    model = open_model(SETTINGS)
    given = layer_inputs(model, Photo.from_bytes((folder / "inner" / "003.png").read_bytes()), 64)
    for layer, one in given.items():
        for row in compare(one, PLAN.windows).rows:
            assert {"picture": "inner/003.png", "layer": layer, **row.to_dict()} in table.to_pylist()
    skipped = json.loads((tmp_path / "out" / "skipped.json").read_text())
    assert list(skipped) == ["broken.jpg"]
    assert "not a PNG" in skipped["broken.jpg"]
    assert (reported[-1].done, reported[-1].of, reported[-1].left) == (6, 6, 0)
    assert read_table((tmp_path / "out" / "rows.parquet").read_bytes()).rows.equals(
        pq.read_table(tmp_path / "out" / "rows.parquet"))


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "in", 5 * BATCH), tmp_path / "out"
    code = ("import sys; from pathlib import Path; import test_sweep as t; "
            "t.sweep(t.PLAN, Path(sys.argv[1]), Path(sys.argv[2]))")
    run = subprocess.Popen([sys.executable, "-c", code, str(folder), str(out)],
                           cwd=Path(__file__).parent)
    while len(list((out / "parts").glob("*.json"))) < 2:
        assert run.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = {path.name: path.stat().st_mtime_ns for path in (out / "parts").glob("*.json")}
    assert 2 <= len(before) < 5
    assert not (out / "rows.parquet").exists()
    reported: list[Progress] = []
    table = sweep(PLAN, folder, out, tell=reported.append)
    assert reported[0].done == BATCH * (len(before) + 1)            # nothing finished was done again
    assert {name: (out / "parts" / name).stat().st_mtime_ns for name in before} == before
    assert plain(table) == plain(sweep(PLAN, folder, tmp_path / "other"))


def test_new_pictures_are_added_and_another_plan_is_refused(tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "in", 3), tmp_path / "out"
    first = sweep(PLAN, folder, out)
    Image.new("RGB", (64, 64), "red").save(folder / "new.png")
    (folder / "000.png").unlink()
    second = sweep(PLAN, folder, out)
    assert set(second["picture"].to_pylist()) == set(first["picture"].to_pylist()) - {"000.png"} | {"new.png"}
    with pytest.raises(BRAError, match="other settings"):
        sweep(Plan(SETTINGS, (Setting(2, 2),)), folder, out)
    with pytest.raises(BRAError, match=r"'layers\.9' is not routed: choose of layers\.0, layers\.1"):
        sweep(Plan(SETTINGS, (Setting(2, 2),), ("layers.9",)), folder, tmp_path / "third")
    with pytest.raises(BRAError, match="no picture"):
        sweep(PLAN, tmp_path / "third", tmp_path / "fourth")
    with pytest.raises(BRAError, match="backend 'nonsense' cannot be used"):
        sweep(PLAN, folder, tmp_path / "fifth", backend="nonsense")


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", 3 * BATCH)
    assert plain(sweep(PLAN, folder, tmp_path / "two", jobs=2)) == plain(sweep(PLAN, folder, tmp_path / "one"))


def test_a_dask_cluster_that_loses_a_worker_loses_nothing(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is of the test extra")
    folder = fill(tmp_path / "in", 8 * BATCH)
    with (distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                                   local_directory=str(tmp_path / "dask")) as cluster,
          distributed.Client(cluster) as client):
        pids = client.run(os.getpid)
        assert len(set(pids.values())) == 2
        killed: list[int] = []

        def kill_one(progress: Progress) -> None:
            if not killed and progress.done >= progress.of // 2:
                killed.append(next(iter(pids.values())))
                os.kill(killed[0], signal.SIGKILL)

        table = sweep(PLAN, folder, tmp_path / "out", jobs=-1, backend="dask", cluster=cluster.scheduler_address,
                      tell=kill_one)
        assert killed
        client.wait_for_workers(2, timeout=60)                  # the cluster itself put a new one in its place
        assert killed[0] not in client.run(os.getpid).values()
    assert plain(table) == plain(sweep(PLAN, folder, tmp_path / "alone"))


# the table ------------------------------------------------------------------------------------------------


def row(recall: float, nearest: float) -> SettingRow:
    return SettingRow(4, 2, 16, 0.0, recall, 0.125, nearest, 0.9, 0.5, 1000, 2000)


def table(values: list[tuple[float, float]]) -> pa.Table:
    return table_of([(f"{n}.png", "layer", row(*pair)) for n, pair in enumerate(values)], {"name": "model"})


def test_summaries_by_hand() -> None:
    one, = summaries(table([(0.5, 0.4), (0.7, 0.6), (0.6, 0.5)]))
    assert (one.pictures, one.recall, one.nearest, one.macs) == (3, pytest.approx(0.6), pytest.approx(0.5), 1000)
    assert one.gain == (pytest.approx(0.1), pytest.approx(0.1))     # the same gain on each picture: no doubt about it
    assert summaries(table([])) == ()
    assert 0.5 <= one.interval[0] < 0.6 < one.interval[1] <= 0.7


def test_the_interval_is_the_textbooks_where_the_textbook_holds() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.1, 400)
    low, high = interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == (pytest.approx(values.mean() - half, abs=0.1 * half),
                           pytest.approx(values.mean() + half, abs=0.1 * half))
    assert np.isnan(interval(values[:1])).all()


def test_pictures_are_drawn_anew_for_one_number_of_them_at_a_time() -> None:
    """A table of a few kilobytes may have another number of pictures for each setting."""
    values, drawn = np.random.default_rng(3).random((3, 300)), dict[int, Any]()
    found = [interval(one[:n], drawn) for one, n in zip(values, (300, 299, 300), strict=True)]
    assert found == [interval(one[:n]) for one, n in zip(values, (300, 299, 300), strict=True)]
    assert list(drawn) == [300]
    rows = table_of([(f"{n}.png", "layer", replace(row(0.4 + 0.1 * (n % 5), 0.4), topk=topk)) for topk in
                     (*range(400, 360, -1), *range(300, 360)) for n in range(topk)], {})
    summaries(rows.slice(0, 1000))                  # what is imported on first use takes memory too
    tracemalloc.start()
    made = summaries(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [one.topk for one in made] == [*range(400, 360, -1), *range(300, 360)]
    for one in made[::9]:
        assert one.interval == interval(np.array(one.values))
    assert peak < 40 * 2**20                        # all that were drawn together are 280 MB


def test_a_table_that_nobody_waits_for_any_more_is_not_read_on(monkeypatch: pytest.MonkeyPatch,
                                                                tmp_path: Path) -> None:
    class GoneError(Exception):
        pass

    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    asked: list[float] = []

    def still() -> None:
        asked.append(time.monotonic())
        if len(asked) % 4 == 0:
            raise GoneError

    monkeypatch.setattr(subprocess, "Popen", Popen)
    asleep = tmp_path / "asleep.py"
    asleep.write_text("import time; time.sleep(30)")
    monkeypatch.setattr(sandbox, "ENTRY", asleep)
    before = time.monotonic()
    with pytest.raises(GoneError):
        read_table(to_parquet(table([(0.5, 0.4)])), still)
    assert time.monotonic() - before < 10
    assert [one.returncode for one in started] == [-signal.SIGKILL]
    with pytest.raises(GoneError):
        summaries(table_of([(f"{n}.png", "layer", replace(row(0.5, 0.4), topk=n)) for n in range(1, 9)], {}),
                  still)
    assert len(asked) == 8


def written(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    return sink.getvalue()


def test_a_table_comes_back_and_strangers_are_refused() -> None:
    good = table([(0.5, 0.4)])
    back = read_table(to_parquet(good))
    assert back.rows.to_pylist() == good.to_pylist()
    assert back.about == {"name": "model"}
    at = SCHEMA.names.index("recall")
    for data, why in (
            (b"", "damaged"), (b"PAR1" + bytes(100) + b"PAR1", "damaged"), (to_parquet(good)[:-30], "damaged"),
            (written(pa.table({"a": [1]})), "not the table of a sweep"),
            (written(good.set_column(at, "recall", pa.array([1.5]))), "outside of 0 to 1"),
            (written(good.set_column(at, "recall", pa.array([float("nan")]))), "outside of 0 to 1"),
            (written(good.set_column(at, "recall", pa.array([None], pa.float64()))), "gaps"),
            (written(good.set_column(SCHEMA.names.index("n_win"), "n_win", pa.array([0]))), "outside of 1 to")):
        with pytest.raises(BRAError, match=why):
            read_table(data)


def test_the_report_escapes_names_and_says_who_wins() -> None:
    rows = table_of([(f"{n}", "<b>layer", row(0.5 + 0.01 * n, 0.4)) for n in range(4)], {})
    page = sweep_html(SweepTable(rows, {"settings": {"model": "<i>x"}}), {"<script>.png": "<bad>"})
    assert "<b>layer" not in page
    assert "<i>x" not in page
    assert "<script>.png" not in page
    assert "(more)" in page
    assert "51.5 %" in page


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "in", 2)
    picture = str(folder / "000.png")
    usual = ["--side", "64", "--n-win", "2,4", "--topk", "1,5"]
    assert main(["compare", picture, *usual]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1 + 3 + 2                   # topk 5 of 4 windows is left out
    assert main(["compare", picture, *usual, "-o", str(tmp_path / "c.csv")]) == 0
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 4
    assert main(["compare", picture, *usual, "-o", str(tmp_path / "c.html")]) == 0
    assert 'class="figure"' in (tmp_path / "c.html").read_text()
    assert main(["compare", picture, *usual, "--cost", "seconds"]) == 2
    assert "--time 5" in capsys.readouterr().err
    assert main(["probe", picture, "--side", "64", "--probes", "flip"]) == 0
    assert "layers.1" in capsys.readouterr().out
    assert main(["sweep", str(folder), *usual, "-o", str(tmp_path / "out")]) == 0
    assert "12 rows" in capsys.readouterr().out
    assert "Routing over 2 pictures" in (tmp_path / "out" / "report.html").read_text()


def test_a_table_of_an_earlier_version_opens_without_what_it_lacks() -> None:
    made = table_of([("a.png", "layer", replace(row(0.5, 0.4), shared_choices=0.9, query_dependence=0.1))], {})
    now, before = (read_table(to_parquet(one)).rows for one in
                   (made, made.drop_columns(["shared_choices", "query_dependence"])))
    assert summaries(now)[0].query_dependence == pytest.approx(0.1)
    assert summaries(now)[0].collapsed
    assert summaries(before)[0].query_dependence is None
    assert not summaries(before)[0].collapsed


# rules of routing -----------------------------------------------------------------------------------------


def test_rules_are_those_of_each_picture_and_its_labels(tmp_path: Path) -> None:
    folder, masks = fill(tmp_path / "in", 3), tmp_path / "masks"
    (masks / "inner").mkdir(parents=True)
    classes = np.zeros((48, 64), np.uint8)
    classes[:, 32:] = 1
    Image.fromarray(classes).save(masks / "inner" / "001.png")
    (masks / "002.txt").write_text("0 0.25 0.5 nonsense\n")
    table = sweep(replace(PLAN, rules=True, labels="masks"), folder, tmp_path / "out", labels=masks)
    assert set(table["picture"].to_pylist()) == {"000.png", "inner/001.png"}
    assert "no box" in json.loads((tmp_path / "out" / "skipped.json").read_text())["002.png"]

    photo = Photo.from_bytes((folder / "inner" / "001.png").read_bytes())
    given = layer_inputs(open_model(SETTINGS), photo, 64)
    for layer, one in given.items():
        for setting in PLAN.windows:
            rows = [row for row in table.to_pylist() if (row["picture"], row["layer"], row["n_win"]) == (
                "inner/001.png", layer, setting.n_win)]
            lt = traces_of(one, [setting])[0]
            size = lt.grid.image
            assert size is not None
            wide = (np.arange(size[1]) >= size[1] / 2).astype(np.int64)
            expected = try_rules(lt, np.tile(wide, (size[0], 1)))
            assert [row["rule"] for row in rows] == list(RULES)
            for row, wanted in zip(rows, expected, strict=True):
                assert {name: row[name] for name in wanted.to_dict()} == pytest.approx(wanted.to_dict())
    assert all(row["overlap"] is None for row in table.to_pylist() if row["picture"] == "000.png")


def rule(name: str, recall: float, overlap: float | None = None) -> RuleRow:
    return RuleRow(name, 4, 2, recall, 2 * recall, 100, 1000, overlap)


def test_medians_of_rules_by_hand() -> None:
    made = [(f"{n}.png", "layer", rule("bra", recall, overlap)) for n, (recall, overlap) in
            enumerate([(0.1, None), (0.5, 0.4), (0.2, 0.8)])] + [("0.png", "layer", rule("max", 0.3))]
    (found,) = rule_summaries(table_of(made, {}, RULE_SCHEMA))
    assert (found.layer, found.pictures) == ("layer", 3)
    assert [row.to_dict() for row in found.rows] == [
        pytest.approx(rule("bra", 0.2, 0.6).to_dict()), pytest.approx(rule("max", 0.3).to_dict())]


def test_the_command_of_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "in", 2)
    assert main(["sweep", str(folder), "--side", "64", "--rules", "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "40 rows" in printed                                 # pictures × layers × rules, under their own windows
    assert "n_win 7, topk 4: medians over 2 pictures" in printed
    assert all(one.name in printed for one in RULES.values())
    assert "without training" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('class="figure"') == 2
    assert all(escape(one.training) in page for one in RULES.values())
    assert main(["sweep", str(folder), "--labels", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert "add --rules" in capsys.readouterr().err
    assert main(["sweep", str(folder), "--rules", "--labels", str(folder / "none"), "-o", str(tmp_path / "out")]) == 2
    assert "is no folder" in capsys.readouterr().err
    with pytest.raises(BRAError, match="not the table of a sweep"):
        read_table((tmp_path / "out" / "rows.parquet").read_bytes())
