"""Strangers' checkpoints: sound ones give their tensors bit for bit, the others one sentence, and none runs a thing."""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bra import checkpoint
from bra.checkpoint import CheckpointLimits, label, read_checkpoint
from bra.errors import BRAError, CheckpointError
from bra.unpack import unpack


class Store:
    """Numbers in entry data/<key>; `count` is what the pickle says of it."""

    def __init__(self, count: int, key: str = "0", kind: Any = torch.FloatStorage) -> None:
        self.pid = ("storage", kind, key, "cpu", count)


class View:
    def __init__(self, store: Store, shape: Any, strides: Any, offset: Any = 0) -> None:
        self.args = (store, offset, shape, strides, False, OrderedDict())


class Writer(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Store) else None

    def reducer_override(self, obj: Any) -> Any:
        return (torch._utils._rebuild_tensor_v2, obj.args) if isinstance(obj, View) else NotImplemented


def pickled(value: Any, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    Writer(buffer, protocol).dump(value)
    return buffer.getvalue()


def archive(value: Any, storages: dict[str, bytes] | None = None, more: dict[str, bytes] | None = None) -> bytes:
    """A checkpoint by hand: 4 floats in data/0 where nothing else is said."""
    entries = {"x/data.pkl": value if isinstance(value, bytes) else pickled(value), "x/byteorder": b"little"}
    entries |= {f"x/data/{key}": data for key, data in (storages or {"0": struct.pack("<4f", 1, 2, 3, 4)}).items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name, data in (entries | (more or {})).items():
            out.writestr(name, data)
    return buffer.getvalue()


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def refusal(data: bytes, limits: CheckpointLimits | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(data, limits)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert ": " in sentence, "cause: cure"
    assert "\n" not in sentence
    assert len(sentence) < 500
    return sentence


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.inside = nn.Sequential(nn.Linear(4, 2), nn.Identity())
        self.names = {0: "cat\x07", 1: "dog"}
        self.yaml = {"nc": 2, "backbone": [[-1, 1, "Conv", [4]]], "head": []}
        self.stride = torch.tensor([8.0, 16.0])


def test_every_type_and_layout_comes_bit_for_bit() -> None:
    base = torch.randn(4, 3, 5, 6)
    wanted = {
        "f32": base, "f16": base.half(), "bf16": base.bfloat16(), "f64": base.double(), "i64": torch.arange(7),
        "i32": torch.arange(7, dtype=torch.int32), "i16": torch.arange(7, dtype=torch.int16),
        "i8": torch.arange(-3, 3, dtype=torch.int8), "u8": torch.arange(7, dtype=torch.uint8),
        "bool": torch.tensor([True, False]), "scalar": torch.tensor(2.5), "empty": torch.empty(0, 3),
        "channels last": base.contiguous(memory_format=torch.channels_last), "turned": base.permute(3, 1, 0, 2),
        "ones": torch.randn(1, 5, 1).transpose(0, 2), "part": torch.arange(20.0)[5:11].view(2, 3),
        "nan": torch.tensor([float("nan"), float("inf")])}
    data = saved(wanted)
    read = read_checkpoint(data)
    assert read.digest == hashlib.sha256(data).hexdigest()
    assert set(read.tensors) == set(wanted)
    for name, tensor in wanted.items():
        assert read.tensors[name].dtype == tensor.dtype
        assert read.tensors[name].is_contiguous()
        torch.testing.assert_close(read.tensors[name], tensor, atol=0, rtol=0, equal_nan=True)
    assert (read.facts.root, read.facts.yaml, read.facts.names) == ("", None, ())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_module_gives_its_state_dict_and_its_words(protocol: int) -> None:
    model = Small()
    buffer = io.BytesIO()
    torch.save({"model": model, "epoch": 4, "train_args": {"imgsz": 96, "task": "detect"}, "version": "8.4"}, buffer,
               pickle_protocol=protocol)
    read = read_checkpoint(buffer.getvalue())
    state = model.state_dict()
    assert set(read.tensors) == set(state)
    assert "passing" not in read.tensors
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in state.items())
    facts = read.facts
    assert facts.root.endswith("test_checkpoint.Small")
    assert (facts.task, facts.imgsz, facts.epoch, facts.version, facts.nc) == ("detect", 96, 4, "8.4", 2)
    assert (facts.names, facts.stride, facts.fused) == (("cat", "dog"), (8.0, 16.0), False)
    assert facts.yaml == {"nc": 2, "backbone": [[-1, 1, "Conv", [4]]], "head": []}


def test_the_best_model_of_a_file_is_taken() -> None:
    one, two = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    for whole in (two, {"model": two}, {"state_dict": two, "epoch": 3}, {"model": one, "ema": two},
                  {"model": None, "ema": two}, {"model": two, "optimizer": {"state": {0: {"step": torch.zeros(1)}}}}):
        assert read_checkpoint(saved(whole)).tensors["w"].tolist() == [1, 1]
    model = Small()
    assert "conv.weight" in read_checkpoint(saved({"model": model, "ema": None})).tensors
    assert "holds no model" in refusal(saved({"epoch": 3}))
    assert "holds no model" in refusal(saved([torch.ones(2)]))


@pytest.mark.parametrize(("data", "kind"), [
    (b"", "empty"), (b"hello", "not a checkpoint of torch"), (pickle.dumps({"a": 1}), "a bare pickle"),
    (b"\x89PNG\r\n\x1a\n", "not a checkpoint"), (b"PK\3\4" + bytes(100), "damaged")])
def test_other_kinds_are_named(data: bytes, kind: str) -> None:
    assert kind in refusal(data)


def test_older_and_exported_files_are_named() -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    assert "torch before 1.6" in refusal(buffer.getvalue())
    program = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), program)
    assert "TorchScript" in refusal(program.getvalue())
    assert "2 MB at most" in refusal(b"PK\3\4" + bytes(3 * 2**20), CheckpointLimits(max_bytes=2 * 2**20))


