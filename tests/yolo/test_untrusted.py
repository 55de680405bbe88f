"""Strangers' model files and checkpoints: sound ones compute what Ultralytics computes, the others end in words."""

from __future__ import annotations

import copy
import io
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

pytest.importorskip("ultralytics")
from test_handmade import Pasted, saved
from ultralytics import YOLO
from ultralytics.nn.modules.conv import Conv
from ultralytics.utils import ROOT as ULTRALYTICS

import bra.yolo
from bra import attention
from bra.checkpoint import Checkpoint, read_checkpoint
from bra.errors import BRAError, YoloError
from bra.yolo.untrusted import ModelLimits, build_untrusted, check_model, open_checkpoint

OURS = sorted(bra.yolo.CFG.glob("*.yaml"))
THEIRS = {path.stem: path for path in (ULTRALYTICS / "cfg" / "models").rglob("*.yaml")}
TINY = """
nc: 3
scales: {n: [0.5, 0.25, 64], s: [1.0, 0.5, 64]}
backbone:
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [-1, 1, BiLevelRoutingAttention, [4, 2]]
  - [-1, 2, C2f, [64, True]]
  - [[1, 3], 1, Concat, [1]]
  - [[3, 4], 1, Detect, [nc]]
"""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the network was touched")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def tiny(**changed: Any) -> dict[str, Any]:
    return {**yaml.safe_load(TINY), **changed}


def with_row(row: Any, at: int = 1) -> dict[str, Any]:
    """The tiny model with another row in its backbone."""
    model = tiny()
    model["backbone"][at:at + 1] = [row]
    return model


def refusal(model: Any, limits: ModelLimits | None = None) -> str:
    with pytest.raises(YoloError) as caught:
        check_model(model, limits)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert ": " in sentence, "cause: cure"
    assert "\n" not in sentence
    assert len(sentence) < 700
    return sentence


def unbuildable(model: Any, limits: ModelLimits | None = None) -> str:
    """Words of a model that passes the gate and is refused when it is tried, soon and without memory."""
    status = Path("/proc/self/status")
    checked, started = check_model(model, limits), time.monotonic()
    before = int(status.read_text().split("VmRSS:")[1].split()[0]) if status.exists() else 0
    with pytest.raises(YoloError) as caught:
        build_untrusted(checked, None, limits)
    assert time.monotonic() - started < 60
    assert not status.exists() or int(status.read_text().split("VmRSS:")[1].split()[0]) - before < 300_000
    return str(caught.value)


def half(model: nn.Module) -> dict[str, Any]:
    return {"model": copy.deepcopy(model).half(), "ema": None, "epoch": -1, "train_args": {"imgsz": 96}}


