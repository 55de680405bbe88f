"""A recording gives back what was traced, runs nothing when it is read, and stays small."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from wild_models import KINDS, FlooredConv, Kind, Pasted, Stem, picture

import bra
import bra.recorder
from bra import BiLevelRoutingAttention, bra_record
from bra.errors import BRAError, TraceError
from bra.experiments.compare import LayerInput, Setting, compare, recorded_layers, settings_of
from bra.hooks import record
from bra.models.base import Change, Prepared
from bra.models.recorded import open_recording
from bra.opening import open_file
from bra.photo import Photo
from bra.readers.recording import read_recording
from bra.reports.files import recorded_csv

BY_NAME = {kind.name: kind for kind in KINDS}
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.replace(" ", "-"))


def recorded(model: nn.Module, x: Any, tmp_path: Path) -> bytes:
    return Path(record(model, x, tmp_path / "run.bra")).read_bytes()


@EVERY
def test_a_recording_gives_the_trace_back(kind: Kind, tmp_path: Path) -> None:
    model = kind.make().eval()
    x = picture(kind, model)
    traced = bra.trace(model, x)
    loaded = bra.load(Path(record(model, x, tmp_path / "run.bra")))
    assert list(loaded.layers) == list(traced.layers)
    for name, one in loaded.layers.items():
        other = traced.layers[name]
        assert torch.equal(one.r_idx, other.r_idx)
        torch.testing.assert_close(one.r_weight, other.r_weight)
        torch.testing.assert_close(one.affinity, other.affinity)
        assert one.grid == other.grid
        assert one.spec == other.spec
        assert one.proof is not None
        assert one.attention_known == kind.known
        if kind.known:
            assert one.proof.bits == 16
            assert one.proof.stored is not None
            assert one.proof.stored < 1e-2
            torch.testing.assert_close(one.attention(2), other.attention(2), atol=1e-4, rtol=1e-2)
            torch.testing.assert_close(one.v, other.v, atol=1e-3, rtol=1e-2)


OWN = [{}, {"n_win": 5, "qk_dim": 8}, {"mask_padding": True}, {"soft_routing": True}, {"param_attention": "none"},
       {"param_attention": "qkv"}, {"side_dwconv": 0}, {"kv_downsample_mode": "maxpool", "kv_downsample_ratio": 2},
       {"kv_downsample_mode": "ada_avgpool", "kv_per_win": 2}, {"diff_routing": True, "param_routing": True}]


@pytest.mark.parametrize("options", OWN, ids=lambda options: "-".join(map(str, options)) or "usual")
def test_layers_of_this_package_are_recorded_too(options: dict[str, Any], tmp_path: Path) -> None:
    layer = BiLevelRoutingAttention(16, **{"n_win": 3, "num_heads": 2, **options}).eval()
    x = torch.randn(1, 16, 13, 10)
    one, other = read_recording(recorded(layer, x, tmp_path)).trace.layers[""], bra.trace(layer, x).layers[""]
    assert torch.equal(one.r_idx, other.r_idx)
    assert one.proof is not None
    assert one.proof.difference is not None
    assert one.proof.difference < 1e-5
    torch.testing.assert_close(one.attention(4), other.attention(4), atol=1e-3, rtol=1e-2)
    assert one.spec.mask_padding == layer.spec.mask_padding
    layer_without = nn.Sequential(layer)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in layer_without.modules())


def test_reading_runs_nothing_of_the_file(tmp_path: Path) -> None:
    data = recorded(Stem(Pasted(32, 5, 4)).eval(), torch.rand(1, 3, 160, 160), tmp_path)
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    kinds = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    assert kinds <= {"F32", "F16", "I16", "I32", "I8", "U8"}      # numbers, and one text in JSON
    assert all(isinstance(text, str) for text in header["__metadata__"].values())
    assert b"PK\3\4" not in data[:4]
    assert set(json.loads(header["__metadata__"]["about"])) == {
        "version", "model", "kind", "weights", "input", "torch", "python", "layers", "unknown", "table", "picture",
        "detections", "classes"}


def test_the_picture_is_what_the_network_read(tmp_path: Path) -> None:
    x = torch.rand(1, 3, 12, 15).repeat_interleave(16, 2).repeat_interleave(16, 3)
    model = Stem(Pasted(32, 5, 4)).eval()
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for given in (x, x * 255, (x - mean[:, None, None]) / spread[:, None, None]):
        seen = read_recording(recorded(model, given, tmp_path))
        assert seen.photo is not None
        assert not seen.stretched
        shown = torch.from_numpy(seen.photo.rgb.copy()).permute(2, 0, 1).float() / 255
        assert (shown - x[0]).abs().mean() < 0.02
    assert read_recording(recorded(model, 40 * x - 7, tmp_path)).stretched


def test_without_pillow_the_picture_is_kept_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(1, 3, 160, 160)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    bra_record.record(Stem(Pasted(32, 5, 4)).eval(), x, tmp_path / "run.bra")
    with pytest.raises(bra_record.RecordError, match="Pillow is not installed"):
        bra_record.record(Stem(Pasted(32, 5, 4)).eval(), "photo.jpg", tmp_path / "other.bra")
    monkeypatch.undo()
    photo = read_recording((tmp_path / "run.bra").read_bytes()).photo
    assert photo is not None
    np.testing.assert_array_equal(photo.rgb, (x[0] * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).numpy())


def test_a_picture_goes_in_as_most_models_read_one(tmp_path: Path) -> None:
    Image.new("RGB", (500, 300), (250, 120, 10)).save(tmp_path / "p.png")
    record(Stem(Pasted(32, 5, 4)).eval(), tmp_path / "p.png", tmp_path / "run.bra", size=320)
    seen = read_recording((tmp_path / "run.bra").read_bytes())
    assert seen.input == (1, 3, 192, 320)
    assert seen.photo is not None
    assert abs(int(seen.photo.rgb[50, 50, 0]) - 250) < 4


class Predicts:
    """An object that predicts with a copy of its network, after a run on nothing to warm up."""

    def __init__(self, network: nn.Module) -> None:
        import copy

        self.model, self.copied, self.predictor = network, copy.deepcopy, None
        self.ckpt_path = "folder/best.pt"

    def __call__(self, source: Any) -> list[Any]:
        network = self.copied(self.model)
        with torch.no_grad():
            network(torch.zeros(1, 3, 160, 160))
            network(torch.rand(1, 3, 160, 192, generator=torch.Generator().manual_seed(7)))
        boxes = SimpleNamespace(xyxy=torch.tensor([[10.0, 20.0, 50.0, 100.0]]), conf=torch.tensor([0.75]),
                                cls=torch.tensor([1.0]))
        return [SimpleNamespace(boxes=boxes, orig_shape=(200, 100), names={0: "cat", 1: "dog"})]


def test_an_object_that_predicts_is_heard_through_its_copies(tmp_path: Path) -> None:
    network = Stem(Pasted(32, 5, 4)).eval()
    seen = read_recording(recorded(Predicts(network), "bus.jpg", tmp_path))  # type: ignore[arg-type]
    assert list(seen.layers) == ["blocks.0"]
    assert seen.input == (1, 3, 160, 192)       # the last forward, not the one to warm up
    assert seen.weights == "folder/best.pt"
    assert seen.detections == (("dog", 0.75, pytest.approx((0.1, 0.1, 0.5, 0.5))),)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_class_scores_are_kept_with_their_names(tmp_path: Path) -> None:
    model = Stem(Pasted(32, 5, 4)).eval()
    model.names = ["a", "b", "c", "d", "e", "f"]
    x = torch.rand(1, 3, 160, 160)
    seen = read_recording(recorded(model, x, tmp_path))
    with torch.no_grad():
        share = model(x)[0].softmax(-1)
    assert seen.classes[0] == (model.names[int(share.argmax())], pytest.approx(float(share.max()), abs=1e-6))
    assert len(seen.classes) == 5


def test_the_table_counts_what_can_be_counted(tmp_path: Path) -> None:
    model = Stem(Pasted(32, 5, 4), FlooredConv(32, 4, 5)).eval()
    rows = {row.name: row for row in read_recording(recorded(model, torch.rand(1, 3, 160, 160), tmp_path)).table}
    assert list(rows) == ["stem.0", "stem.1", "stem.2", "blocks.0", "blocks.1", "head"]
    assert rows["stem.0"].macs == 20 * 20 * 32 * 3 * 64
    assert rows["stem.0"].out == (1, 32, 20, 20)
    # q, k, v and output on 400 tokens, a 3×3 position term, 4 routed windows of 16 tokens, and 25×25 window means
    assert rows["blocks.0"].macs == 400 * (32 * 96 + 32 * 32 + 32 * 9) + 400 * 64 * 64 + 25 * 25 * 32
    assert rows["blocks.0"].counted
    assert not rows["blocks.1"].counted      # its projection runs past every hook
    assert rows["blocks.0"].params == sum(p.numel() for p in model.blocks[0].parameters())
    assert rows["head"].macs == 32 * 6


def thirty(dim: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, dim, 16, stride=16), *[Pasted(dim, 5, 8) for _ in range(30)]).eval()


def test_thirty_layers_stay_under_fifty_megabytes(tmp_path: Path) -> None:
    # 40×40 tokens of 192 channels: 61 MB in 16 bits, so that some layers have to be kept in fewer.
    data = recorded(thirty(192), torch.rand(1, 3, 640, 640), tmp_path)
    assert len(data) < 50e6
    proofs = [lt.proof for lt in read_recording(data).trace.layers.values()]
    assert len(proofs) == 30
    bits = [proof.bits for proof in proofs if proof is not None]
    assert 8 in bits
    assert 16 in bits
    assert all(proof is not None and proof.attention and proof.stored is not None and proof.stored < 0.05
               for proof in proofs)


def test_what_does_not_fit_at_all_keeps_its_routing(tmp_path: Path) -> None:
    model = Stem(Pasted(32, 5, 4), Pasted(32, 5, 4)).eval()
    with bra_record.Listener([model], table=True, sample=True) as listener, torch.no_grad():
        model(torch.rand(1, 3, 160, 160))
    # q, k and v of one layer in 8 bits take 38,400 bytes.
    bra_record.save(listener, model, tmp_path / "run.bra", 60_000, {})
    one, other = read_recording((tmp_path / "run.bra").read_bytes()).trace.layers.values()
    assert sorted([one.attention_known, other.attention_known]) == [False, True]
    left = next(lt for lt in (one, other) if not lt.attention_known)
    assert left.proof is not None
    assert "left out of the file" in left.proof.note
    with pytest.raises(TraceError):
        left.attention(0)


def test_a_recording_opens_as_a_model(tmp_path: Path) -> None:
    model = Stem(Pasted(32, 5, 4), Pasted(32, 5, 4)).eval()
    x = torch.rand(1, 3, 160, 192)
    data = recorded(model, x, tmp_path)
    started = time.process_time()
    opened = open_file(data, "run.bra")
    assert opened.photo is not None
    look = opened.look(opened.photo, 640)
    assert time.process_time() - started < 2
    assert list(opened.specs) == ["blocks.0", "blocks.1"]
    assert look.trace.layers["blocks.0"].grid.image == (160, 192)
    assert look.answer.classes
    assert opened.table[0].name == "stem.0"
    changed = opened.look(opened.photo, 640, Change("blocks.0", 4, 3)).trace.layers
    model.blocks[0].n_win, model.blocks[0].topk, model.blocks[0].router.topk = 4, 3, 3
    asked = bra.trace(model, x).layers["blocks.0"]
    agreed = (changed["blocks.0"].r_idx == asked.r_idx).float().mean()
    assert agreed > 0.9         # q and k lie in 16 bits: near ties may fall the other way
    assert torch.equal(changed["blocks.1"].r_idx, look.trace.layers["blocks.1"].r_idx)
    with pytest.raises(BRAError, match="one picture"):
        opened.look(Photo.from_array(np.zeros((64, 64, 3), np.uint8)), 640)
    for change in (Change("blocks.7", 4, 3), Change("blocks.0", 5, 26), Change("blocks.0", 65, 1)):
        with pytest.raises(BRAError):
            opened.look(opened.photo, 640, change)


def test_one_half_of_other_windows_needs_a_known_attention(tmp_path: Path) -> None:
    kind = BY_NAME["moved places"]
    model = kind.make().eval()
    opened = open_recording(recorded(model, picture(kind, model), tmp_path), "run.bra")
    assert not opened.specs
    with pytest.raises(BRAError, match="a way of its own"):
        opened.trace_with("blocks.0", 4, 2)


def test_recording_around_a_script(tmp_path: Path) -> None:
    model, x = Stem(Pasted(32, 5, 4)).eval(), torch.rand(1, 3, 160, 160)
    with bra_record.listen(model, tmp_path / "run.bra"), torch.no_grad():
        model(torch.zeros(1, 3, 160, 160))
        model(x)
    one = bra.load(tmp_path / "run.bra").layers["blocks.0"]
    assert torch.equal(one.r_idx, bra.trace(model, x).layers["blocks.0"].r_idx)

    def breaks() -> None:
        with bra_record.listen(model, tmp_path / "none.bra"):
            raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        breaks()
    assert not (tmp_path / "none.bra").exists()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(("model", "words"), [
    (nn.Conv2d(3, 3, 1), "has no bi-level routing attention layer"), (3, "is no model of torch"),
    (torch.jit.script(nn.ReLU()), "compiled or scripted")])
def test_what_cannot_be_recorded_is_said(model: Any, words: str, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TraceError, match=words):
        record(model, torch.rand(1, 3, 32, 32), tmp_path / "run.bra")
    assert not (tmp_path / "run.bra").exists()
    monkeypatch.setenv("BRA_LANGUAGE", "zh")
    with pytest.raises(bra_record.RecordError, match="模型"):
        bra_record.record(model, torch.rand(1, 3, 32, 32), tmp_path / "run.bra")


def test_every_sentence_has_its_chinese() -> None:
    source = Path(bra_record.__file__).read_text(encoding="utf-8")
    import ast

    found = {node.args[0].value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)
             and isinstance(node.func, ast.Name) and node.func.id in ("said", "RecordError", "_Unknown")
             and node.args and isinstance(node.args[0], ast.Constant)}
    assert found <= set(bra_record.CHINESE)


# strangers' files --------------------------------------------------------------------------------------------------


def described(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    return header, json.loads(header["__metadata__"]["about"]), data[8 + size:]


def again(header: dict[str, Any], about: Any, body: bytes) -> bytes:
    header["__metadata__"]["about"] = about if isinstance(about, str) else json.dumps(about)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    return recorded(Stem(Pasted(32, 5, 4)).eval(), torch.rand(1, 3, 160, 160), tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize(("key", "value"), [
    ("size", [20, 2**20]), ("size", [1, 1]), ("size", "20"), ("windows", [64, 64]), ("windows", [5]),
    ("region", [4, 4096]), ("region", [0, 4]), ("topk", 26), ("topk", 3), ("topk", True), ("heads", 7), ("heads", 0),
    ("scale", 0), ("scale", -1.0), ("scale", "x"), ("pool", ["conv", 1, 1]), ("pool", ["maxpool", 9, 1]),
    ("bits", 64), ("bits", 8), ("rule", "other"), ("name", 7), ("n_win", -5)])
def test_layers_that_cannot_be_are_refused(sound: bytes, key: str, value: Any) -> None:
    header, about, body = described(sound)
    about["layers"][0][key] = value
    with pytest.raises(BRAError) as error:
        read_recording(again(header, about, body))
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("about", ["", "[]", "{", "null", '{"layers": 7}', '{"layers": [7]}', "NaN", "[" * 5000])
def test_descriptions_that_are_none_are_refused(sound: bytes, about: str) -> None:
    header, _, body = described(sound)
    with pytest.raises(BRAError, match=": "):
        read_recording(again(header, about, body))


def test_indices_outside_and_numbers_that_are_none_are_refused(sound: bytes) -> None:
    header, about, body = described(sound)
    for name, bad in (("0.r_idx", np.int16(25)), ("0.r_idx", np.int16(-1)), ("0.q", np.float16("nan")),
                      ("0.wo_weight", np.float32("inf")), ("0.affinity", np.float32("nan"))):
        at = header[name]["data_offsets"][0]
        broken = body[:at] + bad.tobytes() + body[at + bad.nbytes:]
        with pytest.raises(BRAError, match="damaged"):
            read_recording(again(header, about, broken))


def test_other_versions_and_other_files_are_told_apart(sound: bytes) -> None:
    header, about, body = described(sound)
    header["__metadata__"]["version"] = "2"
    with pytest.raises(BRAError, match="version 2"):
        read_recording(again(header, about, body))
    header["__metadata__"]["format"] = "pt"
    with pytest.raises(BRAError, match="no recording"):
        read_recording(again(header, about, body))
    for cut in (0, 7, 100, len(sound) - 1):
        with pytest.raises(BRAError):
            read_recording(sound[:cut])


def test_a_small_file_cannot_ask_for_large_windows(sound: bytes) -> None:
    header, about, body = described(sound)
    about["layers"] *= 400
    with pytest.raises(BRAError):
        read_recording(again(header, about, body))


def test_labels_from_outside_are_plain(sound: bytes) -> None:
    header, about, body = described(sound)
    about["detections"] = [["<b>\u202ebad\x07\n" + 90 * "x", 0.5, -3, 0.1, 2, 1e400], ["short"], 7]
    about["classes"] = [["x\x00y", "nan"]]
    about["model"] = "Net\n<script>"
    seen = read_recording(again(header, json.dumps(about).replace("Infinity", "1e400"), body))
    (label, score, box), = seen.detections
    assert label.isprintable()
    assert len(label) <= 64
    assert (score, box) == (0.5, (0.0, 0.1, 1.0, 0.0))
    assert seen.classes == (("xy", 0.0),)
    assert seen.model == "Net <script>"


class Handed(nn.Module):
    """A detector of torchvision's kind is not understood, and says nothing."""

    def forward(self, x: Tensor) -> Any:
        return [{"boxes": x}]


