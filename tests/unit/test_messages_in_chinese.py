"""What `bra` says in Chinese: every kind of error that a visitor can meet, and the sentences beside the pictures."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chinese import CHINESE, ENGLISH, in_chinese
from PIL import Image
from torch import nn
from torch_files import saved

from bra import BiLevelRoutingAttention, BRAError, BRASpec, errors
from bra.experiments.compare import SettingRow, compare, layer_input, settings_of
from bra.experiments.probes import PROBES, probe
from bra.experiments.recommend import reason
from bra.experiments.sweep_table import Summary, read_table, table_of, to_parquet
from bra.grid import WindowGrid
from bra.messages import Message, comma_joined, from_plain, message, message_of, semicolon_joined, to_plain
from bra.metrics.agreement import windows_at
from bra.metrics.overlap import label_map
from bra.metrics.rules import RULES, UNTRAINED_NOTE, RuleRow, verdict
from bra.models.base import Change, OpenModel, with_windows
from bra.models.biformer import BiFormer, from_state
from bra.models.card import cards, shipped
from bra.models.catalog import CATALOG, ModelSettings
from bra.models.patches import PatchSpec
from bra.opening import look, model_and_variant, open_file, open_model
from bra.photo import Photo, PhotoLimits
from bra.profiling import timing
from bra.profiling.advice import choices, positions, setting_changes
from bra.profiling.format import PARTS, REST, summary
from bra.profiling.model_cost import cost
from bra.profiling.variants import without_bra
from bra.readers.checkpoint import CheckpointLimits, read_checkpoint
from bra.reports.tables import compare_html, model_line, over_nearest, sweep_html
from bra.reports.view import show
from bra.tracing import trace
from bra.viewer.pack import Caption
from dashboard import i18n as app

ROOT = Path(__file__).parents[2]
KINDS = {name for name in vars(errors) if name.endswith("Error")}
SENTENCES = ("message", "message_of", "from_plain", "_refusal", "no_routing", "no_rerun", "why_not")
"""What an error may be made of: functions that give a sentence with its template."""
COMMAND_LINE = {
    "cli", "cli.compare", "cli.cost", "cli.file_options", "cli.main", "cli.quality", "cli.yolo",
    "experiments.sweep",
    "training.classifier", "training.distillation", "training.distillation_data", "training.flowers",
    "training.labelled", "training.dataset", "training.photos", "training.quality", "training.checkpointing",
    "yolo.entrypoint", "yolo.training", "yolo.training.demos", "yolo.training.release", "yolo.training.trainer",
    "overlap", "scorecard"}
"""No page reaches these modules, and the command line speaks English."""


def spec(**changes: Any) -> Callable[[], object]:
    return lambda: BRASpec(**{"dim": 64, **changes})


def picture(size: tuple[int, int] = (64, 48), fmt: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, fmt, **options)
    return buffer.getvalue()


def archive(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as out:
        for name, data in entries.items():
            out.writestr(f"archive/{name.replace('__', '/').replace('_pkl', '.pkl')}", data)
    return buffer.getvalue()


def untrained() -> OpenModel:
    return open_model(ModelSettings("untrained"))


PHOTO = Photo.from_array(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))
GRID = WindowGrid(6, 8, 3)
SMALL = PhotoLimits(max_bytes=100_000, max_pixels=10_000)
ROW = SettingRow(4, 2, 16, 0.0, 0.5, 0.1, 0.2, 0.6, 0.3, 10, 20)


def swept(**changes: Any) -> bytes:
    return to_parquet(table_of([("a.png", "layer", replace(ROW, **changes))], {}))


ERRORS: dict[str, Callable[[], object]] = {
    # settings
    "whole number": spec(topk=1.5), "boolean": spec(auto_pad=1), "scale": spec(qk_scale=-1.0),
    "mode": spec(kv_downsample_mode="median"), "dim": spec(dim=0), "qk_dim": spec(qk_dim=0), "n_win": spec(n_win=256),
    "topk": spec(topk=99), "ratio": spec(kv_downsample_ratio=0), "even kernel": spec(side_dwconv=4),
    "heads": spec(num_heads=7), "no projections": spec(param_attention="none", qk_dim=32),
    "param_routing": spec(param_routing=True),
    # grids
    "empty grid": lambda: WindowGrid(0, 3, 2), "stride": lambda: WindowGrid(2, 3, 2, (0.0, 1.0)),
    "token outside": lambda: GRID.window_of_token(99, 0), "token of window": lambda: GRID.token_of_window(0, 99),
    "window": lambda: GRID.check_window(9), "pixel": lambda: GRID.window_of_pixel(99, 0),
    "no picture": lambda: windows_at(GRID, np.zeros((1, 2))),
    "no padding": lambda: BiLevelRoutingAttention(16, 3, 2, topk=1, auto_pad=False)(torch.zeros(1, 16, 4, 4)),
    "pooling": lambda: BiLevelRoutingAttention(16, 4, 2, topk=1, kv_downsample_mode="maxpool")(
        torch.zeros(1, 16, 8, 8)),
    # pictures
    "array": lambda: Photo.from_array(np.zeros((4, 4), np.uint8)),
    "too many bytes": lambda: Photo.from_bytes(bytes(200_000), SMALL), "empty picture": lambda: Photo.from_bytes(b""),
    "no picture at all": lambda: Photo.from_bytes(b"hello"), "PDF": lambda: Photo.from_bytes(b"%PDF-1.4"),
    "HEIC": lambda: Photo.from_bytes(b"0000ftypheic"), "ZIP": lambda: Photo.from_bytes(b"PK\3\4"),
    "web page": lambda: Photo.from_bytes(b"<html>"), "SVG": lambda: Photo.from_bytes(b"<svg>"),
    "damaged": lambda: Photo.from_bytes(picture()[:60]),
    "too many pixels": lambda: Photo.from_bytes(picture((200, 200)), SMALL),
    "too small": lambda: Photo.from_bytes(picture((4, 64))), "strip": lambda: Photo.from_bytes(picture((2000, 20))),
    "scans": lambda: Photo.from_bytes(b"\xff\xd8\xff" + b"\xff\xda\0\x0c\x01" * 101),
    # checkpoints; those from "no pickle" on are made in the process that reads them
    "large checkpoint": lambda: read_checkpoint(bytes(100), CheckpointLimits(max_bytes=10)),
    "empty checkpoint": lambda: read_checkpoint(b""), "bare pickle": lambda: read_checkpoint(b"\x80\x02."),
    "old torch": lambda: read_checkpoint(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
    "no checkpoint": lambda: read_checkpoint(b"hello"),
    "no time": lambda: read_checkpoint(saved({"a": torch.ones(2)}), CheckpointLimits(seconds=0.001)),
    "no memory": lambda: read_checkpoint(saved({"a": torch.ones(2)}), CheckpointLimits(memory=2**20)),
    "no pickle": lambda: read_checkpoint(archive(version=b"3")),
    "broken pickle": lambda: read_checkpoint(archive(data_pkl=b"\x80\x02K")),
    "instruction": lambda: read_checkpoint(archive(data_pkl=b"\x80\x02i.")),
    "foreign entry": lambda: read_checkpoint(archive(data_pkl=b"\x80\x02N.", evil=b"1")),
    "byte order": lambda: read_checkpoint(archive(data_pkl=b"\x80\x02N.", byteorder=b"big")),
    "no model": lambda: read_checkpoint(saved({"epoch": 3})),
    "cut off": lambda: read_checkpoint(saved({"a": torch.ones(9)})[:200]),
    "tensor's name": lambda: read_checkpoint(saved({"名": torch.ones(2)})),
    "type": lambda: read_checkpoint(saved({"a": torch.ones(2, dtype=torch.complex64)})),
    "strides": lambda: read_checkpoint(saved({"a": torch.ones(1).expand(5)})),
    "TorchScript": lambda: read_checkpoint(archive(code__model=b"1", data_pkl=b"\x80\x02N.")),
    # models
    "settings not known": lambda: from_state(BiFormer((1, 1, 1, 1), (32,) * 4, topks=(1, 1, 1, 1)).state_dict()),
    "no BiFormer": lambda: from_state({"a.weight": torch.ones(2)}),
    "half a BiFormer": lambda: from_state({"stages.0.0.norm1.weight": torch.ones(64)}),
    "safetensors": lambda: open_file(b"hello", "a.safetensors"), "no file": lambda: open_model(ModelSettings("own")),
    "no such name": lambda: model_and_variant("nothing"), "no such model": lambda: ModelSettings("nothing").entry,
    "no such variant": lambda: ModelSettings("yolo", variant="x").chosen_variant,
    "side": lambda: ModelSettings(side=1), "no weights": lambda: shipped("nothing"),
    "patch stride": lambda: PatchSpec(BRASpec(64), stride=1), "depth": lambda: PatchSpec(BRASpec(64), depth=9),
    "odd": lambda: PatchSpec(BRASpec(9, num_heads=3)), "narrow": lambda: PatchSpec(BRASpec(64, qk_dim=32)),
    "no such layer": lambda: with_windows(nn.Sequential(BiLevelRoutingAttention(16, 2, 2)), Change("x", 2, 1)),
    "layer's name": lambda: untrained().specs["nowhere"], "no model to count": lambda: cost(None),
    # traces, comparisons, probes
    "no tensor": lambda: BiLevelRoutingAttention(16, 2, 2, topk=1)(np.zeros((1, 16, 8, 8))),
    "channels last": lambda: BiLevelRoutingAttention(16, 2, 2, topk=1)(torch.zeros(1, 8, 8, 16)),
    "no batch": lambda: BiLevelRoutingAttention(16, 2, 2, topk=1)(torch.zeros(16, 8, 8)),
    "other channels": lambda: BiLevelRoutingAttention(16, 2, 2, topk=1)(torch.zeros(1, 12, 8, 8)),
    "no map": lambda: BiLevelRoutingAttention(16, 2, 2, topk=1)(torch.zeros(3)),
    "image": lambda: trace(BiLevelRoutingAttention(16, 2, 2, topk=1), torch.zeros(1, 16, 8, 8)).layers[""].attention(
        0, image=1),
    "no BRA": lambda: trace(nn.Identity(), torch.zeros(1, 3, 8, 8)),
    "training": lambda: trace(BiLevelRoutingAttention(16, 2, 2, topk=1, kv_downsample_mode="fracpool").train(),
                              torch.zeros(1, 16, 8, 8)),
    "layer to compare": lambda: layer_input(untrained(), PHOTO, 64, "nowhere"),
    "none to compare": lambda: compare(layer_input(untrained(), PHOTO, 64), ()),
    "probe": lambda: probe(untrained(), PHOTO, 64, ("upside down",)),
    "labels": lambda: label_map(GRID, np.zeros((3, 3))), "boxes": lambda: label_map(GRID, [[0.5, 0, 0, 1, 1]]),
    # costs
    "image size": lambda: cost(nn.Conv2d(3, 3, 3), 0), "no run": lambda: cost(nn.Conv2d(3, 3, 3), 8, channels=4),
    "rounds": lambda: timing.timed(nn.Identity(), [], (1, 3, 8, 8), torch.zeros(1), -1),
    # views
    "no place": lambda: show("similarity", PHOTO, at=(101, 0)), "no array": lambda: show("similarity", 3),
    "unknown model": lambda: show(nn.Identity(), PHOTO),
    "another shape": lambda: show(trace(BiLevelRoutingAttention(16, 2, 2, topk=1), torch.zeros(1, 16, 8, 8)), PHOTO),
    # sweeps
    "no table": lambda: read_table(b"hello"), "recall": lambda: read_table(swept(recall=2.0)),
    "count": lambda: read_table(swept(topk=0)), "gap": lambda: read_table(swept(recall=None)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_told_in_chinese(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BRAError) as raised:
        ERRORS[name]()
    monkeypatch.setattr(app, "language", lambda: "zh")
    assert in_chinese(raised.value.args[0]) == app.translate(raised.value) != str(raised.value)


def test_every_kind_of_error_was_among_them() -> None:
    met = set()
    for make in ERRORS.values():
        try:
            make()
        except BRAError as error:
            met.add(type(error).__name__)
    assert met == KINDS - {"YoloError"}         # those are met in tests/unit/yolo, where Ultralytics is


# in the code ----------------------------------------------------------------------------------------------

BRA = {".".join(path.relative_to(ROOT / "bra").with_suffix("").parts).removesuffix(".__init__"): path
       for path in sorted((ROOT / "bra").rglob("*.py")) if path != ROOT / "bra" / "__init__.py"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix("bra.") for name in found if name.startswith("bra.")} & {*BRA}


def test_no_page_reaches_what_only_the_command_line_says() -> None:
    waiting = [name for path in (ROOT / "dashboard").rglob("*.py") for name in imported(path)]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += imported(BRA[name])
    assert {"opening", "photo", "yolo.validate", "yolo.adapter"} <= reached
    assert not reached & COMMAND_LINE


@pytest.mark.parametrize("name", sorted({*BRA} - COMMAND_LINE))
def test_every_error_is_made_of_a_sentence_that_remembers(name: str) -> None:
    for node in ast.walk(tree_of(BRA[name])):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
            made = node.args[0]
            assert isinstance(made, ast.Call), node.lineno
            assert ast.unparse(made.func) in SENTENCES, node.lineno


# beside the pictures --------------------------------------------------------------------------------------


def sentences() -> dict[str, Sequence[object]]:
    model = nn.Sequential(nn.Conv2d(3, 64, 8, 8), BiLevelRoutingAttention(64, 5, topk=3),
                          BiLevelRoutingAttention(64, 4, topk=3))
    counted, plain = cost(model, 128), cost(without_bra(model), 128)
    spec = BRASpec(64, n_win=5, topk=3)
    huge = choices(BRASpec(64, topk=49), 400, 400)
    assert {name for one in huge for name in one.explodes} == {"explicit"}
    rows = compare(layer_input(untrained(), PHOTO, 64), settings_of((2, 3), (1, 4))).rows
    found = Summary("a", 4, 2, 3, (0.5,), 0.5, (0.4, 0.6), 0.4, (0.1, 0.2), 0.1, 0.6, 1.0, 1.0)
    tall = cards().values()
    return {
        "catalogue": [text for entry in CATALOG.values() for text in (entry.label, entry.about, entry.provenance)]
        + [entry.untrained for entry in CATALOG.values() if entry.card],
        "own file": [message("weights from {name}", name="a.pt")],
        "cost": [*summary(counted, plain), *summary(plain, plain), counted.total.name],
        "one row": summary(cost(model[:2], 128), plain),
        "parts": [*PARTS.values(), REST],
        "places": [place.why for place in positions(counted, n_win=2, topk=1)]
        + [place.why for place in positions(counted, n_win=2, topk=5)],
        "choices": [one.why for one in [*choices(spec, 16, 16), *huge]],
        "levers": [one.why for one in setting_changes(spec, 9, 9)],
        "compared": [reason(rows), reason(rows[:1])],
        "swept": [over_nearest(found), over_nearest(replace(found, gain=(math.nan, math.nan))),
                  over_nearest(replace(found, gain=(-1.0, 1.0))), over_nearest(replace(found, gain=(-1.0, -0.5))),
                  model_line({}), model_line({"settings": {"model": "flowers", "untrained": True}})],
        "cards": [text for card in tall for text in (*card.verdict, *card.comparison)],
        "rules": [UNTRAINED_NOTE, *(text for one in RULES.values() for text in (one.name, one.about, one.training)),
                  *(verdict([RuleRow(name, 7, 4, kept, 0.1, 1, 1) for name, kept in many.items()]) for many in (
                      {"bra": 0.5, "nearest": 0.2, "chance": 0.1}, {"bra": 0.1, "nearest": 0.2, "chance": 0.1},
                      {"bra": 0.5, "max": 0.6, "nearest": 0.2, "chance": 0.1}))],
        "probes": [text for one in PROBES.values() for text in (one.name, one.about)],
    }


@pytest.mark.parametrize("kind", [
    "catalogue", "own file", "cost", "one row", "parts", "places", "choices", "levers", "compared", "swept", "cards",
    "rules", "probes"])
def test_a_sentence_is_told_in_chinese(kind: str) -> None:
    found = sentences()[kind]
    assert found
    for sentence in found:
        translate = in_chinese(sentence)
        assert re.search("[\u4e00-\u9fff]", translate) or not re.search("[a-z]", translate), translate


def test_what_was_done_to_a_picture_is_told_in_chinese() -> None:
    deep = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    flat = Image.fromarray(np.full((64, 64), np.nan, np.float32))
    flat.putpixel((3, 3), 2.0)
    moving = [Image.new("RGBA", (64, 64), (90 * n, 0, 0, 9 + 90 * n)) for n in range(3)]
    notes: list[str] = []
    for image, fmt, more in ((deep, "PNG", {}), (flat, "TIFF", {}), (moving[0], "PNG", {}),
                             (moving[0], "GIF", {"save_all": True, "append_images": moving[1:]}),
                             (moving[0], "WEBP", {"save_all": True, "append_images": moving[1:]}),
                             (Image.new("RGB", (3000, 100)), "PNG", {})):
        buffer = io.BytesIO()
        image.save(buffer, fmt, **more)
        notes += Photo.from_bytes(buffer.getvalue()).notes
    assert len({note.template for note in notes if isinstance(note, Message)}) >= 7
    for note in notes:
        in_chinese(note)
    assert in_chinese(semicolon_joined(notes[:2])).count("；") == 1


def test_a_caption_is_in_the_language_of_its_words() -> None:
    lt = look(ModelSettings(n_win=3, topk=2), PHOTO).trace.layers["layers.0"]
    entry = CATALOG["similarity"]
    assert in_chinese(Caption(entry.label, "layers.0", entry.provenance, "a").line(lt)) == \
        "内容相似度 · layers.0 · n_win 3 · topk 2 · 内容相似度，未经学习"


# across processes -----------------------------------------------------------------------------------------


def test_a_sentence_crosses_as_plain_values() -> None:
    made = message("{first}, {rest}", first=message("{n:,} of {what!r}", n=1200, what="名\ud800"),
                   rest=message("a {brace}"))
    back = from_plain(json.loads(json.dumps(to_plain(made))))
    assert isinstance(back, Message)
    assert back.values["first"].values["n"] == 1200
    assert back.values["rest"] == "a {brace}"
    back.encode()                   # half a character cannot be shown


@pytest.mark.parametrize("plain", [
    None, 3, [], {}, {"template": 3, "values": {}}, {"template": "{a.__class__}", "values": {"a": 1}},
    {"template": "{a[0]}", "values": {"a": "b"}}, {"template": "{a:99999999}", "values": {"a": 1}},
    {"template": "{}", "values": {"a": 1}}, {"template": "{b}", "values": {"a": 1}},
    {"template": "{a:,}", "values": {"a": "b"}}, {"template": "{a:g}", "values": {"a": 10**400}},
    {"template": "{a", "values": {"a": 1}}, {"template": "{a}", "values": {"a": None}},
    {"template": "{a:{a}}", "values": {"a": 9}}, {"template": "{a!r:>9999999}", "values": {"a": 1}}])
def test_what_is_no_sentence_is_not_believed(plain: Any) -> None:
    with pytest.raises(ValueError, match="sentence"):
        from_plain(plain)


def test_a_sentence_may_not_be_nested_without_end() -> None:
    plain: Any = "a"
    for _ in range(9):
        plain = {"template": "{a}", "values": {"a": plain}}
    with pytest.raises(ValueError, match="sentence"):
        from_plain(plain)


def test_sentences_in_a_row() -> None:
    assert comma_joined([message("values"), "b", "c"]) == "values, b, c"
    assert semicolon_joined(["a", "b"]) == "a; b"
    assert semicolon_joined(["a"]) == "a"
    error = BRAError(message("values"))
    assert isinstance(message_of(error), Message)
    assert message_of(ValueError("x", 3)) == "('x', 3)"


# pages of their own ---------------------------------------------------------------------------------------


class Words(HTMLParser):
    """The texts of a page, without its style and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside not in ("style", "script") and data.strip():
            self.found.append(data.strip())


def texts_of(page: str) -> list[str]:
    words = Words()
    words.feed(page)
    return words.found


def test_an_exported_comparison_is_chinese() -> None:
    rows = compare(layer_input(untrained(), PHOTO, 64), settings_of((2, 3), (1, 4))).rows
    page = compare_html(rows, "T", "A", language=CHINESE)
    assert '<html lang="zh">' in page
    texts = texts_of(page)
    assert {"召回率", "由 RouteScope 生成。"} <= {*texts}
    assert [text for text in texts if ENGLISH.search(text) or " %" in text] == []
    assert texts_of(compare_html(rows, "T", "A"))[-1] == "Made by RouteScope."


def test_an_exported_sweep_is_chinese() -> None:
    made = [(f"{n}.png", "stage", replace(ROW, recall=0.5 + n / 10)) for n in range(3)]
    page = sweep_html(read_table(to_parquet(table_of(made, {}))), {"b.png": "?"}, CHINESE)
    texts = texts_of(page)
    assert {"3 张图片上的路由", "跳过的文件：1", "95% 区间"} <= {*texts}
    assert [text for text in texts if ENGLISH.search(text) or " %" in text] == []
