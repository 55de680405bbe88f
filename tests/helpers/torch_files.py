"""Files of torch.save, sound ones and such as torch never writes."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import Any

import pytest
import torch
from chinese import in_chinese
from torch import nn

from bra.errors import CheckpointError
from bra.readers.checkpoint import CheckpointLimits, read_checkpoint


class Store:
    """Numbers in entry data/<key>; `count` is what the pickle says of it."""

    def __init__(self, count: int, key: str = "0", kind: Any = torch.FloatStorage) -> None:
        self.pid = ("storage", kind, key, "cpu", count)


class View:
    def __init__(self, store: Store, shape: Any, strides: Any, offset: Any = 0) -> None:
        self.args = (store, offset, shape, strides, False, OrderedDict())

    def __repr__(self) -> str:      # the tests' names, the same in every process
        return f"offset {self.args[1]}, shape {self.args[2]}, strides {self.args[3]}"


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
    in_chinese(caught.value.args[0])
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
