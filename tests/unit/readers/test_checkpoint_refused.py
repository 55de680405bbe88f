"""Attacks on a checkpoint's pickle, tensors and archive: each ends in one sentence, and none runs a thing."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_files import Small, Store, View, archive, pickled, refusal, saved

from bra.readers.checkpoint import CheckpointLimits, read_checkpoint


class Runs:
    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> Any:
        return self.call, self.args


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    evil = [Runs(os.system, f"touch {marker}"), Runs(builtins.exec, f"open({str(marker)!r}, 'w')"),
            Runs(Path.touch, marker), Runs(builtins.getattr, os, "system")]
    good = View(Store(4), (2, 2), (2, 1))
    for value in evil[:3]:
        assert pickle.loads(pickle.dumps(value)) is not NotImplemented
        assert marker.exists(), "the attack is a real one"
        marker.unlink()
    for value in evil[:3]:
        read = read_checkpoint(archive({"epoch": value, "model": {"w": good, "v": value}}))
        assert read.tensors["w"].tolist() == [[1, 2], [3, 4]]
        assert set(read.tensors) == {"w"}
        assert read.facts.epoch is None
        assert not marker.exists()
    assert "no model" in refusal(archive(Runs(builtins.eval, f"open({str(marker)!r}, 'w')")))
    # The other ways to reach a class: an instance of it, its state, and a name with dots.
    for body in (b"cos\nsystem\n(X\2\0\0\0idt\x81.", b"cos\nsystem\n)\x81}X\1\0\0\0aK\1sb.",
                 b"\x8c\x02os\x8c\x06system\x93(X\2\0\0\0idtR.", b"cbuiltins\nobject.__subclasses__\n)R."):
        assert "no model" in refusal(archive(b"\x80\4" + body))
    assert not marker.exists()


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


def test_words_without_end_are_refused() -> None:
    """A pickle writes a text once and names it a hundred thousand times."""
    text = "\N{GRINNING FACE}" * 1_000
    for bomb in ([text] * 2_000, {f"{n}{text}": n for n in range(2_000)}):
        model = Small()
        model.names = {0: bomb}  # type: ignore[dict-item]
        assert "more than 1,048,576 characters" in refusal(saved(model))
    model = Small()
    model.yaml = {"nc": 10**500, "ch": 3}
    read = read_checkpoint(saved(model))
    assert dict(read.facts.yaml or {}) == {"nc": None, "ch": 3}


def test_a_header_without_end_is_refused() -> None:
    """Axes of an empty tensor may be of any length, and a number of any length has as many digits."""
    shape = (0, *[10**600] * 7)
    data = archive({f"{n}": View(Store(4), shape, (1,) * 8) for n in range(4_000)})
    assert len(data) < 2**20
    assert "names, shapes and facts take" in refusal(data)


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