def test_an_answer_of_another_kind_is_none() -> None:
    for out in ([{"boxes": 1}], None, [], (), "x", [SimpleNamespace(boxes=None)], torch.rand(2, 5)):
        assert bra_record.answer_of(out) == {}


def test_settings_of_a_recorded_layer_are_compared_as_those_of_the_layer_itself(tmp_path: Path) -> None:
    settings = settings_of((3, 4, 5), (1, 4))
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), BiLevelRoutingAttention(16, n_win=3, num_heads=2, topk=4))
    x = torch.rand(1, 3, 96, 80)
    with bra.recorder.recording(inputs=True) as recorder:
        model.eval()(x)
    (capture,) = recorder.captures
    assert capture.x is not None
    live = compare(LayerInput("1", model[1], capture.x.detach(), Prepared(x, 0, 0, 96, 80)), settings).rows
    opened = open_recording(recorded(model, x, tmp_path), "run.bra")
    assert opened.photo is not None
    (given,) = recorded_layers(opened, opened.photo).values()
    assert given.own == Setting(3, 4)
    found = compare(given, settings, rounds=2).rows
    for one, other in zip(found, live, strict=True):
        assert one.seconds is None      # nothing runs that could be timed
        for name in ("n_win", "topk", "windows", "padding_share", "macs", "peak_bytes", "chance"):
            assert getattr(one, name) == getattr(other, name)
        for name in ("recall", "nearest", "oracle", "kept"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=2e-3)   # kept in 16 bits
    with pytest.raises(BRAError, match="holds one picture"):
        recorded_layers(opened, Photo.from_array(np.zeros((64, 64, 3), np.uint8)))