class Runs:
    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> Any:
        return self.call, self.args


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    evil = [Runs(os.system, f"touch {mark}"), Runs(builtins.exec, f"open({str(mark)!r}, 'w')"),
            Runs(Path.touch, mark), Runs(builtins.getattr, os, "system")]
    good = View(Store(4), (2, 2), (2, 1))
    for value in evil[:3]:
        assert pickle.loads(pickle.dumps(value)) is not NotImplemented
        assert mark.exists(), "the attack is a real one"
        mark.unlink()
    for value in evil[:3]:
        read = read_checkpoint(archive({"epoch": value, "model": {"w": good, "v": value}}))
        assert read.tensors["w"].tolist() == [[1, 2], [3, 4]]
        assert set(read.tensors) == {"w"}
        assert read.facts.epoch is None
        assert not mark.exists()
    assert "no model" in refusal(archive(Runs(builtins.eval, f"open({str(mark)!r}, 'w')")))
    # The other ways to reach a class: an instance of it, its state, and a name with dots.
    for body in (b"cos\nsystem\n(X\2\0\0\0idt\x81.", b"cos\nsystem\n)\x81}X\1\0\0\0aK\1sb.",
                 b"\x8c\x02os\x8c\x06system\x93(X\2\0\0\0idtR.", b"cbuiltins\nobject.__subclasses__\n)R."):
        assert "no model" in refusal(archive(b"\x80\4" + body))
    assert not mark.exists()


