"""Reads one checkpoint in a process of its own: safetensors with facts in them go out.

It imports the standard library only, so it starts at once and has little that a file could reach. What cannot be read
ends with a sentence, as JSON, and the status `REFUSED`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import IO, Any, Final, TypeGuard

from bra.errors import CheckpointError
from bra.messages import message, message_of, to_plain
from bra.readers.child.main import REFUSED
from bra.readers.child.pickle_machine import PickledObject
from bra.readers.child.torch_archive import Archive, Layout, Stored
from bra.spec import BRASpec

MAX_MODULES: Final = 20_000
MAX_DEPTH: Final = 32
MAX_NAME: Final = 250
MAX_TEXT: Final = 1_000
MAX_PLAIN: Final = 100_000      # values of a model's yaml and names together
MAX_PLAIN_TEXT: Final = 2**20   # characters of them all
MAX_WHOLE: Final = 2**63        # of whole numbers, which a pickle can spell with as many digits as it likes
ATTENTION: Final = "BiLevelRoutingAttention"
OPTIONS: Final = tuple(field.name for field in fields(BRASpec))
SIGNS: Final = ({"n_win", "topk", "num_heads"}, {"router", "qkv"})
"""Values and modules that a layer of bi-level routing attention keeps, whatever its class is called."""
SETTINGS: Final = (
    "eps", "stride", "padding", "dilation", "groups", "kernel_size", "negative_slope", "alpha", "approximate",
    "scale_factor", "mode", "align_corners", "ceil_mode", "add", "d", "num_heads", "scale", "pre_norm")
"""What modules keep beside their tensors that decides what they compute."""
MAX_SETTINGS: Final = 400_000   # values of all of them
FLOATS: Final = {"F16": "e", "F32": "f", "F64": "d"}


def main(_wanted: None, source: IO[bytes], out: IO[bytes], words: IO[bytes]) -> int:
    """Read a checkpoint and write what `unpack` does; the exit status.

    Args:
        _wanted: nothing; every reader has it.
        source: the file.
        out: gets safetensors.
        words: gets the reason of a refusal, as JSON of a message.
    """
    try:
        unpack(source, out)
    except CheckpointError as error:
        words.write(json.dumps(to_plain(message_of(error))).encode())
        return REFUSED
    return 0


def unpack(file: IO[bytes], out: IO[bytes]) -> None:
    """Write the tensors of the best model in a checkpoint, and what else is known of it.

    Raises:
        CheckpointError: nothing in the file is a model, or it cannot be read.
    """
    archive = Archive(file)
    root = archive.root()
    model = _best(root)
    if isinstance(model, PickledObject):
        found = dict(_walked(model))
        tensors = {name: part for name, part in found.items() if isinstance(part, Stored)}
        modules = {name: part for name, part in found.items() if isinstance(part, PickledObject)}
    else:
        tensors, modules = {_name(key): part for key, part in model.items() if isinstance(part, Stored)}, {}
    if not tensors or len(tensors) > MAX_MODULES:
        raise CheckpointError(message("This checkpoint's model has {count:,} tensors: 1 to {most:,} are read; save its "
                                      "state_dict().", count=len(tensors), most=MAX_MODULES))
    places = {name: archive.layout(name, tensor) for name, tensor in tensors.items()}
    total = sum(place.size for place in places.values())
    if total > 2 * archive.size:
        raise CheckpointError(message("This checkpoint's tensors take {total:,} bytes from a file of {size:,}: they "
                                      "share their numbers; save them after .clone().", total=total, size=archive.size))
    _write(archive, tensors, places, _facts(archive, root, model, modules, tensors), out)


def _write(archive: Archive, tensors: Mapping[str, Stored], places: Mapping[str, Layout], facts: Mapping[str, Any],
           out: IO[bytes]) -> None:
    axes = {name: place.axes for name, place in places.items() if list(place.axes) != sorted(place.axes)}
    header: dict[str, Any] = {"__metadata__": {"facts": json.dumps({**facts, "axes": axes})}}
    at = 0
    for name, place in places.items():
        header[name] = {"dtype": place.dtype, "shape": place.shape, "data_offsets": [at, at + place.size]}
        at += place.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(struct.pack("<Q", len(text)) + text)
    for name, tensor in tensors.items():
        archive.copy(tensor, places[name], out)
    out.flush()


def _best(root: Any) -> PickledObject | dict[Any, Any]:
    """The model that predicts best: averaged weights before those of the last step, as Ultralytics does."""
    if _is_module(root):
        return root
    if isinstance(root, dict):
        parts = [root.get(key) for key in ("ema", "model_ema", "state_dict_ema", "model", "state_dict")]
        found: list[PickledObject | dict[Any, Any]] = [*filter(_is_module, parts), *filter(_is_state, parts)]
        if found:
            return found[0]
        if _is_state(root):
            return root
    raise CheckpointError(message("This checkpoint holds no model and no state_dict: choose the file that training "
                                  "wrote, such as best.pt."))


def _is_module(value: Any) -> TypeGuard[PickledObject]:
    return (isinstance(value, PickledObject) and isinstance(value.state, dict)
            and isinstance(value.state.get("_modules"), dict))


def _is_state(value: Any) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict) and any(isinstance(part, Stored) for part in value.values())


def _walked(root: PickledObject) -> Iterator[tuple[str, Any]]:
    """Every module and every tensor of its state_dict, by dotted name."""
    waiting, seen = [("", root, 0)], 0
    while waiting:
        prefix, module, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_MODULES:
            raise CheckpointError(message("This checkpoint's model has more than {most:,} modules or {levels} levels: "
                                          "save its state_dict().", most=MAX_MODULES, levels=MAX_DEPTH))
        yield prefix.removesuffix("."), module
        state = module.state
        hidden = state.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            parts = state.get(kind)
            for name, part in parts.items() if isinstance(parts, dict) else ():
                if isinstance(part, Stored) and not (isinstance(hidden, list) and name in hidden):
                    yield _name(f"{prefix}{name}"), part
        waiting += [(_name(f"{prefix}{name}") + ".", part, depth + 1)
                    for name, part in reversed(state["_modules"].items()) if _is_module(part)]


def _name(name: Any) -> str:
    if not (isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isascii() and name.isprintable()
            and name != "__metadata__"):
        raise CheckpointError(message("This checkpoint names a tensor {name!r}: names have 1 to {most} ordinary "
                                      "characters; save the model again.", name=str(name)[:40], most=MAX_NAME))
    return name


def _facts(archive: Archive, root: Any, model: PickledObject | dict[Any, Any], modules: Mapping[str, PickledObject],
           tensors: Mapping[str, Stored]) -> dict[str, Any]:
    """What the file says beside its tensors, as plain values; none of it is believed here."""
    about: dict[Any, Any] = root if isinstance(root, dict) else {}
    state: dict[Any, Any] = model.state if isinstance(model, PickledObject) else {}
    args, given = _state(about.get("train_args")), _state(state.get("args"))
    bare = not any(".bn." in name for name in tensors) and any(name.endswith(".conv.bias") for name in tensors)
    left = [MAX_PLAIN, MAX_PLAIN_TEXT]
    return {
        "root": model.path[:MAX_NAME] if isinstance(model, PickledObject) else "",
        "task": _plain(state.get("task", given.get("task", args.get("task"))), left),
        "imgsz": _plain(args.get("imgsz", given.get("imgsz")), left),
        "epoch": _plain(about.get("epoch"), left), "version": _plain(about.get("version"), left),
        "yaml": _plain(state.get("yaml"), left), "names": _plain(state.get("names"), left),
        "nc": _plain(state.get("nc"), left), "stride": _numbers(archive, state.get("stride")), "fused": bare,
        "layers": [modules[f"model.{n}"].path[:MAX_NAME] for n in range(len(modules)) if f"model.{n}" in modules],
        "attention": {name: _options(module, left) for name, module in modules.items() if _is_attention(module)},
        "parts": _parts(modules)}


def _is_attention(module: PickledObject) -> bool:
    """Whether it is bi-level routing attention, by the name of its class or by what it keeps."""
    values, inside = SIGNS
    return module.path.rpartition(".")[2] == ATTENTION or (
        values <= {*module.state} and inside <= {*module.state["_modules"]})


def _parts(modules: Mapping[str, PickledObject]) -> dict[str, Any]:
    """Class and settings of every module, by name."""
    left = [MAX_SETTINGS, MAX_PLAIN_TEXT]
    return {name: [module.path[:MAX_NAME], {
        setting: _plain(module.state[setting], left) for setting in SETTINGS
        if isinstance(module.state.get(setting), (str, int, float, tuple, list))}] for name, module in modules.items()}


def _state(value: Any) -> dict[Any, Any]:
    value = value.state if isinstance(value, PickledObject) else value
    return value if isinstance(value, dict) else {}


def _options(module: PickledObject, left: list[int]) -> dict[str, Any]:
    """Options of an attention layer, ours or a pasted one's, as far as it keeps them."""
    spec = module.state.get("spec")
    if isinstance(spec, PickledObject) and isinstance(spec.state, (list, tuple)):
        return {name: _plain(value, left) for name, value in zip(OPTIONS, spec.state, strict=False)}
    return {name: _plain(module.state[name], left) for name in (*OPTIONS, "scale")
            if isinstance(module.state.get(name), (str, int, float))}