def test_windows_by_a_rule_of_their_own_are_compared_where_they_are_square(tmp_path: Path) -> None:
    model = Stem(FlooredConv(32, 8, 5)).eval()
    square, oblong = (open_recording(recorded(model, torch.rand(1, 3, *size), tmp_path), "run.bra")
                      for size in ((104, 104), (104, 184)))
    assert square.photo is not None
    assert oblong.photo is not None
    (given,) = recorded_layers(square, square.photo).values()
    compared = compare(given, [Setting(4, 2), Setting(5, 2)])       # 13 tokens: 5 windows of 3, and 7 of 2
    assert [lt.grid.n_win for lt in compared.traces] == [5, 7]
    assert [row.n_win for row in compared.rows] == [4, 5]
    assert all(0 < row.recall <= row.oracle <= 1 for row in compared.rows)
    (given,) = recorded_layers(oblong, oblong.photo).values()
    with pytest.raises(BRAError, match="by its own rule"):
        compare(given, [Setting(5, 2)])     # 13×23 tokens: 7 windows down, 6 across


def test_its_table_is_a_cost_that_says_what_is_not_counted(tmp_path: Path) -> None:
    opened = open_recording(recorded(BY_NAME["transformer block"].make().eval(), torch.rand(1, 3, 64, 96), tmp_path),
                            "run.bra")
    cost = opened.cost
    assert not opened.runs
    assert sum(row.macs for row in cost.rows) == cost.total.macs > 0
    assert sum(row.share for row in cost.rows) == pytest.approx(1)
    assert [row.name.endswith("· BRA") for row in cost.rows] == ["blocks" in row.name for row in opened.table]
    lines = recorded_csv(opened.table).splitlines()
    assert lines[0] == "name,type,params,macs,all_counted,out"
    assert len(lines) == len(opened.table) + 1