def written(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def outputs(model: nn.Module) -> torch.Tensor:
    x = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        y = model.float().eval()(x)
    while isinstance(y, (tuple, list)):         # a head of masks gives (what it predicts, prototypes) first
        y = y[0]
    found: torch.Tensor = y
    return found


@pytest.mark.parametrize("path", [*OURS, THEIRS["yolov8"], THEIRS["yolo11"]], ids=lambda path: path.stem)
def test_shipped_models_pass_and_build(path: Path) -> None:
    model = check_model(path.read_bytes())
    file = yaml.safe_load(path.read_text())
    assert (model["backbone"], model["head"], model["nc"]) == (file["backbone"], file["head"], 80)
    built = build_untrusted(model, "n")
    assert not built.training
    assert {p.dtype for p in built.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in built.parameters())
    assert outputs(built).shape == (1, 84, 96 * 128 // 64 + 96 * 128 // 256 + 96 * 128 // 1024)
    name = path.stem.replace("yolov8", "yolov8n").replace("yolo11", "yolo11n")
    assert {k: v.shape for k, v in built.state_dict().items()} == {
        k: v.shape for k, v in YOLO(f"{name}.yaml").model.state_dict().items()}


@pytest.mark.parametrize(("stem", "kind"), [
    ("yolov8-seg", "SegmentationModel"), ("yolo11-pose", "PoseModel"), ("yolo26-obb", "OBBModel"),
    ("yolov8-cls", "ClassificationModel"), ("yolov10n", "DetectionModel"), ("yolov8-rtdetr", "RTDETRDetectionModel")])
def test_the_head_says_the_task(stem: str, kind: str) -> None:
    built = build_untrusted(check_model(THEIRS[stem].read_text()))
    assert type(built).__name__ == kind
    assert outputs(built).isfinite().all()


def test_every_shipped_model_is_judged() -> None:
    strange = {stem for stem in THEIRS if any(word in stem for word in ("yoloe", "world", "depth", "sem", "resnet18"))}
    for stem in strange:
        assert "is not one of the layers opened here" in refusal(THEIRS[stem].read_bytes())
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


@pytest.mark.parametrize("text", [
    "__import__('os').system('touch {mark}')", "nn.SiLU() if open('{mark}', 'w') else 0", "nn.SiLU",
    "torch.hub.load('a', 'b')", "nn.ReLU() ", "(lambda: nn.ReLU())()", 7, ["nn.ReLU()"]])
def test_no_activation_is_evaluated_but_the_known(text: Any, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    text = text.format(mark=mark) if isinstance(text, str) else text
    assert "activation is" in refusal(tiny(activation=text))
    model = copy.deepcopy(YOLO("yolov8n-bra.yaml").model)
    model.yaml["activation"] = text
    with pytest.raises(YoloError, match="activation is"):
        open_checkpoint(read_checkpoint(written(half(model))))
    assert not mark.exists()


def test_a_known_activation_reaches_its_own_model_only() -> None:
    built = build_untrusted(tiny(activation="nn.ReLU()"))
    assert {type(part.act) for part in built.modules() if isinstance(part, Conv)} >= {nn.ReLU}
    assert type(Conv.default_act) is nn.SiLU
    broken = with_row([-1, 1, "Conv", []])
    unbuildable({**broken, "activation": "nn.ReLU()"})
    assert type(Conv.default_act) is nn.SiLU, "a row that fails must not leave its activation to the next visitor"
    kinds: list[Any] = []

    def build(activation: str | None) -> None:
        for _ in range(6):
            model = build_untrusted(tiny(activation=activation))
            kinds.append((activation, type(model.model[0].act).__name__))

    threads = [threading.Thread(target=build, args=(name,)) for name in ("nn.ReLU()", "nn.Mish()", None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(kinds) == {("nn.ReLU()", "ReLU"), ("nn.Mish()", "Mish"), (None, "SiLU")}
    assert len(kinds) == 18
    assert type(Conv.default_act) is nn.SiLU


@pytest.mark.parametrize(("text", "words"), [
    ("a: &a [1, 2]\nb: [*a, *a]", "line 1 has an anchor"), ("a: !!python/object/apply:os.system [ls]", "tag"),
    ("a: !!float 1", "tag"), ("[" * 5_000, "8 levels"), ("{a: " * 5_000, "8 levels"), ("- " * 20_000, "8 levels"),
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


@pytest.mark.parametrize(("row", "words"), [
    ([-1, 1, "Conv", [8192, 63]], "MB"), ([-1, 100, "C2f", [8192]], "MB"),
    ([-1, 1, "nn.Upsample", [None, 8192, "nearest"]], "MB"), ([-1, 1, "nn.Upsample", [8192, None, "nearest"]], "MB"),
    ([-1, 1, "nn.ZeroPad2d", [[8192, 8192, 8192, 8192]]], "MB"), ([-1, 1, "SPPF", [64, 5, 8192]], "MB"),
    ([-1, 1, "RepNCSPELAN4", [64, 64, 32, 8192]], "20,000"), ([-1, 1, "SPPF", [64, 8191]], "GMACs"),
    ([-1, 1, "nn.MaxPool2d", [8191, 1, 4095]], "GMACs"),
    ([-1, 1, "ResNetLayer", [16, 64, 1, False, 8192]], "20,000"),
    ([-1, 1, "BiLevelRoutingAttention", [8, 7]], "num_heads"),
    ([-1, 1, "BRABlock", [7, 8, 100]], "row 1"), ([-1, 1, "AIFI", [8192, 7]], "AssertionError")],
    ids=lambda value: str(value)[:40])
def test_what_passes_in_parts_and_is_too_much_in_whole(row: Any, words: str) -> None:
    model = with_row(row) | {"scales": {"n": [1.0, 4.0, 8192]}}
    assert words in unbuildable(model)


def test_the_budget_is_of_the_whole_model() -> None:
    model = check_model(THEIRS["yolov8"].read_text())
    with pytest.raises(YoloError, match=r"3,157,200 parameters: 3,000,000 at most"):
        build_untrusted(model, "n", ModelLimits(parameters=3_000_000))
    # Ultralytics counts 8.7 GFLOPs at 640, two for each multiply-add.
    build_untrusted(model, "n", ModelLimits(macs=int(4.5e9)))
    with pytest.raises(YoloError, match=r"for a picture of 640 px, .* GMACs"):
        build_untrusted(model, "n", ModelLimits(macs=int(4.2e9)))
    build_untrusted(model, "n", ModelLimits(macs=int(1.2e9), imgsz=320))
    with pytest.raises(YoloError, match="MB at one time"):
        build_untrusted(model, "n", ModelLimits(activation_bytes=10 * 2**20))
    with pytest.raises(YoloError, match="scale is 'q': choose one of n, s, m, l, x"):
        build_untrusted(model, "q")


@pytest.mark.parametrize("stem", ["best", "cut_off"])
def test_a_trained_checkpoint_computes_what_ultralytics_computes(trained: Path, stem: str) -> None:
    path = trained / "weights" / f"{stem}.pt"
    read = read_checkpoint(path.read_bytes())
    model, facts = open_checkpoint(read)
    theirs = YOLO(path).model
    torch.testing.assert_close(outputs(model), outputs(theirs), atol=1e-5, rtol=1e-5)
    assert (facts.imgsz, facts.names, facts.nc, facts.task) == (96, ("red", "blue"), 2, "detect")
    assert facts.stride == (8.0, 16.0, 32.0)
    assert facts.epoch == {"best": -1, "cut_off": 0}[stem]
    assert model.names == theirs.names
    assert set(facts.attention) == {"model.15", "model.19", "model.23"}


@pytest.mark.parametrize("name", ["yolov8n-bra-residual.yaml", "yolo11n-bra-c2f.yaml", "yolov8n.yaml", "yolov10n.yaml",
                                  "yolov8n-seg.yaml", "yolov8n-cls.yaml", "yolo11n-pose.yaml"])
@pytest.mark.parametrize("fused", [False, True], ids=["whole", "fused"])
def test_other_models_come_back_the_same(name: str, fused: bool) -> None:
    model = YOLO(name).model.eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5)       # batch norms and gates that do something
    if fused:
        model.fuse(verbose=False)
    read = read_checkpoint(written({"ema": model, "model": None}))
    assert read.facts.fused is fused
    opened, _ = open_checkpoint(read)
    assert list(opened.state_dict()) == list(model.state_dict())
    torch.testing.assert_close(outputs(opened), outputs(model), atol=1e-4, rtol=1e-4)


def pasted(layer: attention.BiLevelRoutingAttention, **given: Any) -> Any:
    return Pasted(layer, kv_per_win=-1, **given)


@pytest.mark.parametrize("args", [[], [7, 8], [8, 7]], ids=str)
def test_a_hand_edited_installation_keeps_its_options(args: list[int], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """Its constructor may take heads before windows: what the layer became counts, not what its row says here."""
    model = YOLO("yolov8n-bra.yaml").model.eval()
    for n, layer in enumerate(model.model):
        if isinstance(layer, attention.BiLevelRoutingAttention):
            made = bra.yolo.BiLevelRoutingAttention(layer.spec.dim, 7, 8, topk=3, side_dwconv=5, param_attention="qkv")
            made.i, made.f, made.type, made.np = layer.i, layer.f, layer.type, layer.np
            model.model[n] = made
    wanted = outputs(model.half())
    for n, row in enumerate(model.yaml["head"]):
        if row[2] == "BiLevelRoutingAttention":
            model.yaml["head"][n] = [*row[:3], args]
    for n, layer in enumerate(model.model):
        if isinstance(layer, attention.BiLevelRoutingAttention):
            model.model[n] = pasted(layer, i=layer.i, f=layer.f, type=layer.type, np=layer.np)
    saved(monkeypatch, tmp_path / "theirs.pt", {"model": model.half(), "ema": None})
    opened, facts = open_checkpoint(read_checkpoint((tmp_path / "theirs.pt").read_bytes()))
    assert facts.layers[15] == "ultralytics.nn.modules.block.BiLevelRoutingAttention"
    specs = [layer.spec for layer in opened.model if isinstance(layer, attention.BiLevelRoutingAttention)]
    assert [(spec.n_win, spec.num_heads, spec.topk, spec.side_dwconv) for spec in specs] == [(7, 8, 3, 5)] * 3
    torch.testing.assert_close(outputs(opened), wanted, atol=1e-5, rtol=1e-5)


def test_a_plain_state_dict_needs_its_model_file() -> None:
    model = build_untrusted(tiny())
    read = read_checkpoint(written(model.state_dict()))
    with pytest.raises(YoloError, match="give its model file too"):
        open_checkpoint(read)
    opened, _ = open_checkpoint(read, model=TINY)
    torch.testing.assert_close(outputs(opened), outputs(model), atol=0, rtol=0)
    assert opened.names == {0: "0", 1: "1", 2: "2"}


def test_checkpoints_that_are_not_of_their_rows() -> None:
    model = YOLO("yolov8n-bra.yaml").model

    def words(change: Any) -> str:
        changed = copy.deepcopy(model)
        change(changed)
        with pytest.raises(YoloError) as caught:
            open_checkpoint(read_checkpoint(written(half(changed))))
        return str(caught.value)

    assert "by its rows: give the model file and scale" in words(lambda m: m.yaml.update(scale="s"))
    assert "model.25.cv3" in words(lambda m: m.yaml.update(nc=7))
    assert "layer 15 of this checkpoint is 'BiLevelRoutingAttention', and its row makes BRABlock" in words(
        lambda m: m.yaml["head"].__setitem__(5, [-1, 1, "BRABlock", []]))
    assert "lacks 1 tensors (model.0.conv.weight)" in words(lambda m: m.model[0].conv._parameters.pop("weight"))
    assert "has besides 1 tensors (model.0.conv.extra)" in words(
        lambda m: m.model[0].conv.register_buffer("extra", torch.ones(1)))
    assert "not finite" in words(lambda m: m.model[0].conv.weight.data.fill_(float("nan")))
    assert "int64 in this checkpoint" in words(
        lambda m: m.model[0].bn.register_buffer("running_var", torch.ones(16, dtype=torch.int64)))
    assert "not one of the layers" in words(lambda m: m.yaml["head"].__setitem__(5, [-1, 1, "os.system", []]))
    assert "without the rows" in words(lambda m: m.__dict__.pop("yaml"))
    assert "n_win=99" in words(lambda m: object.__setattr__(m.model[15].spec, "n_win", 99))


def test_an_attention_inside_that_differs_from_its_row_is_refused() -> None:
    model = YOLO("yolov8n-bra-c2f.yaml").model
    object.__setattr__(model.model[15].attn[0].attn.spec, "topk", 2)
    with pytest.raises(YoloError, match=r"model\.15\.attn\.0\.attn of this .* has topk='2', and its row makes 4"):
        open_checkpoint(read_checkpoint(written(half(model))))


def test_names_are_labels_only() -> None:
    model = build_untrusted(tiny())
    for given, kept in (({0: "a\x1b[2Jb\u202e", 1: "<b>" * 99, 2: "c\nd"}, ("a[2Jb", ("<b>" * 99)[:64], "c d")),
                        (["x", "y", "z"], ("x", "y", "z")), (dict.fromkeys(range(50), "n"), ("0", "1", "2")),
                        ({0: "a", 2: "b"}, ("0", "1", "2")), ("abc", ("0", "1", "2"))):
        model.names = given
        opened, _ = open_checkpoint(read_checkpoint(written(half(model))))
        assert opened.names == dict(enumerate(kept))


def test_flipped_bytes_of_a_model_file_build_or_are_refused() -> None:
    rng, built = random.Random(0), 0
    data = TINY.encode()
    assert build_untrusted(check_model(data))
    for _ in range(300):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            build_untrusted(check_model(bytes(flipped)), None, ModelLimits(imgsz=64))
            built += 1
        except BRAError:
            pass
    assert 20 < built < 200


def test_a_stranger_of_values_is_a_checkpoint_error_and_not_a_crash(tmp_path: Path) -> None:
    """Facts of any shape: only the gate reads them."""
    for wrong in ({"nc": 2}, {"backbone": 7, "head": 7}, [1], "x", {"backbone": [[]], "head": [[]]}, None):
        model = copy.deepcopy(build_untrusted(tiny()))
        model.yaml = wrong
        with pytest.raises(BRAError):
            open_checkpoint(read_checkpoint(written(half(model))))
    assert not list(tmp_path.iterdir())
    assert isinstance(read_checkpoint(written(half(model))), Checkpoint)
    assert "YOLO_OFFLINE" in os.environ
