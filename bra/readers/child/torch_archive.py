"""The archive that `torch.save` writes: one pickle, and one uncompressed entry per storage.

Every size is compared with the bytes that are there before anything is made of it; tensors are copied as bytes and
never computed with. Standard library only: it runs in a process that has nothing else.
"""

from __future__ import annotations

import mmap
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

from bra.errors import CheckpointError
from bra.messages import message
from bra.readers.child.pickle_machine import Name, PickledObject, damaged, values

DTYPES: Final[Mapping[str, tuple[str, int]]] = {
    "torch.HalfStorage": ("F16", 2), "torch.BFloat16Storage": ("BF16", 2), "torch.FloatStorage": ("F32", 4),
    "torch.DoubleStorage": ("F64", 8), "torch.CharStorage": ("I8", 1), "torch.ByteStorage": ("U8", 1),
    "torch.ShortStorage": ("I16", 2), "torch.IntStorage": ("I32", 4), "torch.LongStorage": ("I64", 8),
    "torch.BoolStorage": ("BOOL", 1)}
"""Storage class -> safetensors' name of the type, bytes per number."""
ENTRY: Final = re.compile(r"(data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id|"
                          r"data/\d{1,9})")
MAX_PICKLE: Final = 8 * 2**20
MAX_ENTRIES: Final = 50_000
MAX_AXES: Final = 8
CHUNK: Final = 2**20
UNREADABLE: Final = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
"""What Python's reader raises on damaged archives."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers in one entry of the archive, `count` of them by what the pickle says."""

    key: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as the pickle describes it: a view of a storage, unchecked; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A checked tensor: where its bytes are, and the order of axes in which they lie.

    Attributes:
        dtype: safetensors' name of its type.
        shape: its sizes, in the order of axes in memory.
        axes: memory axis of each axis of the tensor; 0, 1, 2, … when it is contiguous.
        start: first byte in its storage.
        size: bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    start: int
    size: int