@pytest.mark.parametrize(("view", "words"), [
    (View(Store(4), (10**6, 10**6), (0, 0)), "repeat or skip"),
    (View(Store(4), (10**12,), (1,)), "reaches beyond its storage of 4"),
    (View(Store(4), (2, 10**12), (0, 1)), "repeat or skip"),
    (View(Store(4), (4, 2), (1, 0)), "repeat or skip"),
    (View(Store(4), (2, 2), (1, 1)), "repeat or skip"),
    (View(Store(4), (2,), (2,)), "repeat or skip"),
    (View(Store(4), (5,), (1,)), "reaches beyond"),
    (View(Store(4), (2, 2), (2, 1), 1), "reaches beyond"),
    (View(Store(4), (2**62, 2**62), (2**62, 1)), "beyond"),
    (View(Store(4), (-1, 4), (4, 1)), "impossible shape"),
    (View(Store(4), (4,), (1,), -4), "impossible shape"),
    (View(Store(4), (2, 2), (1,)), "impossible shape"),
    (View(Store(4), (1,) * 9, (1,) * 9), "impossible shape"),
    (View(Store(4), (4.0,), (1,)), "damaged"),
    (View(Store(4), (True,), (1,)), "damaged"),
    (View(Store(10**15), (10**15,), (1,)), "the file has 16 bytes"),
    (View(Store(2), (2,), (1,)), "needs 8 bytes where the file has 16"),
    (View(Store(2, kind=torch.DoubleStorage), (3,), (1,)), "reaches beyond"),
    (View(Store(4, key="1"), (4,), (1,)), "no bytes"),
    (View(Store(4, key="../../etc/passwd"), (4,), (1,)), "no bytes"),
    (View(Store(2, kind=torch.ComplexFloatStorage), (2,), (1,)), "ComplexFloatStorage"),
], ids=str)
def test_tensors_that_lie_about_their_size(view: View, words: str) -> None:
    data = archive({"w": view})
    assert len(data) < 2_000
    assert words in refusal(data)


def test_an_axis_of_one_may_have_any_stride() -> None:
    read = read_checkpoint(archive({"w": View(Store(4), (1, 4, 1), (0, 1, 99)), "e": View(Store(4), (0, 9), (7, 7))}))
    assert read.tensors["w"].tolist() == [[[1], [2], [3], [4]]]
    assert read.tensors["e"].shape == (0, 9)


def test_many_names_of_one_storage_do_not_multiply_it() -> None:
    whole = {"0": bytes(4 * 2**20)}
    store = Store(2**20)
    shared = {f"w{n}": View(store, (2**20,), (1,)) for n in range(200)}
    assert "share their numbers" in refusal(archive(shared, whole))
    assert len(read_checkpoint(archive({n: shared[n] for n in ("w0", "w1")}, whole)).tensors) == 2


def test_bombs_in_the_pickle() -> None:
    good = b"cbuiltins\nset\n"
    for put in (b"\x80\2]r\xff\xff\xff\x7f.", b"\x80\2]r\0\0\0\x80."):
        assert "no model" in refusal(archive(put), CheckpointLimits(memory=2**28))
    assert "KeyError" in refusal(archive(b"\x80\2j\0\0\0\x80."))
    assert "instruction 0x49" in refusal(archive(b"I1\n."))
    assert "instruction 0x82" in refusal(archive(b"\x80\2\x82\1."))
    assert "breaks off" in refusal(archive(b"\x80\2" + good + b"R"))
    assert "breaks off" in refusal(archive(b"\x80\2X\xff\xff\xff\xffabc."))
    assert "more than 4,000,000 steps" in refusal(archive(b"]0" * 2_100_000 + b"N."))
    assert "8,388,608 at most" in refusal(archive(b"N" * (2**23 + 1)))
    for key in (b")" + b"\x85" * 2_000_000, b"]"):         # one is hashed by recursion, the other not at all
        assert "no model" in refusal(archive(b"\x80\2}" + key + b"K\1s."))
    deep = b"\x80\2" + b"]" * 500_000 + b"a" * 499_999 + b"."
    assert "no model" in refusal(archive(deep))


def module(parts: bytes = b"}", memo: bytes = b"") -> bytes:
    """Pickle of a module with these `_modules`."""
    return b"cm\nM\n)\x81" + memo + b"}(X\x08\0\0\0_modules" + parts + b"X\x0b\0\0\0_parameters}ub"


