"""Checkpoints give their tensors bit for bit and their words bounded; files of other kinds are named."""

from __future__ import annotations

import hashlib
import io
import pickle

import pytest
import torch
from torch import nn
from torch_files import Small, refusal, saved

from bra.readers.checkpoint import CheckpointLimits, label, read_checkpoint


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
    assert facts.root.endswith("torch_files.Small")
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


@pytest.mark.parametrize(("given", "kept"), [
    ("cat", "cat"), ("a\0b\x1b[31mc\u202ed", "ab[31mcd"), ("line\nbreak\u2028end", "line break end"),
    ("x" * 100, "x" * 64), ("é中", "é中"), ("\ud800ok", "ok"), (7, "7"), ("\u200b\ufeff", "")])
def test_labels_are_one_plain_line(given: object, kept: str) -> None:
    assert label(given) == kept