def _numbers(archive: Archive, value: Any) -> list[float]:
    if not isinstance(value, Stored):
        return []
    data, form = archive.numbers(value), FLOATS.get(archive.layout("stride", value).dtype)
    return [number for number, in struct.iter_unpack(f"<{form}", data)] if form else []


def _plain(value: Any, left: list[int], depth: int = 0) -> Any:
    """The same value in JSON's types; what has no counterpart becomes None.

    Raises:
        CheckpointError: more values or characters than are `left`, or nested deeper than any model file.
    """
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        raise CheckpointError(message("This checkpoint's yaml or names hold more than {most:,} values or {levels} "
                                      "levels: save the model again from its own yaml.", most=MAX_PLAIN,
                                      levels=MAX_DEPTH))
    if isinstance(value, (list, tuple)):
        return [_plain(item, left, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_text(key, left): _plain(item, left, depth + 1) for key, item in value.items()}
    if isinstance(value, str):
        return _text(value, left)
    return value if isinstance(value, float) or (isinstance(value, int) and abs(value) < MAX_WHOLE) else None


def _text(value: object, left: list[int]) -> str:
    text = str(value)[:MAX_TEXT]
    left[1] -= len(text)
    if left[1] < 0:
        raise CheckpointError(message("This checkpoint's yaml and names hold more than {most:,} characters: save the "
                                      "model again from its own yaml.", most=MAX_PLAIN_TEXT))
    return text
