"""Sound files of every kind that the app takes, small: what the fuzzer starts from."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from functools import cache
from typing import Any

import numpy as np
import torch
from model_files import TINY, half, written
from PIL import Image
from torch_files import Small, saved

from bra.experiments.compare import SettingRow
from bra.experiments.sweep_table import table_of, to_parquet
from bra.models.biformer import BiFormer
from bra.yolo.build import build_checked, check_model


def file(image: Image.Image, fmt: str, frames: bool = False, **options: Any) -> bytes:
    buffer = io.BytesIO()
    # Copies: what writing one format leaves on a picture is in the way of the next.
    more = {"save_all": True, "append_images": [image.rotate(9)]} if frames else {}
    image.copy().save(buffer, fmt, **more, **options)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """One of every kind and of every way that a kind keeps its pixels."""
    image, exif = Image.linear_gradient("L").resize((40, 30)).convert("RGB"), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    deep = Image.fromarray(np.linspace(0, 65535, 1200).astype(np.uint16).reshape(30, 40))
    return {
        "png": file(image, "PNG", exif=exif),
        "grey alpha png": file(image.convert("LA"), "PNG"),
        "palette png": file(image.convert("P"), "PNG", transparency=bytes([0, 128])),
        "deep png": file(deep, "PNG"),
        "animated png": file(image, "PNG", frames=True),
        "one-bit png": file(image.convert("1"), "PNG"),
        "jpeg": file(image, "JPEG", exif=exif),
        "progressive jpeg": file(image, "JPEG", progressive=True),
        "cmyk jpeg": file(image.convert("CMYK"), "JPEG"),
        "mpo": file(image, "MPO", frames=True),
        "webp": file(image, "WEBP", exif=exif),
        "lossless webp": file(image, "WEBP", lossless=True),
        "animated webp": file(image, "WEBP", frames=True),
        "bmp": file(image, "BMP"),
        "palette bmp": file(image.convert("P"), "BMP"),
        "gif": file(image, "GIF", frames=True),
        "tiff": file(image, "TIFF"),
        "deflated tiff": file(image, "TIFF", compression="tiff_deflate"),
        "lzw tiff": file(image, "TIFF", compression="tiff_lzw"),
        "fax tiff": file(image.convert("1"), "TIFF", compression="group4"),
        "float tiff": file(image.convert("F"), "TIFF"),
        "deep tiff": file(deep, "TIFF"),
        "jpeg tiff": file(image, "TIFF", compression="jpeg"),
        "pages tiff": file(image, "TIFF", frames=True),
    }


@cache
def checkpoints() -> dict[str, bytes]:
    """What torch.save writes of a model, of a training, and of state_dicts; the last two open."""
    model = Small()
    rows = build_checked(check_model(TINY))
    return {
        "model": saved(model),
        "training": saved({"model": model, "ema": None, "epoch": 3, "train_args": {}}),
        "state": saved(model.state_dict()),
        "biformer": saved({"model": biformer()}),
        "rows": written(half(rows)),
    }


def inside(data: bytes) -> dict[str, bytes]:
    """The entries of an archive, by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as whole:
        return {name: whole.read(name) for name in whole.namelist()}


def archived(entries: dict[str, bytes]) -> bytes:
    """Entries as torch's archive keeps them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name, data in entries.items():
            out.writestr(name, data)
    return buffer.getvalue()


def tensors_file(header: Any, body: bytes = b"", message: int | None = None) -> bytes:
    """A .safetensors file by hand: its header as text or as values, and the length that it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if message is None else message) + text + body


def biformer() -> dict[str, torch.Tensor]:
    """Weights of the smallest model that is named as BiFormer's are."""
    return BiFormer((1, 1), (32, 64), 2, 2, (1, 2), num_classes=3).state_dict()


def tables() -> dict[str, bytes]:
    """Tables of sweeps: of some rows, and of none."""
    rows = [
        (f"{n}.png", layer, SettingRow(4, 2, 16, 0.0, 0.3, 0.125, 0.2, 0.9, 0.5, 1000, 5000))
        for n in range(5)
        for layer in ("layers.0", "layers.1")
    ]
    return {
        "rows": to_parquet(table_of(rows, {"settings": {"model": "similarity", "side": 224}})),
        "none": to_parquet(table_of([], {})),
    }