class Archive:
    """A checkpoint file, its entries checked.

    Raises:
        CheckpointError: it is not torch's archive, damaged, or holds what torch does not write.
    """

    def __init__(self, file: IO[bytes]) -> None:
        _count_entries(file)
        try:
            self.zip = zipfile.ZipFile(file)
        except UNREADABLE as error:
            raise damaged(message("its archive has no readable end, so it may be cut off")) from error
        self.size = file.seek(0, 2)
        self.entries = self._checked(self.zip.infolist())
        order = self._small("byteorder") if "byteorder" in self.entries else b"little"
        if order != b"little":
            raise CheckpointError(message("This checkpoint was written on a big-endian machine: save it again on "
                                          "another one."))

    def root(self) -> Any:
        """What the file's pickle describes, tensors as `Stored` and every object as a `PickledObject`."""
        return values(self._small("data.pkl"), KNOWN, _storage)

    def layout(self, name: str, tensor: Stored) -> Layout:
        """The tensor's place among the bytes.

        Raises:
            CheckpointError: of an unknown type, beyond its storage, or with strides that repeat or skip numbers.
        """
        storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
        if storage.kind not in DTYPES:
            raise CheckpointError(message("{name} is of {kind!r}: save it as float16, bfloat16, float32, float64, bool "
                                          "or an integer.", name=name[:80], kind=storage.kind[:40]))
        dtype, width = DTYPES[storage.kind]
        entry = self.entries.get(f"data/{storage.key}")
        if entry is None or entry.file_size != storage.count * width:
            there = message("no bytes") if entry is None else message("{size:,} bytes", size=entry.file_size)
            raise damaged(message("{name} needs {size:,} bytes where the file has {there}", name=name[:80],
                                  size=storage.count * width, there=there))
        if len(shape) > MAX_AXES or len(strides) != len(shape) or min((tensor.offset, *shape, *strides), default=0) < 0:
            raise damaged(message("{name} has an impossible shape or stride", name=name[:80]))
        # An axis of one number is never stepped along, so its stride means nothing.
        order = sorted(range(len(shape)), key=lambda axis: (shape[axis] != 1, -strides[axis], axis))
        count = 1
        for axis in reversed(order):
            if shape[axis] != 1 and strides[axis] != count and 0 not in shape:
                raise CheckpointError(message("{name} of shape {shape} has strides {strides}, which repeat or skip "
                                              "numbers: save it after .contiguous().", name=name[:80],
                                              shape=_short(shape),
                                              strides=_short(strides)))
            count *= shape[axis]
            if tensor.offset + count > storage.count and 0 not in shape:
                raise CheckpointError(message("{name} of shape {shape} reaches beyond its storage of {count:,} "
                                              "numbers: save the checkpoint again.", name=name[:80],
                                              shape=_short(shape),
                                              count=storage.count))
        if 0 in shape:
            count, order = 0, list(range(len(shape)))
        axes = tuple(order.index(axis) for axis in range(len(shape)))
        return Layout(dtype, tuple(shape[axis] for axis in order), axes, tensor.offset * width, count * width)

    def copy(self, tensor: Stored, place: Layout, out: IO[bytes]) -> None:
        """Write the tensor's bytes; the whole entry is read, since its checksum stands for all of it.

        Raises:
            CheckpointError: the bytes are not those that were saved.
        """
        at, end = 0, place.start + place.size
        for chunk in self._chunks(f"data/{tensor.storage.key}"):
            out.write(chunk[max(0, place.start - at):max(0, end - at)])
            at += len(chunk)
        if at < end:
            raise damaged(message("storage {key} is cut off", key=tensor.storage.key))

    def numbers(self, tensor: Stored) -> bytes:
        """The bytes of a tensor of 64 numbers at most, and of a small storage; empty for a larger one."""
        place = self.layout("a setting", tensor)
        if self.entries[f"data/{tensor.storage.key}"].file_size > 4096 or place.size > 512:
            return b""
        return self._small(f"data/{tensor.storage.key}")[place.start:place.start + place.size]

    def _chunks(self, name: str) -> Iterator[bytes]:
        try:
            with self.zip.open(self.entries[name]) as source:
                while chunk := source.read(CHUNK):
                    yield chunk
        except UNREADABLE as error:
            raise damaged(message("{name} is not what was saved", name=name)) from error

    def _small(self, name: str) -> bytes:
        entry = self.entries.get(name)
        if entry is None:
            raise CheckpointError(message("This archive has no {name}, so it is not a checkpoint: choose the .pt or "
                                          ".pth file that torch.save wrote.", name=name))
        if entry.file_size > MAX_PICKLE:
            raise CheckpointError(message("This checkpoint's {name} has {size:,} bytes: {most:,} at most; save only "
                                          "the model's state_dict().", name=name, size=entry.file_size,
                                          most=MAX_PICKLE))
        return b"".join(self._chunks(name))

    def _checked(self, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        if any("/code/" in info.filename or info.filename.endswith("/constants.pkl") for info in infos):
            raise CheckpointError(message("This is a TorchScript program: choose the .pt file that training wrote, "
                                          "before it was exported."))
        top = infos[0].filename.partition("/")[0] if infos else ""
        for info in infos:
            folder, _, name = info.filename.partition("/")
            if folder != top or folder in ("", ".", "..") or not ENTRY.fullmatch(name) or name in entries:
                raise CheckpointError(message("This archive holds {name!r}, which torch.save does not write: choose "
                                              "the .pt or .pth file that training wrote.", name=info.filename[:80]))
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
                raise CheckpointError(message("{name!r} is compressed or encrypted, which torch.save does not do: save "
                                              "the checkpoint again with torch.save.", name=info.filename[:80]))
            entries[name] = info
        if sum(info.file_size for info in infos) > self.size:
            raise damaged(message("its entries declare more bytes than the file has"))
        return entries


def _short(sizes: tuple[int, ...]) -> str:
    """Sizes for a sentence: a pickle can hold numbers of six hundred digits."""
    return str(sizes)[:120]


def _count_entries(file: IO[bytes]) -> None:
    """Refuse an archive whose list of entries alone would fill the memory."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = -1
        for _ in range(MAX_ENTRIES):
            at = data.find(b"PK\1\2", at + 1)
            if at < 0:
                return
    raise CheckpointError(message("This archive has more than {most:,} entries: save only the model's state_dict().",
                                  most=MAX_ENTRIES))


def _storage(pid: Any) -> Storage | None:
    """What a persistent id of torch's stands for: ("storage", class, key, device, numbers)."""
    if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], Name)
            and isinstance(pid[2], str) and type(pid[4]) is int and pid[4] >= 0):
        raise damaged(message("a storage is described in an unknown way"))
    return Storage(pid[2], pid[1].path, pid[4])


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Stored:
    whole = all(type(number) is int for number in (offset, *shape, *strides))
    if not (whole and isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise TypeError
    return Stored(storage, offset, shape, strides)


def _same(value: Any, *_: Any) -> Any:
    return value


def _mapping(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    return {key: value for key, value in pairs if isinstance(key, (str, int, float))}


def _list(items: Any = (), *_: Any) -> list[Any]:
    return list(items)


def _reconstructed(kind: Any, *_: Any) -> PickledObject:
    return PickledObject(kind.path if isinstance(kind, Name) else "")


KNOWN: Final[Mapping[str, Callable[..., Any]]] = {
    "torch._utils._rebuild_tensor_v2": _tensor, "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same, "collections.OrderedDict": _mapping, "torch.Size": _same,
    "builtins.set": _list, "__builtin__.set": _list, "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed}
"""All that a pickle can call: each makes one of the small records of this file, or a plain container."""