def test_bombs_in_the_tree_of_modules() -> None:
    assert "20,000 modules or 32 levels" in refusal(archive(b"\x80\2" + module(b"}X\1\0\0\0ah\0s", memo=b"q\0") + b"."))
    doubled = b"\x80\2" + module(memo=b"q\0")
    for n in range(1, 30):
        doubled += module(b"}(X\1\0\0\0ah%cX\1\0\0\0bh%cu" % (n - 1, n - 1), memo=b"q%c" % n)
    assert "20,000 modules or 32 levels" in refusal(archive(doubled + b"."))


def test_a_yaml_that_is_deep_or_endless_is_refused() -> None:
    deep: Any = []
    for _ in range(40):
        deep = [deep]
    endless: Any = []
    endless.append(endless)
    wide: Any = [0] * 100
    for _ in range(4):
        wide = [wide] * 100
    for bomb in (deep, endless, wide):
        model = Small()
        model.yaml = {"nc": bomb}
        assert "100,000 values or 32 levels" in refusal(saved(model))


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "x/../../evil", "x/data/../../evil", "x/other.txt",
                                  "y/data/1", "x/data/1/2", "x\\data\\1", "x/data/1 ", "C:/x/data/1"])
def test_names_that_escape_are_refused(name: str) -> None:
    assert "torch.save does not write" in refusal(archive({"w": View(Store(4), (4,), (1,))}, more={name: b"abc"}))


def test_archives_that_torch_does_not_write() -> None:
    value = pickled({"w": View(Store(4), (4,), (1,))})
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as out:
            out.writestr("x/data.pkl", value)
            out.writestr("x/data/0", bytes(50 * 2**20))
        assert len(buffer.getvalue()) < 60_000
        assert "compressed" in refusal(buffer.getvalue())
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as out:
        out.writestr("x/data.pkl", value)
        with pytest.warns(UserWarning, match="Duplicate"):
            out.writestr("x/data.pkl", value)
    assert "torch.save does not write" in refusal(twice.getvalue())
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as out:
        for n in range(50_001):
            out.writestr(f"x/data/{n}", b"")
    assert "more than 50,000 entries" in refusal(many.getvalue())
    assert "no data.pkl" in refusal(archive(value).replace(b"x/data.pkl", b"x/data/123"))
    assert "big-endian" in refusal(archive(value).replace(b"little", b"bigger").replace(
        struct.pack("<I", zipfile.crc32(b"little")), struct.pack("<I", zipfile.crc32(b"bigger"))))


def test_sizes_that_an_entry_declares_are_held_against_the_file() -> None:
    data = archive({"w": View(Store(4), (4,), (1,))})
    at = data.index(b"PK\1\2", data.index(b"PK\1\2", data.index(b"PK\1\2") + 1) + 1)
    for size, words in ((17, "where the file has 17"), (2**20, "more bytes than"), (2**31 - 1, "more bytes than")):
        assert words in refusal(data[:at + 20] + struct.pack("<II", size, size) + data[at + 28:])
    assert "damaged" in refusal(data.replace(struct.pack("<4f", 1, 2, 3, 4), struct.pack("<4f", 1, 2, 3, 5)))


def test_a_file_cut_off_anywhere_is_refused() -> None:
    data = saved({"w": torch.arange(8.0), "v": torch.ones(3)})
    assert read_checkpoint(data).tensors["w"].tolist() == list(range(8))
    for cut in range(0, len(data), 97):
        assert refusal(data[:cut])


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that is looked into while the test runs, and must be empty after it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.iterdir())
    assert not children()


def children() -> list[int]:
    found: list[int] = []
    for tasks in Path("/proc/self/task").glob("*/children"):
        found += map(int, tasks.read_text().split())
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and children of a process are Linux's here")
BUSY = b"]0" * 4_000_000 + b"N."


@pytest.fixture
def endless_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading process without its own bound on steps, so that only the system's bounds are left."""
    loosened = checkpoint.START.replace("import json;", "import json, bra.torchfile as t, functools; "
                                        "t.values = functools.partial(t.values, max_steps=2**40);")
    assert loosened != checkpoint.START
    monkeypatch.setattr(checkpoint, "START", loosened)


@linux
@pytest.mark.usefixtures("nothing_left", "endless_pickles")
def test_the_bounds_of_the_reading_process() -> None:
    data = archive(b"]" * 8_000_000 + b".")
    assert "256 MB of memory" in refusal(data, CheckpointLimits(memory=2**28))
    assert "out of processor time" in refusal(archive(BUSY), CheckpointLimits(cpu_seconds=1))
    started = time.monotonic()
    assert "more than 0.3 seconds" in refusal(archive(BUSY), CheckpointLimits(seconds=0.3))
    assert time.monotonic() - started < 3


@linux
@pytest.mark.usefixtures("endless_pickles")
def test_a_reading_process_that_is_killed(nothing_left: Path) -> None:
    seen: list[Any] = []

    def kill() -> None:
        while not (found := children()):
            time.sleep(0.01)
        time.sleep(0.2)
        seen.append(list(nothing_left.iterdir()))
        os.kill(found[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert "killed" in refusal(archive(BUSY))
    thread.join()
    assert seen == [[]], "not even while it reads has a file a name"


@linux
@pytest.mark.usefixtures("nothing_left")
def test_no_more_is_written_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda value: dumps(value | {"output": 1000}))
    assert "stopped" in refusal(saved({"w": torch.zeros(2**16)}))


def test_the_reading_process_has_the_standard_library_only(monkeypatch: pytest.MonkeyPatch) -> None:
    code = checkpoint.START.partition("import json;")[0] + "print(*sys.modules, sep=chr(10))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(Path(checkpoint.__file__).parent)],
                          capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in done.stdout.split()}
    assert "bra" in names
    assert names - {"bra", "__main__"} <= sys.stdlib_module_names
    assert not names & {"pickle", "_pickle", "ctypes", "subprocess", "socket"}


def test_flipped_bytes_are_read_or_refused(tmp_path: Path) -> None:
    data, rng, ends = saved(Small()), random.Random(0), {"read": 0, "refused": 0}
    head = data.index(b"data/0")
    for n in range(300):
        flipped = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            # The pickle and the archive's list are where a flip can lie; the numbers have a checksum.
            place = rng.randrange(head) if n % 2 else rng.randrange(len(data))
            flipped[place] ^= 1 << rng.randrange(8)
        path = tmp_path / "flipped.pt"
        path.write_bytes(flipped)
        try:
            if n % 6:
                with path.open("rb") as file:
                    unpack(file, io.BytesIO())
            else:
                read_checkpoint(bytes(flipped))
            ends["read"] += 1
        except BRAError:
            ends["refused"] += 1
    assert ends["refused"] > 200


def test_a_pickle_of_any_bytes_is_read_or_refused(tmp_path: Path) -> None:
    """The checksum stops most flips of a whole file before they reach the machine; here each one does."""
    with zipfile.ZipFile(io.BytesIO(saved(Small()))) as whole:
        names = whole.namelist()
        inside = {name.partition("/")[2]: whole.read(name) for name in names}
    rng, refused = random.Random(1), 0
    for _ in range(300):
        value = bytearray(inside["data.pkl"])
        for _ in range(rng.randint(1, 3)):
            value[rng.randrange(len(value))] = rng.randrange(256)
        path = tmp_path / "any.pt"
        path.write_bytes(archive(bytes(value), {key[5:]: part for key, part in inside.items() if key[:5] == "data/"}))
        try:
            with path.open("rb") as file:
                unpack(file, io.BytesIO())
        except CheckpointError:
            refused += 1
    assert 30 < refused < 300


@pytest.mark.parametrize(("given", "kept"), [
    ("cat", "cat"), ("a\0b\x1b[31mc\u202ed", "ab[31mcd"), ("line\nbreak\u2028end", "line break end"),
    ("x" * 100, "x" * 64), ("é中", "é中"), ("\ud800ok", "ok"), (7, "7"), ("\u200b\ufeff", "")])
def test_labels_are_one_plain_line(given: object, kept: str) -> None:
    assert label(given) == kept
